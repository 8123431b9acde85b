"""Runtimes: which execution providers really load here, and sessions that never fall back silently."""

from __future__ import annotations

from onnxptq.runtimes.cpu import cpu_features, u8s8_can_saturate, u8s8_saturates
from onnxptq.runtimes.installation import installation_problems
from onnxptq.runtimes.providers import (
    PROVIDERS,
    Provider,
    ProviderStatus,
    find_provider,
    probe,
    probe_all,
    runtime_identity,
)
from onnxptq.runtimes.quiet import stdout_to_stderr
from onnxptq.runtimes.session import Optimization, Session, open_session

__all__ = [
    "PROVIDERS",
    "Optimization",
    "Provider",
    "ProviderStatus",
    "Session",
    "cpu_features",
    "find_provider",
    "installation_problems",
    "open_session",
    "probe",
    "probe_all",
    "runtime_identity",
    "stdout_to_stderr",
    "u8s8_can_saturate",
    "u8s8_saturates",
]
