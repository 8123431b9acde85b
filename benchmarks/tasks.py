"""What evaluation of a detector and of a segmenter costs beside what nobody can avoid, and whether its memory grows.

    python benchmarks/tasks.py [--quick] [--json FILE]

Builds its networks (random weights) and pictures itself. "bare" is a process that opens each picture with Pillow,
resizes it, runs FP32 and INT8 by `session.run` and decodes the outputs (ONNX Runtime's NonMaxSuppression for boxes,
argmax for masks); "ours" is one that calls `onnxptq.evaluate` on the same two files and pictures, with an empty cache,
truths, groups and totals. Both are whole processes, imports and start included, in turn; told are the least CPU seconds
of the rounds and the peak memory at N and 4 N pictures. `--quick` is two rounds with fewer pictures, `--pictures N`
another number. The exit code is 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _document import machine, versions

SIDE = 320
CLASSES = ("red", "white", "plate")
RATIO = 1.15
"""Asked: CPU time of ours over bare at the larger number of pictures."""

GROWTH = 1.1
"""Asked: peak memory of ours at the larger number of pictures over that at the smaller one."""

_BARE = """
import sys
import numpy as np, onnxruntime
from pathlib import Path
from PIL import Image
from onnxptq.inputs import DataOptions, build_task, open_model
kind, fp32, int8, data = sys.argv[1:5]
head = build_task(open_model(Path(fp32)), DataOptions())[0].head
options = onnxruntime.SessionOptions()
sessions = [onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]) for path in (fp32, int8)]
files = sorted(Path(data, "images").iterdir())
for start in range(0, len(files), 32):
    batch = []
    for file in files[start : start + 32]:
        with Image.open(file) as image:
            small = image.convert("RGB").resize((320, 320), Image.Resampling.BILINEAR)
        batch.append(np.asarray(small, np.float32).transpose(2, 0, 1) / 255)
    x = np.stack(batch)
    for session in sessions:
        for row in x:
            head.answers(session.run(None, {"x": row[None]}))
"""

_OURS = """
import sys
import onnxptq
kind, fp32, int8, data = sys.argv[1:5]
group = {"detector": "objects", "segmenter": "foreground"}[kind]
onnxptq.evaluate([int8], reference=fp32, data=data, corruptions=["clean"], groups=[group])
"""


@dataclass(frozen=True)
class Cost:
    """One kind of model with one number of pictures: CPU seconds and peak megabytes of both sides, and the ratio."""

    kind: str
    pictures: int
    bare_seconds: float
    ours_seconds: float
    bare_mb: float
    ours_mb: float

    @property
    def ratio(self) -> float:
        """CPU seconds of ours over those of bare."""
        return self.ours_seconds / self.bare_seconds


def build_model(kind: str, path: Path) -> None:
    """A net of eight convolutions on 3 x SIDE x SIDE: boxes as YOLOv8 writes them, or a value a class and pixel."""
    generator = np.random.default_rng(0)
    nodes, weights, last, channels = [], [], "x", 3
    for number, (width, stride) in enumerate([(24, 2), (48, 2), (96, 2), (96, 1), (96, 1), (96, 1), (96, 1)]):
        scale = np.sqrt(2 / (9 * channels))
        weight = (scale * generator.standard_normal((width, channels, 3, 3))).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{number}"))
        pads = {"pads": [1] * 4, "strides": [stride] * 2}
        nodes.append(helper.make_node("Conv", [last, f"w{number}"], [f"c{number}"], f"conv{number}", **pads))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"], f"relu{number}"))
        last, channels = f"r{number}", width
    add = lambda array, name: weights.append(numpy_helper.from_array(array, name))  # noqa: E731
    outputs = 4 + len(CLASSES) if kind == "detector" else 1 + len(CLASSES)
    add((0.1 * generator.standard_normal((outputs, channels, 1, 1))).astype(np.float32), "w")
    nodes.append(helper.make_node("Conv", [last, "w"], ["values"], "last"))
    if kind == "segmenter":
        add(np.array([1, 1, 4, 4], np.float32), "scales")
        nodes.append(helper.make_node("Resize", ["values", "", "scales"], ["y"], "resize", mode="nearest"))
        shape, keys = ["N", outputs, SIDE // 2, SIDE // 2], {"classes": ["ground", *CLASSES]}
    else:
        add(np.array([0, 0, -1], np.int64), "flat")
        add(np.array([4, len(CLASSES)], np.int64), "parts")
        add(np.full((1, 4, 1), 40, np.float32), "wide")
        add(np.full((1, 1, 1), 5, np.float32), "rare")
        nodes += [
            helper.make_node("Reshape", ["values", "flat"], ["rows"], "reshape"),
            helper.make_node("Split", ["rows", "parts"], ["b", "s"], "split", axis=1),
            helper.make_node("Abs", ["b"], ["ba"], "abs"),
            helper.make_node("Mul", ["ba", "wide"], ["boxes"], "mul"),
            helper.make_node("Sub", ["s", "rare"], ["less"], "sub"),
            helper.make_node("Sigmoid", ["less"], ["scores"], "sigmoid"),
            helper.make_node("Concat", ["boxes", "scores"], ["y"], "concat", axis=1),
        ]
        shape, keys = ["N", outputs, (SIDE // 8) ** 2], {"decoder": "yolov8", "classes": list(CLASSES)}
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        kind,
        [value("x", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [value("y", TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    task = "image-detection" if kind == "detector" else "image-segmentation"
    said = {"size": [SIDE, SIDE], "resize": "stretch", "mean": [0, 0, 0], "std": [1, 1, 1], **keys}
    helper.set_model_props(model, {"onnxptq.task": task, "onnxptq.preprocessing": json.dumps(said)})
    onnx.save(model, path)


def write_pictures(folder: Path, count: int) -> None:
    """JPEGs of 640 x 480 with colored discs, their masks, and their boxes as YOLO text."""
    from PIL import Image, ImageDraw

    for name in ("images", "masks", "labels"):
        (folder / name).mkdir(parents=True)
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    generator = np.random.default_rng(1)
    for number in range(count):
        noise = generator.integers(0, 90, (48, 64, 3), dtype=np.uint8)
        picture, mask = Image.fromarray(noise).resize((640, 480)), Image.new("L", (640, 480), 0)
        lines = []
        for kind in generator.integers(len(CLASSES), size=4).tolist():
            x, y, r = (int(generator.integers(*ends)) for ends in ((60, 580), (60, 420), (10, 60)))
            color = [(220, 60, 60), (220, 220, 220), (120, 60, 200)][kind]
            ImageDraw.Draw(picture).ellipse((x - r, y - r, x + r, y + r), fill=color)
            ImageDraw.Draw(mask).ellipse((x - r, y - r, x + r, y + r), fill=1 + kind)
            lines.append(f"{kind} {x / 640:.6f} {y / 480:.6f} {2 * r / 640:.6f} {2 * r / 480:.6f}")
        picture.save(folder / "images" / f"{number:05d}.jpg", quality=90)
        mask.save(folder / "masks" / f"{number:05d}.png")
        (folder / "labels" / f"{number:05d}.txt").write_text("\n".join(lines) + "\n")


def measured(script: str, arguments: list[str], cache: Path) -> tuple[float, float]:
    """CPU seconds, children included, and peak megabytes of one process.

    Raises:
        SystemExit: it failed.
    """
    meter = (
        "import resource, runpy, sys\n"
        f"exec(compile({script!r}, 'work', 'exec'))\n"
        "of = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]\n"
        "print('COST', sum(one.ru_utime + one.ru_stime for one in of), max(one.ru_maxrss for one in of) / 1024)\n"
    )
    environment = {**os.environ, "ONNXPTQ_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", meter, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    costs = [line for line in done.stdout.splitlines() if line.startswith("COST ")]
    if done.returncode or not costs:
        raise SystemExit(f"a measured process failed:\n{done.stderr[-2000:]}")
    seconds, megabytes = map(float, costs[-1].split()[1:])
    return seconds, megabytes


def measure(kind: str, count: int, rounds: int, room: Path) -> Cost:
    """Both sides in turn; the least of the rounds."""
    import onnxptq

    fp32, int8, data = room / f"{kind}.onnx", room / f"{kind}.int8.onnx", room / f"{kind}-{count}"
    write_pictures(data, count)
    for unused in ("masks",) if kind == "detector" else ("labels", "classes.txt"):
        (data / unused).rename(room / f"{kind}-{count}-{unused}")
    if not int8.exists():
        build_model(kind, fp32)
        onnxptq.quantize(fp32, calib="random", calib_size=16, evaluate=False, output=int8)
    arguments = [kind, str(fp32), str(int8), str(data)]
    found: dict[str, list[tuple[float, float]]] = {"bare": [], "ours": []}
    for number in range(rounds):
        for side, script in (("bare", _BARE), ("ours", _OURS)):
            found[side].append(measured(script, arguments, room / f"cache-{kind}-{count}-{number}"))
    least = {side: [min(column) for column in zip(*costs, strict=True)] for side, costs in found.items()}
    return Cost(kind, count, least["bare"][0], least["ours"][0], least["bare"][1], least["ours"][1])


def main() -> int:
    """The command line; returns the exit code, 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="128 and 512 pictures, two rounds")
    parser.add_argument("--pictures", type=int, metavar="N", help="N and 4 N pictures, one round")
    parser.add_argument("--json", type=Path, help="write the figures to a file")
    options = parser.parse_args()
    small, rounds = (128, 2) if options.quick else (512, 4)
    if options.pictures:
        small, rounds = options.pictures, 1
    print(f"{machine()}; {versions('onnxruntime', 'numpy')}; {date.today():%d %B %Y}; least of {rounds} rounds.\n")
    print(
        "| | pictures | bare, CPU s | ours, CPU s | ours / bare | bare, MB | ours, MB |\n|---|---|---|---|---|---|---|"
    )
    rows: list[dict[str, Any]] = []
    slow = grown = False
    with tempfile.TemporaryDirectory() as name:
        for kind in ("detector", "segmenter"):
            memory = []
            for count in (small, 4 * small):
                cost = measure(kind, count, rounds, Path(name))
                memory.append(cost.ours_mb)
                rows.append({**asdict(cost), "ratio": cost.ratio})
                print(
                    f"| {kind} | {count} | {cost.bare_seconds:.1f} | {cost.ours_seconds:.1f} | {cost.ratio:.2f} "
                    f"| {cost.bare_mb:.0f} | {cost.ours_mb:.0f} |",
                    flush=True,
                )
            slow = slow or cost.ratio > RATIO
            grown = grown or memory[1] > GROWTH * memory[0]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    said = {False: "met", True: "missed"}
    print(f"\nAsked: at most {RATIO} of the time at the larger number: {said[slow]}.")
    print(f"Asked: at most {GROWTH} of the memory at the smaller number: {said[grown]}.")
    return int(slow or grown)


if __name__ == "__main__":
    sys.exit(main())
