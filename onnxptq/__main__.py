"""`python -m onnxptq` is the `onnxptq` command."""

from __future__ import annotations

from onnxptq.cli import main

main()
