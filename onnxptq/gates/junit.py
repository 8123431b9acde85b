"""JUnit XML, as Jenkins and GitLab read it: one test case a rule.

The form is that of Jenkins' xunit plug-in (junit-10.xsd). A rule that failed is a failure, one that is undecided an
error, one that was not judged is skipped. GitLab shows the text of the element, Jenkins its message too.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

from onnxptq.files import replacing
from onnxptq.foreign_text import printable
from onnxptq.gates.text import describe, full_text
from onnxptq.gates.verdict import CheckResult, RuleResult, Verdict

_ELEMENTS = {Verdict.FAILED: "failure", Verdict.UNDECIDED: "error", Verdict.NOT_JUDGED: "skipped"}


def junit_xml(result: CheckResult) -> bytes:
    """The check as JUnit XML in UTF-8, without times: equal checks give equal bytes."""
    counts = Counter(_ELEMENTS.get(rule.verdict, "passed") for rule in result.rules)
    totals = {"tests": str(len(result.rules)), "failures": str(counts["failure"]), "errors": str(counts["error"])}
    root = ElementTree.Element("testsuites", {"name": "onnxptq check", **totals})
    name = str(result.subject.get("model", {}).get("name", "predictions"))
    suite = ElementTree.SubElement(
        root, "testsuite", {"name": _clean(name), **totals, "skipped": str(counts["skipped"])}
    )
    seen: Counter[str] = Counter()
    for rule in result.rules:
        suite.append(_case(rule, name, seen))
    ElementTree.SubElement(suite, "system-out").text = _clean(full_text(result))
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def write_junit(path: Path, result: CheckResult) -> None:
    """Writes the check as JUnit XML. Raises OutputError when it cannot be written."""
    with replacing(path) as temporary:
        temporary.write_bytes(junit_xml(result))


def _case(rule: RuleResult, model: str, seen: Counter[str]) -> ElementTree.Element:
    title = f"{rule.rule} {rule.group}" if rule.group and rule.rule.startswith("group_") else rule.rule
    seen[title] += 1
    if seen[title] > 1:  # GitLab ignores a test of a name that it has seen.
        title = f"{title} ({seen[title]})"
    case = ElementTree.Element("testcase", {"name": _clean(title), "classname": _clean(f"onnxptq.check.{model}")})
    if (element := _ELEMENTS.get(rule.verdict)) is not None:
        attributes = {"type": rule.verdict.value, "message": _clean(rule.explanation)}
        ElementTree.SubElement(case, element, attributes).text = _clean("\n".join(describe(rule)))
    return case


def _clean(text: str) -> str:
    return printable(text)
