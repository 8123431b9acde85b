"""Models that decode their images themselves: from raw files to an INT8 model that takes raw files, and its groups."""

from __future__ import annotations

import io
import os
import signal

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxptq
from onnxptq.calibrators import CalibrationSet
from onnxptq.calibrators.samples import draw
from onnxptq.errors import DataError, ModelError, UsageError
from onnxptq.inputs import DataOptions, build_task, open_model, resolve_for_quantization
from onnxptq.runtimes import open_session
from onnxptq.sweeps.job import SweepJob, run_job
from onnxptq.sweeps.plan import Plan
from onnxptq.sweeps.study import DONE


@pytest.fixture
def folder(tmp_path):
    """48 JPEG files in two classes."""
    from PIL import Image

    for i in range(48):
        place = tmp_path / "images" / f"class{i % 2}"
        place.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(i)
        pixels = (rng.integers(0, 256, (4, 5, 3)) // 2 + rng.integers(0, 128, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((40, 30 + i % 7)).save(place / f"{i}.jpg")
    return tmp_path / "images"


def task_of(path):
    (task, _) = build_task(open_model(path), DataOptions())
    return task


def row(encoded, name="a.jpg"):
    return {"image": encoded, "_name": name}


def test_quantize_makes_a_model_that_takes_the_same_files_and_judges_it_as_it_is_deployed(
    save_encoded, folder, tmp_path
):
    made = tmp_path / "int8.onnx"
    result = onnxptq.quantize(save_encoded(), data=str(folder), groups=["label"], corruptions=["dark@3"], output=made)
    operators = {(node.domain, node.op_type) for node in onnx.load(made).graph.node}
    assert {("com.microsoft.extensions", "DecodeImage"), ("", "QuantizeLinear")} <= operators
    assert {group.name for group in result.report.groups} >= {"label=class0", "label=class1"}
    # The rows without a corruption are what the file itself computes of the file's bytes.
    _, int8 = result.predictions
    inputs = resolve_for_quantization(
        save_encoded(), DataOptions(data=str(folder)), onnxptq.cache.user_cache(), needs_data=True, evaluate=True
    )
    session = open_session(made)
    for position in range(3):
        (raw,) = inputs.evaluation.read(np.array([position]))
        (logits,) = session.run({"image": np.frombuffer(raw["image"], np.uint8)})
        np.testing.assert_array_equal(logits[0], int8.outputs[position])


def test_a_sweep_judges_it_as_quantize_does(save_encoded, folder, tmp_path):
    model = str(save_encoded())
    plan = Plan(
        models=(model,), data=str(folder), calibrations=("clean", "dark@3"), corruptions=("fog@3",), groups=("label",)
    )
    cells = run_job(SweepJob(plan, model, plan.grid, tmp_path / "room", 1)).cells
    assert [(cell.status, cell.error) for cell in cells] == [(DONE, "")] * 2
    made = onnxptq.quantize(
        model, data=str(folder), calib="dark@3", groups=["label"], corruptions=["fog@3"], output=tmp_path / "int8.onnx"
    )
    expected = made.report.to_dict()
    report = {name: value for name, value in cells[1].report.items() if name != "origin"}
    assert {**report, "model": expected["model"]} == expected


@pytest.mark.parametrize("rgb", [False, True])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_calibration_feeds_are_what_the_deployed_preprocessing_computes(save_encoded, images, rgb, kind):
    path = save_encoded(rgb=rgb)
    model, task = open_model(path), task_of(path)
    for encoded in images(3, kind):
        feeds = task.feeds(task.load([row(encoded)]))
        deployed = open_session(model.parts.head).run({"image": np.frombuffer(encoded, np.uint8)})
        assert list(feeds) == list(model.parts.tensors)
        np.testing.assert_array_equal(feeds[model.parts.tensors[0]], deployed[0])


@pytest.mark.parametrize("rgb", [False, True])
def test_shifts_see_red_green_and_blue_whatever_the_model_sees(save_encoded, rgb):
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 100, 0)).save(buffer, "PNG")
    batch = task_of(save_encoded(rgb=rgb)).load([row(buffer.getvalue())])
    assert batch.shape == (1, 16, 16, 3)
    np.testing.assert_allclose(batch[0, 8, 8] * 255, [200, 100, 0], atol=1e-4)


def test_a_model_without_a_size_of_its_own_takes_its_images_one_by_one(save_encoded, images):
    task = task_of(save_encoded(crop=False))
    rows = [row(encoded) for encoded in images(3)]
    assert task.loadable_together(rows) == [[0], [1], [2]]
    assert [task.load([one]).shape for one in rows] == [(1, 30 + i, 40, 3) for i in range(3)]
    with pytest.raises(ModelError, match="noise has none"):
        task.noise(2, 0)


def test_a_shifted_calibration_set_is_shifted_before_the_normalisation(save_encoded, make_dataset, images):
    task = task_of(save_encoded())
    samples = [
        draw(CalibrationSet.parse(name), task, _dataset(make_dataset, images), size=4) for name in ("dark@3", "clean")
    ]
    dark, plain = (np.concatenate([next(iter(feeds.values())) for _, feeds in drawn]) for drawn in samples)
    assert dark.mean() < plain.mean() - 0.5


def _dataset(make_dataset, images):
    from dataclasses import replace

    encoded = list(images(4))
    dataset = make_dataset(4, classes=2)
    return replace(dataset, rows=lambda indices: [row(encoded[i]) for i in indices.tolist()])


def encoded_as(kind, mode="RGB"):
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 100, 0)).convert(mode).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (encoded_as("JPEG")[:500], r"the image bad\.jpg cannot be decoded"),
        (b"", r"the image bad\.jpg cannot be decoded"),
        (encoded_as("BMP"), r"the image bad\.jpg is BMP; the model's own decoder takes JPEG and PNG"),
        (encoded_as("JPEG", "L"), r"does not take the image bad\.jpg: it is decoded to 1 color"),
        (np.zeros((4, 4, 3), np.uint8), r"bad\.jpg is an array of shape \(4, 4, 3\); the model decodes its images"),
    ],
    ids=["cut off", "empty", "BMP", "gray JPEG", "array"],
)
def test_what_would_end_the_process_inside_the_extension_is_an_error_that_names_the_image(
    save_encoded, encoded, message
):
    with pytest.raises(DataError, match=message):
        task_of(save_encoded()).load([row(encoded, "bad.jpg")])


def test_flags_that_contradict_the_graph_are_refused(save_encoded):
    model = open_model(save_encoded())
    with pytest.raises(UsageError, match=r"has its pre-processing in the graph.*\(mean\)"):
        build_task(model, DataOptions(preprocessing={"mean": [0.5]}))
    task, _ = build_task(model, DataOptions(preprocessing={"classes": list("abcde")}))
    assert task.classes == tuple("abcde")


def test_a_model_of_other_inputs_is_refused_with_what_it_takes(save_encoded, tmp_path):
    model = onnx.load(save_encoded())
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    onnx.save(model, tmp_path / "two.onnx")
    with pytest.raises(ModelError, match=r"takes image: uint8 of 1 dimensions, more: float32 of 1 dimensions"):
        task_of(tmp_path / "two.onnx")


def test_a_model_is_taken_apart_once(save_encoded):
    path = save_encoded()
    first = open_model(path).parts
    before = first.body.path.stat().st_mtime_ns
    assert open_model(path).parts == first
    assert first.body.path.stat().st_mtime_ns == before
    whole = first.body.path.read_bytes()
    first.body.path.write_bytes(whole[:-10] + bytes(10))
    open_model(path)
    assert first.body.path.read_bytes() == whole, "and again where a half was damaged"


def test_a_decoder_that_ends_its_process_is_an_error_and_the_next_image_is_decoded(save_encoded, images):
    """What libjpeg does with exit(1), done from outside: the worker dies under one image."""
    own = task_of(save_encoded()).input.own
    (encoded,) = images(1)
    before = own.decode(encoded)
    decoder = next(cell.cell_contents for cell in own.decode.__closure__ if hasattr(cell.cell_contents, "close"))
    os.kill(decoder._opened[0].pid, signal.SIGKILL)
    with pytest.raises(ModelError, match=r"ended|died|killed"):
        own.decode(encoded)
    np.testing.assert_array_equal(own.decode(encoded), before)
    decoder.close()
