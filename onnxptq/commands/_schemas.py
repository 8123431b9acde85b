"""What `--json` of each command writes, as JSON schemas. `onnxptq schema COMMAND` prints them.

Whatever a command writes in a test is held against these (`tests/conftest.py`): no key is missing here, and none is
here that is not written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from onnxptq.json_schema import DIALECT, Schema, fields_of, schema_of

OPEN: dict[str, Any] = {"*": object}
"""An object with keys that depend on the input."""


@dataclass(frozen=True)
class Output:
    """What a command writes.

    Attributes:
        shapes: its forms, as `json_schema.schema_of` takes them; several where an option decides.
        page: where docs/ describe the keys.
        version: goes up where a key is renamed or removed, or means something else. Added keys leave it.
    """

    shapes: Callable[[], tuple[Any, ...]]
    page: str
    version: int = 1


def schema_for(name: str) -> Schema:
    """The schema of `onnxptq NAME --json`. Raises KeyError where that command has none."""
    output = OUTPUTS[name]
    schemas = [schema_of(shape) for shape in output.shapes()]
    return {
        "$schema": DIALECT,
        "$id": f"urn:onnxptq:json:{name.replace(' ', '-')}:{output.version}",
        "title": f"onnxptq {name} --json",
        "description": f"Version {output.version}. The keys are described in {output.page}; further ones may be added.",
        **(schemas[0] if len(schemas) == 1 else {"anyOf": schemas}),
    }


def _report() -> dict[str, Any]:
    from onnxptq.evaluation import Report
    from onnxptq.evaluation.report import GroupResult
    from onnxptq.evaluation.totals import TotalDrop

    total = _optional(fields_of(TotalDrop), "share") | {"drop_low": float, "drop_high": float}
    fields = _optional(fields_of(Report), "binary", "against", "totals")
    return {**fields, "report_version": int, "groups": [GroupResult], "totals?": [total]}


def _optional(shape: dict[str, Any], *names: str) -> dict[str, Any]:
    return {f"{key}?" if key in names else key: value for key, value in shape.items()}


def _recipe() -> dict[str, Any]:
    return {"format": int, **OPEN}


def _quantize() -> tuple[Any, ...]:
    made = {
        "output": str,
        "reused": bool,
        "recipe": _recipe(),
        "recipe_digest": str,
        "fp32_bytes": int,
        "int8_bytes": int,
        "warnings": [str],
    }
    # Without evaluation there is no report.
    return ({**made, **{key if key.endswith("?") else f"{key}?": one for key, one in _report().items()}},)


def _evaluate() -> tuple[Any, ...]:
    return ({"reports": [_report()], "warnings": [str]},)


def _check() -> tuple[Any, ...]:
    from onnxptq.gates import RuleResult

    rule = {**fields_of(RuleResult), "verdict": str}
    one = {
        "check_version": int,
        "verdict": str,
        "rules": [rule],
        "subject": OPEN,
        "policy": OPEN,
        "command": str,
        "warnings": [str],
    }
    model = {"model": str, "verdict": str, "error": str | None}
    several = {
        "check_summary_version": int,
        "verdict": str,
        "models": [{**model, "check": object}],
        "command": str,
    }
    return one, several


def _lint() -> tuple[Any, ...]:
    from onnxptq.lint import Finding

    rule = {"id": str, "title": str, "levels": {"*": str}, "why": str, "source": str, "remedy": str}
    report = {
        "schema": int,
        "model": str,
        "digest": str,
        "target": str,
        "passed": bool,
        "counts": {"error": int, "warning": int, "note": int},
        "findings": [Finding],
        "rules": [rule],
    }
    several = {"lint_summary_version": int, "passed": bool, "models": [report], "errors": {"*": str}}
    return report, several, [rule]


def _audit() -> tuple[Any, ...]:
    from onnxptq.audit.missing import MissingGroups
    from onnxptq.audit.served import ServedAudit
    from onnxptq.audit.verdict import Audit, TensorEvidence

    tensor = {**fields_of(TensorEvidence), "distortion": float, "covered": {"*": float}, "width": float}
    more = {"audit_version": int, "limits": {"*": float}, "causes": [str], "tensors": [tensor]}
    audit = {key: shape for key, shape in fields_of(Audit).items() if key != "missing"}
    served = {"served_audit_version": int, "false_alarms": float, **fields_of(ServedAudit)}
    return {**audit, **more, "missing_groups": [MissingGroups]}, served


def _compare() -> tuple[Any, ...]:
    from onnxptq.comparison.placement_limits import PlacementVerdict
    from onnxptq.comparison.result import ComparisonRow, DependentGroup, Speed

    runtime = {
        "name": str,
        "provider": str,
        "ort_provider": str,
        "optimization": str,
        "environment": str | None,
        "options": OPEN,
        "identity": OPEN,
        "fallback_reason": str | None,
    }
    row = {**fields_of(ComparisonRow), "speed": [{**fields_of(Speed), "throughput": float}], "report": object}
    return (
        {
            "comparison_version": int,
            "reference": str,
            "runtimes": [runtime],
            "rows": [row],
            "dependent_groups": [DependentGroup],
            "warnings": [str],
            "required_placement": [{**fields_of(PlacementVerdict), "passed": bool | None}],
        },
    )


def _tune() -> tuple[Any, ...]:
    from onnxptq.tuning import Candidate, Tuned

    candidate = {**fields_of(Candidate), "verdict": str | None}
    fields = {**fields_of(Tuned), "verdict": str, "output": str | None, "policy": OPEN, "proof": [OPEN]}
    return ({"schema": int, **fields, "winner": object, "candidates": [candidate]},)


def _diagnose() -> tuple[Any, ...]:
    from onnxptq.diagnosis.result import Diagnosis

    return ({"diagnosis_version": int, **fields_of(Diagnosis)},)


def _inspect() -> tuple[Any, ...]:
    from onnxptq.inspection import Inspection

    tensor = {"name": str, "type": str, "shape": [int | str | None]}
    return ({**fields_of(Inspection), "inputs": [tensor], "outputs": [tensor], "written": str | None},)


def _cell() -> dict[str, Any]:
    from onnxptq.sweeps.store import METRICS
    from onnxptq.sweeps.study import CellKey

    texts = dict.fromkeys(("int8_bytes", "recipe_digest", "model_digest", "predictions", "error"), object)
    seconds = {f"seconds_{part}": float for part in ("calibrate", "quantize", "evaluate")}
    return {**fields_of(CellKey), "status": str, **dict.fromkeys(METRICS, object), **texts, **seconds}


def _sweep() -> tuple[Any, ...]:
    from onnxptq.sweeps.ahead import Ahead

    return {"run": str, "name": str, "cells": [_cell()]}, Ahead


def _study_report() -> tuple[Any, ...]:
    from onnxptq.reports.study.summary import Combination, CombinationKey

    combination = {key: one for key, one in fields_of(Combination).items() if key not in ("place", "hurt_groups")}
    return (
        {
            "study_report_version": int,
            "run": str,
            "name": str,
            "limit": float,
            "verdict": {"headline": str, "findings": [str], "advice": [str], "caveats": [str]},
            "combinations": [{**fields_of(CombinationKey), **combination, "hurt_group": str | None}],
            "questions": [{"question": str, "factor": str, **OPEN}],
            "levels": [{"factor": str, "level": str, **OPEN}],
            "variance": [OPEN],
        },
    )


def _runs_list() -> tuple[Any, ...]:
    from onnxptq.sweeps.store import RunSummary

    return ([RunSummary],)


def _environment() -> dict[str, Any]:
    from onnxptq.runtimes.environments import PythonEnvironment

    return {**fields_of(PythonEnvironment), "python": str, "managed": bool}


def _providers() -> tuple[Any, ...]:
    from onnxptq.runtimes import ProviderStatus

    return (
        {
            "schema": int,
            "onnxruntime": {"version": str, "distribution": str},
            "installation_problems": [str],
            "cpu": {
                "machine": str,
                "features": [str],
                "u8s8_can_saturate": bool | None,
                "u8s8_saturates": bool | None,
            },
            "providers": [ProviderStatus],
        },
    )


def _targets() -> tuple[Any, ...]:
    from onnxptq.quantization.targets import Choice

    texts = dict.fromkeys(("name", "summary", "activation_type", "weight_type"), str)
    switches = {"per_channel": bool, "reduce_range": bool}
    return ([{**texts, **switches, "extra_options": OPEN, "choices": [Choice]}],)


def _tasks() -> tuple[Any, ...]:
    texts: dict[str, Any] = {"name": str, "summary": str, "extra": str}
    head = {**texts, "judged by": [str], "without truth": str, "totals": [str], "truth": [str]}
    return ({"inputs": [{**texts, "data": [str]}], "heads": [head]},)


_STATISTICS = ({"output": str, "tensors": int, "samples": {"*": int}, "shards": str},)
_NAMED = {"name": str, "summary": str, "source": str}

OUTPUTS: dict[str, Output] = {
    "inspect": Output(_inspect, "docs/tasks.md"),
    "quantize": Output(_quantize, "docs/quantize.md"),
    "tune": Output(_tune, "docs/tune.md"),
    "evaluate": Output(_evaluate, "docs/evaluate.md"),
    "sweep": Output(_sweep, "docs/sweep.md"),
    "report": Output(_study_report, "docs/report.md"),
    "runs list": Output(_runs_list, "docs/sweep.md"),
    "runs show": Output(lambda: ({"run": str, "name": str, "plan": OPEN, "cells": [_cell()]},), "docs/sweep.md"),
    "compare": Output(_compare, "docs/compare.md"),
    "check": Output(_check, "docs/check.md"),
    "policy explain": Output(lambda: ({"group_by?": [str], "confidence": float, **OPEN},), "docs/check.md"),
    "audit": Output(_audit, "docs/audit.md"),
    "lint": Output(_lint, "docs/lint.md"),
    "diagnose": Output(_diagnose, "docs/diagnose.md"),
    "calibrate": Output(lambda: _STATISTICS, "docs/calibrate.md"),
    "merge-stats": Output(lambda: _STATISTICS, "docs/calibrate.md"),
    "calibs": Output(lambda: ([{**_NAMED, "kind": str}],), "docs/calibs.md"),
    "shifts": Output(
        lambda: ([{**_NAMED, "default_severity": int, "family": str, "modality": str, "min_size": int}],),
        "docs/calibs.md",
    ),
    "methods": Output(lambda: ([{**_NAMED, "parameters": OPEN, "when": str}],), "docs/methods.md"),
    "tasks": Output(_tasks, "docs/tasks.md"),
    "targets": Output(_targets, "docs/targets.md"),
    "providers": Output(_providers, "docs/providers.md"),
    "runtimes add": Output(lambda: (_environment(),), "docs/runtimes.md"),
    "runtimes list": Output(lambda: ([_environment()],), "docs/runtimes.md"),
    "cache info": Output(lambda: ({"room": str, "kinds": {"*": {"files": int, "bytes": int}}},), "docs/cache.md"),
    "cache verify": Output(lambda: ({"whole": int, "damaged": [str]},), "docs/cache.md"),
}
