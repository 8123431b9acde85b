"""A policy to start from: `onnxptq check MODEL --init` writes it, with comments, for the model at hand."""

from __future__ import annotations

from pathlib import Path

from onnxptq.gates.policy import (
    AVERAGE_MARGIN,
    FORMAT,
    GROUP_MARGIN,
    AverageDrop,
    FlipRate,
    Samples,
    WorstGroupDrop,
    WorstGroupFlipRate,
    tolerated,
)
from onnxptq.graphs import load_model, read_provenance
from onnxptq.toml_tables import toml_value


def starter_policy(model: Path) -> str:
    """TOML text: the default policy, and every other rule as a comment with values that fit the model.

    Raises:
        ModelError: the file is not a model, or is refused.
    """
    loaded = load_model(model, domains=())
    provenance = read_provenance(loaded.metadata)
    target = provenance.recipe.target if provenance else "cpu"
    source = str(provenance.source["digest"]) if provenance else "reference"
    calibration = provenance.recipe.calibration if provenance else "clean"
    version = provenance.versions.get("onnxptq", "") if provenance else ""
    classes = (
        (provenance.preprocessing.get("labels") or provenance.preprocessing.get("classes")) if provenance else None
    )
    group = f"label={classes[0]}" if isinstance(classes, list) and classes else "label=cat"
    return _TEMPLATE.format(
        name=toml_value(loaded.path.name),
        format=FORMAT,
        minimum=Samples().minimum,
        average=AverageDrop().limit,
        worst=WorstGroupDrop().limit,
        average_tolerance=round(tolerated(AverageDrop(), AVERAGE_MARGIN), 6),
        worst_tolerance=round(tolerated(WorstGroupDrop(), GROUP_MARGIN), 6),
        flips=FlipRate().limit,
        worst_flips=WorstGroupFlipRate().limit,
        group=toml_value(group),
        target=toml_value(target),
        provider=toml_value({"tensorrt": "tensorrt", "tensorrt11": "tensorrt", "cuda": "cuda"}.get(target, "cpu")),
        source=toml_value(source),
        calibration=toml_value(calibration),
        version=toml_value(version),
        opset=loaded.opset,
    )


_TEMPLATE = """\
# What {name} must pass:  onnxptq check {name} --policy THIS_FILE
# A rule is on where its table is present; take the # away to turn one on. Accuracies, drops and rates are fractions:
# 0.02 is two points. docs/check.md explains every rule.
format = {format}

# Groups that are judged. Left out: label x corruption.
# group_by = ["label*corruption"]

# Of each one-sided bound.
confidence = 0.95

# mode, in each rule about samples, says how uncertainty is treated:
#   "fail-if-likely"    fails where the interval lies wholly beyond the limit: few false alarms (the default)
#   "fail-if-possible"  fails where any of the interval does: for models that may do harm; needs many samples
#   "point"             fails where the measured value does: no allowance for chance

[samples]
# Original samples that a group needs to be judged. At 50, a group that loses 15 points is found half the time.
minimum = {minimum}
# "undecided": a smaller group makes the verdict UNDECIDED. "ignore": the other groups decide.
small_groups = "undecided"

# A rule about samples fails where its limit is surely exceeded, passes only where a loss beyond its tolerance can be
# ruled out, and is undecided between the two.
# A file in which nothing is quantized fails, unless this is false.
# [quantization]
# required = true

[average_drop]
limit = {average}
tolerance = {average_tolerance}
mode = "fail-if-likely"

# The model's quality as a share of FP32's, as MLPerf asks for 99 or 99.9 %.
# [quality_share]
# limit = 0.99

# Chosen on one half of the samples and measured on the other, so that many groups cost no false alarms.
[worst_group_drop]
limit = {worst}
tolerance = {worst_tolerance}
mode = "fail-if-likely"

# Without labels, use these two instead of the two above: predictions that differ from FP32's.
# [flip_rate]
# limit = {flips}
# [worst_group_flip_rate]
# limit = {worst_flips}

# Groups that matter to you, by name; repeat the table for each.
# [[group_drop]]
# group = {group}
# limit = 0.05
# [[group_accuracy]]
# group = {group}
# limit = 0.90
# The same for any score of any task (`onnxptq tasks` lists them); score may be left out.
# [[group_score]]
# group = {group}
# score = "accuracy"
# limit = 0.90

# Numbers of the whole data set: mAP, WER, macro-F1, ...
# [[total_drop]]
# total = "macro-F1"
# limit = 0.02

# How near the answers are to FP32's, from 0 to 1. It needs no truth.
# [fidelity]
# limit = 0.95
# [worst_group_fidelity]
# limit = 0.85

# The share of samples on which other execution providers predict the same.
# [provider_agreement]
# providers = [{provider}]
# limit = 0.99

# Against the last accepted model (--baseline FILE).
# [regression]
# limit = 0.01

# Ratios to FP32, or to the baseline: against = "baseline". Latency is measured, so it is not deterministic.
# [latency]
# limit = 1.0
# batch = 1
# [size]
# limit = 0.5

# The share of nodes on an execution provider.
# [placement]
# provider = {provider}
# limit = 0.95

# No error of `onnxptq lint` for this target.
# [lint]
# target = {target}

# What the model says that it was made from; leave out what does not matter.
# [provenance]
# source = {source}
# calibration = {calibration}
# version = {version}

# [graph]
# minimum_opset = {opset}
# external_data = false
# domains = []
# quantized = true
# float_nodes = []
"""
