"""The JSON schema of a policy, made from its dataclasses, so that the two cannot disagree.

`policy.schema.json` beside this file is what `policy_schema` gives; editors check a policy against it (docs/check.md).
"""

from __future__ import annotations

import json
from typing import Any

from onnxptq.gates.policy import FORMAT, Policy
from onnxptq.toml_tables import tables_schema


def policy_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a policy."""
    return tables_schema(
        Policy,
        title="Policy of onnxptq check",
        description="What an INT8 model must pass. A rule is on where its table is present.",
        format_version=FORMAT,
    )


def schema_text() -> str:
    """The text of `policy.schema.json`."""
    return json.dumps(policy_schema(), indent=2, ensure_ascii=False) + "\n"
