"""The report of a study: one HTML file that needs nothing else, a CSV for every table, Markdown for a pull request."""

from __future__ import annotations

from onnxptq.reports.study.markdown import study_markdown
from onnxptq.reports.study.page import report_html, write_report
from onnxptq.reports.study.questions import Answers, answer_questions
from onnxptq.reports.study.summary import LIMIT, Summary, summarize
from onnxptq.reports.study.tables import study_tables, write_csv
from onnxptq.reports.study.words import verdict

__all__ = [
    "LIMIT",
    "Answers",
    "Summary",
    "answer_questions",
    "report_html",
    "study_markdown",
    "study_tables",
    "summarize",
    "verdict",
    "write_csv",
    "write_report",
]
