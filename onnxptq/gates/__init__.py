"""The gate: a policy says what an INT8 model must pass, the check says whether it does, with what certainty.

from onnxptq.gates import check

result = check("model.int8.onnx", data="path/to/data", policy="policy.toml")
result.verdict, result.exit_code
"""

from __future__ import annotations

from onnxptq.evaluation.model_under_test import Limits
from onnxptq.gates.check import check
from onnxptq.gates.policy import Policy, default_policy, policy_to_dict
from onnxptq.gates.policy_file import load_policy
from onnxptq.gates.schema import policy_schema
from onnxptq.gates.verdict import CheckResult, RuleResult, Verdict

__all__ = [
    "CheckResult",
    "Limits",
    "Policy",
    "RuleResult",
    "Verdict",
    "check",
    "default_policy",
    "load_policy",
    "policy_schema",
    "policy_to_dict",
]
