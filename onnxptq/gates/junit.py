"""JUnit XML, as Jenkins and GitLab read it: one suite a model, one test case a rule.

The form is that of Jenkins' xunit plug-in (junit-10.xsd). A rule that failed is a failure, one that is undecided an
error, one that was not judged is skipped; a model that could not be judged is an error with the message. GitLab shows
the text of the element, Jenkins its message too.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from onnxptq.files import replacing
from onnxptq.foreign_text import printable
from onnxptq.gates.several import BAD_INPUT, Checked
from onnxptq.gates.text import describe, full_text
from onnxptq.gates.verdict import RuleResult, Verdict

_ELEMENTS = {Verdict.FAILED: "failure", Verdict.UNDECIDED: "error", Verdict.NOT_JUDGED: "skipped"}


def junit_xml(models: Sequence[Checked]) -> bytes:
    """A check as JUnit XML in UTF-8, a suite for each model, without times: equal checks give equal bytes."""
    suites = [_suite(one) for one in models]
    totals = {key: str(sum(int(suite.get(key, "0")) for suite in suites)) for key in ("tests", "failures", "errors")}
    root = ElementTree.Element("testsuites", {"name": "onnxptq check", **totals})
    root.extend(suites)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def write_junit(path: Path, models: Sequence[Checked]) -> None:
    """Writes a check as JUnit XML. Raises OutputError when it cannot be written."""
    with replacing(path) as temporary:
        temporary.write_bytes(junit_xml(models))


def _suite(checked: Checked) -> ElementTree.Element:
    name = checked.name
    suite = ElementTree.Element("testsuite", {"name": _clean(name)})
    if checked.result is None:
        case = ElementTree.SubElement(suite, "testcase", {"name": "input", "classname": _class(name)})
        attributes = {"type": BAD_INPUT, "message": _clean(checked.error)}
        ElementTree.SubElement(case, "error", attributes).text = _clean(checked.error)
    else:
        seen: Counter[str] = Counter()
        suite.extend(_case(rule, name, seen) for rule in checked.result.rules)
        ElementTree.SubElement(suite, "system-out").text = _clean(full_text(checked.result))
    counts = Counter(element.tag for case in suite.iter("testcase") for element in case)
    suite.set("tests", str(len(suite.findall("testcase"))))
    for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(key, str(counts[tag]))
    return suite


def _case(rule: RuleResult, model: str, seen: Counter[str]) -> ElementTree.Element:
    title = f"{rule.rule} {rule.group}" if rule.group and rule.rule.startswith("group_") else rule.rule
    seen[title] += 1
    if seen[title] > 1:  # GitLab ignores a test of a name that it has seen.
        title = f"{title} ({seen[title]})"
    case = ElementTree.Element("testcase", {"name": _clean(title), "classname": _class(model)})
    if (element := _ELEMENTS.get(rule.verdict)) is not None:
        attributes = {"type": rule.verdict.value, "message": _clean(rule.explanation)}
        ElementTree.SubElement(case, element, attributes).text = _clean("\n".join(describe(rule)))
    return case


def _class(model: str) -> str:
    return _clean(f"onnxptq.check.{model}")


def _clean(text: str) -> str:
    return printable(text)
