"""Where strangers plug in: a registry is filled by importing modules, ours and those of entry points alike.

A module registers what it defines when it is imported. Ours are listed at the registry; a stranger's package names
its module in an entry point of the registry's group (`onnxptq.calibrators`, `onnxptq.shifts`, `onnxptq.tasks` ...):

    [options.entry_points]
    onnxptq.shifts =
        rain = weather_shifts.rain
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from onnxptq.errors import UsageError, did_you_mean


class Named(Protocol):
    """Whatever has a name."""

    @property
    def name(self) -> str:
        """As the user writes it."""
        ...


T = TypeVar("T", bound=Named)


class Registry(Generic[T]):
    """Named plug-ins of one kind, loaded when the first name is looked up.

    Args:
        kind: what one entry is called in messages, for example "calibration set".
        group: the entry point group that strangers use.
        builtin: modules of ours that register entries when they are imported.
    """

    def __init__(self, kind: str, group: str, builtin: tuple[str, ...]) -> None:
        self.kind = kind
        self.group = group
        self._builtin = builtin
        self._entries: dict[str, T] = {}
        self._loaded = False

    def register(self, entry: T) -> T:
        """Adds `entry` under its name. Raises ValueError when another entry has that name."""
        known = self._entries.get(entry.name)
        if known is not None and known != entry:
            raise ValueError(f"{self.kind} {entry.name!r} is registered twice")
        self._entries[entry.name] = entry
        return entry

    def get(self, name: str) -> T:
        """The entry called `name`. Raises UsageError, with the closest names, when there is none."""
        self._load()
        if name not in self._entries:
            raise UsageError(f"unknown {self.kind} {name!r}. {did_you_mean(name, self._entries)}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._entries

    def __iter__(self) -> Iterator[T]:
        self._load()
        return iter(list(self._entries.values()))

    def names(self) -> list[str]:
        """All names, in the order of registration."""
        return [entry.name for entry in self]

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True  # Before the work is done: a module that is imported here may look names up.
        try:
            self._import_all()
        except BaseException:
            self._loaded = False
            raise

    def _import_all(self) -> None:
        for module in self._builtin:
            importlib.import_module(module)
        for entry_point in importlib.metadata.entry_points(group=self.group):
            try:
                entry_point.load()
            except Exception as error:
                raise UsageError(
                    f"the plug-in {entry_point.name!r} ({entry_point.value}) of {self.group} does not load: {error}. "
                    "Update or uninstall the package that brings it."
                ) from error
