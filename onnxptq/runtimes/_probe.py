"""One execution provider in a process of its own: what is missing, and does a tiny model really run on it?

    python -P _probe.py '{"provider": "CUDAExecutionProvider", "options": {"device_id": "1"}, ...}' < tiny.onnx

answers with one JSON object on stdout (`examine`). A provider whose libraries do not fit the driver may crash or hang:
then this process ends, not the caller's. It needs onnxruntime and numpy and the files beside it, so that it also runs
in another Python environment.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# An ONNX Runtime that does not know this entry ignores it.
RECORD_PLACEMENT = ("session.record_ep_graph_assignment_info", "1")


def sibling(name: str) -> Any:
    """A module beside this file, which stands in no package where this file runs as a script."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def examine(
    models: Sequence[bytes],
    provider: str,
    options: Mapping[str, str],
    companions: Sequence[tuple[str, Mapping[str, str]]],
    plugins: Mapping[str, str],
) -> dict[str, Any]:
    """Tries one provider in the order of growing certainty: its libraries, then a session, then a run.

    Args:
        models: tiny models without external data, whose inputs are float32 of fixed shape: the first one decides
            whether the provider loads, the second one whether it is whole.
        provider: as ONNX Runtime calls it.
        options: its options, as they will be given to every session.
        companions: providers that take what it leaves, with their options, in this order.
        plugins: libraries of plug-in providers by the name of their registration.

    Returns:
        `missing`: libraries that do not load, by name; `library_error`: the loader's words, or None; `providers`: those
        of the session, the first one being the one that was really accepted, or []; `nodes`: how many nodes each
        provider took, or None where this ONNX Runtime cannot tell; `error`: why there is no session or no run, or None;
        `limit`: why the second model does not run where the first one does, or None; `gpu`, `driver` and `libraries`:
        the name of the GPU, the driver's version and those of the libraries where it runs on one, else "" and {}.
    """
    import onnxruntime

    libraries = sibling("_libraries")
    libraries.preload_libraries(onnxruntime, [provider, *(name for name, _ in companions)])
    failed = libraries.register_plugins(onnxruntime, plugins)
    answer: dict[str, Any] = {"providers": [], "nodes": None, "error": None, "limit": None}
    answer |= {"gpu": "", "driver": "", "libraries": {}}
    answer |= _libraries(libraries, Path(onnxruntime.__file__).parent / "capi", provider)
    asked = [(provider, dict(options)), *((name, dict(chosen)) for name, chosen in companions)]
    try:
        session = _run(onnxruntime, models[0], asked)
        answer["providers"] = session.get_providers()
        answer["nodes"] = placement(session)
    except Exception as error:  # whatever the provider raises is the answer
        answer["error"] = next(iter(failed.values()), None) or str(error) or type(error).__name__
    if answer["error"] is None:
        try:
            for model in models[1:]:
                _run(onnxruntime, model, asked)
        except Exception as error:
            answer["limit"] = str(error) or type(error).__name__
    if provider in libraries.NVIDIA_PROVIDERS and answer["providers"][:1] == [provider]:
        device = int(options.get("device_id", "0"))
        answer["gpu"], answer["driver"] = libraries.gpu(device)
        answer["libraries"] = libraries.library_versions(onnxruntime)
    return answer


def _run(onnxruntime: Any, model: bytes, providers: list[tuple[str, dict[str, str]]]) -> Any:
    """A session that has run once. Raises whatever the provider raises."""
    import numpy as np

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(*RECORD_PLACEMENT)
    session = onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    session.run(None, {node.name: np.zeros(node.shape, np.float32) for node in session.get_inputs()})
    return session


def placement(session: Any) -> dict[str, int] | None:
    """How many nodes each provider took, by ONNX Runtime's name; None where this ONNX Runtime cannot tell.

    The session was created with the configuration entry RECORD_PLACEMENT.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):  # ONNX Runtime 1.20 has no such call
        return None
    nodes: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        nodes[part.ep_name] += len(part.get_nodes())
    return dict(nodes)


def _libraries(libraries: Any, folder: Path, provider: str) -> dict[str, Any]:
    """`missing` and `library_error` of `examine`, from loading the provider's own library.

    A provider without a library of its own is linked into ONNX Runtime: there is nothing to miss.
    """
    library = folder / libraries.library_name(provider)
    if not library.is_file():
        return {"missing": [], "library_error": None}
    # The providers take symbols from this one, which ONNX Runtime loads before them, for all to see.
    libraries.load_error(str(folder / libraries.library_name("SharedExecutionProvider")), ctypes.RTLD_GLOBAL)
    error = libraries.load_error(str(library))
    candidates = [name] if (name := libraries.missing_library(error)) else []
    # The loader names the first missing library only. These decide what the user has to get.
    if provider == "TensorrtExecutionProvider" and (found := libraries.TENSORRT_LIBRARY.search(library.read_bytes())):
        candidates += [found.group().decode()]
    if provider in libraries.NVIDIA_PROVIDERS:
        candidates += [libraries.CUDNN_LIBRARY, libraries.DRIVER_LIBRARY]
    missing = [name for name in dict.fromkeys(candidates) if libraries.load_error(name) is not None]
    return {"missing": missing, "library_error": error}


def main() -> None:
    """Answers on the stdout that the process was started with; what native code prints goes to stderr."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    asked = json.loads(sys.argv[1])
    sizes, given = asked.pop("sizes"), sys.stdin.buffer.read()
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    models = [given[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    with answer:
        json.dump(examine(models, **asked), answer)


if __name__ == "__main__":
    main()
