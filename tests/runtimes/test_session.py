from __future__ import annotations

import builtins
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxptq
from onnxptq.errors import DataError, ModelError, RuntimeUnavailableError, UsageError
from onnxptq.runtimes import ProviderStatus, open_session, probe
from onnxptq.runtimes import session as session_module
from onnxptq.runtimes.session import session_entries
from onnxptq.tasks import Signature, TensorSpec

from .conftest import WEIGHTS, build

SaveModel = Callable[[onnx.ModelProto], Path]
X = np.array([[1, 2], [-3, 0.5]], np.float32)


@pytest.fixture
def missing_provider() -> str:
    """One that does not load here, compiled in or not."""
    for name in ("cuda", "tensorrt", "openvino"):
        if not probe(name).loads:
            return name
    pytest.skip("every provider loads here")


def test_outputs_equal_numpy(model: Path) -> None:
    (y,) = open_session(model).run({"x": X})
    np.testing.assert_allclose(y, X @ WEIGHTS, rtol=1e-6)


def test_the_session_says_what_the_model_takes_and_where_it_runs(model: Path) -> None:
    session = open_session(model)
    assert session.signature == Signature(
        inputs=(TensorSpec("x", "float32", (None, 2)),), outputs=(TensorSpec("y", "float32", (None, 3)),)
    )
    assert session.providers == ("CPUExecutionProvider",)
    assert session.placement == {"CPUExecutionProvider": 1}
    assert (session.requested, session.fallback_reason) == ("cpu", None)


@pytest.mark.parametrize(
    ("onnx_type", "dtype"),
    [(TensorProto.DOUBLE, "float64"), (TensorProto.FLOAT16, "float16"), (TensorProto.INT64, "int64")],
)
def test_dtypes_of_the_signature_are_numpy_names(save_model: SaveModel, onnx_type: int, dtype: str) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    session = open_session(save_model(build(node, onnx_type, onnx_type)))
    assert session.signature.inputs[0].dtype == dtype == np.dtype(dtype).name


def test_a_provider_that_does_not_load_is_an_error_with_reason_and_remedy(model: Path, missing_provider: str) -> None:
    status = probe(missing_provider)
    with pytest.raises(RuntimeUnavailableError) as caught:
        open_session(model, missing_provider, allow_fallback=False)
    assert status.reason in str(caught.value)
    assert status.remedy in str(caught.value)
    assert str(caught.value).endswith("--allow-fallback permits the CPU of this environment instead.")
    with pytest.raises(RuntimeUnavailableError) as caught:
        open_session(model, missing_provider)
    assert "--allow-fallback" not in str(caught.value)


def test_an_allowed_fallback_runs_on_the_cpu_and_says_so(model: Path, missing_provider: str) -> None:
    session = open_session(model, missing_provider, allow_fallback=True)
    assert session.requested == missing_provider
    assert session.providers == ("CPUExecutionProvider",)
    assert probe(missing_provider).reason in (session.fallback_reason or "")
    assert "--allow-fallback" not in (session.fallback_reason or "")
    np.testing.assert_allclose(session.run({"x": X})[0], X @ WEIGHTS, rtol=1e-6)


def test_a_fallback_does_not_hide_a_broken_model(tmp_path: Path, missing_provider: str) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match="Protobuf parsing failed"):
        open_session(tmp_path / "broken.onnx", missing_provider, allow_fallback=True)


def test_a_session_whose_provider_took_no_node_is_an_error(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # ONNX Runtime lists a provider first even where every node went to another one.
    monkeypatch.setattr(session_module, "placement", lambda native: {"OtherExecutionProvider": 1})
    with pytest.raises(RuntimeUnavailableError, match="would run on OtherExecutionProvider"):
        open_session(model)


def test_a_session_that_was_created_on_another_provider_is_an_error(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = open_session(model).native
    monkeypatch.setattr(elsewhere, "get_providers", lambda: ["OtherExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(session_module, "_create", lambda *args: elsewhere)
    with pytest.raises(RuntimeUnavailableError, match="would run on OtherExecutionProvider"):
        open_session(model)


@pytest.mark.gpu
def test_cuda_takes_the_model_and_agrees_with_numpy(model: Path) -> None:
    if not (status := probe("cuda")).loads:
        pytest.skip(f"cuda does not load here: {status.reason}")
    session = open_session(model, "cuda")
    assert session.providers[0] == "CUDAExecutionProvider"
    assert session.placement == {"CUDAExecutionProvider": 1}
    np.testing.assert_allclose(session.run({"x": X})[0], X @ WEIGHTS, rtol=1e-2)


@pytest.mark.parametrize(
    ("providers", "kept"), [(["CUDAExecutionProvider"], True), (["TensorrtExecutionProvider"], True), ([], False)]
)
def test_float_biases_stay_in_float_where_a_gpu_runs_the_graph(
    tmp_path: Path, providers: list[str], kept: bool
) -> None:
    # ONNX Runtime's rewriting is the same on every provider, so the CPU shows it.
    import onnxruntime

    path = tmp_path / "digits.cuda.onnx"
    onnxptq.quantize(evaluate=False, target="cuda", output=path)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    for entry in session_entries("basic", providers).items():
        options.add_session_config_entry(*entry)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath).graph
    integers = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT32}
    rewritten = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in integers]
    assert (not rewritten) == kept


def test_a_session_on_cuda_asks_for_no_tf32_and_its_companion_runs_on_the_same_gpu(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def create(onnxruntime: Any, model: Path, options: Any, providers: Any) -> Any:
        asked.append(providers)
        raise RuntimeError("recorded")

    monkeypatch.setattr(session_module, "_create", create)
    monkeypatch.setattr(
        session_module, "providers_here", lambda: ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
    )
    monkeypatch.setattr(session_module, "probe", lambda *given: ProviderStatus("x", "X", compiled=True, loads=True))
    for provider in ("cuda", "tensorrt"):
        with pytest.raises(ModelError, match="recorded"):
            open_session(model, provider, options={"device_id": "2"})
    assert asked == [
        [("CUDAExecutionProvider", {"device_id": "2", "use_tf32": "0"})],
        [
            ("TensorrtExecutionProvider", {"device_id": "2", "trt_fp16_enable": "0"}),
            ("CUDAExecutionProvider", {"device_id": "2", "use_tf32": "0"}),
        ],
    ]


def test_a_provider_option_that_does_not_exist_is_an_error(model: Path) -> None:
    with pytest.raises(UsageError, match="takes no options, got arena"):
        open_session(model, "cpu", options={"arena": "1"})


def test_the_number_of_threads_is_set(model: Path) -> None:
    assert open_session(model, threads=3).native.get_session_options().intra_op_num_threads == 3


@pytest.mark.parametrize("threads", [0, -1])
def test_less_than_one_thread_is_an_error(model: Path, threads: int) -> None:
    with pytest.raises(UsageError, match=f"1 or more, got {threads}"):
        open_session(model, threads=threads)


def test_optimization_none_leaves_the_graph_as_it_is_and_all_fuses_it(save_model: SaveModel) -> None:
    proto = build(helper.make_node("MatMul", ["x", "w"], ["product"]))
    proto.graph.node.append(helper.make_node("Identity", ["product"], ["same"]))
    proto.graph.node.append(helper.make_node("Relu", ["same"], ["y"]))
    file = save_model(proto)
    assert open_session(file, optimization="none").placement == {"CPUExecutionProvider": 3}
    assert open_session(file, optimization="all").placement == {"CPUExecutionProvider": 2}


def test_an_unknown_optimization_is_an_error(model: Path) -> None:
    optimization: Any = "extend"
    with pytest.raises(UsageError, match="'extended'"):
        open_session(model, optimization=optimization)


def test_a_missing_file_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model at"):
        open_session(tmp_path / "nowhere.onnx")


def test_the_cause_of_a_model_error_is_one_line_without_c_plus_plus(save_model: SaveModel) -> None:
    file = save_model(build(helper.make_node("MatMul", ["x", "nobody"], ["y"])))
    with pytest.raises(ModelError) as caught:
        open_session(file)
    message = str(caught.value)
    assert "Node input 'nobody' is not a graph input" in message
    assert "ONNXRuntimeError" not in message
    assert ".cc" not in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("feeds", "got"),
    [
        ({"x": np.zeros((4, 3), np.float32)}, r"got x: float32 \(4, 3\), expected x: float32 \(any, 2\)"),
        ({"x": np.zeros((4, 2), np.int64)}, r"got x: int64 \(4, 2\), expected x: float32 \(any, 2\)"),
        ({"z": np.zeros((4, 2), np.float32)}, r"got z: float32 \(4, 2\), expected x: float32 \(any, 2\)"),
        ({}, r"got nothing, expected x: float32 \(any, 2\)"),
    ],
)
def test_data_that_does_not_fit_is_an_error_with_both_shapes(
    model: Path, feeds: dict[str, np.ndarray[Any, Any]], got: str
) -> None:
    with pytest.raises(DataError, match=got):
        open_session(model).run(feeds)


def test_a_model_that_fails_while_it_runs_is_a_model_error(save_model: SaveModel) -> None:
    # A batch of 2 cannot become (3, 5): only running it tells.
    proto = build(helper.make_node("Reshape", ["x", "shape"], ["y"]))
    proto.graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, [2], [3, 5]))
    session = open_session(save_model(proto))
    with pytest.raises(ModelError, match="fails while it runs on CPUExecutionProvider"):
        session.run({"x": X})


def string_upper() -> onnx.ModelProto:
    node = helper.make_node("StringUpper", ["x"], ["y"], domain="ai.onnx.contrib")
    return build(node, TensorProto.STRING, TensorProto.STRING, domain="ai.onnx.contrib")


def test_operators_of_onnxruntime_extensions_are_registered_where_a_model_needs_them(save_model: SaveModel) -> None:
    pytest.importorskip("onnxruntime_extensions")
    session = open_session(save_model(string_upper()))
    (y,) = session.run({"x": np.array([["ab", "c"]], object)})
    assert y.tolist() == [["AB", "C"]]
    assert session.signature.inputs[0].dtype == "object"


def test_missing_onnxruntime_extensions_are_named_with_the_remedy(
    save_model: SaveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_import = builtins.__import__

    def without_extensions(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "onnxruntime_extensions":
            raise ImportError("No module named 'onnxruntime_extensions'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_extensions)
    with pytest.raises(ModelError, match="pip install onnxruntime-extensions"):
        open_session(save_model(string_upper()))


def test_an_operator_that_nobody_has_is_a_model_error(save_model: SaveModel) -> None:
    node = helper.make_node("Nonsense", ["x"], ["y"], domain="ai.onnx.contrib")
    with pytest.raises(ModelError, match=r"ai\.onnx\.contrib:Nonsense"):
        open_session(save_model(build(node, domain="ai.onnx.contrib")))


@pytest.mark.parametrize("provider", ["tensorrt", "cuda"])
def test_nothing_reaches_stdout_and_stderr_stays_clean_whatever_provider_is_asked_for(
    model: Path, provider: str
) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom onnxptq.runtimes import open_session\n"
        "open_session(Path(sys.argv[1]), sys.argv[2], allow_fallback=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(model), provider], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_onnx_runtime_prints_on_stdout_itself_goes_to_stderr(model: Path) -> None:
    if not (status := probe("tensorrt")).compiled or status.loads:
        pytest.skip("needs an ONNX Runtime with TensorRT compiled in and not loading")
    code = (
        "import sys, onnxruntime\nfrom onnxptq.runtimes import stdout_to_stderr\nwith stdout_to_stderr():\n"
        "    onnxruntime.InferenceSession(sys.argv[1], providers=['TensorrtExecutionProvider'])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(model)], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert "EP Error" in done.stderr
