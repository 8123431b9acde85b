"""The report of a study: one HTML file that needs nothing else."""

from __future__ import annotations

from onnxptq.reports.study.page import write_report
from onnxptq.reports.study.summary import Summary, summarize

__all__ = ["Summary", "summarize", "write_report"]
