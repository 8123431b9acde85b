"""One file by one method, from the command to the file: ours beside stock and the peers, as whole processes.

    python benchmarks/peers.py [--quick] [--env onnxsim=PYTHON] [--env nncf=PYTHON ...] [--write docs/performance.md]

Builds its networks itself (random weights). Each tool runs as a process of its own that imports, loads, calibrates and
writes, on the same samples, all tools in turn, every round with an empty cache of ours. Told are wall seconds, CPU
seconds and peak memory: the least of the rounds. "bare" is FP32 `session.run` over the samples, fully optimised.

A peer needs an environment of its own, named by its interpreter: `python -m venv E; E/bin/pip install onnxsim
onnxruntime; ... --env onnxsim=E/bin/python`. Known: onnxsim, nncf, aimet, quark, modelopt. What has no environment, or
not the method, is left out. `--quick` is one round of MinMax with 64 samples, about two minutes on two cores; the whole
takes about eight.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _document import machine, replace_tables, versions
from _networks import NETWORKS

METHODS = ("minmax", "percentile", "entropy:bins=2048")
SAMPLES = (16, 64, 512)
LIMIT_SECONDS = 300
"""Of one process. What takes longer is told as such."""

_READ = """
import sys
import numpy as np
model, data, output, count, method = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]
samples = [{"x": row[None]} for row in np.load(data)["x"][:count]]
class Reader:
    def __init__(self): self.left = iter(samples)
    def get_next(self): return next(self.left, None)
    def rewind(self): self.left = iter(samples)
"""

_SCRIPTS = {
    "bare": """
import onnxruntime
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
for feeds in samples: session.run(None, feeds)
""",
    "stock": """
from onnxruntime.quantization import CalibrationMethod, QuantType, quant_pre_process, quantize_static
quant_pre_process(model, output + ".folded.onnx")
quantize_static(output + ".folded.onnx", output, Reader(), activation_type=QuantType.QUInt8,
    weight_type=QuantType.QInt8, per_channel=True, calibrate_method=CalibrationMethod[method])
""",
    "onnxsim": """
import onnx, onnxsim
onnx.save(onnxsim.quantize_static(model, calibration_data=samples, method=method, full_graph=True), output)
""",
    "nncf": """
import nncf, onnx
onnx.save(nncf.quantize(onnx.load(model), nncf.Dataset(samples), subset_size=len(samples)), output)
""",
    "aimet": """
import onnx
from aimet_common.defs import QuantScheme
from aimet_onnx.quantsim import QuantizationSimModel
sim = QuantizationSimModel(onnx.load(model), quant_scheme=QuantScheme.min_max, default_activation_bw=8,
    default_param_bw=8, providers=["CPUExecutionProvider"])
sim.compute_encodings(samples)
import os
sim.export(os.path.dirname(output), "aimet")
onnx.save(sim.model.model, output)
""",
    "quark": """
from quark.onnx import ModelQuantizer
from quark.onnx.quantization.config import Config, get_default_config
ModelQuantizer(Config(global_quant_config=get_default_config("A8W8"))).quantize_model(model, output, Reader())
""",
    "modelopt": """
from modelopt.onnx.quantization import quantize
quantize(model, quantize_mode="int8", calibration_data={"x": np.concatenate([s["x"] for s in samples])},
    calibration_method=method, output_path=output, calibration_eps=["cpu"])
""",
}

_NAMES = {
    "stock": {"minmax": "MinMax", "percentile": "Percentile"},
    "onnxsim": {"minmax": "minmax", "percentile": "percentile", "entropy:bins=2048": "entropy"},
    "nncf": {"minmax": "minmax"},
    "aimet": {"minmax": "min_max"},
    "quark": {"minmax": "A8W8"},
    "modelopt": {"minmax": "max", "entropy:bins=2048": "entropy"},
}
"""What each tool calls a method. ONNX Runtime's `quantize_static` has no Entropy of 2048 bins; what it calls Entropy
has 128, which is MinMax."""

_STOCK_SAMPLES = 64
"""Above, stock Percentile and Entropy would keep more tensors in memory than most machines have (55 MB a sample)."""


@dataclass(frozen=True)
class Cost:
    """What one process took; `why` says why it has no numbers."""

    wall: float = 0.0
    cpu: float = 0.0
    megabytes: float = 0.0
    why: str = ""


def tools(environments: dict[str, str]) -> dict[str, str]:
    """Name -> interpreter: bare and stock in this one, ours with and without a look at the file where it has one."""
    own = sys.executable
    help_text = subprocess.run([own, "-m", "onnxptq", "quantize", "--help"], capture_output=True, text=True, check=True)
    looks = "--no-verify" in help_text.stdout
    ours = ["onnxptq, no look at the file", "onnxptq"] if looks else ["onnxptq"]
    return dict.fromkeys(("bare", "stock", *ours), own) | environments


def command(tool: str, python: str, model: Path, folder: Path, count: int, method: str) -> list[str] | None:
    """The command of one process; None where the tool has not the method."""
    data, output = folder / "samples.npz", folder / "out.onnx"
    if tool.startswith("onnxptq"):
        options = ["--data", data, "--task", "tensor", "--calib-size", count, "--method", method]
        options += ["--no-verify"] if "no look" in tool else []
        return [python, "-m", "onnxptq", "quantize", str(model), *map(str, options), "--no-evaluate", "-o", str(output)]
    known = dict.fromkeys(METHODS, "") if tool == "bare" else _NAMES[tool]
    if method not in known or (tool == "stock" and method != "minmax" and count > _STOCK_SAMPLES):
        return None
    return [python, "-c", _READ + _SCRIPTS[tool], str(model), str(data), str(output), str(count), known[method]]


def run(words: list[str], folder: Path) -> Cost:
    """Runs a command in an empty folder with an empty cache of ours."""
    environment = {**os.environ, "ONNXPTQ_CACHE": str(folder / "cache"), "TMPDIR": str(folder)}
    if "onnxptq" in words:  # No peer may find the folders of this checkout.
        environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    # By way of a small process: a child begins with the peak memory of whoever forked it, and this one holds networks.
    launched = [sys.executable, "-I", "-c", _LAUNCH, *words]
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            launched, cwd=folder, env=environment, stdout=said, stderr=said, start_new_session=True
        )
        try:
            process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return Cost(why=f"more than {LIMIT_SECONDS} s")
    wall, cpu, peak, code = json.loads((folder / "used").read_text())
    if code:
        last = (folder / "said").read_text(errors="replace").strip().splitlines()[-1:]
        return Cost(why=f"failed: {' '.join(last)[:80]}")
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return Cost(wall, cpu, peak / unit)


_LAUNCH = """
import json, os, subprocess, sys, time
started = time.perf_counter()
process = subprocess.Popen(sys.argv[1:])
_, status, used = os.wait4(process.pid, 0)
told = [time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss, os.waitstatus_to_exitcode(status)]
open("used", "w").write(json.dumps(told))
"""


def imports(python: str) -> Cost:
    """A bare Python with NumPy, ONNX and ONNX Runtime imported: what every tool pays before it begins."""
    with tempfile.TemporaryDirectory() as folder:
        return run([python, "-c", "import numpy, onnx, onnxruntime"], Path(folder))


@dataclass(frozen=True)
class Result:
    """The costs of all tools that have a method, by name."""

    network: str
    method: str
    samples: int
    costs: dict[str, Cost]


def benchmark(cases: list[tuple[str, str, int]], found: dict[str, str], rounds: int) -> Iterator[Result]:
    """The least costs of all tools in each case (network, method, number of samples)."""
    with tempfile.TemporaryDirectory(prefix="peers.") as home:
        models = {name: NETWORKS[name][0](Path(home) / f"{name}.onnx") for name in {case[0] for case in cases}}
        for network, method, count in cases:
            best: dict[str, Cost] = {}
            shape = NETWORKS[network][1]
            samples = np.random.default_rng(1).standard_normal((count, *shape[1:]), dtype=np.float32)
            for _ in range(rounds):
                for tool, python in found.items():
                    with tempfile.TemporaryDirectory(dir=home) as folder:
                        words = command(tool, python, models[network], Path(folder), count, method)
                        if words is None:
                            continue
                        np.savez(Path(folder) / "samples.npz", x=samples)
                        cost = run(words, Path(folder))
                    before = best.setdefault(tool, cost)
                    if not before.why and not cost.why and cost.wall < before.wall:
                        best[tool] = cost
                    print(network, method, count, tool, cost, file=sys.stderr, flush=True)
            yield Result(network, method, count, best)


def markdown(results: list[Result], start: Cost, rounds: int, command_line: str) -> str:
    """The tables, with machine, date and command."""
    names = list(dict.fromkeys(tool for result in results for tool in result.costs))
    load = f" Load at the end: {os.getloadavg()[0]:.1f}." if hasattr(os, "getloadavg") else ""
    lines = [
        f"{machine()}; {versions('onnxruntime', 'onnx', 'numpy')}; {date.today():%d %B %Y}, `{command_line}`,",
        f"the least of {rounds} rounds.{load} Wall / CPU seconds, peak MB.",
        f"Importing NumPy, ONNX and ONNX Runtime alone: {_cell(start)}.",
        "",
        "| network, method, samples | " + " | ".join(names) + " |",
        "| --- " * (len(names) + 1) + "|",
    ]
    for result in results:
        cells = " | ".join(_cell(result.costs.get(name)) for name in names)
        lines.append(f"| {result.network}, {result.method}, {result.samples} | {cells} |")
    return "\n".join(lines)


def _cell(cost: Cost | None) -> str:
    if cost is None:
        return "-"
    return cost.why or f"{cost.wall:.2f} / {cost.cpu:.2f}, {cost.megabytes:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="MinMax with 64 samples, one round")
    parser.add_argument("--env", action="append", default=[], metavar="TOOL=PYTHON", help="a peer's interpreter")
    parser.add_argument("--network", action="append", choices=NETWORKS, help="only this; repeatable [all]")
    parser.add_argument("--rounds", type=int, default=2, help="how often each process runs [2; 1 with --quick]")
    parser.add_argument("--json", type=Path, help="also write the measurements here")
    parser.add_argument("--write", type=Path, metavar="DOCUMENT", help="replace the table in docs/performance.md")
    arguments = parser.parse_args()
    environments = dict(entry.split("=", 1) for entry in arguments.env)
    if unknown := environments.keys() - _SCRIPTS.keys():
        parser.error(f"unknown peers {sorted(unknown)}; known are {sorted(_NAMES.keys() - {'stock'})}")
    networks = arguments.network or list(NETWORKS)
    cases = [(network, "minmax", 64) for network in networks]
    rounds = 1 if arguments.quick else arguments.rounds
    if not arguments.quick:
        cases += [("mobilenet_v2", method, 64) for method in METHODS[1:]]
        cases += [("mobilenet_v2", "minmax", count) for count in SAMPLES if count != 64]
    start = imports(sys.executable)
    results = list(benchmark(cases, tools(environments), rounds))
    shown = ["python", "benchmarks/peers.py", *(["--quick"] if arguments.quick else [])]
    shown += [f"--env {name}=..." for name in environments]
    text = markdown(results, start, rounds, " ".join(shown))
    print(text)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")
    if arguments.write:
        replace_tables(arguments.write, "peers", text)


if __name__ == "__main__":
    main()
