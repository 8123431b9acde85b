"""What shifted calibration sets do under each method, judged per group on corruptions that chose no method.

    python benchmarks/robustness.py MODEL.onnx --calib-data TRAIN --eval-data TEST [--seeds 3] [--only METHOD ...]

For every calibration set, seed and method one INT8 file is made; files with equal graphs are judged once, several at a
time on the same decoded and corrupted samples. Groups are label x corruption. MAIN are the corruptions on which the
methods were chosen; the tables are made on HELD_OUT, whose families neither the choice of a method nor an augmentation
knows. Predictions are kept in the cache, so a run that was stopped goes on where it was. INT8 sums are exact, as
on a CPU with VNNI (`--ep cpu:exact`): elsewhere the drops would hold an error that no calibration set causes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import onnx

import onnxptq
from onnxptq.cache import user_cache
from onnxptq.evaluation import EvaluationSamples, ModelUnderTest, compare, named_corruptions, predict
from onnxptq.graphs import load_model
from onnxptq.inputs import DataOptions, read_preprocessing, resolve_for_evaluation
from onnxptq.judging import EVALUATION_SEED
from onnxptq.runtimes import open_session
from onnxptq.runtimes.latency import Latency, measure, timed
from onnxptq.runtimes.selection import resolve_runtime

MAIN = ("bright@3", "contrast@3", "blur@5", "gaussian@3", "jpeg@3", "pixelate@3")
HELD_OUT = ("impulse@3", "shot@3", "motion_blur@3", "fog@3", "saturation@4", "gamma@3")

SHIFTED = {
    "dark x0.15": "dark@3",
    "dark x0.5": "dark@1",
    "contrast 0.15": "contrast@5",
    "contrast 0.4": "contrast@3",
    "blur sigma 1": "blur@5",
    "blur sigma 3": "+".join(["blur@5"] * 9),  # Variances add: 9 times sigma 1 is sigma 3.
    "bright": "bright@3",
    "inverted": "invert@5",
    "gaussian noise 0.1": "gaussian@5",
    "gaussian noise 0.25": "+".join(["gaussian@5"] * 6),
    "uniform noise, no data": "random",
    "one class": "single-class:label=cat",
    "another class": "single-class:label=ship",
    "two classes": "few-class:k=2",
    "long tail": "imbalanced",
    "8 samples": "small",
}
"""The 16 sets; strengths are those of images below 64 pixels."""

STOCK = ("minmax", "entropy:bins=2048", "percentile:percentile=99.999", "percentile:percentile=99.99")
ROBUST = ("robust", "robust-bn", "robust-synthetic")
ABLATION = (
    "robust:input_range=0",
    "robust:operator_bounds=0",
    "robust:augmentation=0",
    "robust:float_outputs=0",
)
ONE_SEED = (*STOCK[1:], *ABLATION)
CALLS = 4000
TOGETHER = 12
"""Models that read a pass over the evaluation samples side by side."""


@dataclass(frozen=True)
class Made:
    """One INT8 file of the grid: which set, seed and method made it, and the digest of its graph."""

    calibration: str
    seed: int
    method: str
    digest: str


@dataclass(frozen=True)
class Score:
    """What INT8 did over all groups, as fractions."""

    average_drop: float
    largest_drop: float
    crossfit_drop: float
    cvar10_drop: float
    flip_rate: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument(
        "--bn-model", help="the same net with its BatchNormalization, for robust-bn and robust-synthetic"
    )
    parser.add_argument("--preprocessing", help="JSON file, where a model has none beside it")
    parser.add_argument("--calib-data", required=True)
    parser.add_argument("--eval-data", required=True)
    parser.add_argument("--corruptions", choices=("held-out", "main"), default="held-out")
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--ep", default="cpu:exact", help="what INT8 is judged on, in this process")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--one-seed", nargs="*", default=ONE_SEED, help="methods that are made with the first seed only"
    )
    parser.add_argument("--only", nargs="*", help="methods; else the stock ones, the robust ones and the ablation")
    parser.add_argument("--sets", nargs="*", help="names of sets; else all 16 and clean")
    parser.add_argument("--latency", action="store_true", help="time the methods against minmax; on an idle machine")
    parser.add_argument("--work", default="robustness-work", help="folder for the INT8 files")
    parser.add_argument("--json", help="write every cell here too")
    chosen = parser.parse_args()
    methods = chosen.only or [*STOCK, *ROBUST, *ABLATION]
    sets = {"clean": "clean", **SHIFTED}
    if chosen.sets:
        sets = {name: sets[name] for name in chosen.sets}
    made = list(make(chosen, sets, methods))
    scores = judge(chosen, made)
    print(f"    python {' '.join(sys.argv)}\n")
    print_means(made, scores, methods, sets)
    print_sets(made, scores, methods, sets)
    if chosen.latency:
        print_latency(chosen, made)
    if chosen.json:
        cells = [{**asdict(one), **asdict(scores[one.digest])} for one in made]
        Path(chosen.json).write_text(json.dumps(cells, indent=1) + "\n")


def make(chosen: argparse.Namespace, sets: dict[str, str], methods: Sequence[str]) -> Iterator[Made]:
    """Makes the INT8 files of the grid, each named by the digest of its graph."""
    folder = Path(chosen.work)
    folder.mkdir(parents=True, exist_ok=True)
    # The net with its BatchNormalization has no file of its own beside it.
    preprocessing = read_preprocessing(chosen.preprocessing) if chosen.preprocessing else {}
    for name, calib in sets.items():
        for method in methods:
            # Without data there is nothing that the set could change; noise comes with the seed.
            if method == "robust-synthetic" and name != next(iter(sets)):
                continue
            with_bn = method in ("robust-bn", "robust-synthetic")
            for seed in range(1 if method in chosen.one_seed else chosen.seeds):
                output = folder / "new.onnx"
                onnxptq.quantize(
                    chosen.bn_model if with_bn and chosen.bn_model else chosen.model,
                    options=DataOptions(calib_data=chosen.calib_data, preprocessing=preprocessing),
                    calib=calib,
                    seed=seed,
                    method=method,
                    target=chosen.target,
                    output=output,
                    evaluate=False,
                    force=True,
                )
                digest = graph_digest(output)
                output.replace(folder / f"{digest}.onnx")
                print(f"{name}, {method}, seed {seed}: {digest[:8]}", file=sys.stderr)
                yield Made(name, seed, method, digest)


def graph_digest(path: Path) -> str:
    """Of the graph alone: two recipes that come to the same ranges make the same model. Metadata is removed."""
    model = onnx.load(str(path))
    del model.metadata_props[:]
    onnx.save(model, str(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def judge(chosen: argparse.Namespace, made: Sequence[Made]) -> dict[str, Score]:
    """The score of each graph, by its digest."""
    cache = user_cache()
    runtime = resolve_runtime(chosen.ep, cache)
    reference = load_model(Path(chosen.model))
    dataset, task, _ = resolve_for_evaluation([reference], DataOptions(eval_data=chosen.eval_data), cache)
    names = MAIN if chosen.corruptions == "main" else HELD_OUT
    samples = EvaluationSamples(task, dataset, named_corruptions(names, task), EVALUATION_SEED)
    digests = list(dict.fromkeys(one.digest for one in made))
    scores = {}
    for start in range(0, len(digests), TOGETHER):
        part = digests[start : start + TOGETHER]
        subjects = [ModelUnderTest(load_model(Path(chosen.work) / f"{d}.onnx"), runtime, threads=1) for d in part]
        subjects = [ModelUnderTest(reference, threads=1), *subjects]
        base, *runs = predict(subjects, samples, cache)
        for digest, run in zip(part, runs, strict=True):
            report = compare(base, run)
            scores[digest] = Score(*(getattr(report, field) for field in Score.__dataclass_fields__))
        print(f"judged {min(start + TOGETHER, len(digests))} of {len(digests)}", file=sys.stderr)
    return scores


def print_means(made: Sequence[Made], scores: dict[str, Score], methods: Sequence[str], sets: dict[str, str]) -> None:
    """A row a method: means over the shifted sets and seeds, and the same on the clean set."""
    print("| method | largest drop | cross-fitted drop | worst tenth | flips | average | worst single set |", end="")
    print(" clean: largest / cross-fitted / average |\n" + "|---" * 8 + "|")
    for method in methods:
        rows = {name: of(made, scores, method, name) for name in sets}
        shifted = [score for name, found in rows.items() if name != "clean" for score in found]
        clean = rows.get("clean", [])
        if shifted:
            worst = max((mean(found, "crossfit_drop"), name) for name, found in rows.items() if found)
            print(row(f"`{method}`", shifted, f"{points(worst[0])} ({worst[1]})", clean))
        elif clean:
            print(row(f"`{method}`", clean, "", []))
    oracle = best_stock(made, scores, sets)
    if oracle:
        print(row("best stock method of each set, by an oracle", oracle, "", []))


def row(name: str, found: Sequence[Score], worst: str, clean: Sequence[Score]) -> str:
    """One line of the table of means."""
    fields = ("largest_drop", "crossfit_drop", "cvar10_drop", "flip_rate", "average_drop")
    cells = [points(mean(found, field)) for field in fields]
    on_clean = [points(mean(clean, f)) for f in ("largest_drop", "crossfit_drop", "average_drop") if clean]
    return f"| {name} | " + " | ".join([*cells, worst, " / ".join(on_clean)]) + " |"


def best_stock(made: Sequence[Made], scores: dict[str, Score], sets: dict[str, str]) -> list[Score]:
    """The score of the stock method of least cross-fitted drop, by shifted set and seed: no user has this oracle."""
    cells: dict[tuple[str, int], list[Score]] = defaultdict(list)
    for one in made:
        if one.method in STOCK and one.calibration != "clean":
            cells[one.calibration, one.seed].append(scores[one.digest])
    return [min(found, key=lambda s: s.crossfit_drop) for found in cells.values()]


def print_sets(made: Sequence[Made], scores: dict[str, Score], methods: Sequence[str], sets: dict[str, str]) -> None:
    """A row a set: cross-fitted drop, mean over seeds, of each method."""
    print("\nCross-fitted worst-group drop in points, mean over seeds:\n")
    print("| calibration set | " + " | ".join(f"`{m}`" for m in methods) + " |\n" + "|---" * (len(methods) + 1) + "|")
    for name in sets:
        found = [of(made, scores, method, name) for method in methods]
        print(f"| {name} | " + " | ".join(points(mean(f, "crossfit_drop")) if f else "" for f in found) + " |")


def print_latency(chosen: argparse.Namespace, made: Sequence[Made]) -> None:
    """How long one call of each method's first model takes over that of minmax: one sample, one thread, in turns."""
    first = {one.method: one.digest for one in reversed(made)}
    dataset, task, _ = resolve_for_evaluation(
        [load_model(Path(chosen.model))], DataOptions(eval_data=chosen.eval_data), user_cache()
    )
    _, feeds = next(EvaluationSamples(task, dataset, ("clean",), EVALUATION_SEED).batches(1))
    sessions = [open_session(Path(chosen.work) / f"{digest}.onnx", threads=1) for digest in first.values()]
    times = measure([timed(partial(session.run, feeds)) for session in sessions], CALLS)
    found = dict(zip(first, (one.p50 for one in times if isinstance(one, Latency)), strict=True))
    print("\nLatency (median of", CALLS, "calls in turns) over that of minmax:\n\n| method | ratio |\n|---|---|")
    for method, seconds in found.items():
        print(f"| `{method}` | {seconds / found['minmax']:.3f} |")


def of(made: Sequence[Made], scores: dict[str, Score], method: str, name: str) -> list[Score]:
    return [scores[one.digest] for one in made if one.method == method and one.calibration == name]


def mean(found: Sequence[Score], field: str) -> float:
    return fmean(getattr(score, field) for score in found)


def points(value: Any) -> str:
    return f"{100 * value:.1f}"


if __name__ == "__main__":
    main()
