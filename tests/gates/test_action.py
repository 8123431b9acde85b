"""The action and the hook as a person's CI runs them: their steps are taken out of the YAML and run in a shell."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import onnxptq
from onnxptq.evaluation import save_predictions

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.skipif(not (ROOT / "action.yml").is_file(), reason="action.yml is in a checkout only"),
    pytest.mark.skipif(shutil.which("bash") is None, reason="the action's steps are written for bash"),
]


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs the action's shell steps, one after the other, as GitHub does: `-e -o pipefail`, inputs filled in.

    `python -m pip` is replaced by a script that writes down its arguments: no network in tests.
    """
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "python").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> "{tmp_path}/pip"\n')
    (tools / "python").chmod(0o755)
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)

    def run(**inputs: str) -> dict[str, Any]:
        action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
        values = {name: str(spec.get("default", "")) for name, spec in action["inputs"].items()} | inputs
        files = {name: tmp_path / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for file in files.values():
            file.write_text("")
        said, code = "", 0
        for step in action["runs"]["steps"]:
            if "run" not in step:
                continue
            environment = {
                **os.environ,
                **{name: str(file) for name, file in files.items()},
                "GITHUB_ACTIONS": "true",
                "PATH": os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]]),
                **{name: filled(text, values) for name, text in step.get("env", {}).items()},
            }
            script = tmp_path / "step.sh"
            script.write_text(filled(step["run"], values))
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)],
                cwd=work, env=environment, capture_output=True, text=True, timeout=300,
            )  # fmt: skip
            said, code = said + done.stdout + done.stderr, done.returncode
            if code:
                break
        return {"code": code, "said": said, **{name: file.read_text() for name, file in files.items()}}

    return run


def filled(text: str, inputs: dict[str, str]) -> str:
    """`${{ inputs.NAME }}` and the action's own place, as GitHub fills them in."""
    text = re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda match: inputs[match[1]], text)
    text = text.replace("${{ github.action_path }}", str(ROOT))
    assert "${{" not in text
    return text


@pytest.fixture
def model(tmp_path: Path, save_classifier: Callable[..., Path], make_runs: Callable[..., Any]) -> dict[str, str]:
    """An INT8 file, and predictions that name its digest."""
    from onnxptq.graphs import load_model

    path = tmp_path / "int8.onnx"
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).standard_normal((64, 6)).astype(np.float32))
    onnxptq.quantize(save_classifier(), data=str(tmp_path / "x.npz"), output=path, evaluate=False)
    digest = load_model(path).digest
    (tmp_path / "work").mkdir(exist_ok=True)
    shutil.copy(path, tmp_path / "work" / "my model.onnx")
    for name, losses in (("good", {}), ("bad", {"label=cat": 0.5})):
        save_predictions(tmp_path / "work" / f"{name}.parquet", make_runs(100, losses, digest=digest))
    save_predictions(tmp_path / "work" / "few.parquet", make_runs(9, digest=digest))
    return {"model": "my model.onnx"}


@pytest.mark.parametrize(
    ("name", "code", "verdict"), [("good", 0, "PASSED"), ("bad", 1, "FAILED"), ("few", 3, "UNDECIDED")]
)
def test_the_steps_install_and_check(
    job: Callable[..., Any],
    model: dict[str, str],
    tmp_path: Path,
    check_sarif: Callable[..., None],
    name: str,
    code: int,
    verdict: str,
) -> None:
    done = job(**model, arguments=f"--predictions {name}.parquet", junit="out.xml", sarif="out.sarif")
    assert done["code"] == code, done["said"]
    assert done["GITHUB_OUTPUT"] == f"verdict={verdict}\n"
    assert "onnxptq check: " in done["GITHUB_STEP_SUMMARY"] and verdict in done["GITHUB_STEP_SUMMARY"]
    assert ("::error title=" in done["said"]) == (name == "bad")
    assert (tmp_path / "work" / "out.xml").is_file()
    check_sarif(json.loads((tmp_path / "work" / "out.sarif").read_text()))
    assert (tmp_path / "pip").read_text().splitlines() == ["-m", "pip", "install", str(ROOT)]


def test_a_version_is_pinned_and_undecided_may_pass(
    job: Callable[..., Any], model: dict[str, str], tmp_path: Path
) -> None:
    done = job(**model, arguments="--predictions few.parquet", undecided="pass", version="0.1.0")
    assert (done["code"], done["GITHUB_OUTPUT"]) == (0, "verdict=UNDECIDED\n")
    assert (tmp_path / "pip").read_text().splitlines() == ["-m", "pip", "install", "onnxptq==0.1.0"]


def test_bad_input_fails_the_job_and_says_so(job: Callable[..., Any], model: dict[str, str]) -> None:
    done = job(**model, arguments="--predictions gone.parquet")
    assert (done["code"], done["GITHUB_OUTPUT"]) == (2, "verdict=BAD INPUT\n")
    assert "there are no predictions gone.parquet" in done["said"]


def test_no_input_becomes_a_command(job: Callable[..., Any], model: dict[str, str], tmp_path: Path) -> None:
    evil = "$(touch stolen); `touch stolen`; touch stolen"
    others = dict.fromkeys(("reference", "policy", "arguments", "provider"), evil)
    assert job(**{**model, **others})["code"] == 2
    assert job(model=evil)["code"] == 2
    assert not (tmp_path / "work" / "stolen").exists()


@pytest.mark.parametrize(
    "arguments", ["--help", "--init", "--schema", "--predictions good.parquet --help", "-- --help"]
)
def test_what_judges_nothing_is_never_green(job: Callable[..., Any], model: dict[str, str], arguments: str) -> None:
    done = job(**model, arguments=arguments)
    assert (done["code"], done["GITHUB_OUTPUT"]) == (2, "verdict=BAD INPUT\n")


def test_a_verdict_of_before_is_none_of_now(job: Callable[..., Any], model: dict[str, str], tmp_path: Path) -> None:
    assert job(**model, arguments="--predictions good.parquet", json="v.json")["code"] == 0
    assert (tmp_path / "work" / "v.json").is_file()
    assert job(**model, arguments="--help", json="v.json")["code"] == 2


@pytest.mark.parametrize("arguments", ["--group it's --predictions good.parquet", '--group "a'])
def test_a_quote_without_its_partner_is_an_error(
    job: Callable[..., Any], model: dict[str, str], arguments: str
) -> None:
    done = job(**model, arguments=arguments)
    assert (done["code"], done["GITHUB_OUTPUT"]) == (2, "verdict=BAD INPUT\n")
    assert "cannot be split into words" in done["said"]


def test_words_in_quotes_stay_together(job: Callable[..., Any], model: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "work" / "good.parquet").rename(tmp_path / "work" / "a  b's *.parquet")
    assert job(**model, arguments='--predictions "a  b\'s *.parquet"')["code"] == 0


def test_a_model_whose_name_is_an_option_is_a_file(job: Callable[..., Any], model: dict[str, str]) -> None:
    done = job(model="--help")
    assert (done["code"], done["GITHUB_OUTPUT"]) == (2, "verdict=BAD INPUT\n")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the snippets of docs/check.md find: INT8 models beside the FP32 one, and data that is labelled."""
    from onnxptq.models import builtin

    folder = tmp_path_factory.mktemp("project")
    for part in ("models", "data"):
        (folder / part).mkdir()
    onnxptq.quantize(output=folder / "models" / "one.int8.onnx", evaluate=False)
    shutil.copy(builtin().model, folder / "models" / "digits.onnx")
    shutil.copy(builtin().test, folder / "data" / "test.parquet")
    return folder


@pytest.fixture
def shell(project: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script in the project; an installation only writes down what it was asked for."""
    work, tools, command = tmp_path / "project", tmp_path / "tools", Path(sys.executable).with_name("onnxptq")
    shutil.copytree(project, work)
    tools.mkdir()
    pip = f'#!/bin/sh\nprintf "%s\\n" "$@" >> "{tmp_path}/pip"\n'
    venv = f'mkdir -p .venv/bin; cp "{tools}/pip" .venv/bin; ln -sf "{command}" .venv/bin/onnxptq\n'
    for name, text in (("pip", pip), ("python", f"#!/bin/sh\n{venv}")):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    path = os.pathsep.join([str(tools), str(command.parent), os.environ["PATH"]])

    def run(*lines: str) -> subprocess.CompletedProcess[str]:
        script = "set -eo pipefail\n" + "\n".join(lines)
        environment = {**os.environ, "PATH": path}
        return subprocess.run(
            ["bash", "-c", script], cwd=work, env=environment, capture_output=True, text=True, timeout=300
        )

    return run


def snippet(language: str) -> str:
    page = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    return str(found)


@pytest.mark.dry
def test_the_job_for_gitlab_runs(shell: Callable[..., Any], tmp_path: Path) -> None:
    (job,) = yaml.safe_load(snippet("yaml")).values()
    passed = shell(*job["script"])
    assert passed.returncode == 0, passed.stderr
    assert (tmp_path / "project" / job["artifacts"]["reports"]["junit"]).is_file()
    assert "git+https://" in (tmp_path / "pip").read_text()
    (tmp_path / "project" / "models" / "two.int8.onnx").write_bytes(b"damaged")
    damaged = shell(*job["script"])
    assert damaged.returncode == 2 != job["allow_failure"]["exit_codes"] == 3
    assert "<error" in (tmp_path / "project" / job["artifacts"]["reports"]["junit"]).read_text()


@pytest.mark.dry
def test_the_pipeline_for_jenkins_runs(shell: Callable[..., Any], tmp_path: Path) -> None:
    text = snippet("groovy")
    commands = re.findall(r"\bsh '([^']+)'|script: '([^']+)'", text)
    done = shell(*(one or other for one, other in commands))
    assert done.returncode == 0 and done.stdout.startswith("PASSED 1 models"), done.stderr
    (report,) = re.findall(r"junit '([^']+)'", text)
    assert (tmp_path / "project" / report).is_file()
    assert text.count("{") == text.count("}") and text.count("(") == text.count(")")


@pytest.mark.dry
def test_the_container_runs_as_nobody_special_and_its_arguments_are_those_of_the_command(
    shell: Callable[..., Any], tmp_path: Path
) -> None:
    """Without Docker: the image's instructions are read, and what `docker run` hands over is run here."""
    instructions = [line.split(maxsplit=1) for line in (ROOT / "Dockerfile").read_text().splitlines()]
    image = {words[0]: words[1] for words in instructions if len(words) == 2 and words[0].isupper()}
    entry = json.loads(image["ENTRYPOINT"])
    assert entry == ["onnxptq"] and image["USER"] not in ("root", "0")
    (line,) = [line for line in snippet("sh").splitlines() if line.startswith("docker run")]
    arguments = line.partition(" onnxptq ")[2].replace("model.int8.onnx", "models/one.int8.onnx")
    done = shell(f'export ONNXPTQ_CACHE="{tmp_path}/cache"', f"{entry[0]} {arguments}")
    assert done.returncode == 0 and done.stdout.startswith("PASSED "), done.stderr
    assert not (tmp_path / "cache").exists()  # --no-cache


@pytest.mark.dry
def test_a_read_only_system_needs_a_temporary_folder_alone(shell: Callable[..., Any], tmp_path: Path) -> None:
    """A mount namespace of its own, in which all that lies on the root's file system cannot be written."""
    read_only = (
        "set -e; mount -t tmpfs none /mnt; mount -o remount,bind,ro /; ! touch /etc/onnxptq-was-here 2>/dev/null; "
        "export TMPDIR=/mnt ONNXPTQ_CACHE=/etc/onnxptq-cache; "
    )
    if shell(f"unshare -m bash -c '{read_only}'").returncode:
        pytest.skip("no mount namespace can be made here: it takes root, Linux, and the right to mount")
    done = shell(f"unshare -m bash -c '{read_only} onnxptq check models/one.int8.onnx'")
    assert done.returncode == 0 and done.stdout.startswith("PASSED "), done.stderr
    assert "note: the cache folder /etc/onnxptq-cache cannot be written" in done.stderr


@pytest.mark.parametrize(("target", "code"), [("cpu", 0), ("tensorrt", 1)])
def test_the_hook_lints_all_that_pre_commit_hands_it(tmp_path: Path, target: str, code: int) -> None:
    from onnxptq.models import builtin

    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert hook["language"] == "python" and re.search(hook["files"], "models/net.onnx")
    # A graph for the CPU, which TensorRT rejects: its activations are not symmetric.
    onnxptq.quantize(output=tmp_path / "one.onnx", evaluate=False)
    shutil.copy(tmp_path / "one.onnx", tmp_path / "two.onnx")
    shutil.copy(builtin().model, tmp_path / "fp32.onnx")
    command = shlex.split(hook["entry"])
    command[0] = str(Path(sys.executable).with_name(command[0]))
    done = subprocess.run(
        [*command, "--target", target, "fp32.onnx", "one.onnx", "two.onnx"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "skipped fp32.onnx" in done.stderr
    verdict = "PASSED" if code == 0 else "FAILED"
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith(f"{verdict}: ")] == [
        "one.onnx",
        "two.onnx",
    ]
