"""Names are found with their plug-ins, those of strangers too, and a broken one is named."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import dataclass

import pytest

from onnxptq.errors import UsageError
from onnxptq.registry import Registry


@dataclass(frozen=True)
class Thing:
    name: str
    size: int = 0


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package of one module with one entry point: a folder on the path with real metadata."""

    def install(group: str, code: str, module: str) -> None:
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(code))
        metadata = tmp_path / f"{module}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[{group}]\nmine = {module}\n")

    monkeypatch.syspath_prepend(tmp_path)
    return install


def test_entries_come_in_the_order_of_registration():
    registry: Registry[Thing] = Registry("thing", "onnxptq.test_none", ())
    for name in "bac":
        assert registry.register(Thing(name)) == Thing(name)
    assert registry.names() == ["b", "a", "c"]
    assert [thing.name for thing in registry] == ["b", "a", "c"]
    assert registry.get("a") == Thing("a")
    assert "a" in registry
    assert "x" not in registry


def test_an_unknown_name_comes_with_the_closest():
    registry: Registry[Thing] = Registry("thing", "onnxptq.test_none", ())
    registry.register(Thing("gaussian"))
    with pytest.raises(UsageError, match=r"unknown thing 'gausian'. Did you mean 'gaussian'?"):
        registry.get("gausian")


def test_two_entries_of_one_name_are_refused_but_one_may_be_imported_twice():
    registry: Registry[Thing] = Registry("thing", "onnxptq.test_none", ())
    registry.register(Thing("a"))
    registry.register(Thing("a"))
    with pytest.raises(ValueError, match="thing 'a' is registered twice"):
        registry.register(Thing("a", size=1))


def test_a_strangers_module_is_loaded_when_a_name_is_first_looked_up(install):
    install(
        "onnxptq.test_load",
        """
        from onnxptq_test_home import REGISTRY, Thing
        REGISTRY.register(Thing("stranger"))
        """,
        "onnxptq_test_stranger",
    )
    registry: Registry[Thing] = Registry("thing", "onnxptq.test_load", ())
    home = type(sys)("onnxptq_test_home")
    home.REGISTRY, home.Thing = registry, Thing
    sys.modules["onnxptq_test_home"] = home
    try:
        assert "onnxptq_test_stranger" not in sys.modules
        assert "stranger" in registry
    finally:
        for name in ("onnxptq_test_home", "onnxptq_test_stranger"):
            sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module_at_all", "No module named 'no_such_module_at_all'"),
        ("raise RuntimeError('out of date')", "out of date"),
    ],
)
def test_a_broken_plug_in_is_named_every_time(install, code, reason):
    install("onnxptq.test_broken", code, "onnxptq_test_broken")
    registry: Registry[Thing] = Registry("thing", "onnxptq.test_broken", ())
    for _ in range(2):
        with pytest.raises(UsageError, match=r"plug-in 'mine' \(onnxptq_test_broken\).*" + reason + ".*uninstall"):
            registry.names()


def test_a_strangers_shift_and_calibration_set_work_in_a_fresh_process(install, tmp_path):
    install(
        "onnxptq.shifts",
        """
        from onnxptq.data.shifts import SHIFTS, Shift
        SHIFTS.register(Shift("half", "mine", "tensor", lambda b, severity, seeds: {k: v / 2 for k, v in b.items()},
                              "half of it", "me"))
        """,
        "stranger_shift",
    )
    install(
        "onnxptq.calibrators",
        """
        from onnxptq.calibrators import SAMPLERS, Sampler
        SAMPLERS.register(Sampler("first", "the first ones", "me", lambda pool, size, generator: range(size)))
        """,
        "stranger_set",
    )
    code = (
        "from onnxptq.calibrators import CalibrationSet as C; print(C.parse('first+half@2'), C.parse('half').families)"
    )
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.strip() == "first+half@2 frozenset({'mine'})", result.stderr


def test_a_stranger_cannot_take_a_name_of_ours(install, tmp_path):
    install(
        "onnxptq.targets",
        """
        from onnxptq.quantization.settings import QuantizerSettings
        from onnxptq.quantization.targets import TARGETS, Target
        TARGETS.register(Target("cpu", "mine", QuantizerSettings(weight_type="QUInt8"), ()))
        """,
        "stranger_target",
    )
    code = """
        import sys; sys.path.insert(0, sys.argv[1])
        from onnxptq.errors import UsageError
        from onnxptq.quantization.targets import TARGETS
        try: TARGETS.get("cpu")
        except UsageError as error: print(error)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "'mine' (stranger_target)" in result.stdout, result.stderr
    assert "'cpu' is registered twice" in result.stdout
