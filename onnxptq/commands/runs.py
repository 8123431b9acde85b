"""`onnxptq runs`: what sweeps have stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxptq.commands._output import check_json_target, json_option, write_json

_store_option = click.option("--store", metavar="DIR", help="The store of the sweep. [default: the cache]")


@click.group()
def runs() -> None:
    """List, show and export what sweeps have stored.

    RUN is a run's name, the beginning of it, or "last".
    """


@runs.command("list")
@_store_option
@json_option
def list_(store: str | None, json_target: str | None) -> None:
    """Show all runs, the oldest first."""
    from dataclasses import asdict

    from rich.table import Table

    from onnxptq.reports.tables import print_table
    from onnxptq.sweeps.store import Store, cache_of

    check_json_target(json_target)
    with Store(cache_of(store), read=True) as opened:
        found = opened.runs()
        where, resume = opened.path, opened.resume
    if json_target != "-":
        table = Table("run", "study", "created", "cells", "failed", "state")
        for run in found:
            state = "finished" if run.finished else f"{run.done - run.failed} of {run.cells}"
            table.add_row(run.run, run.name, run.created, str(run.cells), str(run.failed), state)
        print_table(table, prose=True)
        click.echo(f"in {where}")
        if not all(run.finished for run in found):
            click.echo(f"go on with the last one that is not finished: {resume}")
    write_json(json_target, [asdict(run) for run in found])


@runs.command()
@click.argument("run", default="last")
@click.option("--plan", "as_plan", is_flag=True, help="Print the plan instead, as TOML.")
@_store_option
@json_option
def show(run: str, as_plan: bool, store: str | None, json_target: str | None) -> None:
    """Show a run: the verdict, the tables, and every cell that failed."""
    from onnxptq.reports.sweep import print_study
    from onnxptq.sweeps.export import flat
    from onnxptq.sweeps.plan import plan_from_dict
    from onnxptq.sweeps.presets import plan_toml
    from onnxptq.sweeps.store import load_study

    check_json_target(json_target)
    study = load_study(run, Path(store) if store else None)
    if as_plan:
        click.echo(plan_toml(plan_from_dict(study.plan, study.run)), nl=False)
    elif json_target != "-":
        print_study(study, errors=None)
        click.echo(f"made by: {study.command}")
    write_json(json_target, {"run": study.run, "name": study.name, "plan": dict(study.plan), "cells": flat(study)})


@runs.command()
@click.argument("run", default="last")
@click.option("-o", "--output", required=True, metavar="FILE", help="A .csv, .parquet or .json file.")
@click.option("--groups", is_flag=True, help="A row for each group of each cell, instead of one for each cell.")
@click.option("--ranges", is_flag=True, help="A row for each tensor of each cell, instead.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@_store_option
def export(run: str, output: str, groups: bool, ranges: bool, force: bool, store: str | None) -> None:
    """Write a run as a table, for pandas, DuckDB or a spreadsheet."""
    from onnxptq.errors import UsageError
    from onnxptq.files import check_free
    from onnxptq.sweeps.export import rows_of, write_table
    from onnxptq.sweeps.store import load_study

    if groups and ranges:
        raise UsageError("give either --groups or --ranges, not both; each is a table of its own.")
    path = Path(output)
    check_free(path, force)
    study = load_study(run, Path(store) if store else None)
    table: list[dict[str, Any]] = rows_of(study, "groups" if groups else "ranges" if ranges else "cells")
    write_table(table, path)
    click.echo(f"wrote {path}: {len(table)} rows of {study.run}")
