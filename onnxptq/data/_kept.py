"""Data in a form that can be mapped into memory, kept in a folder of the cache that is named after its content.

Each file is sealed (`cache.seal`): pages that were zeroed on a disk, or bits that flipped, are no data.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from onnxptq.cache import is_whole, seal
from onnxptq.errors import OutputError
from onnxptq.files import make_private, work_folder

_CONTENTS = "contents.json"


def kept(place: Path) -> dict[str, list[Path]] | None:
    """The files below `place` by name of a split or an array, or None where they are not there as they were sealed."""
    if not is_whole(place / _CONTENTS):
        return None
    contents = json.loads((place / _CONTENTS).read_text(encoding="utf-8"))
    found = {name: [place / file for file in files] for name, files in contents.items()}
    return found if is_whole(*(file for files in found.values() for file in files)) else None


def keep(place: Path, write: Callable[[Path], Mapping[str, Sequence[Path]]]) -> None:
    """Makes the files of `place`, in a folder beside it that takes its place when all of them are whole.

    Args:
        place: the folder.
        write: writes into the folder that it is given, and names its files; what it does not name goes.

    Raises:
        OutputError: the cache cannot be written.
    """
    place = place.absolute()  # The decoder may work in another folder.
    try:
        make_private(place.parent)
        with work_folder(place.parent, ".part.") as folder:
            written, whole = folder / "written", folder / "whole"
            written.mkdir()
            whole.mkdir(mode=0o700)
            contents: dict[str, list[str]] = {}
            for number, (name, files) in enumerate(write(written).items()):
                contents[name] = [f"{number}-{part}{file.suffix}" for part, file in enumerate(files)]
                for file, kept_as in zip(files, contents[name], strict=True):
                    file.rename(whole / kept_as)
            (whole / _CONTENTS).write_text(json.dumps(contents), encoding="utf-8")
            for file in list(whole.iterdir()):
                file.chmod(0o600)
                seal(file)
            # Another run may have been faster: what it wrote is the same, and it may be reading it by now.
            if kept(place) is None:
                shutil.rmtree(place, ignore_errors=True)
                with suppress(OSError):
                    whole.rename(place)
    except OSError as error:
        raise OutputError(
            f"the cache folder {place.parent} cannot be written: {error.strerror or error}. "
            "Set ONNXPTQ_CACHE to a folder that can."
        ) from error
