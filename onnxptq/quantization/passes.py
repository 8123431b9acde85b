"""Passes of inference over calibration samples, each made once: statistics that are known are found by their key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from onnxptq.cache import Cache, content_key
from onnxptq.calibrators import CalibrationSamples
from onnxptq.calibrators.statistics import CalibrationStatistics, merge
from onnxptq.calibrators.statistics_file import VERSION
from onnxptq.data.versions import data_versions
from onnxptq.errors import DataError
from onnxptq.graphs.external import digest_model
from onnxptq.graphs.fills import FILL, MARGIN
from onnxptq.progress import Advance, uncounted
from onnxptq.quantization.collect import CalibrationPass
from onnxptq.quantization.collect_on_device import DevicePass, calibration_pass
from onnxptq.runtimes.provider_options import calibration_identity
from onnxptq.signature import Feeds


def observe(
    source: Path,
    environments: Mapping[str, CalibrationSamples],
    tensors: Sequence[str],
    *,
    histograms: bool,
    optimized: bool = False,
    provider: str = "cpu",
    cache: Cache | None = None,
    progress: Advance = uncounted,
    open_pass: Callable[[], CalibrationPass | DevicePass] | None = None,
) -> CalibrationStatistics:
    """Statistics of `tensors` in each environment: one pass each, or none where the cache has them.

    Args:
        source: the float model, as the quantizer will get it.
        environments: name -> samples.
        tensors: what the quantizer reads.
        histograms: count values, beside exact extremes.
        optimized: run the graph that ONNX Runtime optimised (`--fast-calibration`).
        provider: the execution provider to run on.
        cache: where statistics are kept; None keeps none.
        progress: called with the number of samples done since the last call.
        open_pass: gives the pass where one is needed; for a caller who has several sets and opens the model once.
    """
    open_pass = open_pass or partial(
        calibration_pass, source, tensors, provider=provider, histograms=histograms, optimized=optimized
    )
    parts = []
    opened: CalibrationPass | DevicePass | None = None
    for name, samples in environments.items():
        # With histograms it knows all that it knows without them.
        places = []
        if cache is not None:
            places = [
                statistics_place(cache, source, samples, tensors, h, optimized, provider)
                for h in dict.fromkeys((True, histograms))
            ]
        kept = _known(places)
        if kept is not None:
            # Statistics of nothing (a model in which nothing is quantized) have no environment.
            tensors_of = next(iter(kept.environments.values()), {})
            part = CalibrationStatistics({name: tensors_of}, {name: len(samples)})
            progress(len(samples))
        else:
            counted = _Counted(samples, progress)
            opened = opened or open_pass()
            part = opened.collect(counted, environment=name)
            if cache:
                part.save(places[-1])
        parts.append(part)
    return merge(*parts)


def _known(places: Sequence[Path]) -> CalibrationStatistics | None:
    """The first of the files that can be read. Those that are damaged go: what they held is observed again."""
    for place in filter(Path.is_file, places):
        try:
            return CalibrationStatistics.load(place)
        except DataError:
            with suppress(OSError):  # Where it cannot go, saving what takes its place says why.
                place.unlink()
    return None


def statistics_place(
    cache: Cache,
    source: Path,
    samples: CalibrationSamples,
    tensors: Sequence[str],
    histograms: bool,
    optimized: bool,
    provider: str = "cpu",
) -> Path:
    """Where `observe` keeps the statistics of one environment, or of one part of it."""
    key = content_key(
        "statistics",
        format=VERSION,
        model=digest_model(source),
        samples=samples.digest,
        shard=list(samples.shard),
        task=samples.task.name,
        preprocessing=samples.task.specification,
        tensors=sorted(tensors),
        histograms=histograms,
        optimized=optimized,
        threads=1,  # In an operator. Other numbers, as older versions took them, may give other last bits.
        fills=[FILL, MARGIN],
        runtime=calibration_identity(provider),
        versions=data_versions(),
    )
    return cache.place("statistics", key, ".stats")


class _Counted:
    """Samples that report progress, and say how many they are so that the pass can choose how to count."""

    def __init__(self, samples: CalibrationSamples, progress: Advance) -> None:
        self._samples = samples
        self._progress = progress

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[tuple[str, Feeds]]:
        for item in self._samples:
            yield item
            self._progress(1)
