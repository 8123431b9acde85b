"""Bad input is refused with exit code 2 and a message that names it and says what to do; nothing is left behind.

`place.refused` looks at the exit code, at stdout, at the folders and for a traceback; the tests look at the words.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

MODELS = {
    "there is none": ("nosuch.onnx", ["there is no model", "nosuch.onnx", "In its folder:"]),
    "it is a folder": ("images", ["images is a folder", "give the .onnx file"]),
    "it is not ONNX": ("picture.onnx", ["picture.onnx is not an ONNX file", "again"]),
    "it is empty": ("empty.onnx", ["empty.onnx is empty (0 bytes)", "again"]),
    "it is cut in half": ("truncated.onnx", ["truncated.onnx is not an ONNX file, or it is truncated", "again"]),
    "it lacks one byte": ("truncated-by-one.onnx", ["truncated-by-one.onnx", "truncated", "again"]),
    "it is double": ("double.onnx", ["input 'x'", "double.onnx is float64", "Export the model in float32"]),
    "its data is missing": ("external/missing.onnx", ["'gone.data'", "missing.onnx", "Copy the data file"]),
    # Where it points there is a pipe that nobody writes to: whoever opened it would wait for ever.
    "its data is above it": ("external/above.onnx", ["'../outside.data'", "outside its own folder", "refused"]),
    "its data is anywhere": ("external/absolute.onnx", ["outside.data'", "outside its own folder", "refused"]),
}

DATA = {
    "there is none": ("tensor.onnx", "goood.npz", ["there is no data", "goood.npz", "Did you mean 'good.npz'"]),
    "it does not fit": ("tensor.onnx", "wide.npz", ["wide.npz", "(3, 20)", "'x' takes (N, 3, 16)"]),
    "it is images for tensors": ("tensor.onnx", "images", ["images: cat/0.png", "'x' is bytes", "expected an array"]),
    "it has no row": ("tensor.onnx", "no-row.npz", ["no-row.npz has no row", "at least one sample"]),
    "it is a header only": (
        "image.onnx",
        "header.csv",
        ["header.csv", "header line and no row", "at least one sample"],
    ),
    "it is an empty folder": ("image.onnx", "nothing", ["nothing has no data", "expected a folder of images"]),
    "a class has no sample": ("image.onnx", "gap", ["class folder", "yak has no image", "Remove the folder or add"]),
    "an image is corrupt": ("image.onnx", "corrupt", ["dog/", ".png cannot be decoded", "--skip-bad"]),
    "it holds NaN": ("tensor.onnx", "nan.npz", ["nan.npz: row 37: column 'x' has NaN", "--skip-bad"]),
    "it holds infinity": ("tensor.onnx", "infinity.npz", ["row 37: column 'x' has infinity", "--skip-bad"]),
}

NAMES = {
    "a calibration set": (["--calib", "drak@3"], ["unknown calibration set 'drak@3'", "Did you mean 'dark'"]),
    "a severity": (["--calib", "dark@6"], ["severity '6' in 'dark@6'", "1 to 5", "dark@3"]),
    "a severity that is no number": (["--calib", "dark@x"], ["severity 'x'", "1 to 5"]),
    "a parameter of a set": (["--calib", "imbalanced:ration=9"], ["'ration'", "'imbalanced'", "ratio"]),
    "a class": (["--calib", "single-class:7"], ["no class '7'", "Known: 0, 1, 2, 3"]),
    "a missing group": (["--calib", "missing-group:7"], ["label='7'", "Known: 0, 1, 2, 3"]),
    "a method": (["--method", "percentil"], ["unknown method 'percentil'", "Did you mean 'percentile'"]),
    "a parameter of a method": (["--percentile", "99"], ["'minmax' has no parameter 'percentile'"]),
    "a percentile": (["--method", "percentile", "--percentile", "101"], ["between 0 and 100", "101"]),
    "an engine": (["--engine", "stok"], ["unknown engine 'stok'", "Did you mean 'stock'"]),
    "a target": (["--target", "cudaa"], ["unknown target 'cudaa'", "Did you mean 'cuda'"]),
    "a provider": (["--ep", "cup"], ["unknown execution provider 'cup'", "Did you mean 'cpu'"]),
    "a group": (["--group", "label*corupt"], ["unknown group column 'corupt'", "Did you mean 'corruption'"]),
    "a corruption": (
        ["--corruption", "tensor_noisee"],
        ["unknown shift 'tensor_noisee'", "Did you mean 'tensor_noise'"],
    ),
    "a corruption that mixes": (["--corruption", "mixup"], ["'mixup' mixes two samples", "choose of"]),
    "a corruption for images": (["--corruption", "fog"], ["'fog' does not fit", "for image samples, not for tensors"]),
    "a node": (["--exclude", "gem"], ["no node 'gem'", "Did you mean 'gemm'"]),
    "a label column": (["--label-column", "yy"], ["no column 'yy'", "Did you mean 'y'"]),
    "an image column": (["--image-column", "xx"], ["no column 'xx'", "Did you mean 'x'"]),
    "a task": (["--task", "tensor-clasification"], ["unknown task", "Did you mean 'tensor-classification'"]),
    "a negative size": (["--calib-size", "-1"], ["--calib-size must be at least 1, got -1"]),
    "a size of zero": (["--calib-size", "0"], ["--calib-size must be at least 1, got 0"]),
    "a size above the data": (["--calib-size", "1000000"], ["--calib-size 1000000 is more than", "Ask for fewer"]),
    "a size that is no number": (["--calib-size", "many"], ["--calib-size", "'many' is not a valid integer"]),
    "a negative seed": (["--seed", "-1"], ["seed", "0 or more, got -1"]),
    "an image size": (["--size", "8by8"], ["--size must be HEIGHTxWIDTH", "'8by8'"]),
    "a mean": (["--mean", "a,b"], ["--mean must be numbers separated by commas", "'a,b'"]),
    "an option": (["--calibb", "dark"], ["No such option '--calibb'", "--calib"]),
    "a recipe file": (["--recipe", "nosuch.toml"], ["the recipe nosuch.toml cannot be read", "No such file"]),
    "a preprocessing file": (["--preprocessing", "nosuch.json"], ["nosuch.json cannot be read", "No such file"]),
    "predictions of nothing": (["--no-evaluate", "--predictions", "p"], ["--predictions needs the evaluation"]),
}

SOURCES = {
    "--data beside --calib-data": (["--data", "@good.npz", "--calib-data", "@good.npz"], ["either --data", "not both"]),
    "one source for two sides": (
        ["--calib-data", "@good.npz", "--eval-data", "@good.npz"],
        ["--calib-data and --eval-data both name", "good.npz", "Give it once, with --data"],
    ),
    "no data to calibrate on": ([], ["calibrating needs data: give --data"]),
    "no data to judge on": (["--calib-data", "@good.npz"], ["--eval-data", "--no-evaluate"]),
    "only data to judge on": (["--eval-data", "@good.npz"], ["without --calib-data"]),
    "a dataset of the hub without a network": (["--data", "hub:nosuch"], ["HF_HUB_OFFLINE", "save_to_disk"]),
}

CASES: dict[str, tuple[list[str], list[str]]] = {
    **{f"a model: {case}": ([f"@{name}", "--data", "@good.npz"], words) for case, (name, words) in MODELS.items()},
    **{f"data: {case}": ([f"@{model}", "--data", f"@{name}"], words) for case, (model, name, words) in DATA.items()},
    **{f"a name: {case}": (["@tensor.onnx", "--data", "@good.npz", *o], words) for case, (o, words) in NAMES.items()},
    **{f"sources: {case}": (["@tensor.onnx", *options], words) for case, (options, words) in SOURCES.items()},
}
"""Arguments of `onnxptq quantize`, @ for a file of the fixture `inputs`; and the words of the message that tell."""


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused(case: str, place: Any, inputs: Path) -> None:
    arguments, words = CASES[case]
    absolute = [str(inputs / word[1:]) if word.startswith("@") else word for word in arguments]
    # What the hub's library is told in the environment, it reads when it is imported.
    message = (place.with_processes if "hub:nosuch" in arguments else place).refused(
        "quantize", *absolute, HF_HUB_OFFLINE="1"
    )
    assert_says(message, words)
    if case.startswith("a model"):
        assert len(message.splitlines()) == 1


def test_a_quantized_model_is_refused(place: Any, inputs: Path) -> None:
    place.succeeded("quantize", inputs / "tensor.onnx", "--data", inputs / "good.npz", "--no-evaluate", "-o", "q.onnx")
    said = place.refused("quantize", "q.onnx", "--data", inputs / "good.npz")
    assert_says(said, ["q.onnx is quantized already", "Give the FP32 model", "onnxptq evaluate"])


@pytest.mark.parametrize("side", ["calibration", "evaluation"])
def test_a_corrupt_image_on_either_side_leaves_no_model(side: str, place: Any, inputs: Path) -> None:
    sides = ["corrupt", "images"] if side == "calibration" else ["images", "corrupt"]
    options = ["--calib-data", inputs / sides[0], "--eval-data", inputs / sides[1], "--corruption", "clean"]
    said = place.refused("quantize", inputs / "image.onnx", *options)
    assert_says(said, ["dog/3.png cannot be decoded", "--skip-bad"])


def test_skip_bad_goes_on_and_counts(place: Any, inputs: Path) -> None:
    options = ["--data", inputs / "corrupt", "--skip-bad", "--corruption", "clean"]
    done = place.succeeded("quantize", inputs / "image.onnx", *options)
    assert_says(done.stderr, ["left out 2 bad samples", "dog/3.png", "dog/5.png"])
    done = place.succeeded("quantize", inputs / "tensor.onnx", "--data", inputs / "nan.npz", "--skip-bad")
    assert_says(done.stderr, ["left out 1 bad samples", "row 37"])


def test_a_command_that_there_is_not_gets_a_hint(place: Any) -> None:
    assert_says(place.refused("quantise"), ["No such command 'quantise'", "Did you mean 'quantize'"])


@pytest.mark.parametrize(("file", "words"), [("not.json", "is not JSON"), ("list.json", "a JSON object")])
def test_preprocessing_that_is_not_a_json_object_is_refused(file: str, words: str, place: Any, inputs: Path) -> None:
    options = ["--data", inputs / "images", "--preprocessing", inputs / file]
    assert_says(place.refused("quantize", inputs / "image.onnx", *options), [file, words, "Expected for example"])


def test_a_recipe_and_an_option_that_it_decides_are_not_both_taken(place: Any, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('calibration = "dark@3"\n')
    said = place.refused("quantize", "--recipe", recipe, "--method", "entropy")
    assert_says(said, ["--recipe says already what --method does"])


@pytest.mark.parametrize("option", ["-o", "--json", "--predictions"])
def test_an_output_that_cannot_be_written_is_found_before_any_work(option: str, place: Any, inputs: Path) -> None:
    command = ["quantize", inputs / "tensor.onnx", "--data", inputs / "good.npz", "--force", option]
    (place.work / "folder").mkdir()
    assert_says(place.refused(*command, "folder"), ["folder is a folder"])
    missing = place.refused(*command, "nowhere/file")
    assert_says(missing, ["cannot write nowhere/file", "there is no folder nowhere", "Create it"])
    device = place.refused(*command, "/dev/null")
    assert_says(device, ["/dev/null is a device"])
    assert "calibrating" not in missing + device
    assert Path("/dev/null").is_char_device()


def test_a_folder_without_write_permission_is_named(place: Any, inputs: Path) -> None:
    if os.geteuid() == 0:
        # Root may write everywhere but where the kernel itself says no.
        if not Path("/proc/self").is_dir():
            pytest.skip("root can write into any folder, and there is no /proc here that refuses")
        target = Path("/proc/model.onnx")
    else:
        target = place.work / "locked" / "model.onnx"
        target.parent.mkdir(mode=0o500)
    said = place.refused("quantize", inputs / "tensor.onnx", "--data", inputs / "good.npz", "-o", target)
    assert_says(said, [f"cannot write {target}", "Choose another place"])


def test_a_model_without_read_permission_is_named(place: Any, inputs: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root can read any file")
    locked = tmp_path / "locked.onnx"
    locked.write_bytes((inputs / "tensor.onnx").read_bytes())
    locked.chmod(0)
    assert_says(place.refused("quantize", locked), ["locked.onnx cannot be read", "Permission denied"])


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 KB: less than the built-in model."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_no_space_for_the_output_is_said_and_leaves_nothing(place: Any, tiny_disk: Path) -> None:
    target = tiny_disk / "model.onnx"
    said = place.refused("quantize", "--corruption", "clean", "-o", target)
    assert_says(said, [f"no space left to write {target}", "Free some"])
    assert list(tiny_disk.iterdir()) == []


def test_no_space_in_the_temporary_folder_is_said(place: Any, tiny_disk: Path) -> None:
    said = place.refused("quantize", "--no-evaluate", TMPDIR=tiny_disk)
    assert_says(said, [f"no space left in the temporary folder {tiny_disk}", "TMPDIR"])
    assert list(tiny_disk.iterdir()) == []


def test_no_space_in_the_cache_is_said(place: Any, tiny_disk: Path) -> None:
    said = place.refused("quantize", "--no-evaluate", ONNXPTQ_CACHE=tiny_disk)
    assert_says(said, ["no space left", str(tiny_disk)])
    assert not list(tiny_disk.rglob("*.part"))


def test_a_cache_that_cannot_be_written_is_a_note(place: Any, inputs: Path) -> None:
    done = place.succeeded("quantize", "--no-evaluate", ONNXPTQ_CACHE=inputs / "good.npz")
    assert_says(done.stderr, ["note: the cache folder", "good.npz", "Set ONNXPTQ_CACHE"])
    assert done.stderr.count("the cache folder") == 1


def test_a_sweep_whose_store_cannot_be_written_is_refused(place: Any, inputs: Path) -> None:
    # What it stores must be found again.
    said = place.refused("sweep", ONNXPTQ_CACHE=inputs / "good.npz")
    assert_says(said, ["the cache folder", "good.npz", "Set ONNXPTQ_CACHE"])


def test_the_model_itself_is_never_replaced(place: Any, inputs: Path) -> None:
    model = place.work / "model.onnx"
    model.write_bytes((inputs / "tensor.onnx").read_bytes())
    said = place.refused("quantize", "model.onnx", "--data", inputs / "good.npz", "-o", "./model.onnx", "--force")
    assert_says(said, ["model.onnx is the model itself"])
    onnx.checker.check_model(model)


def test_two_outputs_in_one_file_are_refused(place: Any) -> None:
    said = place.refused("quantize", "-o", "model.onnx", "--json", "./model.onnx")
    assert_says(said, ["model.onnx is named for two outputs"])


def test_a_provider_that_does_not_load_is_refused_with_the_reason(place: Any, inputs: Path) -> None:
    if next(row["loads"] for row in place.json("providers")["providers"] if row["name"] == "cuda"):
        pytest.skip("the CUDA provider loads here")
    said = place.refused("quantize", inputs / "tensor.onnx", "--data", inputs / "good.npz", "--ep", "cuda")
    assert_says(said, ["'cuda' does not load here", "lib", "onnxptq[cuda]", "--allow-fallback"])


def test_evaluate_refuses_what_it_cannot_judge(place: Any, inputs: Path) -> None:
    assert_says(place.refused("evaluate"), ["Missing argument 'MODEL...'"])
    assert_says(place.refused("evaluate", "nosuch.onnx"), ["there is no model nosuch.onnx"])
    assert_says(place.refused("evaluate", inputs / "tensor.onnx"), ["evaluating needs data: give --data"])
    options = ["--data", inputs / "good.npz", "--reference", inputs / "image.onnx"]
    assert_says(place.refused("evaluate", inputs / "tensor.onnx", *options), ["image.onnx", "(N, 3, 8, 8)"])
    said = place.refused("evaluate", inputs / "tensor.onnx", "--data", inputs / "good.npz", "--split", "dev")
    assert_says(said, ["has no split 'dev'"])


def test_debug_shows_the_traceback(place: Any) -> None:
    done = place.run("--debug", "quantize", "nosuch.onnx")
    assert done.returncode == 2
    assert_says(
        done.stderr, ["Traceback (most recent call last)", "ModelError", "onnxptq: there is no model nosuch.onnx"]
    )


def assert_says(said: str, words: list[str]) -> None:
    for word in words:
        assert word in said, said
