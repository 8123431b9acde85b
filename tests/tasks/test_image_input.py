"""Images: from bytes to feeds to predictions."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxptq.data import open_source
from onnxptq.errors import DataError, ModelError, UsageError
from onnxptq.tasks import Signature, Task, TensorSpec, make_task

Shape = tuple[int | None, ...]


def signature(shape: Shape = (None, 3, 4, 4), dtype: str = "float32", outputs: Shape = (None, 10)) -> Signature:
    return Signature((TensorSpec("x", dtype, shape),), (TensorSpec("logits", "float32", outputs),))


def build(specification: dict[str, Any], made: Signature) -> Task:
    return make_task("image-classification", specification, made)


def task(shape: Shape = (None, 3, 4, 4), **specification: Any) -> Task:
    return build(specification, signature(shape))


def encoded(pixels: Any, format_: str = "PNG", **options: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(file, format_, **options)
    return file.getvalue()


def colors(height: int = 4, width: int = 4) -> Any:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def load(made: Task, raw: Any, name: str = "cat/1.png") -> Any:
    return made.load([{"image": raw, "_name": name}])


# Loading


def test_encoded_images_become_pixels_over_255() -> None:
    batch = task().load([{"image": encoded(colors())}, {"image": encoded(colors() // 2)}])
    assert batch.shape == (2, 4, 4, 3)
    assert batch.dtype == np.float32
    np.testing.assert_array_equal(batch[0], colors().astype(np.float32) / np.float32(255))


def test_paths_and_arrays_give_the_same_as_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(colors()))
    expected = load(task(), encoded(colors()))
    for raw in (str(tmp_path / "a.png"), colors(), colors().astype(np.int64), colors().astype(np.float64) / 255):
        np.testing.assert_allclose(load(task(), raw), expected, atol=1e-7)


def test_gray_becomes_three_equal_channels_for_a_color_model() -> None:
    batch = load(task(), encoded(colors()[..., 0]))
    for channel in range(3):
        np.testing.assert_array_equal(batch[0, ..., channel], np.float32(colors()[..., 0]) / np.float32(255))


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_color_becomes_luminance_for_a_gray_model(kind: type) -> None:
    raw = colors() if kind is np.uint8 else colors().astype(kind) / 255
    batch = load(task((None, 1, 4, 4)), raw)
    assert batch.shape == (1, 4, 4, 1)
    np.testing.assert_allclose(batch[0, ..., 0], colors() @ [0.299, 0.587, 0.114] / 255, atol=1 / 255)


def test_sixteen_bits_are_not_cut_to_eight() -> None:
    pixels = np.array([[0, 300], [32768, 65535]], np.uint16)
    for raw in (encoded(pixels), pixels):
        np.testing.assert_allclose(load(task((None, 1, 2, 2)), raw)[0, ..., 0], pixels / 65535, atol=1e-6)


def test_transparency_is_left_out() -> None:
    rgba = np.dstack([colors(), np.full((4, 4), 7, np.uint8)])
    np.testing.assert_array_equal(load(task(), encoded(rgba)), load(task(), colors()))
    np.testing.assert_array_equal(load(task(), rgba), load(task(), colors()))


def test_photographs_are_turned_as_the_camera_was_held() -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # Turn by 90 degrees to the right.
    np.testing.assert_array_equal(
        load(task(), encoded(colors(), exif=exif))[0], load(task(), np.rot90(colors(), -1))[0]
    )


@pytest.mark.parametrize("raw", ["uint8", "float"])
def test_stretching_fits_both_sides(raw: str) -> None:
    halves = np.zeros((8, 16, 3), np.uint8)
    halves[:, 8:] = 200
    batch = load(task(), halves if raw == "uint8" else halves.astype(np.float32) / 255)
    np.testing.assert_allclose(batch[0, :, 0], 0, atol=0.02)
    np.testing.assert_allclose(batch[0, :, 3], 200 / 255, atol=0.02)


def test_the_shortest_side_is_resized_and_the_centre_cut_out() -> None:
    from PIL import Image

    image = colors(12, 30)
    made = task(resize="shortest", resize_to=6, interpolation="bicubic")
    expected = np.asarray(Image.fromarray(image).resize((15, 6), Image.Resampling.BICUBIC))[1:5, 6:10]
    np.testing.assert_allclose(load(made, image)[0], expected.astype(np.float32) / 255, atol=1e-6)


def test_interpolation_changes_the_result() -> None:
    image = colors(9, 9)
    assert not np.array_equal(load(task(interpolation="nearest"), image), load(task(interpolation="bicubic"), image))


def test_cubic_filters_do_not_leave_the_range() -> None:
    step = np.zeros((9, 9, 3), np.float32)
    step[:, 4:] = 1
    batch = load(task(interpolation="bicubic"), step)
    assert batch.min() >= 0
    assert batch.max() <= 1


def test_no_resize_takes_the_centre_and_refuses_small_images() -> None:
    np.testing.assert_array_equal(load(task(resize="none"), colors(8, 6)), load(task(), colors(8, 6)[2:6, 1:5]))
    with pytest.raises(DataError, match=r"cat/1\.png is 3 x 8 pixels, but the model takes 4 x 4"):
        load(task(resize="none"), colors(3, 8))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"not an image", "cannot be decoded"),
        (encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))[:4000], "cannot be decoded"),
        ("nowhere.png", "cannot be decoded: .*No such file"),
        (np.full((4, 4, 3), np.nan), "holds NaN"),
        (np.full((4, 4, 3), np.inf), "holds infinity"),
        (np.full((4, 4, 3), 200.0), "values from 200.0 to 200.0; expected 0 to 1"),
        (np.full((4, 4), 300), "expected 0 to 255"),
        (np.zeros((3, 5, 5)), r"shape \(3, 5, 5\); expected \(height, width\).*the task tensor"),
        (np.zeros((0, 4, 3)), r"shape \(0, 4, 3\)"),
    ],
)
def test_a_bad_image_is_named(raw: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(task(), raw)
    assert "cat/1.png" in str(caught.value)


def test_rows_with_several_inputs_are_refused() -> None:
    with pytest.raises(DataError, match=r"row 0 has the input columns a, b"):
        task().load([{"a": colors(), "b": colors(), "_name": "row 0"}])


# Feeds


def test_feeds_are_normalised_in_the_layout_of_the_model() -> None:
    mean, std = [0.5, 0.4, 0.3], [0.1, 0.2, 0.4]
    batch = load(task(), colors())
    expected = (batch - np.float32(mean)) / np.float32(std)
    nchw = task(mean=mean, std=std).feeds(batch)["x"]
    nhwc = task((None, 4, 4, 3), mean=mean, std=std).feeds(batch)["x"]
    np.testing.assert_array_equal(nchw, expected.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(nhwc, expected)
    for fed in (nchw, nhwc):
        assert fed.dtype == np.float32
        assert fed.flags.c_contiguous


def test_bgr_models_get_their_channels_and_means_in_that_order() -> None:
    batch = load(task(), colors())
    fed = task(color="BGR", mean=[0.1, 0.2, 0.3]).feeds(batch)["x"]
    np.testing.assert_allclose(fed[0, 0], batch[0, ..., 2] - np.float32(0.1))
    np.testing.assert_allclose(fed[0, 2], batch[0, ..., 0] - np.float32(0.3))


def test_a_scale_of_one_feeds_pixels_from_0_to_255() -> None:
    fed = task(scale=1.0, mean=[100, 100, 100], std=[50, 50, 50]).feeds(load(task(), colors()))["x"]
    np.testing.assert_allclose(fed[0].transpose(1, 2, 0), (colors() - 100.0) / 50, atol=1e-5)


def test_feeding_does_not_change_the_batch() -> None:
    batch = load(task(), colors())
    before = batch.copy()
    task(mean=0.5).feeds(batch)
    np.testing.assert_array_equal(batch, before)


@pytest.mark.parametrize("specification", [{}, {"mean": [0.4914, 0.4822, 0.4465], "std": [0.247, 0.2435, 0.2616]},
                                           {"scale": 1.0, "mean": 127.5, "std": 63.1, "color": "BGR"}])  # fmt: skip
def test_the_input_range_is_what_black_and_white_images_reach(specification: dict[str, Any]) -> None:
    made = task(**specification)
    ends = made.feeds(np.stack([np.zeros((4, 4, 3), np.float32), np.ones((4, 4, 3), np.float32)]))["x"]
    assert made.input.input_range() == (float(ends.min()), float(ends.max()))


# The model


def test_the_specification_rebuilds_the_task() -> None:
    made = task(mean=0.5, size=[4, 4], resize="shortest", classes=[str(i) for i in range(10)], color="BGR")
    assert build(made.specification, signature()) == made
    assert made.classes[3] == "3"


def test_unknown_keys_are_ignored_and_missing_ones_follow_from_the_model() -> None:
    made = task((None, 5, 7, 1), fp32_accuracy=0.9, rescale="x/255")
    assert made.specification["size"] == [5, 7]
    assert made.specification["layout"] == "NHWC"
    assert made.specification["color"] == "L"


@pytest.mark.parametrize(
    ("made", "specification", "message"),
    [
        (signature(dtype="float16"), {}, "'x' is float16; .*Export the model in float32"),
        (signature(dtype="float64"), {}, "float64"),
        (signature((None, 3, 4)), {}, r"shape \(N, 3, 4\); images need four dimensions"),
        (signature((None, 3, None, None)), {}, r"\(N, 3, \?, \?\): its height or width is dynamic .*--size"),
        (signature(), {"size": [8, 8]}, r"shape \(N, 3, 4, 4\), .*makes images of \(N, 3, 8, 8\)"),
        (signature(), {"color": "L"}, r"shape \(N, 3, 4, 4\) \(NCHW\), 3 channels; L images have 1"),
        (signature((None, 6, 4, 4)), {}, "6 channels"),
        (Signature(signature().inputs * 2, signature().outputs), {}, "one input; this one has: x, x"),
        (signature(outputs=(None, 1)), {}, r"no output can be read as classes: logits float32 \(N, 1\)"),
        (signature(outputs=(None, 5, 8, 8)), {}, "no output can be read"),
    ],
)
def test_models_that_cannot_take_the_images_are_refused(
    made: Signature, specification: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        build(specification, made)


@pytest.mark.parametrize(
    ("specification", "message"),
    [
        ({"layout": "CHWN"}, "layout must be one of NCHW, NHWC, got 'CHWN'"),
        ({"color": "CMYK"}, "color must be one of"),
        ({"mean": [0.1, 0.2]}, "mean must be one number or 3"),
        ({"std": 0}, "above 0"),
        ({"std": "wide"}, "std must be"),
        ({"scale": "1/255"}, "scale must be a number"),
        ({"size": "32x32"}, r"size must be \[height, width\]"),
        ({"size": [4]}, r"size must be \[height, width\]"),
        ({"resize": "squash"}, "resize must be one of"),
        ({"resize_to": 3}, r"resize_to must be at least the size \[4, 4\]"),
        ({"interpolation": "cubic"}, "interpolation must be one of"),
        ({"input": "pixels"}, "no input 'pixels'; its input is 'x'"),
        ({"output": "logit"}, "no output 'logit'. Did you mean 'logits'"),
        ({"scores": "odds"}, "scores must be one of"),
        ({"classes": ["a"]}, r"1 class names, but output 'logits' has shape \(N, 10\)"),
    ],
)
def test_wrong_values_are_refused(specification: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        task(**specification)


def test_a_dynamic_size_is_fixed_by_the_specification() -> None:
    assert load(task((None, 3, None, None), size=[5, 6]), colors()).shape == (1, 5, 6, 3)


# Predictions


def test_predictions_are_the_largest_logit_its_softmax_and_its_lead() -> None:
    logits = np.zeros((2, 10), np.float32)
    logits[0, 3], logits[0, 5] = 2, 1
    scores = task().head.answers([logits])
    assert scores.prediction.tolist() == [3, 0]  # Of equal ones the lowest index.
    assert scores.margin.tolist() == [1, 0]
    np.testing.assert_allclose(scores.confidence, [np.exp(2) / (np.exp(2) + np.exp(1) + 8), 0.1], rtol=1e-6)
    assert (scores.prediction.dtype, scores.confidence.dtype, scores.margin.dtype) == (np.int64, np.float32, np.float64)


def test_large_logits_do_not_overflow() -> None:
    scores = task().head.answers([np.array([[1e5] + [0] * 9], np.float32)])
    assert scores.confidence.tolist() == [1]


def test_probabilities_are_scores_already() -> None:
    probabilities = np.array([[0.7] + [0.3] + [0] * 8], np.float32)
    np.testing.assert_allclose(task(scores="probabilities").head.answers([probabilities]).confidence, [0.7], rtol=1e-6)


def test_outputs_with_empty_sides_are_read_and_others_refused() -> None:
    logits = np.random.default_rng(0).random((3, 10, 1, 1), np.float32)
    assert task().head.answers([logits]).prediction.tolist() == logits.argmax(1).ravel().tolist()
    with pytest.raises(ModelError, match=r"shape \(3, 10, 2, 2\)"):
        task().head.answers([np.zeros((3, 10, 2, 2), np.float32)])
    with pytest.raises(ModelError, match="holds NaN for 1 of 3 samples"):
        task().head.answers([np.where(np.arange(3)[:, None] == 1, np.nan, np.zeros((3, 10)))])


def test_the_named_output_is_read_else_the_first_table() -> None:
    outputs = (
        TensorSpec("features", "float32", (None, 64, 1, 1)),
        TensorSpec("logits", "float32", (None, 10)),
        TensorSpec("auxiliary", "float32", (None, 10)),
    )
    made = Signature(signature().inputs, outputs)
    arrays = [np.zeros((1, 64, 1, 1)), np.eye(10)[4:5], np.eye(10)[7:8]]
    assert build({}, made).head.answers(arrays).prediction.tolist() == [4]
    assert build({"output": "auxiliary"}, made).head.answers(arrays).prediction.tolist() == [7]


# Noise and shifts


def test_noise_is_seeded_and_fills_the_unit_interval() -> None:
    noise = task().noise(50, seed=1)
    assert noise.shape == (50, 4, 4, 3)
    assert noise.dtype == np.float32
    assert 0 <= noise.min() < 0.01
    assert 0.99 < noise.max() <= 1
    np.testing.assert_array_equal(noise, task().noise(50, seed=1))
    assert not np.array_equal(noise, task().noise(50, seed=2))


def test_only_shifts_that_make_sense_at_this_size_are_evaluated() -> None:
    large = task((None, 3, 32, 32))
    assert large.evaluation_shifts() == ("fog@3", "impulse@3", "gamma@3", "motion_blur@3", "shot@3")
    small = task((None, 1, 4, 4))
    assert "motion_blur@3" not in small.evaluation_shifts()
    assert {"impulse@3", "gamma@3", "shot@3"} <= set(small.evaluation_shifts())
    assert "needs images of" in str(small.fits("motion_blur"))


def test_shifts_of_color_and_of_tensors_do_not_fit_gray_images() -> None:
    gray = task((None, 1, 32, 32))
    assert gray.fits("saturation") == "saturation changes nothing on gray images"
    assert task((None, 3, 32, 32)).fits("saturation@2") is None
    assert "tensor samples" in str(gray.fits("tensor_noise"))
    with pytest.raises(UsageError, match="unknown shift"):
        gray.fits("no_such_shift")


def test_the_task_is_registered() -> None:
    assert make_task("image-classification", {}, signature()) == task()


def test_a_trained_model_reaches_its_accuracy_on_the_shared_data(tmp_path: Path) -> None:
    shared = os.environ.get("ONNXPTQ_SHARED")
    if not shared:
        pytest.skip("ONNXPTQ_SHARED does not name the folder of shared models and data")
    import onnxruntime

    from onnxptq.graphs import load_model
    from onnxptq.tasks import find_specification

    model = load_model(Path(shared) / "models" / "cifar10_resnet20.onnx")
    found = find_specification(model.path, model.metadata, {}, model.signature)
    made = make_task(found.task, found.specification, model.signature)
    dataset = open_source(str(Path(shared) / "data" / "cifar10" / "test.parquet"), cache=tmp_path).splits[""]
    session = onnxruntime.InferenceSession(str(model.path), providers=["CPUExecutionProvider"])
    positions = np.arange(0, 5000, 5)
    scores = made.head.answers(session.run(None, made.feeds(made.load(dataset.read(positions)))))
    assert dataset.labels is not None
    assert dataset.label_names == made.classes
    assert np.mean(scores.prediction == dataset.labels[positions]) == pytest.approx(0.8385, abs=0.03)
