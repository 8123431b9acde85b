"""The policy: which rules a model must pass, and how each treats uncertainty. A TOML file is read in `policy_file`.

A rule is on where its table is in the policy. All accuracies, drops and rates are fractions: two points are 0.02.

A rule about samples has two sides: it fails where its `limit` is surely exceeded, and it passes only where what the
samples cannot rule out is within its `tolerance`. Between the two it is undecided: more samples are needed. A new rule
is a table here and a function in `rules/` that registers itself under the name of its field in `Policy`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, Protocol

from onnxptq.toml_tables import About

FORMAT = 1

Mode = Literal["fail-if-likely", "fail-if-possible", "point"]

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

Score = Annotated[
    str, About('Which score of the task is judged, as `onnxptq tasks` lists it. Left out: its first, as in "accuracy".')
]

AVERAGE_MARGIN = 0.02
"""How far beyond its limit a rule about all samples tolerates a loss that cannot be ruled out (docs/check.md)."""

GROUP_MARGIN = 0.08
"""The same for a rule about a group: with 100 samples in each of 70 groups a healthy model mostly passes, and a group
of 50 that loses ten points passes at most once in twenty times (docs/check.md has the table)."""

RATIO_MARGIN = 0.1
"""The same for a ratio of latencies."""

Tolerance = Annotated[
    float | None,
    About(
        "The rule passes only where a loss beyond this can be ruled out, else it is undecided. Left out: the limit and "
        "2 points for averages, 8 points for groups.",
        minimum=0.0,
        below=1.0,
    ),
]
Floor = Annotated[
    float | None,
    About(
        "The rule passes only where a value below this can be ruled out, else it is undecided. Left out: the limit "
        "less 2 points for averages, less 8 points for groups.",
        minimum=0.0,
        maximum=1.0,
    ),
]


class Tolerant(Protocol):
    """A rule about samples: `limit` must not be exceeded, and beyond `tolerance` nothing may be left possible."""

    @property
    def limit(self) -> float: ...  # noqa: D102
    @property
    def tolerance(self) -> float | None: ...  # noqa: D102
    @property
    def mode(self) -> Mode: ...  # noqa: D102
    @property
    def margin(self) -> float: ...  # noqa: D102


def tolerated(rule: Tolerant, margin: float | None = None) -> float:
    """What a rule tolerates: its own tolerance, else its limit and a margin; None is the margin of its table."""
    return rule.limit + (rule.margin if margin is None else margin) if rule.tolerance is None else rule.tolerance


class _Ceiling:
    """A rule whose limit is a largest value.

    Attributes:
        margin: from the limit to the tolerance, where that is left out.
    """

    margin: ClassVar[float] = AVERAGE_MARGIN

    def __post_init__(self: Tolerant) -> None:
        if self.tolerance is not None and self.tolerance < self.limit:
            raise ValueError(
                f"the tolerance {self.tolerance:g} is below the limit {self.limit:g}, so that a loss between the two "
                "would never be decided. Expected a tolerance of at least the limit"
            )


class _FloorRule:
    """A rule whose limit is a smallest value; `margin` as above, downward."""

    margin: ClassVar[float] = -AVERAGE_MARGIN

    def __post_init__(self: Tolerant) -> None:
        if self.tolerance is not None and self.tolerance > self.limit:
            raise ValueError(
                f"the tolerance {self.tolerance:g} is above the limit {self.limit:g}, so that a value between the two "
                "would never be decided. Expected a tolerance of at most the limit"
            )


@dataclass(frozen=True)
class Samples:
    """How many original samples a group needs to be judged, and what becomes of the verdict where one has fewer."""

    minimum: Annotated[Positive, About("Original samples (sources) below which a group is not judged.")] = 50
    small_groups: Annotated[SmallGroups, About("What groups below the minimum make of the verdict.")] = "undecided"


@dataclass(frozen=True)
class AverageDrop(_Ceiling):
    """The drop of the average accuracy against the reference."""

    limit: Annotated[Drop, About("Largest drop of the average accuracy.")] = 0.01
    mode: Treatment = "fail-if-likely"
    tolerance: Tolerance = None


@dataclass(frozen=True)
class QualityShare(_FloorRule):
    """The model's quality as a share of the reference's, as MLPerf's targets are (Reddi et al. 2020)."""

    limit: Annotated[Share, About("Smallest share of the reference's mean score.")] = 0.99
    mode: Treatment = "fail-if-likely"
    tolerance: Floor = None


@dataclass(frozen=True)
class WorstGroupDrop(_Ceiling):
    """The drop of the worst group, chosen on one half of the sources and measured on the other (cross-fitted)."""

    margin: ClassVar[float] = GROUP_MARGIN

    limit: Annotated[Drop, About("Largest drop of the worst group's accuracy.")] = 0.02
    mode: Treatment = "fail-if-likely"
    tolerance: Tolerance = None


@dataclass(frozen=True)
class GroupDrop(_Ceiling):
    """The drop of one named group; several such rules are corrected for their number."""

    margin: ClassVar[float] = GROUP_MARGIN

    group: GroupName
    limit: Annotated[Drop, About("Largest drop of the group's accuracy.")] = 0.05
    mode: Treatment = "fail-if-likely"
    tolerance: Tolerance = None


@dataclass(frozen=True)
class GroupAccuracy(_FloorRule):
    """A floor for the accuracy of one named group; several such rules are corrected for their number."""

    margin: ClassVar[float] = -GROUP_MARGIN

    group: GroupName
    limit: Annotated[Share, About("Smallest accuracy of the group.")]
    mode: Treatment = "fail-if-likely"
    tolerance: Floor = None


@dataclass(frozen=True)
class GroupScore(_FloorRule):
    """A floor for the mean score of one named group, whatever the task."""

    margin: ClassVar[float] = -GROUP_MARGIN

    group: GroupName
    limit: Annotated[Share, About("Smallest mean score of the group.")]
    score: Score = ""
    mode: Treatment = "fail-if-likely"
    tolerance: Floor = None


@dataclass(frozen=True)
class TotalDropRule(_Ceiling):
    """The drop of a number of the whole data set that is no mean of samples, such as mAP, WER or macro-F1."""

    total: Annotated[str, About('Name of the total, as `onnxptq tasks` lists it: "mAP".')]
    limit: Annotated[float, About("Largest drop (rise of an error), in the unit of the total.", minimum=0.0)] = 0.02
    mode: Treatment = "fail-if-likely"
    tolerance: Tolerance = None


@dataclass(frozen=True)
class Fidelity(_FloorRule):
    """How near the answers are to the reference's on average, from 0 to 1. It needs no truth."""

    limit: Annotated[Share, About("Smallest mean fidelity.")] = 0.95
    mode: Treatment = "fail-if-likely"
    tolerance: Floor = None


@dataclass(frozen=True)
class WorstGroupFidelity(_FloorRule):
    """The fidelity of the group with the lowest, cross-fitted. It needs no truth."""

    margin: ClassVar[float] = -GROUP_MARGIN

    limit: Annotated[Share, About("Smallest fidelity of the worst group.")] = 0.85
    mode: Treatment = "fail-if-likely"
    tolerance: Floor = None


@dataclass(frozen=True)
class FlipRate(_Ceiling):
    """The share of samples whose prediction differs from the reference's. It needs no labels."""

    limit: Annotated[Drop, About("Largest share of predictions that differ from the reference's.")] = 0.05
    mode: Treatment = "fail-if-likely"
    tolerance: Tolerance = None


@dataclass(frozen=True)
class WorstGroupFlipRate(_Ceiling):
    """The flip rate of the group in which most predictions differ, cross-fitted. It needs no labels."""

    margin: ClassVar[float] = GROUP_MARGIN

    limit: Annotated[Drop, About("Largest flip rate of the worst group.")] = 0.15
    mode: Treatment = "fail-if-likely"
    tolerance: Tolerance = None


@dataclass(frozen=True)
class ProviderAgreement(_FloorRule):
    """The share of samples on which other execution providers predict what the judged one predicts."""

    providers: Annotated[tuple[str, ...], About("Execution providers to compare with the one that is judged.")]
    limit: Annotated[Share, About("Smallest share of equal predictions.")] = 0.99
    mode: Treatment = "fail-if-likely"
    tolerance: Floor = None


@dataclass(frozen=True)
class RegressionRule(_Ceiling):
    """The drop of the average and of the worst group against the baseline's model (only with --baseline)."""

    limit: Annotated[Drop, About("Largest drop against the baseline.")] = 0.01
    mode: Treatment = "fail-if-likely"
    tolerance: Tolerance = None


@dataclass(frozen=True)
class LatencyRule(_Ceiling):
    """The median latency as a ratio. Measured while FP32 and INT8 alternate; not deterministic."""

    margin: ClassVar[float] = RATIO_MARGIN

    limit: Annotated[Ratio, About("Largest ratio of the median latency.")] = 1.0
    mode: Treatment = "fail-if-likely"
    tolerance: Annotated[
        float | None,
        About(
            "The rule passes only where a ratio beyond this can be ruled out. Left out: the limit and 0.1.", above=0.0
        ),
    ] = None
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
class PlacementRule:
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
class Quantization:
    """The file is quantized at all: a model that computes in float passes every comparison with itself."""

    required: Annotated[bool, About("Fail a file in which nothing is quantized.")] = True


@dataclass(frozen=True)
class Policy:
    """The rules. `None`, or an empty tuple, is a rule that is off.

    Attributes:
        group_by: groupings such as "label*corruption"; () is label x corruption, or corruption without labels.
        confidence: of each one-sided bound.
        score: which score of the task drops are of; "" is its first.
        samples: what a group needs to be judged.
        quantization: whether a file in which nothing is quantized fails.
        average_drop ... graph: the rules, each with its own table.
    """

    group_by: Annotated[tuple[str, ...], About('Groupings, as in ["label*corruption"].')] = ()
    confidence: Annotated[float, About("Confidence of each one-sided bound.", above=0.5, below=1.0)] = 0.95
    score: Score = ""
    samples: Samples = field(default_factory=Samples)
    quantization: Quantization = field(default_factory=Quantization)
    average_drop: AverageDrop | None = None
    quality_share: QualityShare | None = None
    worst_group_drop: WorstGroupDrop | None = None
    group_drop: tuple[GroupDrop, ...] = ()
    group_accuracy: tuple[GroupAccuracy, ...] = ()
    group_score: tuple[GroupScore, ...] = ()
    total_drop: tuple[TotalDropRule, ...] = ()
    fidelity: Fidelity | None = None
    worst_group_fidelity: WorstGroupFidelity | None = None
    flip_rate: FlipRate | None = None
    worst_group_flip_rate: WorstGroupFlipRate | None = None
    provider_agreement: ProviderAgreement | None = None
    regression: RegressionRule | None = None
    latency: LatencyRule | None = None
    size: Size | None = None
    placement: PlacementRule | None = None
    lint: Lint | None = None
    provenance: ProvenanceRule | None = None
    graph: Graph | None = None


def settle(
    policy: Policy | None, groups: tuple[str, ...], *, labelled: bool, flips: bool = True, raw: bool = False
) -> Policy:
    """The policy that holds: the one given, else the default one; groupings that a user named win over its own."""
    found = policy or default_policy(labelled=labelled, flips=flips, raw=raw)
    return replace(found, group_by=groups) if groups else found


def default_policy(*, labelled: bool, flips: bool = True, raw: bool = False) -> Policy:
    """The policy of a check without any: average and worst group (docs/check.md says why these and these limits).

    Args:
        labelled: the data has truth for the task. Without it flips take the place of drops.
        flips: answers are equal or different. Where they are not, fidelity takes the place of flips, at their limits.
        raw: fidelity is that of outputs which nobody explained, where noise is no loss yet.
    """
    if labelled:
        return Policy(average_drop=AverageDrop(), worst_group_drop=WorstGroupDrop())
    if not flips and not raw:
        return Policy(fidelity=Fidelity(), worst_group_fidelity=WorstGroupFidelity())
    if not flips:
        # An error of 20 dB on average, of 14 dB in the worst group.
        return Policy(fidelity=Fidelity(limit=0.9), worst_group_fidelity=WorstGroupFidelity(limit=0.8))
    return Policy(flip_rate=FlipRate(), worst_group_flip_rate=WorstGroupFlipRate())


def policy_to_dict(policy: Policy) -> dict[str, Any]:
    """A policy as JSON types, without the rules that are off."""
    values = asdict(policy)
    return {key: _lists(value) for key, value in values.items() if value not in (None, (), "")}


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items() if item is not None}
    return [_lists(item) for item in value] if isinstance(value, tuple | list) else value
