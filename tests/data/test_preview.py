"""What the beginning of a source tells."""

from __future__ import annotations

import wave
from pathlib import Path

from onnxptq.data.preview import Preview, preview


def test_a_table_tells_columns_categories_missing_cells_and_label(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("age,plan,note,label\n20,a,first one,1\n,b,second one,0\n40,a,,1\n")
    found = preview(str(tmp_path / "t.csv"), tmp_path / "cache")
    assert dict(found.columns) == {"age": "number", "plan": "text", "note": "text", "label": "scalar"}
    assert found.categories["plan"] == ("a", "b")
    assert dict(found.missing) == {"age": 30.0, "note": None}
    assert found.label == "label"
    assert preview(str(tmp_path / "t.csv"), tmp_path / "cache", label="plan").label == "plan"


def test_recordings_tell_their_rate_and_folders(tmp_path: Path) -> None:
    for name in ("no", "yes"):
        (tmp_path / name).mkdir()
        with wave.open(str(tmp_path / name / "0.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(11_025)
            file.writeframes(bytes(2000))
    found = preview(str(tmp_path), tmp_path / "cache")
    assert found == Preview(categories={"folder": ("no", "yes")}, label="folder", sample_rate=11_025)


def test_other_sources_tell_nothing(tmp_path: Path) -> None:
    assert preview(str(tmp_path), tmp_path) == preview("x.npz", tmp_path) == Preview()
