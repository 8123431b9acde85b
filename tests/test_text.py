"""A tiny text model, with its words inside, on a table of sentences: drawn, quantized and judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxptq
from onnxptq.errors import UsageError

WORDS = ["<pad>", "<unk>", "dull", "bad", "awful", "a", "the", "film", "not", "good", "fine", "great"]


def save_text_model(path: Path) -> Path:
    """Mean of embeddings, then a Gemm: sentences with good words score higher for the second class."""
    rng = np.random.default_rng(0)
    table = rng.normal(0, 0.1, (len(WORDS), 8))
    table[2:5, 0], table[9:12, 0] = -1, 1
    weights = rng.normal(0, 0.1, (8, 2))
    weights[0] = [-2, 2]
    arrays = {"table": table.astype(np.float32), "w": weights.astype(np.float32), "b": np.zeros(2, np.float32)}
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["embedded", "wide"], ["kept"]),
        helper.make_node("ReduceMean", ["kept", "one"], ["mean"], keepdims=0),
        helper.make_node("Gemm", ["mean", "w", "b"], ["logits"]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["N", "L"]) for name in ("input_ids", "attention_mask")
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])]
    axes = {"last": np.array([2]), "one": np.array([1])}
    initializers = [numpy_helper.from_array(value, name) for name, value in {**arrays, **axes}.items()]
    graph = helper.make_graph(nodes, "text", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    specification = {"tokenizer": {"kind": "words", "vocabulary": WORDS}, "classes": ["negative", "positive"]}
    helper.set_model_props(
        model, {"onnxptq.task": "text-classification", "onnxptq.preprocessing": json.dumps(specification)}
    )
    onnx.save(model, path)
    return path


def save_sentences(path: Path) -> Path:
    """240 sentences of different lengths, half of them positive, without a header line."""
    rng = np.random.default_rng(1)
    lines = []
    for number in range(240):
        opinions = ("great", "good", "fine") if number % 2 else ("bad", "dull", "awful")
        filling = rng.choice(["a", "the", "film", "unheard", "not"], 5 + number % 20)
        words = [*rng.choice(opinions, 6), *filling]
        lines.append(f"{' '.join(rng.permutation(words))}\t{number % 2}\n")
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("text")
    return {"model": save_text_model(folder / "text.onnx"), "data": save_sentences(folder / "sentences.tsv")}


def test_a_text_model_is_quantized_from_the_command_line(request: pytest.FixtureRequest, text: dict[str, Path]) -> None:
    command = request.getfixturevalue("onnxptq")
    groups = ["--group", "length", "--group", "negation*corruption"]
    done = command("quantize", text["model"], "--data", text["data"], "--calib", "drop_words@3", *groups, "--json", "-")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    names = {group["name"] for group in report["groups"]}
    assert {"length=medium", "length=long", "negation=yes*corruption=typos@3"} <= names
    # The family that calibrated is left out of the evaluation.
    assert not any("drop_words" in name for name in names)
    assert report["fp32_average"] > 0.9


def test_the_int8_model_carries_its_tokenizer(text: dict[str, Path], tmp_path: Path) -> None:
    made = onnxptq.quantize(text["model"], data=str(text["data"]), output=tmp_path / "int8.onnx", corruptions=["clean"])
    assert made.report is not None
    judged = onnxptq.evaluate(
        [made.output], data=str(text["data"]), reference=text["model"], groups=["length"], corruptions=["clean"]
    )
    assert judged.reports[0].int8_average == made.report.int8_average
    assert {group.name for group in judged.reports[0].groups} == {"length=medium", "length=long"}


@pytest.mark.parametrize(
    "calib", ["random", "hard", "missing-group:length=long", "only-group:length=medium", "casing@5"]
)
def test_calibration_sets_work_on_text(text: dict[str, Path], calib: str) -> None:
    drawn = onnxptq.draw_calibration(text["model"], data=str(text["data"]), calib=calib, size=4)
    feeds = [one["input_ids"] for _, one in drawn]
    assert [one.shape[0] for one in feeds] == [1] * 4
    assert max(int(one.max()) for one in feeds) < len(WORDS)
    if "length" in calib:
        assert all(10 < one.shape[1] <= 20 for one in feeds)
    if calib == "casing@5":
        assert all((one == WORDS.index("<unk>")).all() for one in feeds)


def test_predictions_do_not_depend_on_what_stands_beside_a_sentence(text: dict[str, Path]) -> None:
    named = onnxptq.evaluate([text["model"]], data=str(text["data"]), corruptions=["truncate@3"])
    outputs = named.predictions[0].outputs
    assert outputs is not None
    session = onnxruntime.InferenceSession(text["model"], providers=["CPUExecutionProvider"])
    lines = text["data"].read_text().splitlines()
    for row in (0, 7, 100):
        tokens = [WORDS.index(w) if w in WORDS else 1 for w in lines[row].split("\t")[0].split()]
        (alone,) = session.run(None, {"input_ids": [tokens], "attention_mask": [[1] * len(tokens)]})
        np.testing.assert_allclose(outputs[row], alone[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"calib": "dark@3"}, "dark is for image samples, not for text; for text there are typos"),
        ({"groups": ["lenght"]}, "unknown group column 'lenght'.*'length'"),
    ],
)
def test_what_does_not_fit_text_is_answered_with_what_does(
    text: dict[str, Path], tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        onnxptq.quantize(text["model"], data=str(text["data"]), output=tmp_path / "x.onnx", **arguments)
