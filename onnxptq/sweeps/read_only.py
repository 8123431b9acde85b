"""Reading the store of sweeps where nobody may write, or where it must not be made."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from onnxptq.errors import UsageError


def open_to_read(path: Path, seconds: float, table: str) -> sqlite3.Connection:
    """A connection that makes no file, where the folder cannot be written either.

    SQLite writes beside a file in WAL mode even to read it, and leaves nothing there when it can. What nobody can write
    to is read as it lies.

    Args:
        path: the database.
        seconds: how long a reader waits for a writer.
        table: one that is there, unless the file's making was cut off.

    Raises:
        UsageError: there is no such file, or no such table in it.
        sqlite3.OperationalError: it cannot be read.
    """
    missing = UsageError(f"there is no store of sweeps at {path}. `onnxptq sweep` makes one; --store names its folder.")
    if not path.is_file():
        raise missing
    modes = ["rw", "ro"]
    try:
        journal = path.with_name(f"{path.name}-wal").stat().st_size
    except FileNotFoundError:  # The last writer may remove it at any time.
        journal = 0
    if not journal:
        modes[1:] = ["ro&immutable=1"]  # With a journal this would read what was before it.
    for mode in modes:
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, timeout=seconds, isolation_level=None)
        try:
            found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
            if found:
                return connection
            connection.close()
            raise missing
        except sqlite3.OperationalError as error:
            connection.close()
            if mode != "rw" or not error.sqlite_errorname.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY")):
                raise
    raise AssertionError("the last mode returns or raises")
