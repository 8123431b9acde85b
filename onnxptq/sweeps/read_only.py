"""Reading the store of sweeps where nobody may write, or where it must not be made."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from onnxptq.errors import UsageError


def open_to_read(path: Path, seconds: float) -> sqlite3.Connection:
    """A connection that makes no file, where the folder cannot be written either.

    SQLite writes beside a file in WAL mode even to read it, and leaves nothing there when it can. What nobody can write
    to is read as it lies.

    Args:
        path: the database.
        seconds: how long a reader waits for a writer.

    Raises:
        UsageError: there is no such file.
        sqlite3.OperationalError: it cannot be read.
    """
    if not path.is_file():
        raise UsageError(f"there is no store of sweeps at {path}. `onnxptq sweep` makes one; --store names its folder.")
    modes = ["rw", "ro"]
    journal = path.with_name(f"{path.name}-wal")
    if not (journal.exists() and journal.stat().st_size):
        modes[1:] = ["ro&immutable=1"]  # With a journal this would read what was before it.
    for mode in modes:
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, timeout=seconds, isolation_level=None)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return connection
        except sqlite3.OperationalError as error:
            connection.close()
            if mode != "rw" or not error.sqlite_errorname.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY")):
                raise
    raise AssertionError("the last mode returns or raises")
