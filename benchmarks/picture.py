"""The picture of the README: what two calibration sets do to the average and to the worst groups, light and dark.

python benchmarks/picture.py        # a minute; writes docs/pictures/worst-groups-{light,dark}.svg
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import onnxptq

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "pictures"

WORST = 7
"""Groups that are shown below the average."""

_NAMES = ("text", "quiet", "line", "fp32", "good", "bad")
COLORS = {
    "light": dict(zip(_NAMES, ["#1f2328", "#59636e", "#d1d9e0", "#59636e", "#0969da", "#bc4c00"], strict=True)),
    "dark": dict(zip(_NAMES, ["#f0f6fc", "#9198a1", "#3d444d", "#9198a1", "#4493f8", "#f0883e"], strict=True)),
}
"""No background: the page's own shows. Each color has a contrast of 4.5 to 1 at least with the page of its mode."""

LEFT, WIDTH, TOP, ROW = 190, 720, 92, 30


@dataclass(frozen=True)
class Row:
    """One line of the picture: fractions of correct answers."""

    name: str
    fp32: float
    clean: float
    shifted: float


def rows() -> list[Row]:
    """The average, then the groups that are worst under the shifted set, as both files of `quantize` score them."""
    reports = {}
    with tempfile.TemporaryDirectory() as folder:
        for calib in ("clean", "shifted"):
            made = onnxptq.quantize(calib=calib, output=Path(folder) / f"{calib}.onnx")
            reports[calib] = made.report
    clean, shifted = reports["clean"], reports["shifted"]
    assert clean is not None and shifted is not None
    by_name = {group.name: group for group in clean.groups}
    found = [Row("average of all groups", shifted.fp32_average, clean.int8_average, shifted.int8_average)]
    for group in shifted.groups[:WORST]:
        label, _, corruption = group.name.partition("*corruption=")
        name = f"digit {label.partition('=')[2]}, {corruption.partition('@')[0].replace('_', ' ')}"
        found.append(Row(name, group.fp32, by_name[group.name].int8, group.int8))
    return found


def svg(found: Sequence[Row], mode: str) -> str:
    """The picture: a line a row, three marks on each that differ in shape and in color."""
    color = COLORS[mode]
    height = TOP + ROW * len(found) + 30
    told = "; ".join(f"{r.name}: FP32 {r.fp32:.0%}, clean {r.clean:.0%}, dark {r.shifted:.0%}" for r in found)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="t d" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="{color["text"]}">',
        '<title id="t">INT8 from dark calibration images ruins groups that the average does not show</title>',
        f'<desc id="d">{escape(told)}</desc>',
        '<text x="0" y="18" font-size="15" font-weight="600">One model, one quantizer, 128 calibration images</text>',
        f'<text x="0" y="38" fill="{color["quiet"]}">Correct answers in FP32 and in INT8. Only the brightness of the '
        "calibration images differs.</text>",
    ]
    for x, mark, text in ((0, "fp32", "FP32"), (90, "good", "INT8, clean images"), (260, "bad", "INT8, dark images")):
        parts += [_mark(x + 7, 60, mark, color[mark]), f'<text x="{x + 20}" y="64">{text}</text>']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = _x(share)
        parts.append(f'<path d="M{x} {TOP - 8}V{height - 26}" stroke="{color["line"]}"/>')
        parts.append(
            f'<text x="{x}" y="{height - 8}" text-anchor="middle" fill="{color["quiet"]}">{100 * share:.0f} %</text>'
        )
    for number, row in enumerate(found):
        y = TOP + ROW * number + 8
        weight = ' font-weight="600"' if number == 0 else ""
        parts.append(f'<text x="{LEFT - 14}" y="{y + 4}" text-anchor="end"{weight}>{escape(row.name)}</text>')
        parts.append(f'<path d="M{_x(row.shifted)} {y}H{_x(row.fp32)}" stroke="{color["bad"]}" stroke-width="2"/>')
        for mark, share in (("fp32", row.fp32), ("good", row.clean), ("bad", row.shifted)):
            parts.append(_mark(_x(share), y, mark, color[mark]))
    return "\n".join([*parts, "</svg>", ""])


def _x(share: float) -> float:
    return round(LEFT + share * (WIDTH - LEFT - 30), 1)


def _mark(x: float, y: float, mark: str, color: str) -> str:
    if mark == "fp32":
        return f'<circle cx="{x}" cy="{y}" r="6.5" fill="none" stroke="{color}" stroke-width="2"/>'
    if mark == "good":
        return f'<circle cx="{x}" cy="{y}" r="4" fill="{color}"/>'
    return f'<path d="M{x} {y - 6}l6 6l-6 6l-6 -6z" fill="{color}"/>'


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    found = rows()
    FOLDER.mkdir(exist_ok=True)
    for mode in COLORS:
        path = FOLDER / f"worst-groups-{mode}.svg"
        path.write_text(svg(found, mode), encoding="utf-8")
        print(f"wrote {path.relative_to(FOLDER.parents[1])}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
