"""The comparison of runtimes in a terminal: what ran, what it did to the groups, the numbers, the speed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxptq.comparison.layers import LayerError
from onnxptq.comparison.numerics import Difference
from onnxptq.comparison.placement_limits import PlacementVerdict, own_provider, share
from onnxptq.comparison.result import Comparison, ComparisonRow, Speed
from onnxptq.reports.measured import score_name, test_name
from onnxptq.reports.tables import print_table

if TYPE_CHECKING:
    from rich.table import Table

    from onnxptq.evaluation import Report

_LAYERS_SHOWN = 10
_GROUPS_SHOWN = 20
_LOG_SHOWN = 3


def print_comparison(comparison: Comparison, verdicts: Sequence[PlacementVerdict], *, wide: bool = False) -> None:
    """Verdicts first, then what it means in sentences, then the tables that fit 80 columns; with `wide` all of them."""
    for verdict in verdicts:
        print(_verdict_line(verdict))
    for runtime in comparison.runtimes:
        identity = runtime.identity()
        where = f"in {runtime.environment.name}" if runtime.environment else "here"
        instead = "does not load, instead of it " if runtime.fallback_reason else ""
        print(
            f"{runtime.name}: {instead}{runtime.provider.ort_name}, {identity['distribution']} "
            f"{identity['onnxruntime']} {where}, graph optimization {runtime.optimization}"
        )
    for row in comparison.failed:
        print(f"{row.model} on {row.runtime}: {row.status}: {row.reason}")
        for line in row.log[-_LOG_SHOWN:]:
            print(f"    {line}")
    for line in meaning(comparison):
        print(line)
    if wide:
        _print_scores(comparison)
        _print_numerics(comparison)
        _print_speed(comparison)
    else:
        _print_brief(comparison)
    _print_dependent_groups(comparison)
    _print_layers(comparison)
    if not wide:
        print("--wide shows where errors come from, all latencies, placement and memory; --json has everything.")


def meaning(comparison: Comparison) -> list[str]:
    """A sentence for each quantized model on each runtime: how fast, how small, what its worst group loses."""
    fp32 = next((row for row in comparison.rows if row.model == comparison.reference), None)
    sentences = []
    for row in comparison.rows:
        if not row.quantized or row.report is None:
            continue
        parts = [_pace(row, comparison)] if row.speed else []
        if fp32 is not None and row.file_bytes:
            times = fp32.file_bytes / row.file_bytes
            parts.append(f"{times:.1f} times smaller" if times >= 1 else f"{1 / times:.1f} times larger")
        parts.append(_harm(row.report))
        sentences.append(f"{row.model} on {row.runtime} is {_joined(parts)} compared with FP32.")
    return sentences


def _pace(row: ComparisonRow, comparison: Comparison) -> str:
    speed = row.speed[0]
    base = _fp32_speed(speed, row, comparison)
    if base is None:
        return "not timed beside it"
    times = base.latency.p50 / speed.latency.p50
    if 1 / _AS_FAST < times < _AS_FAST:
        return "as fast"
    return f"{times:.1f} times as fast" if times > 1 else f"{1 / times:.1f} times slower"


_AS_FAST = 1.05
"""Two medians of one run that differ by less are called alike."""


def _harm(report: Report) -> str:
    drop, low, high = report.crossfit_drop, report.crossfit_drop_low, report.crossfit_drop_high
    if drop != drop:
        lost = report.average_drop
        return f"{_worse(lost)} on average (no group has enough samples)" if lost == lost else "not judged"
    largest = f"; most in {_group(report.largest_drop_group)}" if report.largest_drop_group and drop > 0 else ""
    return f"{_worse(drop)} in its worst group (95 %: {_points(low)} to {_points(high)} points lost{largest})"


def _worse(drop: float) -> str:
    text = _points(drop)
    if float(text) == 0:
        return "neither better nor worse"
    return f"{text[1:]} points {'worse' if drop > 0 else 'better'}"


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _print_brief(comparison: Comparison) -> None:
    """What most readers want, in two tables that fit a terminal of 80 columns; in blocks where names are long."""
    judged = next((row.report for row in comparison.rows if row.report is not None), None)
    measure = score_name(judged.measure) if judged else "accuracy"
    scores = _table(
        f"{measure[0].upper()}{measure[1:]} against {comparison.reference} on {comparison.runtimes[0].name}",
        "model", "runtime", measure, "drop", "worst drop", "flips",
    )  # fmt: skip
    for row in comparison.rows:
        if (report := row.report) is None:
            scores.add_row(row.model, row.runtime, row.status)
            continue
        drops = (_points(report.average_drop), _points(report.crossfit_drop))
        scores.add_row(row.model, row.runtime, _percent(report.int8_average), *drops, _percent(report.flip_rate))
    print_table(scores, whole=True, blocks=True)
    print(
        "Drops in points. worst drop: the worst group's, chosen on one half of the samples and measured on the other."
    )
    speeds = _table("Speed of one call", "model", "runtime", "batch", "p50 ms", "to FP32", "MACs on it", "file")
    for row in comparison.rows:
        if row.status != "done":
            continue
        on_it = _facts(row, comparison)[1]
        for number, speed in enumerate(row.speed or (None,)):
            batch, _, p50, _, _, _, ratio = _speed_cells(speed, _fp32_speed(speed, row, comparison))
            names = (row.model, row.runtime) if number == 0 else ("", "")
            speeds.add_row(*names, batch, p50, ratio, on_it, _size(row.file_bytes) if number == 0 else "")
    print_table(speeds, whole=True, blocks=True)


def _verdict_line(verdict: PlacementVerdict) -> str:
    word = {True: "PASSED", False: "FAILED", None: "UNDECIDED"}[verdict.passed]
    found = "unknown" if verdict.share is None else f"{100 * verdict.share:.1f} %"
    return (
        f"{word} placement of {verdict.model} on {verdict.runtime}: {found} of the multiply-adds, "
        f"at least {100 * verdict.required:g} % required"
    )


def _print_scores(comparison: Comparison) -> None:
    judged = next((row.report for row in comparison.rows if row.report is not None), None)
    measure = score_name(judged.measure) if judged else "accuracy"
    p_value = "McNemar p" if judged is None or judged.binary else "p"
    table = _table(
        f"{measure[0].upper()}{measure[1:]} against {comparison.reference} on {comparison.runtimes[0].name}",
        "model", "runtime", measure, "drop", "worst group", "worst", "largest", "cross-fitted", "flips",
        f"flips to {comparison.runtimes[0].name}", p_value, "differ",
    )  # fmt: skip
    for row in comparison.rows:
        report, flips = row.report, row.flips
        if report is None:
            table.add_row(row.model, row.runtime, row.status)
            continue
        table.add_row(
            row.model,
            row.runtime,
            _percent(report.int8_average),
            _points(report.average_drop),
            _group(report.worst_group or "-"),
            _percent(report.worst_accuracy),
            _points(report.largest_drop),
            _points(report.crossfit_drop),
            _percent(report.flip_rate),
            "" if flips is None else _percent(flips.flip_rate),
            "" if flips is None or flips.p_value is None else f"{flips.p_value:.2g}",
            "" if flips is None else str(len(flips.groups)),
        )
    print_table(table, whole=True)
    print(
        f"Drops in points: on average, largest of a group, cross-fitted worst group. flips to, {p_value}: the same "
        f"model on the first runtime; differ: groups whose {measure} differs between the two."
    )


def _print_numerics(comparison: Comparison) -> None:
    base = comparison.runtimes[0].name
    table = _table(
        "Outputs, and where the error comes from (SQNR in dB; drops in points)",
        "model", "runtime", "SQNR to FP32", "quantization", "kernels", "drop: quantization", "kernels",
        f"largest diff. to {base}", "one step apart", "further",
    )  # fmt: skip
    for row in comparison.rows:
        if row.report is None:
            continue
        cause = row.cause
        table.add_row(
            row.model,
            row.runtime,
            _decibel(row.against_reference),
            "" if cause is None else _decibel(cause.quantization),
            "" if cause is None else _decibel(cause.kernels),
            "" if cause is None else _points(cause.quantization_drop),
            "" if cause is None else _points(cause.kernels_drop),
            "" if row.between is None or row.between.largest is None else f"{row.between.largest:.3g}",
            "" if row.between is None else _percent(row.between.one_step_apart),
            "" if row.between is None else _percent(row.between.further_apart),
        )
    print_table(table, whole=True)
    print(
        "quantization: the QDQ graph computed as written (CPU, ORT_DISABLE_ALL) against FP32; kernels: the runtime "
        "against that (fusion, rounding, saturation). same: bit for bit."
    )


def _print_speed(comparison: Comparison) -> None:
    table = _table(
        "Placement and speed",
        "model", "runtime", "nodes", "MACs", "Q/DQ alone", "copies", "batch", "threads",
        "p50 ms", "p90", "p99", "per s", "to FP32", "load ms", "peak MB", "file",
    )  # fmt: skip
    for row in comparison.rows:
        if row.status != "done":
            continue
        facts = _facts(row, comparison)
        sizes = (
            "-" if row.creation_seconds is None else f"{1e3 * row.creation_seconds:.0f}",
            "-" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.0f}",
            _size(row.file_bytes),
        )
        for number, speed in enumerate(row.speed or (None,)):
            first = number == 0
            table.add_row(
                *((row.model, row.runtime, *facts) if first else ("",) * 6),
                *_speed_cells(speed, _fp32_speed(speed, row, comparison)),
                *(sizes if first else ("",) * 3),
            )
    print_table(table, whole=True)
    print(
        "nodes, MACs (multiply-adds, estimated): on the runtime's own provider. Q/DQ alone: not fused, inputs "
        "and outputs apart. to FP32: how many times as fast as FP32 on the same runtime (below 1: slower)."
    )


def _facts(row: ComparisonRow, comparison: Comparison) -> tuple[str, ...]:
    provider = next(own_provider(runtime) for runtime in comparison.runtimes if runtime.name == row.runtime)
    placed, on_it = row.placement, share(row, provider)
    nodes = "unknown" if placed.nodes is None else f"{placed.nodes.get(provider, 0)} of {sum(placed.nodes.values())}"
    return (
        nodes,
        "unknown" if on_it is None else f"{100 * on_it:.0f} %",
        "unknown" if placed.unfused is None else str(placed.unfused),
        "unknown" if placed.copies is None else str(placed.copies),
    )


def _fp32_speed(speed: Speed | None, row: ComparisonRow, comparison: Comparison) -> Speed | None:
    rows = (one for one in comparison.rows if one.model == comparison.reference and one.runtime == row.runtime)
    base = next(rows, None)
    if speed is None or base is None or not row.quantized:
        return None
    same = (one for one in base.speed if (one.batch, one.threads) == (speed.batch, speed.threads))
    return next(same, None)


def _speed_cells(speed: Speed | None, fp32: Speed | None) -> tuple[str, ...]:
    if speed is None:
        return ("-",) * 7
    latency = speed.latency
    return (
        str(speed.batch),
        "auto" if speed.threads is None else str(speed.threads),
        *(f"{1e3 * value:.3g}" for value in (latency.p50, latency.p90, latency.p99)),
        f"{speed.throughput:.0f}",
        "" if fp32 is None else f"{fp32.latency.p50 / latency.p50:.2f}",
    )


def _print_dependent_groups(comparison: Comparison) -> None:
    groups = comparison.dependent_groups
    if not groups:
        judged = next((row.report for row in comparison.rows if row.report is not None), None)
        test = test_name(judged is None or judged.binary)
        print(f"No group's verdict depends on the runtime ({test} against FP32, corrected for the groups, p < 0.05).")
        return
    names = [runtime.name for runtime in comparison.runtimes]
    table = _table("Groups whose verdict against FP32 depends on the runtime", "model", "group", *names)
    for group in groups[:_GROUPS_SHOWN]:
        cells = [group.verdicts.get(name, "-") for name in names]
        table.add_row(group.model, _group(group.group), *cells)
    print_table(table, whole=True)
    if len(groups) > _GROUPS_SHOWN:
        print(f"... {len(groups) - _GROUPS_SHOWN} more (--json has all)")


def _print_layers(comparison: Comparison) -> None:
    with_layers = [row for row in comparison.rows if row.layers]
    for model in dict.fromkeys(row.model for row in with_layers):
        rows = [row for row in with_layers if row.model == model]
        by_tensor = [{error.tensor: error for error in row.layers or ()} for row in rows]
        table = _table(
            f"SQNR of layers of {model} in dB, noisiest on {rows[0].runtime} first",
            "tensor", "made by", *(row.runtime for row in rows),
        )  # fmt: skip
        for layer in (rows[0].layers or ())[:_LAYERS_SHOWN]:
            found = [errors.get(layer.tensor) for errors in by_tensor]
            table.add_row(layer.tensor, layer.operator, *(_layer_cell(error) for error in found))
        print_table(table, whole=True)
    if with_layers:
        print(
            "Layers were measured on a copy with every tensor exposed, which breaks fusion: they show where "
            "quantization errs, not what the shipped graph computes."
        )


def _layer_cell(error: LayerError | None) -> str:
    if error is None:
        return "-"
    return "same" if error.sqnr_db is None else f"{error.sqnr_db:.1f}"


def _table(title: str, *headings: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading in ("model", "runtime"))
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None or value != value else f"{100 * value:.1f} %"


def _points(value: float) -> str:
    # Adding 0 takes the sign off a zero.
    return "-" if value != value else f"{round(100 * value, 1) + 0.0:+.1f}"


def _decibel(difference: Difference | None) -> str:
    if difference is None:
        return ""
    if difference.equal:
        return "same"
    return "-" if difference.sqnr_db is None else f"{difference.sqnr_db:.1f}"


def _group(name: str) -> str:
    """The values of a group without the names of its columns: "label=3*corruption=fog@3" is "3 · fog@3"."""
    return " · ".join(part.partition("=")[2] or part for part in name.split("*"))


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.0f} KB"
