"""`onnxptq cache`: show, verify or clear the cache."""

from __future__ import annotations

import click

from onnxptq.commands._output import json_option, write_json
from onnxptq.errors import EXIT_DONE, EXIT_FAILED


@click.group()
def cache() -> None:
    """Show, verify or clear the cache ($ONNXPTQ_CACHE). Deleting it loses time, never a result."""


@cache.command()
@json_option
def info(json_target: str | None) -> None:
    """Show where it is and what lies in it."""
    from onnxptq.cache import user_cache

    cache = user_cache()
    usage = cache.usage()
    if json_target != "-":
        click.echo(f"{cache.root}")
        for kind, (files, size) in usage.items():
            click.echo(f"  {kind}: {files} files, {size / 1e6:.1f} MB")
        if not usage:
            click.echo("  empty")
    kinds = {kind: {"files": files, "bytes": size} for kind, (files, size) in usage.items()}
    write_json(json_target, {"room": str(cache.root), "kinds": kinds})


@cache.command()
@json_option
def verify(json_target: str | None) -> None:
    """Read all that is kept, and remove what is not as it was written. Exits with 1 where there was such.

    What is removed is made again by the command that needs it. Remains of killed runs go too, and what is left is
    readable by you alone.
    """
    from onnxptq.cache import user_cache

    cache = user_cache()
    found = cache.verify()
    if json_target != "-":
        for file in found.damaged:
            click.echo(f"damaged, and removed: {file}")
        click.echo(f"{found.whole} files are as they were written, {len(found.damaged)} were not, in {cache.root}")
    write_json(json_target, {"whole": found.whole, "damaged": [str(file) for file in found.damaged]})
    click.get_current_context().exit(EXIT_FAILED if found.damaged else EXIT_DONE)


@cache.command()
@click.argument("kind", required=False)
def clear(kind: str | None) -> None:
    """Delete everything in it, or everything of one KIND."""
    from onnxptq.cache import user_cache
    from onnxptq.errors import UsageError, did_you_mean

    cache = user_cache()
    usage = cache.usage()
    if kind is not None and kind not in usage:
        raise UsageError(f"there is nothing of kind {kind!r} in {cache.root}. {did_you_mean(kind, usage)}")
    cache.clear(kind)
    freed = sum(size for name, (_, size) in usage.items() if kind in (None, name))
    click.echo(f"freed {freed / 1e6:.1f} MB in {cache.root}")
