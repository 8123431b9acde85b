"""Data of strangers: whatever a file holds, the answer is data or an error that names it, within bounds."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from onnxptq.data import DecodeError, decode_picture, isolated, open_source
from onnxptq.errors import DataError


def png(size=(4, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "PNG")
    return buffer.getvalue()


def opened(path: Path, **options):
    """Everything that is read of a source: its digest, and every row."""
    source = open_source(str(path), cache=path.parent / "cache", **options)
    for dataset in source.splits.values():
        dataset.read(np.arange(len(dataset)))
    return source


def refused(path: Path, *says: str, **options) -> None:
    with pytest.raises(DataError) as error:
        opened(path, **options)
    for text in says:
        assert text in str(error.value)


@pytest.mark.parametrize(
    "text", ["null\ntrue\n1\n", "1\n2\n", '"a"\n"b"\n', "[1]\n[2]\n", "true", "{}", "[[[[", "\x00", '{"x": 1', "null"]
)
def test_json_that_is_no_table_is_refused(tmp_path, text):
    path = tmp_path / "d.json"
    path.write_text(text)
    refused(path, "d.json")


def test_a_crash_of_a_reader_is_an_error_and_the_next_source_is_read(tmp_path):
    # Arrow's reader of JSON takes bare values for objects.
    (tmp_path / "d.jsonl").write_text("null\ntrue\n1\n")
    refused(tmp_path / "d.jsonl", "crashed")
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2), np.float32))
    assert len(opened(tmp_path / "a.npz").splits[""]) == 3


def names(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / "table"
    folder.mkdir(exist_ok=True)
    (folder / "a.png").write_bytes(png())
    (folder / "list.csv").write_text(f'image,label\na.png,0\n"{name}",1\n')
    return folder / "list.csv"


@pytest.mark.parametrize("name", ["/dev/zero", "../outside.png", "sub/../../outside.png", "link.png", "/etc/passwd"])
def test_a_file_outside_of_the_tables_folder_is_refused(tmp_path, name):
    table = names(tmp_path, name)
    (tmp_path / "outside.png").write_bytes(png())
    (table.parent / "sub").mkdir()
    (table.parent / "link.png").symlink_to(tmp_path / "outside.png")
    refused(table, "outside of its folder", "--trust-data")


def test_who_trusts_the_data_reads_files_anywhere(tmp_path):
    table = names(tmp_path, str(tmp_path / "outside.png"))
    (tmp_path / "outside.png").write_bytes(png())
    assert len(opened(table, trusted=True).splits[""]) == 2


def test_links_inside_of_the_folder_are_followed(tmp_path):
    table = names(tmp_path, "link.png")
    (table.parent / "link.png").symlink_to("a.png")
    assert len(opened(table).splits[""]) == 2


def test_a_device_or_a_pipe_is_no_image_even_where_the_data_is_trusted(tmp_path):
    refused(names(tmp_path, "/dev/zero"), "/dev/zero", "device", trusted=True)
    table = names(tmp_path, "pipe.png")
    os.mkfifo(table.parent / "pipe.png")
    refused(table, "pipe.png")


@pytest.mark.parametrize("name", ["circle.png", "folder.png", "n" * 300 + ".png", "missing.png"])
def test_a_name_of_no_file_is_refused(tmp_path, name):
    table = names(tmp_path, name)
    (table.parent / "circle.png").symlink_to("circle.png")
    (table.parent / "folder.png").mkdir()
    refused(table, name)


def test_a_file_that_is_too_large_is_refused_unread(tmp_path):
    table = names(tmp_path, "huge.png")
    with (table.parent / "huge.png").open("wb") as file:
        file.truncate(2**40)
    refused(table, "huge.png", "bytes")


def test_an_image_in_parquet_that_names_a_file_is_held_to_the_folder(tmp_path):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": png(), "path": "a.png"}, {"bytes": None, "path": "/etc/passwd"}]
    pq.write_table(pa.table({"image": pa.array(rows, kind), "label": [0, 1]}), tmp_path / "t.parquet")
    refused(tmp_path / "t.parquet", "/etc/passwd", "outside")


def zip_of_zeros(path: Path, size: int) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (size // 1024, 1024)}
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w", force_zip64=True) as file,
    ):
        file.write(header.getvalue())
        for _ in range(size // 2**20):
            file.write(bytes(2**20))


def test_an_npz_that_unpacks_to_far_more_than_data_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr("onnxptq.files.UNPACKED_FREE", 2**20)
    zip_of_zeros(tmp_path / "bomb.npz", 8 * 2**20)
    refused(tmp_path / "bomb.npz", "bomb.npz", "unpack")
    assert len(opened(tmp_path / "bomb.npz", trusted=True).splits[""]) == 8 * 2**10


def test_a_parquet_that_unpacks_to_far_more_than_data_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr("onnxptq.files.UNPACKED_FREE", 2**20)
    column = pa.array(np.zeros(2**20, np.int64))
    pq.write_table(pa.table({"text": pa.array(["a"] * 2**20), "label": column}), tmp_path / "bomb.parquet")
    refused(tmp_path / "bomb.parquet", "bomb.parquet", "unpack")


def test_an_array_that_claims_to_be_larger_than_its_bytes_is_refused(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**50, 3)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    refused(tmp_path / "x.npz", "x.npz")


def test_text_that_is_none_in_an_array_is_refused(tmp_path):
    letters = np.array([[0x110000, 65]], np.uint32).view("<U2")
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 3), np.float32), y=letters[:, 0])
    refused(tmp_path / "x.npz", "no Unicode")


def test_a_table_of_arrow_with_offsets_beyond_its_bytes_is_refused(tmp_path):
    table = pa.table({"text": pa.array(["good film", "bad film"]), "label": [0, 1]})
    with pa.OSFile(str(tmp_path / "t.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    data = (tmp_path / "t.arrow").read_bytes()
    offsets = struct.pack("<3i", 0, 9, 17)
    assert data.count(offsets) == 1
    (tmp_path / "t.arrow").write_bytes(data.replace(offsets, struct.pack("<3i", 0, 9, 2**30)))
    refused(tmp_path / "t.arrow", "t.arrow")


def test_a_saved_folder_that_names_files_elsewhere_is_refused(tmp_path):
    import datasets

    saved = tmp_path / "saved"
    datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}).save_to_disk(str(saved))
    assert len(opened(saved).splits[""]) == 2
    state = (saved / "state.json").read_text()
    (saved / "state.json").write_text(state.replace("data-00000", "../data-00000"))
    refused(saved, "state.json", "beside")


def test_bits_that_flip_in_a_saved_folder_are_found_or_harmless(tmp_path):
    import datasets

    saved = tmp_path / "saved"
    datasets.Dataset.from_dict({"text": ["a good film"] * 8, "label": [0, 1] * 4}).save_to_disk(str(saved))
    (file,) = saved.glob("*.arrow")
    data = file.read_bytes()
    for number in range(40):
        rng = np.random.default_rng(number)
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        file.write_bytes(bytes(damaged))
        try:
            opened(saved)
        except DataError as error:
            assert "saved" in str(error)


def bomb_png(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image"),  # Never to Ghostscript.
        (png()[:40], "cut off"),
        (bomb_png(60_000), "exceeds limit"),
        (bomb_png(2_000), "truncated"),
    ],
)
def test_what_is_no_image_is_refused_by_the_decoder(data, says):
    with pytest.raises(DecodeError, match=says):
        decode_picture(data)


def test_what_does_not_end_is_ended(monkeypatch):
    with pytest.raises(DecodeError) as error:
        isolated.ask("defects", [png((3000, 3000))] * 40, whole=True, seconds=0.05)
    assert error.value.failure == "hung"
    assert decode_picture(png()).pixels.shape == (4, 4, 3)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux limits the memory of one process")
def test_what_takes_more_memory_than_allowed_is_ended(monkeypatch):
    monkeypatch.setattr(isolated, "_decoder", None)  # A new one, which has nothing of before to use again.
    monkeypatch.setattr(isolated, "memory_for", lambda size: 2**26)
    with pytest.raises(DecodeError) as error:
        decode_picture(png((9000, 9000)))
    monkeypatch.undo()
    assert error.value.failure == "out of memory"
    assert decode_picture(png()).pixels.shape == (4, 4, 3)


def test_the_pixels_are_those_of_pillow(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "L": rng.integers(0, 256, (5, 7), np.uint8),
        "RGB": rng.integers(0, 256, (5, 7, 3), np.uint8),
        "I;16": rng.integers(0, 65536, (5, 7), np.uint16),
        "F": rng.random((5, 7), np.float32),
    }
    for mode, array in arrays.items():
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "TIFF")
        found = decode_picture(buffer.getvalue())
        assert found.form == "TIFF"
        np.testing.assert_array_equal(found.pixels.squeeze(-1) if mode != "RGB" else found.pixels, array)


def test_a_picture_that_is_cut_off_is_found_though_it_is_not_drawn(tmp_path):
    for label in "ab":
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (64, 64), (number, 0, 0)).save(tmp_path / "photos" / label / f"{number}.jpg")
    opened(tmp_path / "photos")
    last = tmp_path / "photos" / "b" / "2.jpg"
    last.write_bytes(last.read_bytes()[:-30])
    refused(tmp_path / "photos", "b/2.jpg", "cut off")


@pytest.mark.parametrize("damage", ["zeros", "bit"])
def test_damage_of_the_kept_table_is_repaired(tmp_path, damage):
    (tmp_path / "d.csv").write_text("text,label\ngood film,1\nbad film,0\n")
    before = opened(tmp_path / "d.csv").digest
    for file in (tmp_path / "cache").rglob("*.arrow"):
        data = bytearray(file.read_bytes())
        if damage == "zeros":
            data[:] = bytes(len(data))
        else:
            data[len(data) // 2] ^= 4
        file.write_bytes(bytes(data))
    assert opened(tmp_path / "d.csv").digest == before
