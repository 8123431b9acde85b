"""How often `onnxptq audit MODEL.int8.onnx --data served/` is right: false alarms and shifts found.

    python benchmarks/served.py [MODEL --data SOURCE] [--shifts dark@3 contrast@3 ...] [--repeats 200]

Each repeat draws 128 samples for calibration and others to serve from one population, as they are and under each shift;
the test is that of the command. Without MODEL it is the built-in one. Prints the share of repeats that FAIL.
"""

from __future__ import annotations

import argparse

import numpy as np

from onnxptq import api
from onnxptq.audit.served import distance, distance_limit
from onnxptq.calibrators.marginals import compressed, numbers_of
from onnxptq.inputs import DataOptions
from onnxptq.recipe import Environment

CALIBRATED = 128
SERVED = (20, 50, 100)


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--data")
    parser.add_argument("--shifts", nargs="*", default=["dark@3", "contrast@3", "bright@3", "gaussian@3", "blur@3"])
    parser.add_argument("--samples", type=int, default=800)
    parser.add_argument("--repeats", type=int, default=200)
    given = parser.parse_args()
    options = DataOptions(data=given.data, trust_data=True)
    drawn = api.draw_calibration(given.model, size=given.samples, options=options)
    sets = {"clean": drawn, **{shift: drawn.environment(Environment(shift)) for shift in given.shifts}}
    numbers = {name: numbers_of(feeds for _, feeds in samples.in_front()) for name, samples in sets.items()}
    print(f"{len(drawn)} samples, {len(numbers['clean'])} numbers of each, {given.repeats} repeats")
    random = np.random.default_rng(0)
    for served in SERVED:
        limit = distance_limit(CALIBRATED, served, len(numbers["clean"]))
        found = dict.fromkeys(sets, 0)
        for _ in range(given.repeats):
            order = random.permutation(len(drawn))
            first, second = order[:CALIBRATED], order[CALIBRATED : CALIBRATED + served]
            points = {name: compressed(values[first]) for name, values in numbers["clean"].items()}
            for name, of in numbers.items():
                found[name] += max(distance(points[key], values[second]) for key, values in of.items()) > limit
        print(f"{served} served:", ", ".join(f"{name} {count / given.repeats:.3f}" for name, count in found.items()))


if __name__ == "__main__":
    main()
