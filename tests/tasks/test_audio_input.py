"""Recordings: files of every width and rate, front ends beside librosa's, and what is wrong with a file."""

from __future__ import annotations

import io
import json
import wave

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.data import open_source
from onnxptq.errors import DataError, ModelError, UsageError
from onnxptq.signature import Signature, TensorSpec
from onnxptq.tasks import make_task
from onnxptq.tasks.log_mel import log_mel

RATE = 8000
MEL = {"kind": "log-mel", "n_fft": 256, "hop": 128, "mels": 40}


def tone(hertz=440.0, seconds=1.0, rate=RATE, gain=0.5):
    return (gain * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def encoded(samples, rate=RATE, kind="WAV", subtype="PCM_16"):
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def stdlib_wav(samples, rate=RATE):
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((samples * 32767).astype("<i2").tobytes())
    return file.getvalue()


def signature(*shape):
    return Signature((TensorSpec("x", "float32", shape),), (TensorSpec("y", "float32", (None, 3)),))


def task(shape=(None, None), **specification):
    given = {"sample_rate": RATE, "classes": ["a", "b", "c"], **specification}
    return make_task("audio-classification", given, signature(*shape))


def rows(*sounds):
    return [{"audio": sound, "_name": f"{i}.wav"} for i, sound in enumerate(sounds)]


@pytest.mark.parametrize(
    ("kind", "subtype", "step"),
    [
        ("WAV", "PCM_U8", 2**-7),
        ("WAV", "PCM_16", 2**-15),
        ("WAV", "PCM_24", 2**-23),
        ("WAV", "FLOAT", 1e-7),
        ("FLAC", "PCM_16", 2**-15),
        ("AIFF", "PCM_16", 2**-15),
    ],
)
def test_every_width_is_read_to_its_last_bit(kind, subtype, step):
    (loaded,) = task(length=RATE).load(rows(encoded(tone(), kind=kind, subtype=subtype)))
    np.testing.assert_allclose(loaded, tone(), atol=step)


def test_the_standard_library_s_wav_reads_the_same():
    np.testing.assert_allclose(task(length=RATE).load(rows(stdlib_wav(tone())))[0], tone(), atol=2**-14)


def test_channels_are_averaged():
    both = np.stack([tone(), -0.5 * tone()], axis=1)
    np.testing.assert_allclose(task(length=RATE).load(rows(encoded(both)))[0], 0.25 * tone(), atol=2**-14)


@pytest.mark.parametrize("rate", [4000, 11025, 16000, 44100])
def test_other_rates_are_resampled(rate):
    (loaded,) = task(length=RATE).load(rows(encoded(tone(rate=rate), rate=rate)))
    inner = slice(500, -500)  # The filter rings at the ends.
    np.testing.assert_allclose(loaded[inner], tone()[inner], atol=2e-3)


@pytest.mark.parametrize("align", ["center", "start"])
def test_recordings_are_cut_and_filled_up(align):
    short, long = np.ones(100, np.float32) * 0.5, np.linspace(0, 0.9, 300, dtype=np.float32)
    loaded = task(length=200, align=align).load([{"x": short}, {"x": long}])
    before = 50 if align == "center" else 0
    assert np.count_nonzero(loaded[0]) == 100 and loaded[0][before] == 0.5 and loaded[0][before + 99] == 0.5
    np.testing.assert_array_equal(loaded[1], long[before : before + 200])


def test_recordings_of_open_length_run_alone_and_as_long_as_they_are():
    made = task()
    sounds = rows(encoded(tone(seconds=0.5)), encoded(tone(seconds=0.3)))
    assert made.loadable_together(sounds) == [[0], [1]]
    assert [made.load([one]).shape for one in sounds] == [(1, 4000), (1, 2400)]
    assert task(length=10).loadable_together(sounds) == [[0, 1]]


@pytest.mark.parametrize(
    ("shape", "fed"), [((None, 8000), (1, 8000)), ((None, 1, 8000), (1, 1, 8000)), ((None, 1, None), (1, 1, 8000))]
)
def test_waveforms_are_fed_in_the_model_s_rank(shape, fed):
    made = task(shape, mean=0.1, std=2.0)
    (fed_as,) = made.feeds(made.load([{"x": tone()}])).values()
    assert fed_as.shape == fed and fed_as.dtype == np.float32
    np.testing.assert_allclose(fed_as.ravel(), (tone() - 0.1) / 2, atol=1e-7)


@pytest.mark.parametrize(
    ("shape", "layout", "fed"),
    [
        ((None, 1, 40, 61), "mel_time", (1, 1, 40, 61)),
        ((None, 40, None), "mel_time", (1, 40, 61)),
        ((None, 61, 40), "time_mel", (1, 61, 40)),
    ],
)
def test_features_are_fed_in_the_model_s_layout(shape, layout, fed):
    made = task(shape, length=RATE, front_end=MEL, layout=layout)
    (fed_as,) = made.feeds(made.load([{"x": tone()}])).values()
    assert fed_as.shape == fed
    bands = fed_as.reshape(fed[-2:])
    bands = bands if layout == "mel_time" else bands.T
    corners = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 42) / 2595) - 1)
    assert abs(corners[1:-1][bands.mean(axis=1).argmax()] - 440) < 100


@pytest.mark.oracle
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("norm", ["none", "slaney"])
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_features_equal_librosa_s(center, scale, norm, power):
    librosa = pytest.importorskip("librosa")
    sound = np.random.default_rng(0).uniform(-1, 1, 4000).astype(np.float32)
    made = log_mel({**MEL, "center": center, "scale": scale, "norm": norm, "power": power, "low": 50.0, "log": "log10"})
    theirs = librosa.feature.melspectrogram(
        y=sound.astype(np.float64), sr=RATE, n_fft=256, hop_length=128, n_mels=40, fmin=50.0, center=center,
        pad_mode="reflect", power=power, htk=scale == "htk", norm=None if norm == "none" else "slaney",
    )  # fmt: skip
    np.testing.assert_allclose(made.features(sound[None], RATE)[0], np.log10(theirs + 1e-6), rtol=1e-4, atol=1e-5)


def test_no_sine_leaves_the_bounds_of_the_features():
    made = log_mel(MEL)
    low, high = made.bounds(RATE)
    assert made.features(np.zeros((1, 512), np.float32), RATE).min() == pytest.approx(low)
    sines = np.stack([np.cos(2 * np.pi * f * np.arange(512) / RATE) for f in range(100, 3900, 37)]).astype(np.float32)
    most = made.features(sines, RATE).max()
    assert high - 0.3 < most < high + 0.05


def test_groups_tell_how_long_and_how_loud_a_recording_is():
    sounds = rows(*(encoded(tone(seconds=s, gain=g)) for s, g in ((0.5, 0.9), (2, 0.08), (4, 0.001))))
    found = task(length=100).group_values(sounds)
    assert found == {"duration": ["short", "medium", "long"], "loudness": ["loud", "medium", "quiet"]}


WHOLE = encoded(tone(), subtype="FLOAT") if pytest.importorskip("soundfile") else b""
BAD = {
    "cut off": (WHOLE[: len(WHOLE) // 2], "cut off"),
    "a cut flac": (encoded(tone(), kind="FLAC")[:900], "cut off|decoder|[Uu]nspecified|[Ii]nternal"),
    "no samples": (encoded(np.zeros(0, np.float32)), "no sample"),
    "NaN": (encoded(np.full(100, np.nan, np.float32), subtype="FLOAT"), "NaN or infinity"),
    "no recording": (b"RIFF" + bytes(200), "cannot be decoded"),
    "zeros": (bytes(1000), "cannot be decoded"),
    "rate 0": (WHOLE[:24] + bytes(4) + WHOLE[28:], "cannot be decoded"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_named_and_left_out_where_that_is_asked_for(kind, tmp_path):
    data, reason = BAD[kind]
    for folder in ("yes", "no"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        (tmp_path / "data" / folder / "good.wav").write_bytes(encoded(tone()))
    (tmp_path / "data" / "yes" / "bad.wav").write_bytes(data)
    source = open_source(str(tmp_path / "data"), cache=tmp_path, skip_bad=True)
    assert len(source.skipped) == 1 and "yes/bad.wav" in source.skipped[0]
    with pytest.raises(DataError, match=reason) as caught:
        loaded = open_source(str(tmp_path / "data"), cache=tmp_path).splits[""]
        task(length=RATE).load(loaded.read(np.arange(len(loaded))))
    assert "bad.wav" in str(caught.value) and "recording" in str(caught.value)


def test_folders_and_tables_of_recordings_are_data(tmp_path):
    for folder, gain in (("yes", 0.5), ("no", 0.1)):
        (tmp_path / "sounds" / folder).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "sounds" / folder / f"{i}.wav").write_bytes(encoded(tone(300 + i, gain=gain)))
    folder = open_source(str(tmp_path / "sounds"), cache=tmp_path).splits[""]
    assert folder.label_names == ("no", "yes") and list(folder.read(np.arange(1))[0]) == ["audio", "_name"]
    lines = [f"{label}/{i}.wav,{label},{'ann' if i else 'bob'}" for label in ("no", "yes") for i in range(3)]
    (tmp_path / "sounds" / "metadata.csv").write_text("path,label,speaker\n" + "\n".join(lines))
    table = open_source(str(tmp_path / "sounds" / "metadata.csv"), cache=tmp_path).splits[""]
    assert table.fingerprints.tolist() == folder.fingerprints.tolist()
    assert sorted(set(table.attributes["speaker"])) == ["ann", "bob"]


@pytest.mark.parametrize(
    ("specification", "shape", "error", "words"),
    [
        ({"sample_rate": None}, (None, 8000), UsageError, "sample_rate"),
        ({"sample_rate": 0}, (None, 8000), UsageError, "sample_rate"),
        ({"length": 4000}, (None, 8000), ModelError, "8000"),
        ({"front_end": "mfcc"}, (None, 40, 61), UsageError, "front_end"),
        ({"front_end": {**MEL, "hops": 3}}, (None, 40, 61), UsageError, "'hop'"),
        ({"front_end": {**MEL, "hop": 0}}, (None, 40, 61), UsageError, "front_end.hop"),
        ({"front_end": {**MEL, "offset": 0}}, (None, 40, 61), UsageError, "logarithm"),
        ({"front_end": MEL}, (None, 40, 61), UsageError, "length"),
        ({"front_end": MEL, "length": 100}, (None, 40, None), UsageError, "shorter than one frame"),
        ({"front_end": MEL, "length": 8000}, (None, 61, 40), ModelError, "40, 61"),
        ({"front_end": MEL, "length": 8000}, (None, 2, 40, 61), ModelError, "mels, frames"),
        ({"std": 0}, (None, 8000), UsageError, "std"),
        ({"align": "end"}, (None, 8000), UsageError, "center or start"),
    ],
)
def test_a_specification_that_is_wrong_is_refused(specification, shape, error, words):
    with pytest.raises(error, match=words):
        task(shape, **specification)


def test_shifts_of_other_samples_do_not_fit():
    assert "for image samples" in (task(length=10).fits("dark@3") or "")
    assert task(length=10).fits("quiet@3") is None


def sounds_model(path):
    """Energy of three bands, which tell three tones apart."""
    generator = np.random.default_rng(0)
    weights = {"w": generator.normal(size=(3, 40, 5)).astype(np.float32) * 0.1, "b": np.zeros(3, np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("ReduceMean", ["r"], ["y"], axes=[2], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 40, 61])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    specification = {"task": "audio-classification", "sample_rate": RATE, "length": RATE, "front_end": MEL}
    path.with_suffix(".json").write_text(json.dumps({**specification, "classes": ["a", "b", "c"], "std": 5.0}))


def test_quantize_and_check_take_a_folder_of_recordings(run_here, tmp_path):
    sounds_model(tmp_path / "m.onnx")
    rng = np.random.default_rng(1)
    for label, hertz in (("a", 300), ("b", 900), ("c", 2500)):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(12):
            sound = tone(hertz + rng.uniform(-50, 50), gain=rng.uniform(0.2, 0.9))
            (tmp_path / "data" / label / f"{i}.wav").write_bytes(encoded(sound))
    made = run_here(
        ["quantize", "m.onnx", "--data", "data", "--calib", "quiet@5", "--method", "robust", "--json", "r.json"],
        tmp_path,
        {},
    )
    assert made.returncode == 0, made.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    corruptions = {group["name"].split("corruption=")[-1] for group in report["groups"]}
    assert corruptions == {"clean", "clipping@3", "reverberation@3", "band_limit@3", "hum@3", "mu_law@3"}
    checked = run_here(["check", report["output"], "--data", "data", "--group", "loudness"], tmp_path, {})
    assert checked.returncode in (0, 1, 3), checked.stderr


def test_the_spoken_digits_are_fed_as_they_were_trained(shared, tmp_path):
    arrays = np.load(shared / "cases" / "tensors" / "mel_eval.npz")
    clean = arrays["x"][arrays["condition"] == "clean"]
    made = make_task(
        "audio-classification",
        {
            **{"sample_rate": 8000, "length": 8000, "mean": -9.855317115783691, "std": 5.025577545166016},
            "front_end": {**MEL, "window": "hann_symmetric"},
        },
        Signature((TensorSpec("x", "float32", (None, 1, 40, 61)),), (TensorSpec("y", "float32", (None, 10)),)),
    )
    wanted = {sample.tobytes(): sample for sample in clean[:20]}
    fives = [{"audio": path.read_bytes()} for path in sorted((shared / "data" / "spoken_digits").glob("5_*.wav"))]
    (features,) = made.feeds(made.load(fives)).values()
    distances = [min(np.abs(features - sample).max(axis=(1, 2, 3))) for sample in wanted.values()]
    assert min(distances) < 1e-5
