"""Sessions that run where they were asked to run, or say that they do not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from onnxptq.errors import DataError, ModelError, OnnxptqError, RuntimeUnavailableError, UsageError, did_you_mean
from onnxptq.files import FileState, state_of
from onnxptq.runtimes._libraries import NVIDIA_PROVIDERS, preload_libraries
from onnxptq.runtimes._messages import gpu_remedy, readable_cause
from onnxptq.runtimes._probe import RECORD_PLACEMENT, placement
from onnxptq.runtimes.cpu import limited_cores
from onnxptq.runtimes.installation import debugging, import_onnxruntime
from onnxptq.runtimes.provider_options import DeviceSettings, companion_options, provider_options
from onnxptq.runtimes.providers import (
    FALLBACK_REMEDY,
    SHARED_OPTIONS,
    Provider,
    find_provider,
    probe,
    providers_here,
    unavailable,
)
from onnxptq.runtimes.quiet import stdout_to_stderr
from onnxptq.runtimes.worker import as_array
from onnxptq.signature import Feeds, Signature, TensorSpec

Optimization = Literal["all", "extended", "basic", "none", "exact"]
"""How far ONNX Runtime may rewrite the graph: its ORT_ENABLE_ALL, _EXTENDED, _BASIC and ORT_DISABLE_ALL.

"exact" is "all" with the session option `session.x64quantprecision`: sums of INT8 products that x86 CPUs without VNNI
would clip (`onnxptq.runtimes.cpu.u8s8_can_saturate`) are exact, and slower. Elsewhere it changes nothing.
"""

_CPU = "cpu"
LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "none": "ORT_DISABLE_ALL",
    "exact": "ORT_ENABLE_ALL",
}
_WARNINGS = 2
_FATAL_ONLY = 4  # what is an error for ONNX Runtime arrives as an exception
_EXTENSION_DOMAINS = ("ai.onnx.contrib", "com.microsoft.extensions")
_DTYPES = {"float": "float32", "double": "float64", "string": "object"}


@dataclass(frozen=True)
class Session:
    """A model loaded by ONNX Runtime, on a provider that was checked after loading.

    Attributes:
        model: the file.
        requested: the provider that was asked for ("cuda").
        providers: the providers of the session, ONNX Runtime's names; the first one is what was really used.
        signature: inputs and outputs as ONNX Runtime sees them.
        placement: how many nodes of the graph each provider took, by ONNX Runtime's name, or None where this ONNX
            Runtime cannot tell. Counted when nodes are assigned, before the provider fuses them.
        fallback_reason: why it runs on the CPU instead of `requested` (only with `allow_fallback`), else None.
        native: the `onnxruntime.InferenceSession`.
    """

    model: Path
    requested: str
    providers: tuple[str, ...]
    signature: Signature
    placement: Mapping[str, int] | None
    fallback_reason: str | None
    native: Any = field(repr=False, compare=False)

    def run(self, feeds: Feeds) -> list[npt.NDArray[Any]]:
        """All outputs for `feeds` (one array an input), in the order of the signature, as arrays (`as_array`).

        Raises:
            DataError: the arrays do not fit the inputs: a missing input, another dtype or another shape.
            ModelError: the model fails while it runs.
        """
        try:
            outputs = self.native.run(None, dict(feeds))
        except MemoryError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions have no base of their own
            if isinstance(error, ValueError | TypeError) or type(error).__name__ == "InvalidArgument":
                raise DataError(
                    f"the data does not fit {self.model.name}: got {_describe_feeds(feeds)}, expected "
                    f"{_describe_inputs(self.signature)} ({readable_cause(str(error))}). Check the preprocessing."
                ) from error
            cause = readable_cause(str(error))
            expected = "Expected a model that runs on its own signature; try another provider or export it again."
            remedy = gpu_remedy(cause) or expected
            raise ModelError(
                f"{self.model.name} fails while it runs on {self.providers[0]}: {cause}. {remedy}"
            ) from error
        return [as_array(output) for output in outputs]


def open_session(
    model: Path,
    provider: str = _CPU,
    *,
    threads: int | None = None,
    optimization: Optimization = "all",
    allow_fallback: bool | None = None,
    options: Mapping[str, str] | None = None,
) -> Session:
    """Loads `model` on `provider` and makes sure that it is there.

    Args:
        model: an ONNX file; external data lies beside it.
        provider: a name that `onnxptq providers` lists.
        threads: threads inside one operator; None leaves the number to ONNX Runtime (one a physical core).
        optimization: how far the graph may be rewritten.
        allow_fallback: use the CPU where the provider does not load or does not take the model; `fallback_reason` of
            the session says so. None is for callers who leave the user no choice: errors then do not advise it.
        options: the provider's own options, as ONNX Runtime documents them ("device_id": "1"), over the defaults of
            `provider_options` (no TF32). They are not used for the CPU that is fallen back to.

    Raises:
        UsageError: an unknown provider, optimization or provider option, or less than one thread.
        RuntimeUnavailableError: the provider does not load here; the message says why and what helps.
        ModelError: there is no such file, or the provider cannot load it.
    """
    found = find_provider(provider)
    _check_arguments(found, threads, optimization, options)
    chosen = {**provider_options(found, DeviceSettings()), **(options or {})}
    if not model.is_file():
        raise ModelError(f"there is no model at {model}: expected an ONNX file. Check the path.")
    if found.name == _CPU and threads is None:
        left = _handed_over.pop((model, state_of(model), _CPU, optimization), None)
        if left is not None:
            return left
    try:
        return _open(model, found, threads, optimization, chosen)
    except (RuntimeUnavailableError, ModelError) as error:
        if found.name == _CPU:
            raise
        if allow_fallback is False and isinstance(error, RuntimeUnavailableError):
            raise RuntimeUnavailableError(f"{error} {FALLBACK_REMEDY}") from error.__cause__
        if not allow_fallback:
            raise
        reason = str(error)
    return _open(model, find_provider(_CPU), threads, optimization, {}, requested=found.name, fallback_reason=reason)


_handed_over: dict[tuple[Path, FileState, str, str], Session] = {}
"""Sessions of the CPU with ONNX Runtime's own number of threads, by model and optimization."""


@contextmanager
def handing_over(sessions: Iterable[Session], optimization: Optimization = "all") -> Iterator[None]:
    """Leaves sessions to who opens the same models in the same way next: each is taken once, and not loaded again.

    Args:
        sessions: of the CPU, opened with no number of threads, unchanged files.
        optimization: what they were opened with.
    """
    keys = []
    for session in sessions:
        key = (session.model, state_of(session.model), _CPU, optimization)
        _handed_over[key] = session
        keys.append(key)
    try:
        yield
    finally:
        for key in keys:
            _handed_over.pop(key, None)


def _check_arguments(
    provider: Provider, threads: int | None, optimization: str, options: Mapping[str, str] | None
) -> None:
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be 1 or more, got {threads}. Leave it out to let ONNX Runtime choose.")
    if optimization not in get_args(Optimization):
        raise UsageError(f"unknown optimization {optimization!r}. {did_you_mean(optimization, LEVELS)}")
    if options and provider.name == _CPU:  # ONNX Runtime would ignore them without a word
        raise UsageError(f"the provider 'cpu' takes no options, got {', '.join(sorted(options))}. Leave them out.")


def _open(
    model: Path,
    provider: Provider,
    threads: int | None,
    optimization: Optimization,
    options: Mapping[str, str],
    *,
    requested: str | None = None,
    fallback_reason: str | None = None,
) -> Session:
    onnxruntime = import_onnxruntime()
    available = providers_here()
    if provider.ort_name not in available:
        raise unavailable(probe(provider.name))
    shared = {key: options[key] for key in SHARED_OPTIONS if key in options}
    beside = companion_options(provider, DeviceSettings()) | shared
    companions = [(name, dict(beside)) for name in provider.companions if name in available]
    with stdout_to_stderr():
        preload_libraries(onnxruntime, [provider.ort_name, *provider.companions])
        try:
            native = _create(
                onnxruntime,
                model,
                _session_options(onnxruntime, threads, optimization, [provider.ort_name]),
                [(provider.ort_name, dict(options)), *companions],
            )
        except (MemoryError, OnnxptqError):
            raise
        except Exception as error:  # ONNX Runtime's exceptions have no base of their own
            raise _why_not_loaded(model, provider, options, readable_cause(str(error))) from error
    providers, nodes = tuple(native.get_providers()), placement(native)
    if providers[0] != provider.ort_name:
        raise _why_elsewhere(model, provider, options, [providers[0]])
    if nodes and provider.ort_name not in nodes:  # accepted, and yet it would run nothing
        raise _why_elsewhere(model, provider, options, sorted(nodes))
    return Session(
        model=model,
        requested=requested or provider.name,
        providers=providers,
        signature=_signature(native),
        placement=nodes,
        fallback_reason=fallback_reason,
        native=native,
    )


def _session_options(
    onnxruntime: Any, threads: int | None, optimization: Optimization, providers: Sequence[str]
) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[optimization])
    options.log_severity_level = _WARNINGS if debugging() else _FATAL_ONLY
    for entry in session_entries(optimization, providers).items():
        options.add_session_config_entry(*entry)
    if (chosen := threads or limited_cores()) is not None:
        options.intra_op_num_threads = chosen
    return options


FLOAT_BIASES = ("optimization.disable_specified_optimizers", "WeightBiasQuantization")
"""The session entry that leaves float biases of a QDQ graph in float.

ONNX Runtime 1.31 turns them into int32 and a DequantizeLinear as it loads a file, which its CPU kernels need. The CUDA
provider has no DequantizeLinear of int32: each bias would be dequantized on the CPU and copied at every run.
"""


def session_entries(optimization: Optimization, providers: Sequence[str] = ()) -> dict[str, str]:
    """The configuration entries of every session of ours on providers, by ONNX Runtime's names."""
    entries = dict([RECORD_PLACEMENT])
    if optimization == "exact":
        entries["session.x64quantprecision"] = "1"
    if any(name in NVIDIA_PROVIDERS for name in providers):
        entries |= dict([FLOAT_BIASES])
    return entries


def _create(onnxruntime: Any, model: Path, options: Any, providers: list[Any]) -> Any:
    """The native session. A model that misses the operators of onnxruntime-extensions gets a second try with them."""
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=providers, enable_fallback=0)
    except Exception as error:
        # Reading the domains from the file first would parse every large model twice.
        if not any(f"{domain}:" in str(error) for domain in _EXTENSION_DOMAINS):
            raise
    options.register_custom_ops_library(_extensions_library(model))
    return onnxruntime.InferenceSession(str(model), options, providers=providers, enable_fallback=0)


def _extensions_library(model: Path) -> str:
    try:
        import onnxruntime_extensions
    except ImportError as error:
        raise ModelError(
            f"{model.name} uses operators of onnxruntime-extensions, which cannot be imported ({error}). "
            "pip install onnxruntime-extensions (it has no wheels for Python 3.14 yet)."
        ) from error
    return str(onnxruntime_extensions.get_library_path())


def _why_not_loaded(model: Path, provider: Provider, options: Mapping[str, str], cause: str) -> OnnxptqError:
    """The error for a session that could not be created: the provider's, the option's or the model's fault."""
    if provider.name != _CPU and not (status := probe(provider.name, options)).loads:
        return unavailable(status)
    if re.search("option", cause, flags=re.IGNORECASE):
        return UsageError(
            f"the provider {provider.name!r} does not take these options: {cause}. Expected those that ONNX Runtime "
            f"documents for {provider.ort_name}."
        )
    expected = "Expected a valid ONNX model; check it with onnx.checker or export it again."
    return ModelError(
        f"ONNX Runtime cannot load {model} on {provider.name!r}: {cause}. {gpu_remedy(cause) or expected}"
    )


def _why_elsewhere(
    model: Path, provider: Provider, options: Mapping[str, str], used: Sequence[str]
) -> RuntimeUnavailableError:
    """The error for a session that was created, on other providers than the one that was asked for."""
    status = probe(provider.name, options)
    if not status.loads:
        return unavailable(status)
    return RuntimeUnavailableError(
        f"{provider.name!r} loads here, yet all of {model.name} would run on {' and '.join(used)}. Ask for that "
        "provider, or set ONNXPTQ_DEBUG=1 to see ONNX Runtime's own messages."
    )


def _signature(native: Any) -> Signature:
    return Signature(
        inputs=tuple(tensor_spec(node.name, node.type, node.shape) for node in native.get_inputs()),
        outputs=tuple(tensor_spec(node.name, node.type, node.shape) for node in native.get_outputs()),
    )


def tensor_spec(name: str, kind: str, sizes: Sequence[Any]) -> TensorSpec:
    """An input or output from what ONNX Runtime says of it: name, type ("tensor(float)") and shape.

    What is not a tensor (a sequence, a map) keeps ONNX Runtime's type as its dtype.
    """
    tensor = re.fullmatch(r"tensor\((\w+)\)", kind)
    dtype = _DTYPES.get(tensor.group(1), tensor.group(1)) if tensor else kind
    shape = tuple(size if isinstance(size, int) and size >= 0 else None for size in sizes)
    return TensorSpec(name, dtype, shape, tuple(size if isinstance(size, str) else None for size in sizes))


def _describe_inputs(signature: Signature) -> str:
    return ", ".join(
        f"{spec.name}: {spec.dtype} ({', '.join('any' if size is None else str(size) for size in spec.shape)})"
        for spec in signature.inputs
    )


def _describe_feeds(feeds: Feeds) -> str:
    arrays = {name: np.asarray(array) for name, array in feeds.items()}
    return ", ".join(f"{name}: {a.dtype} ({', '.join(map(str, a.shape))})" for name, a in arrays.items()) or "nothing"
