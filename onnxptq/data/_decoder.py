"""The decoder: a process that opens data which nobody vouches for, so that a crash, a hang or a bomb ends only it.

    python _decoder.py

reads requests from stdin and answers each on the stdout that it was started with. Both ways a message is the length of
a JSON header (4 bytes, big-endian), the header, and the payloads whose lengths it lists under "bytes". A request names
one of OPERATIONS under "do", its arguments, and its limits ("seconds", "memory", "written", see `limit`). An answer is
{"answer": ...}, or {"error": TEXT, "type": NAME} where Python caught an exception. It ends when stdin is closed.

`onnxptq.data.isolated` starts it and talks to it. It imports what an operation needs when it is first asked for: images
need Pillow alone, and so a start takes a few hundredths of a second.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

COMMON_FORMATS = ("PNG", "JPEG", "MPO", "BMP", "GIF", "PPM")
OTHER_FORMATS = ("WEBP", "TIFF", "AVIF", "JPEG2000", "DIB", "ICO", "TGA", "PCX", "SGI")
"""What Pillow may take data for. Not EPS, for one, for which it starts another program."""

_ORIENTATION = 0x0112
"""The EXIF tag that says how a camera was held."""

_TURNED = (5, 6, 7, 8)
"""Values of that tag for images that lie on their side."""

_ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
"""What stands at the end of a whole file; some programs write a little more behind it."""

_END_WITHIN = 64 * 1024

Answer = tuple[Any, Sequence[bytes]]


def picture(
    payloads: list[bytes], color: str | None, size: Sequence[int] | None, resize: str, interpolation: str
) -> Answer:
    """One encoded image as raw pixels: {"mode", "size" (width, height), "format"} and the bytes of the pixels.

    Turned as its EXIF orientation says, transparency left out. The mode is "L", "RGB", or, of more than 8 bits, "F",
    "I" (int32), "I;16" or "I;16B", which are neither recolored nor resized.

    Args:
        payloads: the image.
        color: "L" makes gray of colors.
        size: height and width to resize to, or None. It is done here because few pixels travel faster than many.
        resize: how, see `resized_size`.
        interpolation: Pillow's filter, for example "bilinear".
    """
    from PIL import Image, ImageOps

    image = _opened(payloads[0])
    form = image.format
    image.load()
    if image.getexif().get(_ORIENTATION) is not None:
        image = ImageOps.exif_transpose(image)
    if not image.mode.startswith("I") and image.mode != "F":
        mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
        if image.mode != mode:
            image = image.convert(mode)
        if color == "L" and mode == "RGB":
            image = image.convert("L")
        if size is not None:
            height, width = resized_size(image.height, image.width, size, resize)
            if image.size != (width, height):
                image = image.resize((width, height), Image.Resampling[interpolation.upper()])
    return {"mode": image.mode, "size": image.size, "format": form}, [image.tobytes()]


def resized_size(height: int, width: int, size: Sequence[int], resize: str) -> tuple[int, int]:
    """Height and width that a picture is resized to.

    Args:
        height: of the picture.
        width: of the picture.
        size: height and width that were asked for.
        resize: "stretch" to exactly that; "shortest" keeps the shape and covers it (rounded down, as
            torchvision.transforms.Resize does); "letterbox" keeps the shape and fits into it; "none" leaves it.
    """
    if resize == "none":
        return height, width
    if resize == "letterbox":
        factor = min(size[0] / height, size[1] / width)
        return max(1, round(height * factor)), max(1, round(width * factor))
    if resize == "stretch":
        return size[0], size[1]
    if size[0] * width >= size[1] * height:
        return size[0], size[0] * width // height
    return size[1] * height // width, size[1]


def defects(payloads: list[bytes], whole: bool) -> Answer:
    """For each encoded image what is wrong with it, or None.

    Args:
        payloads: encoded images.
        whole: decode all pixels; else the header, the checksums of a PNG and the end of the file are looked at.
    """
    return [_defect(data, whole) for data in payloads], ()


def sizes(payloads: list[bytes]) -> Answer:
    """Height and width of each encoded image as it is shown, read from its head."""
    return [_size(data) for data in payloads], ()


def _size(data: bytes) -> list[int]:
    image = _opened(data)
    width, height = image.size
    return [width, height] if image.getexif().get(_ORIENTATION) in _TURNED else [height, width]


def numbers(payloads: list[bytes]) -> Answer:
    """One encoded image as the numbers that it stores, of a palette the indices: {"mode", "size"} and their bytes.

    A second payload is the picture that it tells about: "picture" is its width and height as it is shown, or None where
    it is damaged, which whoever decodes it says.
    """
    picture = None
    if len(payloads) > 1:
        with contextlib.suppress(Exception):
            picture = _size(payloads[1])[::-1]
    image = _opened(payloads[0])
    image.load()
    if image.mode == "1":
        image = image.convert("L").point(lambda value: value // 255)
    if image.mode.startswith("I"):  # 16 bits; Pillow opens some of them as 32.
        image = image.convert("I;16")
    mode = "L" if image.mode == "P" else image.mode
    return {"mode": mode, "size": image.size, "picture": picture}, [image.tobytes()]


def sound(payloads: list[bytes], rate: int) -> Answer:
    """One recording as float32 samples of one channel at `rate`: {"rate": of the file} and the bytes of the samples.

    Channels are averaged, and resampled by the SoX resampler at its high quality.
    """
    import numpy as np

    samples, own = _samples(payloads[0])
    mono = samples.mean(axis=1, dtype=np.float32)
    if own != rate:
        import soxr

        mono = soxr.resample(mono, own, rate, quality="HQ").astype(np.float32)
    return {"rate": own}, [np.ascontiguousarray(mono, np.float32).tobytes()]


def sound_defects(payloads: list[bytes], whole: bool) -> Answer:
    """For each recording what is wrong with it, or None.

    Args:
        payloads: encoded recordings.
        whole: decode all samples; else the header is read, and the length that it states compared with the file's.
    """
    return [_sound_defect(data, whole) for data in payloads], ()


def _sound_defect(data: bytes, whole: bool) -> str | None:
    try:
        if whole:
            _samples(data)
        else:
            _sound_frames(data)
    except Exception as error:
        return _cause(error)
    return None


MOST_SOUND_BYTES = 512 * 2**20
"""Of decoded samples, float32: 46 minutes of one channel at 48 kHz. Silence packs a thousandfold."""


def _soundfile() -> Any:
    try:
        import soundfile
        import soxr  # noqa: F401 - what resamples comes with the same extra
    except (ImportError, OSError):  # OSError: libsndfile itself is missing.
        # Not "from error": the innermost reason is what is shown.
        raise RuntimeError("recordings need the extra `audio`: pip install 'onnxptq[audio]'") from None
    return soundfile


def _sound_frames(data: bytes) -> int:
    """Samples a channel that a file says it holds. Raises ValueError where it cannot be."""
    soundfile = _soundfile()
    known = soundfile.info(io.BytesIO(data))
    if known.frames <= 0:
        raise ValueError("it holds no sample")
    if 4 * known.frames * known.channels > MOST_SOUND_BYTES:
        raise ValueError(f"it unpacks to more than {MOST_SOUND_BYTES} bytes; cut it into shorter recordings")
    # libsndfile takes what is there of a file that was cut off. Writers into pipes leave 0 or the largest number.
    stated = int.from_bytes(data[4:8], "little") if data[:4] == b"RIFF" else 0
    if 0 < stated < 0xFFFFFFFF and stated + 8 > len(data) + 1:
        raise ValueError(f"cut off: it says that it has {stated + 8} bytes, and has {len(data)}")
    return int(known.frames)


def _samples(data: bytes) -> tuple[Any, int]:
    """float32 (T, channels) and the rate."""
    import numpy as np

    soundfile = _soundfile()
    frames = _sound_frames(data)
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    if len(samples) < frames:
        raise ValueError(f"cut off: it says that it has {frames} samples, and has {len(samples)}")
    if not np.isfinite(samples).all():
        raise ValueError("it holds NaN or infinity")
    return samples, rate


def _defect(data: bytes, whole: bool) -> str | None:
    try:
        image = _opened(data)
        if whole:
            image.load()
            return None
        form = image.format
        if form == "PNG":
            image.verify()
        if form in _ENDS and _ENDS[form] not in data[-_END_WITHIN:]:
            return "cut off: its end is missing"
    except Exception as error:
        return reason(error)
    return None


def _cause(error: BaseException) -> str:
    """The innermost reason, on one line: readers wrap what libraries say in words that say less."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = reason(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def reason(error: BaseException) -> str:
    """What the library says, without the address of the buffer that it was given."""
    if type(error).__name__ == "UnidentifiedImageError":
        return "not an image, or cut off"
    return re.sub(r"Error opening <_io\.BytesIO object at \w+>: ", "", str(error)) or type(error).__name__


def _opened(data: bytes) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        Image.preinit()
        return Image.open(io.BytesIO(data), formats=[name for name in COMMON_FORMATS if name in Image.OPEN])
    except UnidentifiedImageError:
        Image.init()
        return Image.open(io.BytesIO(data), formats=[name for name in OTHER_FORMATS if name in Image.OPEN])


def tables(
    payloads: list[bytes], kind: str, files: Mapping[str, Any], folder: str, options: Mapping[str, Any]
) -> Answer:
    """Tables as Arrow files below `folder`: {split: [path, ...]}.

    Args:
        payloads: none.
        kind: the reader of `datasets`.
        files: split -> paths.
        folder: where it keeps them.
        options: for the reader.
    """
    import logging
    import tempfile

    import datasets

    tempfile.tempdir = folder
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)
    loaded = datasets.load_dataset(kind, data_files=files, cache_dir=folder, **options)
    paths = {name: [entry["filename"] for entry in table.cache_files] for name, table in loaded.items()}
    for path in (path for found in paths.values() for path in found):
        _validate(path)
    return paths, ()


def hub(payloads: list[bytes], name: str, configuration: str | None) -> Answer:
    """The Arrow files of a dataset of the Hugging Face hub, made where they are not there yet: {split: [path]}.

    Args:
        payloads: none.
        name: of the dataset, or the folder of one.
        configuration: which one of it, None for the only one.
    """
    import logging

    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)
    loaded = datasets.load_dataset(name, configuration)
    paths = {split: [entry["filename"] for entry in table.cache_files] for split, table in loaded.items()}
    for path in (path for found in paths.values() for path in found):
        _validate(path)
    return paths, ()


def arrow(payloads: list[bytes], files: Sequence[str]) -> Answer:
    """Looks at every value of Arrow files: None, or an error."""
    for path in files:
        _validate(path)
    return None, ()


def _validate(path: str) -> None:
    """Offsets, lengths and UTF-8 of all columns: Arrow's readers believe what a file says of itself."""
    import pyarrow as pa

    with pa.memory_map(path) as source:
        try:
            batches: Any = pa.ipc.open_stream(source)
        except pa.ArrowInvalid:
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        for batch in batches:
            batch.validate(full=True)


def parquet(payloads: list[bytes], path: str) -> Answer:
    """Reads all of a Parquet file: None, or an error."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for batch in file.iter_batches():
            batch.validate(full=True)
    return None, ()


def parquet_size(payloads: list[bytes], paths: Sequence[str]) -> Answer:
    """What Parquet files say that they unpack to: [[rows * columns, bytes], ...]."""
    import pyarrow.parquet as pq

    sizes = []
    for path in paths:
        with pq.ParquetFile(path) as file:
            found = file.metadata
            groups = (found.row_group(number) for number in range(found.num_row_groups))
            sizes.append([found.num_rows * found.num_columns, sum(group.total_byte_size for group in groups)])
    return sizes, ()


def npz(payloads: list[bytes], path: str, folder: str) -> Answer:
    """Unpacks an `.npz`: each array becomes a file `folder/N.npy`; the names in the order of the archive."""
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        for number, name in enumerate(archive.files):
            array = np.asarray(archive[name])
            if array.dtype.kind == "U":
                _check_text(np, array, name)
            np.save(Path(folder) / f"{number}.npy", array, allow_pickle=False)
        return list(archive.files), ()


def _check_text(np: Any, array: Any, name: str) -> None:
    letters = np.ascontiguousarray(array).view(np.uint32)
    if letters.size and ((letters > sys.maxunicode) | ((letters >= 0xD800) & (letters < 0xE000))).any():
        raise ValueError(f"the array {name!r} holds text that is no Unicode")


def tokenizer(payloads: list[bytes], texts: Sequence[str]) -> Answer:
    """Makes a tokenizer of a `tokenizer.json` and lets it read some texts: None, or an error."""
    from tokenizers import Tokenizer

    made = Tokenizer.from_str(payloads[0].decode())
    for text in texts:
        made.decode(made.encode(text).ids)
    return None, ()


OPERATIONS: dict[str, Callable[..., Answer]] = {
    operation.__name__: operation
    for operation in (
        *(picture, defects, sizes, numbers, sound, sound_defects),
        *(tables, hub, arrow, parquet, parquet_size, npz, tokenizer),
    )
}


def limit(seconds: float, memory: int | None, written: int | None) -> None:
    """Limits what comes next; where the system has no such limits, there are none.

    Args:
        seconds: after which the process is killed; 0: never.
        memory: bytes of address space beyond those in use; None: no limit.
        written: bytes of a file that is written; None: no limit.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        import resource
    except ImportError:  # Windows
        return
    used = _address_space()
    if used is not None:
        _set_soft(resource, resource.RLIMIT_AS, None if memory is None else used + memory)
    _set_soft(resource, resource.RLIMIT_FSIZE, written)


def _set_soft(resource: Any, kind: int, wanted: int | None) -> None:
    _, hard = resource.getrlimit(kind)
    if wanted is None or (hard != resource.RLIM_INFINITY and wanted > hard):
        wanted = hard
    resource.setrlimit(kind, (wanted, hard))


def _address_space() -> int | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmSize:")), None)


def _quiet_death() -> None:
    """No file of a crashed process: it would be as large as the data."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], list[bytes]] | None:
    """The next header and its payloads, or None where the stream has ended."""
    size = stream.read(4)
    if len(size) < 4:
        return None
    text = stream.read(int.from_bytes(size, "big"))
    header: dict[str, Any] = json.loads(text) if text else {"bytes": []}
    payloads = [stream.read(length) for length in header.pop("bytes")]
    return header, payloads


def write_message(stream: IO[bytes], header: Mapping[str, Any], payloads: Sequence[bytes] = ()) -> None:
    """Sends a header and its payloads."""
    text = json.dumps({**header, "bytes": [len(data) for data in payloads]}).encode()
    stream.write(len(text).to_bytes(4, "big") + text)
    for data in payloads:
        stream.write(data)
    stream.flush()


def main() -> None:
    """Serves requests until stdin is closed. What native code prints goes to stderr."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    _quiet_death()
    while (message := read_message(requests)) is not None:
        header, payloads = message
        limit(header.pop("seconds"), header.pop("memory"), header.pop("written"))
        answer: Sequence[bytes] = ()
        try:
            found, answer = OPERATIONS[header.pop("do")](payloads, **header)
            reply = {"answer": found}
        except BaseException as error:  # A panic of a library in Rust is no Exception.
            reply = {"error": _cause(error), "type": type(error).__name__}
        write_message(replies, reply, answer)
        limit(0, None, None)
    os._exit(0)  # Threads of Arrow may still run; nothing here is worth waiting for them.


if __name__ == "__main__":
    main()
