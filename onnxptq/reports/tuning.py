"""A tuning in a terminal: the verdict, the proof, and what was tried."""

from __future__ import annotations

import math

from onnxptq.gates.text import describe
from onnxptq.gates.verdict import Verdict
from onnxptq.reports.tables import print_table
from onnxptq.tuning.result import Candidate, Tuned

_NODES_SHOWN = 8


def print_tuning(result: Tuned) -> None:
    """What was chosen and whether it holds, rules that have not passed, the candidates, and what to do next."""
    print(_headline(result))
    if result.winner is not None:
        print(
            f"On {result.proof_sources} samples that no choice has seen, its worst group loses "
            f"{_points(result.proof_drop)} [{_points(result.proof_low)} to {_points(result.proof_high)}]; on the "
            f"{result.choice_sources} that it was chosen on, {_points(result.winner.drop)}."
        )
        _print_nodes(result.winner)
    for rule in result.proof:
        if rule.verdict is not Verdict.PASSED:
            print("\n".join(["", *describe(rule)]))
    _print_candidates(result)
    print(
        "verdict, drop: of the policy and of the worst group, cross-fitted, on the samples that choices are made on; "
        "at most: what the worst group may lose; INT8: share of the multiply-adds that are quantized. Judging cost "
        f"{result.evaluations:.1f} runs over all samples."
    )
    if result.output is not None:
        print(f"wrote {result.output}\nagain: {result.command}")
    print(_next(result))


def _headline(result: Tuned) -> str:
    if result.winner is None:
        return f"{result.verdict.value} no method fits the model"
    return f"{result.verdict.value} {result.winner.name}"


def _print_nodes(winner: Candidate) -> None:
    if not winner.float_nodes:
        return
    more = len(winner.float_nodes) - _NODES_SHOWN
    shown = ", ".join(winner.float_nodes[:_NODES_SHOWN]) + (f" and {more} more" if more > 0 else "")
    group = f", which the group {winner.group} needs" if winner.group else ""
    print(f"In float stay {shown}{group}.")


def _print_candidates(result: Tuned) -> None:
    from rich.table import Table

    table = Table(title="What was tried, the best first", title_justify="left")
    for heading in ("candidate", "verdict", "drop", "95 % interval", "at most", "INT8", "MB", "samples"):
        table.add_column(heading, justify="left" if heading in ("candidate", "verdict") else "right")
    for one in result.candidates:
        if one.verdict is None:
            table.add_row(one.name, "does not fit", *[""] * 6)
            continue
        table.add_row(
            one.name,
            one.verdict.value,
            _points(one.drop),
            "-" if math.isnan(one.drop_low) else f"{100 * one.drop_low:+.1f} to {100 * one.drop_high:+.1f}",
            _points(one.possible),
            "-" if math.isnan(one.int8_share) else f"{100 * one.int8_share:.0f} %",
            f"{one.bytes / 1e6:.2f}",
            str(one.samples),
        )
    print_table(table, blocks=True)
    for one in result.candidates:
        if one.reason:
            print(f"{one.name}: {one.reason}")


def _next(result: Tuned) -> str:
    if result.verdict is Verdict.PASSED:
        return "next: keep it so in CI with onnxptq check, on these or on newer samples."
    if result.verdict is Verdict.UNDECIDED:
        needed = [rule.samples_to_decide for rule in result.proof if rule.samples_to_decide]
        more = f" About {max(needed)} original samples (of each group) would decide." if needed else ""
        return f"next: judge the file on more samples (onnxptq check).{more}"
    return (
        "next: calibrate on data like that which is deployed (onnxptq audit says what a set lacks), "
        "try other methods (--method; onnxptq methods), or see what hurts with onnxptq diagnose. No file was written."
    )


def _points(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:+.1f}"
