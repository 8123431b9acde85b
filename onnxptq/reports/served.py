"""An audit of served data in a terminal: the verdict, then what differs, most first."""

from __future__ import annotations

from onnxptq.audit.served import FALSE_ALARMS, FEWEST, ServedAudit
from onnxptq.audit.verdict import FAILED, UNDECIDED

_SHOWN = 5


def print_served(audit: ServedAudit) -> None:
    """The verdict in one line, what to do, and the numbers that differ most."""
    print(served_line(audit))
    if audit.verdict == FAILED:
        print("remedy: Calibrate with samples like those that are served: onnxptq quantize --calib-data SERVED.")
        print("remedy: Or judge the model on them first: onnxptq check MODEL --data SERVED.")
    for one in audit.differences[:_SHOWN]:
        spans = [f"{low:.3g} to {high:.3g}, median {middle:.3g}" for low, middle, high in (one.calibrated, one.served)]
        print(f"{one.number}: calibrated {spans[0]}; served {spans[1]}; distance {one.distance:.2f}")


def served_line(audit: ServedAudit) -> str:
    """The verdict in one line."""
    subject = f"{audit.verdict}: {audit.served} served samples and the {audit.calibrated} that calibrated {audit.model}"
    if audit.verdict == UNDECIDED:
        return f"{subject}: {FEWEST} are needed, with numbers that the file remembers, to say anything"
    if audit.verdict == FAILED:
        return (
            f"{subject} differ: {audit.differences[0].number} (distance {audit.differences[0].distance:.2f}, above the "
            f"{audit.limit:.2f} that chance exceeds in {FALSE_ALARMS:.0%} of audits)"
        )
    return f"{subject} show no difference beyond chance (largest distance {audit.differences[0].distance:.2f})"
