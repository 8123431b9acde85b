"""What a checkout says of itself is true: links lead somewhere, templates are there, one list of tiers, the picture."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from onnxptq.registry import Registry

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(not (ROOT / "CONTRIBUTING.md").is_file(), reason="this is about a checkout")

PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")})


def anchors(page: Path) -> set[str]:
    """Of the headings, as code hosts name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    found: set[str] = set()
    for heading in headings:
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(slug if slug not in found else f"{slug}-1")
    return found


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    for target in targets:
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), target
        assert not anchor or found.suffix != ".md" or anchor in anchors(found), target


def test_every_page_can_be_found_from_the_list_of_pages() -> None:
    listed = set(re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / "docs/README.md").read_text(encoding="utf-8")))
    assert listed == {page.name for page in ROOT.glob("docs/*.md")} - {"README.md"}
    decisions = (ROOT / "docs/decisions/README.md").read_text(encoding="utf-8")
    numbered = [page.name for page in sorted(ROOT.glob("docs/decisions/0*.md"))]
    assert [int(name[:4]) for name in numbered] == list(range(1, len(numbered) + 1))
    assert all(name in decisions for name in numbered)


def test_what_contributing_names_as_registries_and_templates_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [\w ]+ \| `(onnxptq[\w.]+)` \| `([\w/.]+)` \|$", text, re.MULTILINE)
    assert len(rows) >= 8
    for name, template in rows:
        module, _, registry = name.rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), registry), Registry), name
        assert (ROOT / template).is_file(), template


def test_every_check_is_one_task_that_make_the_full_run_and_the_hooks_use() -> None:
    task = ROOT / ".ci/task"
    tiers = subprocess.run([task, "tiers"], capture_output=True, text=True, timeout=60, check=True).stdout.split()
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    markers = {marker.partition(":")[0] for marker in options["markers"]}
    assert set(tiers) == markers - {"gpu"}
    assert all(f"not {marker}" in options["addopts"] for marker in markers)
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert all(f".ci/task {name}" in script for name in ("lint", "types", "tiers")) and "ruff" not in script
    unknown = subprocess.run([task, "lunch"], capture_output=True, text=True, timeout=60, check=False)
    assert unknown.returncode == 2 and "lint|format" in unknown.stderr
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    targets = [hook["entry"].removeprefix("make ") for hook in local["hooks"]]
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    for target in [*targets, "tier-fuzz"]:
        dry = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert dry.returncode == 0 and f".ci/task {target}" in dry.stdout, dry.stderr


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_the_picture_of_the_readme_is_small_and_says_in_words_what_it_shows(mode: str) -> None:
    path = ROOT / "docs" / "pictures" / f"worst-groups-{mode}.svg"
    assert path.stat().st_size < 10_000
    root = ElementTree.parse(path).getroot()
    name = "{http://www.w3.org/2000/svg}"
    told = str(root.findtext(f"{name}desc"))
    lines = [text.text for text in root.iter(f"{name}text") if text.get("text-anchor") == "end"]
    assert lines[0] == "average of all groups" and len(lines) == 8
    assert all(f"{line}: FP32 " in told for line in lines)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"docs/pictures/{path.name}" in readme
