"""`onnxptq merge-stats`: join the statistics of shards."""

from __future__ import annotations

from pathlib import Path

import click

from onnxptq.commands._output import json_option, write_json
from onnxptq.commands._statistics import as_json, describe


@click.command()
@click.argument("parts", nargs=-1, required=True, metavar="PART...")
@click.option("-o", "--output", required=True, metavar="OUT", help="The statistics file.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@json_option
def merge_stats(parts: tuple[str, ...], output: str, force: bool, json_target: str | None) -> None:
    """Join the statistics of shards (onnxptq calibrate --shard): byte for byte those of one pass over all samples."""
    from onnxptq import api
    from onnxptq.files import check_free

    path = Path(output)
    check_free(path, force)
    statistics = api.merge_statistics(parts)
    statistics.save(path)
    if json_target != "-":
        click.echo(describe(path, statistics))
    write_json(json_target, as_json(path, statistics))
