"""The built-in models are found by name, wherever the package lies, and cost nothing to import."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from onnxptq.errors import UsageError
from onnxptq.models import BUILTIN_MODELS, BuiltinModel, builtin


@pytest.mark.parametrize("name", sorted(BUILTIN_MODELS))
def test_every_builtin_model_has_its_files_under_its_own_name(name: str) -> None:
    model = builtin(name)
    assert model.name == name
    assert all(path.is_absolute() and path.is_file() for path in (model.model, model.train, model.test))
    assert "CC BY 4.0" in model.source


def test_digits_is_what_you_get_without_a_name() -> None:
    assert builtin() is builtin("digits")


def test_a_mistyped_name_is_answered_with_the_closest_one() -> None:
    with pytest.raises(UsageError, match=r"unknown built-in model 'digit'.*'digits'"):
        builtin("digit")


def test_a_builtin_model_cannot_be_changed_or_added_by_accident() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        builtin().name = "other"  # type: ignore[misc]
    assert not hasattr(BUILTIN_MODELS, "__setitem__")
    assert isinstance(builtin(), BuiltinModel)


def test_importing_the_builtin_models_loads_nothing_heavy() -> None:
    code = (
        "import sys, onnxptq.models, onnxptq.models.digits.train as _; "
        "print(*{'torch', 'onnx', 'onnxscript', 'onnxruntime', 'pyarrow', 'PIL', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
