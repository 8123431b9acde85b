"""The policy: which rules a model must pass, and how each treats uncertainty. A TOML file is read in `policy_file`.

A rule is on where its table is in the policy. All accuracies, drops and rates are fractions: two points are 0.02.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, get_args

from onnxptq.toml_tables import About

FORMAT = 1

Mode = Literal["fail-if-likely", "fail-if-possible", "point"]
MODES: tuple[Mode, ...] = get_args(Mode)

Against = Literal["reference", "baseline"]
SmallGroups = Literal["undecided", "ignore"]


Drop = Annotated[float, About(minimum=0.0, below=1.0)]
Share = Annotated[float, About(minimum=0.0, maximum=1.0)]
Ratio = Annotated[float, About(above=0.0)]
Positive = Annotated[int, About(minimum=1)]
Count = Annotated[int, About(minimum=0)]
Treatment = Annotated[Mode, About("How uncertainty is treated.")]
GroupName = Annotated[
    str, About('The group: column=value, or several joined by *, as in "label=cat*corruption=fog@3".')
]


@dataclass(frozen=True)
class Samples:
    """How many original samples a group needs to be judged, and what becomes of the verdict where one has fewer."""

    minimum: Annotated[Positive, About("Original samples (sources) below which a group is not judged.")] = 50
    small_groups: Annotated[SmallGroups, About("What groups below the minimum make of the verdict.")] = "undecided"


@dataclass(frozen=True)
class AverageDrop:
    """The drop of the average accuracy against the reference."""

    limit: Annotated[Drop, About("Largest drop of the average accuracy.")] = 0.01
    mode: Treatment = "fail-if-likely"


@dataclass(frozen=True)
class WorstGroupDrop:
    """The drop of the worst group, chosen on one half of the sources and measured on the other (cross-fitted)."""

    limit: Annotated[Drop, About("Largest drop of the worst group's accuracy.")] = 0.02
    mode: Treatment = "fail-if-likely"


@dataclass(frozen=True)
class GroupDrop:
    """The drop of one named group; several such rules are corrected for their number."""

    group: GroupName
    limit: Annotated[Drop, About("Largest drop of the group's accuracy.")] = 0.05
    mode: Treatment = "fail-if-likely"


@dataclass(frozen=True)
class GroupAccuracy:
    """A floor for the accuracy of one named group; several such rules are corrected for their number."""

    group: GroupName
    limit: Annotated[Share, About("Smallest accuracy of the group.")]
    mode: Treatment = "fail-if-likely"


@dataclass(frozen=True)
class FlipRate:
    """The share of samples whose prediction differs from the reference's. It needs no labels."""

    limit: Annotated[Drop, About("Largest share of predictions that differ from the reference's.")] = 0.05
    mode: Treatment = "fail-if-likely"


@dataclass(frozen=True)
class WorstGroupFlipRate:
    """The flip rate of the group in which most predictions differ, cross-fitted. It needs no labels."""

    limit: Annotated[Drop, About("Largest flip rate of the worst group.")] = 0.15
    mode: Treatment = "fail-if-likely"


@dataclass(frozen=True)
class ProviderAgreement:
    """The share of samples on which other execution providers predict what the judged one predicts."""

    providers: Annotated[tuple[str, ...], About("Execution providers to compare with the one that is judged.")]
    limit: Annotated[Share, About("Smallest share of equal predictions.")] = 0.99
    mode: Treatment = "fail-if-likely"


@dataclass(frozen=True)
class Regression:
    """The drop of the average and of the worst group against the baseline's model (only with --baseline)."""

    limit: Annotated[Drop, About("Largest drop against the baseline.")] = 0.01
    mode: Treatment = "fail-if-likely"


@dataclass(frozen=True)
class Latency:
    """The median latency as a ratio. Measured while FP32 and INT8 alternate; not deterministic."""

    limit: Annotated[Ratio, About("Largest ratio of the median latency.")] = 1.0
    mode: Treatment = "fail-if-likely"
    against: Annotated[Against, About("What the ratio is to: the reference, or the baseline's own ratio.")] = (
        "reference"
    )
    batch: Annotated[Positive, About("Samples in one run.")] = 1
    threads: Annotated[Count, About("Threads inside one operator; 0 leaves the number to ONNX Runtime.")] = 0


@dataclass(frozen=True)
class Size:
    """The size of the file with its external data, as a ratio."""

    limit: Annotated[Ratio, About("Largest ratio of the size.")] = 0.5
    against: Annotated[Against, About("What the ratio is to: the reference, or the baseline's model.")] = "reference"


@dataclass(frozen=True)
class Placement:
    """Where ONNX Runtime put the nodes of the graph (before it fused them)."""

    provider: Annotated[str, About("The execution provider that must take the nodes.")]
    limit: Annotated[Share, About("Smallest share of the nodes on that provider.")] = 0.95


@dataclass(frozen=True)
class Lint:
    """`onnxptq lint` finds no error for this target."""

    target: Annotated[str, About("What the graph is for: cpu, cuda, tensorrt, ...")]


@dataclass(frozen=True)
class ProvenanceRule:
    """What the model says that it was made from. A key that is left out is not asked for."""

    source: Annotated[str, About('Digest of the FP32 model (8 digits or more), or "reference" for the one given.')] = (
        "reference"
    )
    calibration: Annotated[str, About("Calibration set by name, as in `onnxptq quantize --calib`.")] = ""
    calibration_digest: Annotated[str, About("Digest of the drawn calibration samples (8 digits or more).")] = ""
    version: Annotated[str, About("Version of onnxptq that made it.")] = ""


@dataclass(frozen=True)
class Graph:
    """Hygiene of the graph. External data outside the model's folder is refused always, whatever is written here."""

    minimum_opset: Annotated[Count, About("Oldest version of the standard operators.")] = 0
    maximum_opset: Annotated[Count, About("Newest version of the standard operators; 0 is any.")] = 0
    external_data: Annotated[bool, About("Weights may lie in files beside the model.")] = True
    domains: Annotated[
        tuple[str, ...],
        About("Operator domains beyond those of ONNX and ONNX Runtime. A model with any other domain is refused."),
    ] = ()
    quantized: Annotated[bool, About("Each Conv, ConvTranspose, Gemm and MatMul must compute on quantized inputs.")] = (
        False
    )
    float_nodes: Annotated[tuple[str, ...], About("Names, or patterns with *, of nodes that may stay in float.")] = ()


@dataclass(frozen=True)
class Policy:
    """The rules. `None`, or an empty tuple, is a rule that is off.

    Attributes:
        group_by: groupings such as "label*corruption"; () is label x corruption, or corruption without labels.
        confidence: of each one-sided bound.
        samples: what a group needs to be judged.
        average_drop ... graph: the rules, each with its own table.
    """

    group_by: Annotated[tuple[str, ...], About('Groupings, as in ["label*corruption"].')] = ()
    confidence: Annotated[float, About("Confidence of each one-sided bound.", above=0.5, below=1.0)] = 0.95
    samples: Samples = field(default_factory=Samples)
    average_drop: AverageDrop | None = None
    worst_group_drop: WorstGroupDrop | None = None
    group_drop: tuple[GroupDrop, ...] = ()
    group_accuracy: tuple[GroupAccuracy, ...] = ()
    flip_rate: FlipRate | None = None
    worst_group_flip_rate: WorstGroupFlipRate | None = None
    provider_agreement: ProviderAgreement | None = None
    regression: Regression | None = None
    latency: Latency | None = None
    size: Size | None = None
    placement: Placement | None = None
    lint: Lint | None = None
    provenance: ProvenanceRule | None = None
    graph: Graph | None = None

    @property
    def reads_predictions(self) -> bool:
        """Whether a rule is computed from predictions."""
        return bool(
            self.average_drop
            or self.worst_group_drop
            or self.group_drop
            or self.group_accuracy
            or self.flip_rate
            or self.worst_group_flip_rate
            or self.provider_agreement
            or self.regression
        )

    @property
    def reads_reference(self) -> bool:
        """Whether a rule compares with the FP32 model."""
        ratios = [rule for rule in (self.latency, self.size) if rule is not None]
        return bool(
            self.average_drop
            or self.worst_group_drop
            or self.group_drop
            or self.flip_rate
            or self.worst_group_flip_rate
            # The baseline's latency is a ratio to FP32 itself: seconds of another machine say nothing.
            or self.latency
            or any(rule.against == "reference" for rule in ratios)
            or (self.provenance and self.provenance.source == "reference")
        )


def settle(policy: Policy | None, groups: tuple[str, ...], *, labelled: bool) -> Policy:
    """The policy that holds: the one given, else the default one; groupings that a user named win over its own."""
    found = policy or default_policy(labelled=labelled)
    return replace(found, group_by=groups) if groups else found


def default_policy(*, labelled: bool) -> Policy:
    """The policy of a check without any: average and worst group (docs/check.md says why these and these limits).

    Args:
        labelled: the data has labels. Without them flips take the place of drops.
    """
    if labelled:
        return Policy(average_drop=AverageDrop(), worst_group_drop=WorstGroupDrop())
    return Policy(flip_rate=FlipRate(), worst_group_flip_rate=WorstGroupFlipRate())
