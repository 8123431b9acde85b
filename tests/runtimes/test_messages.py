from __future__ import annotations

import pytest

from onnxptq.runtimes._messages import first_logged_error, readable_cause

LOGGED = (
    "\x1b[1;31m2026-11-23 09:31:52.911445986 [E:onnxruntime:Default, provider_bridge_ort.cc:2458 operator()] "
    "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:2043 onnxruntime::Provider& "
    "onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library libx.so\n\x1b[m\n"
)


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        (
            "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load model from bad.onnx failed:Protobuf parsing failed.",
            "Protobuf parsing failed",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : Load model from c.onnx failed:/onnxruntime_src/core/model_load_utils.h:46 "
            "void onnxruntime::ValidateOpset(const std::unordered_map<int, int>&, bool) Opset 99 is under development",
            "Opset 99 is under development",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : D:\\a\\s\\core\\graph.cc:46 onnxruntime::Graph::Resolve Opset 99 "
            "(too new) is not known",
            "Opset 99 (too new) is not known",
        ),
        ("\n  first\nsecond", "first"),
        ("", "no cause was given"),
    ],
)
def test_a_cause_is_one_line_without_source_files_and_signatures(message: str, cause: str) -> None:
    assert readable_cause(message) == cause


def test_the_first_error_in_a_log_is_the_cause_and_warnings_are_not() -> None:
    warning = "2026-11-23 09:31:52.9 [W:onnxruntime:Default, x.cc:1 f] Failed to create\n"
    assert first_logged_error(warning + LOGGED) == "Failed to load library libx.so"
    assert first_logged_error(warning) is None
