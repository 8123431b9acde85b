"""A diagnosis in a terminal: what INT8 costs, the tensors and nodes that cost it, and what a budget needs."""

from __future__ import annotations

from collections.abc import Sequence

from onnxptq.diagnosis.result import Budget, Diagnosis, NodeEffect, TensorEffect
from onnxptq.reports.measured import score_name
from onnxptq.reports.tables import print_table

_SHOWN = 10
_UNPAIRED_SHOWN = 5
_EXPLAINED = 0.01
"""Share of samples that may predict otherwise without a word: kernels that are fused elsewhere round elsewhere."""


def print_diagnosis(result: Diagnosis) -> None:
    """Verdict first where there is a budget, then the two rankings and how to read them."""
    if result.budget is not None:
        _print_budget(result.budget)
    whole = result.int8
    print(
        f"{result.model} against {result.reference}: cross-fitted worst-group drop {_points(whole.drop)}, most often "
        f"in {_group(whole.group)} ({_points(whole.group_drop)}, flips {_percent(whole.group_flips)}); average drop "
        f"{_points(whole.average_drop)}; {whole.sources} original samples, {whole.samples} with corruptions"
    )
    if not whole.surely_loses:
        print(
            f"No group loses for sure: that drop's interval, {_points(whole.drop_low)} to {_points(whole.drop_high)}, "
            "holds 0, so the ranking may be chance. More samples tell (--per-group, --data), not another method."
        )
    if result.unpaired:
        print(f"{len(result.unpaired)} quantized tensors have no partner in {result.reference} and are not ranked:")
        for line in result.unpaired[:_UNPAIRED_SHOWN]:
            print(f"    {line}")
    if result.unpaired or result.unexplained > _EXPLAINED:
        print(
            f"The ranked tensors together explain a drop of {_points(result.explained.drop)}; INT8 predicts otherwise "
            f"on {_percent(result.unexplained)} of the samples."
        )
    _print_ranking("Tensors, most harmful to the worst group first", result.tensors)
    _print_ranking("Nodes (inputs, weights and outputs together), most harmful first", result.nodes)
    print(_legend(result))


def _print_ranking(title: str, ranked: Sequence[TensorEffect | NodeEffect]) -> None:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    headings = ("", "name", "what", "range", "harm", "drop", "worst group", "its drop", "flips", "SQNR", "mean harm",
                "cumulative harm")  # fmt: skip
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("name", "what", "range", "worst group") else "right")
    for rank, one in enumerate(ranked[:_SHOWN], 1):
        effect = one.isolated
        table.add_row(
            str(rank),
            *_described(one),
            _points(effect.harm),
            _points(effect.drop),
            _group(effect.group),
            _points(effect.group_drop),
            _percent(effect.group_flips),
            "equal" if effect.group_sqnr_db is None else f"{effect.group_sqnr_db:.1f}",
            _points(effect.mean_harm),
            "" if one.cumulative is None else _points(one.cumulative.harm),
        )
    print_table(table, whole=True, blocks=True, keep=("", "name", "what", "harm", "drop", "worst group", "its drop"))
    if len(ranked) > _SHOWN:
        print(f"... {len(ranked) - _SHOWN} more (--json and --csv have all)")


def _described(one: TensorEffect | NodeEffect) -> tuple[str, str, str]:
    if isinstance(one, NodeEffect):
        return one.node, one.operator, f"{len(one.tensors)} tensors"
    what = one.made_by if one.kind == "activation" else f"constant of {one.made_by}"
    return one.tensor, what, "by channel" if one.low is None else f"{one.low:.3g} to {one.high:.3g}"


def _legend(result: Diagnosis) -> str:
    few, more = result.screened, result.per_group
    measured = f"on {few} original samples a group" + ("" if few == more else f", then the finalists on {more}")
    lines = [
        f"Only this tensor or node quantized, all else float; cumulative: all from the inputs up to it, on {few}.",
        f"Measured {measured}, of the half of the data that is searched. Drops, harm in points; SQNR in dB.",
        "harm: cross-fitted drop of the worst group with the step of "
        f"{score_name(result.measure)} made smooth, where it has one (docs/diagnose.md).",
    ]
    if result.measure == "agreement":
        lines.append("No labels: accuracy here is agreement with FP32.")
    return "\n".join(lines)


def _print_budget(budget: Budget) -> None:
    limit = f"{100 * budget.limit:g} points"
    interval = f"95 % interval {_points(budget.measured_low)} to {_points(budget.measured_high)}"
    word = {True: "PASSED", False: "FAILED", None: "UNDECIDED"}[budget.reached]
    how = f"with {_nodes(len(budget.float_nodes))} in float" if budget.float_nodes else "as it is"
    print(
        f"{word} budget of {limit}: {how} the worst-group drop is {_points(budget.measured_drop)} ({interval}) on "
        f"samples that the search has not seen, and at most {_points(budget.measured_possible)} in any group; "
        f"predicted {_points(budget.predicted_drop)}, "
        f"all in INT8 {_points(budget.before_drop)}"
    )
    if not budget.found:
        print("No further node in float helps on the samples that were searched; this is how far it got.")
    elif budget.reached is None:
        print("The limit held on the samples that were searched, and the others are too few to tell. Give more data.")
    elif not budget.reached:
        print("The limit held on the samples that were searched. More of them (--per-group) make a better search.")
    for node in budget.float_nodes:
        print(f"    float: {node}")
    _print_cost(budget)
    if budget.output:
        print(f"wrote {budget.output}" + (f" and {budget.recipe}" if budget.recipe else ""))
    elif budget.reached is False:
        print("Nothing was written.")
    if budget.command:
        print(f"repeat: {budget.command}")


def _print_cost(budget: Budget) -> None:
    speed = budget.speed
    if speed is None:
        return
    int8, mixed = speed.int8.p50, speed.mixed.p50
    print(
        f"latency at p50: FP32 {_milliseconds(speed.fp32.p50)}, INT8 {_milliseconds(int8)}, with nodes in float "
        f"{_milliseconds(mixed)}: {mixed / int8:.2f} times INT8 (predicted {speed.predicted / int8:.2f}); file "
        f"{budget.int8_bytes / 1e3:.0f} KB -> {(budget.mixed_bytes or 0) / 1e3:.0f} KB"
    )


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def _points(value: float) -> str:
    # Adding 0 takes the sign off a zero.
    return "-" if value != value else f"{round(100 * value, 1) + 0.0:+.1f}"


def _percent(value: float) -> str:
    return "-" if value != value else f"{100 * value:.1f} %"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"


def _group(name: str) -> str:
    """The values of a group without the names of its columns."""
    return " · ".join(part.partition("=")[2] or part for part in name.split("*"))
