"""The reader that ONNX Runtime's calibrators and `quantize_static` accept."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from onnxptq.signature import Feeds


class SampleReader:
    """A `CalibrationDataReader` (ONNX Runtime's duck type) over feeds that can be produced again from the start.

    It produces feeds one at a time, so that memory does not grow with the number of samples.

    Args:
        produce: makes a new iterator over the feeds at each call.
        count: how many feeds there are.
    """

    def __init__(self, produce: Callable[[], Iterator[Feeds]], count: int) -> None:
        self._produce = produce
        self._count = count
        self._feeds = produce()
        self._remaining: int | None = None

    def get_next(self) -> Feeds | None:
        """The feeds of the next sample, or None at the end."""
        if self._remaining is not None:
            if self._remaining == 0:
                return None
            self._remaining -= 1
        return next(self._feeds, None)

    def rewind(self) -> None:
        """Starts again from the first sample."""
        self._feeds = self._produce()
        self._remaining = None

    def set_range(self, start_index: int, end_index: int) -> None:
        """Restricts the reader to samples start_index to end_index - 1 (ONNX Runtime's option CalibStridedMinMax)."""
        self._feeds = self._produce()
        for _ in range(start_index):
            next(self._feeds, None)
        self._remaining = end_index - start_index

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Feeds]:
        while (feeds := self.get_next()) is not None:
            yield feeds
