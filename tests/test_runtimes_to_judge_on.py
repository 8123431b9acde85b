"""`--ep` of evaluate, quantize and check: any runtime, and INT8 sums that are exact on any CPU."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxptq
from onnxptq.cache import user_cache
from onnxptq.errors import ModelError, UsageError
from onnxptq.gates.check import check
from onnxptq.runtimes import open_session
from onnxptq.runtimes.cpu import u8s8_saturates
from onnxptq.runtimes.environments import add_interpreter
from onnxptq.runtimes.isolated import Worker
from onnxptq.runtimes.selection import CPU, Runtime
from onnxptq.runtimes.session import Optimization


@pytest.fixture(scope="module", autouse=True)
def production() -> None:
    """Another environment, with this interpreter."""
    add_interpreter(user_cache(), "production", Path(sys.executable), force=True)


@pytest.fixture
def data(tmp_path: Path) -> str:
    """x float32 (N, 6) and a label of four."""
    x = np.random.default_rng(0).standard_normal((400, 6)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, label=np.arange(400) % 4)
    return str(tmp_path / "data.npz")


@pytest.fixture
def saturating(tmp_path: Path) -> Path:
    """A QDQ MatMul whose products are all 255 * 127: two of them do not fit into INT16."""
    depth = 64
    one, zero = np.float32(1), np.uint8(0)
    constants = {"scale": one, "zero": zero, "w": np.full((depth, 8), 127, np.int8), "signed_zero": np.int8(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]),
        helper.make_node("DequantizeLinear", ["w", "scale", "signed_zero"], ["weight"]),
        helper.make_node("MatMul", ["dq", "weight"], ["product"]),
        helper.make_node("QuantizeLinear", ["product", "step", "zero"], ["qy"]),
        helper.make_node("DequantizeLinear", ["qy", "step", "zero"], ["y"]),
    ]
    constants["step"] = np.float32(255 * 127 * depth / 250)
    graph = helper.make_graph(
        nodes,
        "saturating",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", depth])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    path = tmp_path / "saturating.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_exact_sums_are_exact_on_every_cpu(saturating: Path) -> None:
    feeds = {"x": np.full((4, 64), 255, np.float32)}
    exact = 255 * 127 * 64
    (here,) = open_session(saturating, optimization="exact").run(feeds)
    assert here == pytest.approx(np.full((4, 8), exact), rel=1e-6)
    with Worker() as worker:
        (apart,) = worker.run(worker.open(saturating, optimization="exact"), feeds)
    assert (apart == here).all()
    for level in get_args(Optimization):
        (found,) = open_session(saturating, optimization=level).run(feeds)
        clips = Runtime("cpu", CPU.provider, optimization=level).saturates
        assert (found < 0.99 * exact).all() == clips
        assert not clips or u8s8_saturates()


def test_evaluate_takes_a_runtime_of_another_environment(
    save_classifier: Callable[..., Path], data: str, tmp_path: Path
) -> None:
    model = save_classifier()
    made = onnxptq.quantize(model, data=data, output=tmp_path / "int8.onnx", corruptions=["clean"], provider="cpu")
    there = onnxptq.evaluate([made.output], data=data, corruptions=["clean"], provider="production:exact")
    assert there.reports[0].provider == "production:exact"
    assert there.predictions[1].identity["runtime"]["optimization"] == "exact"
    exact = onnxptq.evaluate([made.output], data=data, corruptions=["clean"], provider="cpu:exact")
    assert (there.predictions[1].outputs == exact.predictions[1].outputs).all()


def test_check_judges_on_it_and_compares_it_with_others(
    save_classifier: Callable[..., Path], data: str, tmp_path: Path
) -> None:
    model, policy = save_classifier(), tmp_path / "policy.toml"
    made = onnxptq.quantize(model, data=data, output=tmp_path / "int8.onnx", corruptions=["clean"])
    policy.write_text('format = 1\n[provider_agreement]\nproviders = ["cpu:exact", "production:none"]\nlimit = 0.9\n')
    found = check(made.output, data=data, policy=policy, provider="production", corruptions=["clean"])
    said = [rule.explanation for rule in found.rules]
    assert len(said) == 2
    assert said[0].startswith("cpu:exact predicts what production does on ")
    assert said[1].startswith("production:none predicts what production does on ")


def test_a_runtime_that_there_is_not_says_how_to_add_it(
    save_classifier: Callable[..., Path], data: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"onnxptq runtimes add cpu@1\.2"):
        onnxptq.quantize(save_classifier(), data=data, output=tmp_path / "int8.onnx", provider="cpu@1.2")
    assert not (tmp_path / "int8.onnx").exists()


def broken(folder: Path, code: str) -> str:
    """A runtime whose worker, but not its probe, runs `code` first; `Session` is its InferenceSession.

    Its name is its own: tests that run beside each other share the cache, where environments lie.
    """
    name = f"broken-{zlib.crc32(str(folder).encode()):08x}"
    setup, python = folder / "setup.py", folder / "python"
    setup.write_text(
        "import os, runpy, sys\n"
        "if sys.argv[1].endswith('worker.py'):\n"
        "    from onnxruntime import InferenceSession as Session\n"
        f"    {code}\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    python.write_text(f'#!/bin/sh\nshift\nexec "{sys.executable}" -P "{setup}" "$@"\n')
    python.chmod(0o755)
    add_interpreter(user_cache(), name, python, force=True)
    return name


REFUSES = "def refuse(self, *a, **k): raise RuntimeError('no kernel for QLinearConv')\n    Session.__init__ = refuse"
ELSEWHERE = (
    "from types import SimpleNamespace as N\n"
    "    part = N(ep_name='OtherProvider', get_nodes=lambda: [N(op_type='Gemm', name='g')])\n"
    "    Session.get_provider_graph_assignment_info = lambda self: [part]"
)


@pytest.mark.skipif(sys.platform == "win32", reason="the interpreter is a shell script")
@pytest.mark.parametrize(
    ("code", "level", "why"),  # Levels of their own: what would be found as kept predictions is not run.
    [(REFUSES, "basic", "no kernel for QLinearConv"), (ELSEWHERE, "extended", "would run on OtherProvider")],
)
def test_a_model_that_a_runtime_does_not_take_is_an_error_or_where_allowed_judged_on_the_cpu(
    save_classifier: Callable[..., Path], data: str, tmp_path: Path, code: str, level: str, why: str
) -> None:
    runtime = f"{broken(tmp_path, code)}:{level}"
    made = onnxptq.quantize(save_classifier(), data=data, output=tmp_path / "int8.onnx", corruptions=["clean"])
    asked = {"data": data, "corruptions": ["clean"], "provider": runtime}
    message = rf"int8\.onnx .*{runtime}.*{why}.*--allow-fallback"
    with pytest.raises(ModelError, match=message):
        onnxptq.evaluate([made.output], **asked)
    with pytest.raises(ModelError, match=message):
        check(made.output, **asked)
    found = onnxptq.evaluate([made.output], **asked, allow_fallback=True)
    (note,) = [warning for warning in found.warnings if "int8.onnx was judged on cpu: " in warning]
    assert f"{runtime} does not take the model" in note
    assert why in note
    assert "--allow-fallback" not in note, "it was given"
    here = onnxptq.evaluate([made.output], data=data, corruptions=["clean"], provider=f"cpu:{level}")
    assert (found.predictions[1].outputs == here.predictions[1].outputs).all()
    checked = check(made.output, **asked, allow_fallback=True)
    assert note in checked.warnings


RUN_REFUSED = "def refuse(self, *a, **k): raise RuntimeError('out of scratch space')\n    Session.run = refuse"


@pytest.mark.skipif(sys.platform == "win32", reason="the interpreter is a shell script")
@pytest.mark.parametrize("allow_fallback", [False, True])
def test_a_runtime_that_takes_a_model_and_does_not_run_it_has_no_fallback_to_advise(
    save_classifier: Callable[..., Path], data: str, tmp_path: Path, allow_fallback: bool
) -> None:
    asked = {"data": data, "corruptions": ["clean"], "provider": broken(tmp_path, RUN_REFUSED)}
    path = save_classifier()
    for judge in (
        lambda **o: onnxptq.evaluate([path], **asked, **o),
        lambda **o: check(path, reference=path, **asked, **o),
    ):
        with pytest.raises(ModelError, match="out of scratch space") as caught:
            judge(allow_fallback=allow_fallback)
        assert "--allow-fallback" not in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="the interpreter is a shell script")
def test_a_model_that_crashes_a_runtime_is_not_run_here_instead(
    save_classifier: Callable[..., Path], data: str, tmp_path: Path
) -> None:
    runtime = broken(tmp_path, "Session.__init__ = lambda *a, **k: os.abort()")
    asked = {"data": data, "corruptions": ["clean"], "provider": runtime, "allow_fallback": True}
    for judge in (lambda path: onnxptq.evaluate([path], **asked), lambda path: check(path, reference=path, **asked)):
        with pytest.raises(ModelError, match="SIGABRT"):
            judge(save_classifier())


@pytest.mark.parametrize(
    ("features", "provider", "said"),
    [
        (("avx2",), "cpu", True),
        (("avx2",), "cpu:extended", True),
        (("avx2",), "cpu:exact", False),
        (("avx2",), "cpu:basic", False),
        (("avx2", "avx512_vnni"), "cpu", False),
    ],
)
def test_a_cpu_that_clips_is_said_where_int8_was_judged_on_it(
    features: tuple[str, ...],
    provider: str,
    said: bool,
    save_classifier: Callable[..., Path],
    data: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("onnxptq.runtimes.providers.cpu_features", lambda: features)
    made = onnxptq.quantize(
        save_classifier(), data=data, output=tmp_path / "int8.onnx", corruptions=["clean"], provider=provider
    )
    assert any("no VNNI" in warning for warning in made.warnings) == said
