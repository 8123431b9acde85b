"""`SampleReader` obeys the protocol of ONNX Runtime's calibrators, down to the real `quantize_static`."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, quantize_static

import onnxptq
from onnxptq.calibrators import CalibrationSet, SampleReader
from onnxptq.calibrators.samples import draw

VALUES = np.arange(6, dtype=np.float32)


@pytest.fixture
def reader():
    return SampleReader(lambda: ({"x": np.full((1, 6), value)} for value in VALUES), len(VALUES))


def rest(reader):
    return [float(feeds["x"][0, 0]) for feeds in reader]


def test_it_gives_each_sample_and_then_none_for_ever(reader):
    assert [float(reader.get_next()["x"][0, 0]) for _ in VALUES] == VALUES.tolist()
    assert reader.get_next() is None
    assert reader.get_next() is None
    assert len(reader) == 6


def test_it_is_a_calibration_data_reader_for_onnx_runtime(reader):
    assert isinstance(reader, CalibrationDataReader)


def test_rewind_starts_again(reader):
    rest(reader)
    reader.rewind()
    assert rest(reader) == VALUES.tolist()
    reader.set_range(2, 4)
    reader.rewind()
    assert rest(reader) == VALUES.tolist()


@pytest.mark.parametrize(
    ("start", "end", "expected"), [(0, 2, [0, 1]), (2, 4, [2, 3]), (4, 9, [4, 5]), (9, 12, []), (3, 3, [])]
)
def test_a_range_restricts_it(reader, start, end, expected):
    reader.get_next()
    reader.set_range(start, end)
    assert rest(reader) == expected
    assert reader.get_next() is None


def test_samples_are_made_one_at_a_time():
    made = []

    def produce():
        for value in VALUES:
            made.append(value)
            yield {"x": value}

    reader = SampleReader(produce, len(VALUES))
    assert made == []
    reader.get_next()
    assert made == [0]


def quantized(path, reader, **options):
    output = path.with_suffix(".int8.onnx")
    with contextlib.redirect_stdout(io.StringIO()):
        quantize_static(str(path), str(output), reader, **options)
    return output.read_bytes()


def test_strided_calibration_through_the_real_quantizer_equals_the_plain_one(
    save_classifier, tensor_task, make_dataset
):
    path = save_classifier()
    samples = draw(CalibrationSet.parse("tensor_noise"), tensor_task, make_dataset(12))
    plain = quantized(path, samples.reader(), calibrate_method=CalibrationMethod.MinMax)
    for stride in (1, 4, 12):
        strided = quantized(
            path,
            samples.reader(),
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"CalibStridedMinMax": stride},
        )
        assert strided == plain
    less = quantized(path, draw(CalibrationSet.parse("scale@5"), tensor_task, make_dataset(12)).reader())
    assert less != plain


def test_a_set_by_name_feeds_stock_quantize_static_with_no_other_part_of_ours(save_classifier, tmp_path):
    path = save_classifier()
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=rng.standard_normal((40, 6)).astype(np.float32), label=np.arange(40) % 4)
    reader = onnxptq.reader("scale@5", model=path, data=str(tmp_path / "data.npz"), size=10)
    assert len(reader) == 10
    model = onnx.load_from_string(quantized(path, reader))
    assert "QuantizeLinear" in {node.op_type for node in model.graph.node}
    scales = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    assert scales["x_scale"] < 0.05 * 8 / 255  # Inputs were standard normal, times 0.05.


def test_a_copy_of_the_built_in_model_comes_with_its_data(tmp_path):
    from onnxptq.models import builtin

    copy = tmp_path / "copy.onnx"
    copy.write_bytes(builtin().model.read_bytes())
    feeds = next(iter(onnxptq.reader("dark@3", model=copy, size=2)))
    assert feeds["input"].shape == (1, 1, 8, 8)
