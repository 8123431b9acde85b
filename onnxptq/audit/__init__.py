"""The audit of a calibration set: are its ranges too narrow for what may come, before any INT8 model is made?"""

from onnxptq.audit.run import PROBES, audit_calibration
from onnxptq.audit.verdict import FAILED, PASSED, UNDECIDED, UNDECIDED_LIMIT, Audit, TensorEvidence

__all__ = ["FAILED", "PASSED", "PROBES", "UNDECIDED", "UNDECIDED_LIMIT", "Audit", "TensorEvidence", "audit_calibration"]
