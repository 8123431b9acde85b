"""pytest plug-in: the fixture `onnxptq_check`, so that a model is gated beside the tests of the code that uses it.

def test_model(onnxptq_check):
    onnxptq_check("model.int8.onnx", policy="policy.toml")

pytest loads this in every project where onnxptq is installed, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from onnxptq.gates import CheckResult


@pytest.fixture
def onnxptq_check() -> Callable[..., CheckResult]:
    """Judges a model by a policy; the test fails where the model does not pass.

    The arguments are those of `onnxptq.gates.check`; paths are relative to the current folder. FAILED, UNDECIDED and
    bad input fail the test with the text of `onnxptq check`; `undecided="skip"` skips it instead where there are too
    few samples to judge. Returns the `CheckResult` where the model passed.
    """

    def check(model: Any = None, *, undecided: str = "fail", **arguments: Any) -> CheckResult:
        __tracebackhide__ = True
        from onnxptq.errors import OnnxptqError
        from onnxptq.gates import Verdict
        from onnxptq.gates import check as judge
        from onnxptq.gates.text import full_text

        if undecided not in ("fail", "skip"):
            raise ValueError(f"undecided must be 'fail' or 'skip', got {undecided!r}")
        try:
            result = judge(model, **arguments)
        except OnnxptqError as error:
            pytest.fail(f"onnxptq: {error}", pytrace=False)
        if result.verdict is Verdict.UNDECIDED and undecided == "skip":
            pytest.skip(full_text(result))
        if result.verdict is not Verdict.PASSED:
            pytest.fail(full_text(result), pytrace=False)
        return result

    return check
