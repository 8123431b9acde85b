"""Linting one file: load it safely, ask every rule of the target, collect what is found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxptq.errors import ModelError, UsageError, did_you_mean
from onnxptq.foreign_text import one_line
from onnxptq.graphs import load_model
from onnxptq.graphs.view import views
from onnxptq.lint._base import LEVELS, LINT_RULES, Level, Rule


@dataclass(frozen=True)
class Finding:
    """One violation.

    Attributes:
        rule: id of the rule.
        level: on this target.
        where: the node, or "" for the whole graph.
        message: what is there.
    """

    rule: str
    level: Level
    where: str
    message: str


@dataclass(frozen=True)
class LintReport:
    """What lint found in one model.

    Attributes:
        model: the path as it was given.
        digest: SHA-256 of the model.
        target: the provider that it was read for.
        rules: the rules that were asked.
        findings: worst level first, then by rule, then in the order of the graph.
    """

    model: str
    digest: str
    target: str
    rules: tuple[Rule, ...]
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """No error was found."""
        return not any(finding.level == "error" for finding in self.findings)

    def count(self, level: Level) -> int:
        """How many findings have this level."""
        return sum(finding.level == level for finding in self.findings)


def lint(model: str | Path, target: str, *, ignore: Iterable[str] = ()) -> LintReport:
    """Reads a model and reports what the provider of `target` will reject, run in float or fail to fuse.

    Only the graph is read: no external data, no provider, no session.

    Args:
        model: an ONNX file, quantized or float.
        target: name of a target (`onnxptq targets`).
        ignore: ids of rules to leave out.

    Raises:
        ModelError: no such file, no ONNX file, or a damaged one.
        UsageError: there is no such target or rule.
    """
    path = Path(model)
    rules = rules_of(target, ignore)
    digest, proto = _load(path)
    findings = [
        Finding(rule.name, rule.levels[target], one_line(place.where), one_line(place.message))
        for view in views(proto)
        for rule in rules
        for place in rule.check(view, target)
    ]
    findings.sort(key=lambda finding: (LEVELS.index(finding.level), finding.rule))
    return LintReport(str(model), digest, target, rules, tuple(findings))


def rules_of(target: str, ignore: Iterable[str] = ()) -> tuple[Rule, ...]:
    """The rules of a target, by id.

    Raises:
        UsageError: there is no such target, or no such rule among `ignore`.
    """
    known = {name for rule in LINT_RULES for name in rule.levels}
    if target not in known:
        raise UsageError(f"there are no lint rules for the target {target!r}. {did_you_mean(target, known)}")
    ignored = {LINT_RULES.get(name).name for name in ignore}
    chosen = [rule for rule in LINT_RULES if target in rule.levels and rule.name not in ignored]
    return tuple(sorted(chosen, key=lambda rule: rule.name))


def _load(path: Path) -> tuple[str, Any]:
    """Digest and `ModelProto` of a file that was looked at; its external data stay on disk."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        # Names that are no UTF-8 raise UnicodeDecodeError or TypeError wherever they are read first.
        return load_model(path).digest, onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError, ValueError, TypeError, RuntimeError) as error:
        raise ModelError(f"the model {path} cannot be read: {error}. Export or copy it again.") from error
