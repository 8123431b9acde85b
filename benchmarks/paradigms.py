"""What the published paradigms do to average, worst group and flips, with one weight scale a channel and one a tensor.

    python benchmarks/paradigms.py [MODEL.onnx --preprocessing JSON --calib-data TRAIN --eval-data TEST] [--sets ...]

For every target, calibration set and method one INT8 file is made and judged per label x corruption. Products of uint8
and int8 are computed without saturation whatever the CPU, by ONNX Runtime's session option `x64quantprecision`. The
target "per-tensor" is made here: the target cpu with one scale a weight tensor.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from _audit_harm import EXACT

import onnxptq
from onnxptq.cache import user_cache
from onnxptq.evaluation import EvaluationSamples, ModelUnderTest, compare, named_corruptions, predict
from onnxptq.graphs import load_model
from onnxptq.inputs import DataOptions, read_preprocessing, resolve_for_quantization
from onnxptq.judging import EVALUATION_SEED
from onnxptq.quantization.targets import TARGETS, Choice, Target

METHODS = (
    "minmax",
    "mse",
    "bias-correction",
    "cle",
    "adaround",
    "adaround:bits=4,iterations=0",
    "adaround:bits=4",
)
CORRUPTIONS = ("fog@3", "impulse@3", "shot@3", "motion_blur@3", "gamma@3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="else the built-in digits with their data")
    parser.add_argument("--preprocessing")
    parser.add_argument("--calib-data")
    parser.add_argument("--eval-data")
    parser.add_argument("--sets", nargs="*", default=("clean", "dark@3"))
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--targets", nargs="*", default=("cpu", "per-tensor"))
    parser.add_argument("--corruptions", nargs="*", default=CORRUPTIONS)
    parser.add_argument("--images", type=int, default=2000, help="of the evaluation data, the first so many")
    chosen = parser.parse_args()
    settings = replace(TARGETS.get("cpu").settings, per_channel=False)
    TARGETS.register(Target("per-tensor", "cpu, one scale a weight", settings, (Choice("x", "to compare", "here"),)))
    print(f"    python {' '.join(sys.argv)}\n")
    print("| weights | set | method | average drop | largest drop | cross-fitted drop | flips | SQNR dB | seconds |")
    print("|---" * 9 + "|")
    for target in chosen.targets:
        for calib in chosen.sets:
            for line in lines(chosen, target, calib):
                print(line, flush=True)


def lines(chosen: argparse.Namespace, target: str, calib: str) -> list[str]:
    """A row of the table for each method: all files of one set are judged on one reading of the samples."""
    preprocessing = read_preprocessing(chosen.preprocessing) if chosen.preprocessing else {}
    options = DataOptions(calib_data=chosen.calib_data, eval_data=chosen.eval_data, preprocessing=preprocessing)
    cache = user_cache()
    inputs = resolve_for_quantization(chosen.model, options, cache, needs_data=True, evaluate=True)
    assert inputs.evaluation is not None
    dataset = inputs.evaluation.select(np.arange(min(chosen.images, len(inputs.evaluation))))
    samples = EvaluationSamples(
        inputs.task, dataset, named_corruptions(chosen.corruptions, inputs.task), EVALUATION_SEED
    )
    with tempfile.TemporaryDirectory() as folder:
        made = []
        for number, method in enumerate(chosen.methods):
            started = time.perf_counter()
            output = Path(folder) / f"{number}.onnx"
            onnxptq.quantize(
                chosen.model, options=options, calib=calib, method=method, target=target, output=output, evaluate=False
            )
            made.append((method, load_model(output), time.perf_counter() - started))
        subjects = [
            ModelUnderTest(inputs.model, threads=1),
            *(ModelUnderTest(model, EXACT, threads=1) for _, model, _ in made),
        ]
        base, *runs = predict(subjects, samples, cache)
    found = []
    for (method, _, seconds), run in zip(made, runs, strict=True):
        report = compare(base, run)
        drops = (report.average_drop, report.largest_drop, report.crossfit_drop)
        cells = [*(f"{100 * drop:+.1f}" for drop in drops), f"{100 * report.flip_rate:.1f} %"]
        found.append(
            f"| {target} | `{calib}` | `{method}` | {' | '.join(cells)} | {report.sqnr_db or 0:.1f} | {seconds:.0f} |"
        )
    return found


if __name__ == "__main__":
    main()
