"""The worker: loads and runs models in a process of its own, so that a crash or a hang in a provider ends only it.

    python worker.py

reads one request a line from stdin, a JSON object `{"do": NAME, ...}`, and answers each with one line on the stdout
that it was started with: `{"answer": ...}`, or `{"error": TEXT, "type": NAME}` where Python caught an exception. `do`
names one of OPERATIONS, a method of `RequestHandler`, with its arguments by keyword. It ends when stdin is closed.

Arrays travel as .npy files whose paths are in the requests, never as pickles. It needs nothing but onnxruntime, numpy,
the standard library and `_libraries.py` beside it, so that it also runs in other Python environments, with other
versions of ONNX Runtime. `onnxptq.runtimes.isolated` starts it and talks to it.
"""

from __future__ import annotations

import gc
import importlib.metadata
import importlib.util
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# ONNX Runtime 1.29 and newer report their use over the network unless this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

OPERATIONS = frozenset({"describe", "plug", "limit", "open", "run", "time", "clock", "profile", "memory", "close"})
_FATAL_ONLY = 4
_EXTENSION_DOMAINS = ("ai.onnx.contrib:", "com.microsoft.extensions:")


class RequestHandler:
    """What a request can ask for."""

    def __init__(self) -> None:
        import numpy
        import onnxruntime

        self._numpy = numpy
        self._onnxruntime = onnxruntime
        self._sessions: dict[int, Any] = {}
        self._folders: dict[int, str] = {}
        onnxruntime.set_default_logger_severity(_FATAL_ONLY)
        self._libraries = _sibling("_libraries")
        self._baseline = _memory("VmHWM")

    def describe(self) -> dict[str, Any]:
        """Versions, and the providers that this ONNX Runtime was built with."""
        distributions = _distributions(self._onnxruntime)
        said = getattr(self._onnxruntime, "package_name", "")  # empty in ONNX Runtime 1.20
        return {
            "onnxruntime": str(self._onnxruntime.__version__),
            "distribution": said or "+".join(distributions) or "onnxruntime",
            "distributions": distributions,
            "providers": self._onnxruntime.get_available_providers(),
            "numpy": self._numpy.__version__,
            "python": platform.python_version(),
        }

    def plug(self, plugins: Mapping[str, str]) -> None:
        """Registers the libraries of plug-in providers. Raises RuntimeError where one does not load."""
        failed = self._libraries.register_plugins(self._onnxruntime, plugins)
        if failed:
            raise RuntimeError(
                "; ".join(f"the plug-in {plugins[name]} does not load: {failed[name]}" for name in failed)
            )

    def limit(self, memory_bytes: int) -> int | None:
        """Limits the address space to what is used now and `memory_bytes` more; the limit, or None where there is none.

        Address space, because nothing else is enforced by Linux for one process. CUDA reserves far more of it than it
        uses: set no limit where it runs.
        """
        size = _memory("VmSize")
        if size is None:
            return None
        import resource

        limit = size + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        return limit

    def open(
        self,
        model: str,
        providers: list[tuple[str, dict[str, str]]],
        level: str,
        threads: int | None,
        entries: Mapping[str, str],
        profile_folder: str | None,
    ) -> dict[str, Any]:
        """Creates a session.

        Args:
            model: path of the ONNX file.
            providers: ONNX Runtime's names with their options, in order.
            level: member of GraphOptimizationLevel, for example "ORT_ENABLE_ALL".
            threads: threads inside one operator, or None.
            entries: configuration entries of the session.
            profile_folder: where ONNX Runtime writes a profile, which `profile` reads; None runs without.
        """
        self._libraries.preload_libraries(self._onnxruntime, [name for name, _ in providers])
        if not self._sessions:  # what a provider's libraries take is no model's
            self._baseline = _memory("VmHWM")
        options = self._onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(self._onnxruntime.GraphOptimizationLevel, level)
        options.log_severity_level = _FATAL_ONLY
        for key, value in entries.items():
            options.add_session_config_entry(key, value)
        if threads is not None:
            options.intra_op_num_threads = threads
        if profile_folder is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(profile_folder) / "profile")
        start = time.perf_counter()
        session = self._create(model, options, [(name, dict(chosen)) for name, chosen in providers])
        seconds = time.perf_counter() - start
        number = len(self._sessions)
        self._sessions[number] = session
        return {
            "session": number,
            "seconds": seconds,
            "providers": session.get_providers(),
            "inputs": [[node.name, node.type, node.shape] for node in session.get_inputs()],
            "outputs": [[node.name, node.type, node.shape] for node in session.get_outputs()],
            "placement": _placement(session),
        }

    def run(self, session: int, feeds: Mapping[str, str], folder: str) -> list[str]:
        """Runs once: paths of .npy files in, paths of .npy files in `folder` out, in the order of the outputs."""
        outputs = self._sessions[session].run(None, self._load(session, feeds))
        paths = []
        for number, output in enumerate(outputs):
            array = as_array(output)
            paths.append(str(Path(folder) / f"output{number}.npy"))
            self._numpy.save(paths[-1], array, allow_pickle=False)
        return paths

    def time(
        self, session: int, feeds: Mapping[str, str], runs: int, warmup: int, device: str | None, device_id: int
    ) -> list[float]:
        """Seconds of each of `runs` runs after `warmup` others.

        With a `device` ("cuda", "cpu") inputs and outputs are bound to its memory beforehand (IO binding), and each run
        ends with a synchronisation: what is timed is the model, not the copies. None times plain `session.run`.
        """
        arrays = self._load(session, feeds)
        once = self._bound(session, arrays, device, device_id) if device else self._plain(session, arrays)
        for _ in range(warmup):
            once()
        clock = time.perf_counter
        seconds = []
        gc.disable()
        try:
            for _ in range(runs):
                start = clock()
                once()
                seconds.append(clock() - start)
        finally:
            gc.enable()
        return seconds

    def clock(self, device_id: int) -> int | None:
        """MHz of a GPU just now, or None."""
        found: int | None = self._libraries.gpu_clock(device_id)
        return found

    def profile(self, session: int) -> list[tuple[str, str, str, int]]:
        """The kernels that ran since the session was opened with a profile: (provider, operator, node, runs)."""
        # The file belongs to the session, so its writer knows where it is.
        path = Path(self._sessions[session].end_profiling())
        kernels: Counter[tuple[str, str, str]] = Counter()
        suffix = "_kernel_time"
        for event in json.loads(path.read_text(encoding="utf-8")):
            facts = event.get("args") or {}
            # Old versions write events of other suffixes for a node, too: _fence_before, _fence_after.
            if event.get("cat") == "Node" and event["name"].endswith(suffix):
                kernels[facts.get("provider", ""), facts.get("op_name", ""), event["name"][: -len(suffix)]] += 1
        path.unlink()
        return [(*kernel, count) for kernel, count in sorted(kernels.items())]

    def memory(self) -> dict[str, int | None]:
        """Bytes of memory: `baseline` before any model, `peak` so far; None where the system does not tell."""
        return {"baseline": self._baseline, "peak": _memory("VmHWM")}

    def close(self, session: int) -> None:
        """Gives a session's memory back."""
        self._sessions[session] = None
        gc.collect()

    def _create(self, model: str, options: Any, providers: list[Any]) -> Any:
        """The native session, with the operators of onnxruntime-extensions where it cannot be made without."""
        try:
            return self._onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
        except Exception as error:
            needs_extensions = any(domain in str(error) for domain in _EXTENSION_DOMAINS)
            if not needs_extensions or importlib.util.find_spec("onnxruntime_extensions") is None:
                raise
        import onnxruntime_extensions

        options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
        return self._onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)

    def _load(self, session: int, feeds: Mapping[str, str]) -> dict[str, Any]:
        strings = {node.name for node in self._sessions[session].get_inputs() if node.type == "tensor(string)"}
        arrays = {name: self._numpy.load(path, allow_pickle=False) for name, path in feeds.items()}
        return {name: array.astype(object) if name in strings else array for name, array in arrays.items()}

    def _plain(self, session: int, arrays: dict[str, Any]) -> Callable[[], Any]:
        run = self._sessions[session].run
        return lambda: run(None, arrays)

    def _bound(self, session: int, arrays: dict[str, Any], device: str, device_id: int) -> Callable[[], Any]:
        native = self._sessions[session]
        binding = native.io_binding()
        for name, array in arrays.items():
            value = self._onnxruntime.OrtValue.ortvalue_from_numpy(array, device, device_id)
            binding.bind_ortvalue_input(name, value)
        for node in native.get_outputs():
            binding.bind_output(node.name, device, device_id)
        binding.synchronize_inputs()

        def once() -> None:
            native.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return once


def as_array(output: Any) -> Any:
    """An output of ONNX Runtime as one array.

    Text as numpy's str; a sequence of maps from classes to numbers (ZipMap) as a table, one map a row, classes in the
    order of the first; one map as its values; a sequence of tensors as all their values in a row.
    """
    import numpy

    if isinstance(output, dict):
        output = [output]
        return as_array(output)[0]
    if isinstance(output, list):
        if output and isinstance(output[0], dict):
            return numpy.array([[row.get(key) for key in output[0]] for row in output], numpy.float32)
        parts = [as_array(part).ravel() for part in output]
        return numpy.concatenate(parts) if parts else numpy.zeros(0, numpy.float32)
    array = numpy.asarray(output)
    return array.astype(str) if array.dtype == object else array


def _placement(session: Any) -> list[tuple[str, str, str]] | None:
    """(provider, operator, node) of each node as it was assigned; None where this ONNX Runtime cannot tell."""
    if not hasattr(session, "get_provider_graph_assignment_info"):  # ONNX Runtime 1.20 has no such call
        return None
    parts = session.get_provider_graph_assignment_info()
    return [(part.ep_name, node.op_type, node.name) for part in parts for node in part.get_nodes()]


def _sibling(name: str) -> Any:
    """A module beside this file, which stands in no package where this file runs as a script."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _distributions(onnxruntime: Any) -> list[str]:
    """The distributions that bring the module, for example "onnxruntime-openvino": one in a sound environment."""
    names = {
        str(distribution.metadata["Name"])
        for distribution in importlib.metadata.distributions(path=[str(Path(onnxruntime.__file__).parent.parent)])
        if str(distribution.metadata["Name"]).startswith(("onnxruntime", "ort-", "ort_"))
        and any(file.as_posix() == "onnxruntime/__init__.py" for file in distribution.files or [])
    }
    return sorted(names)


def _memory(entry: str) -> int | None:
    """Bytes of an entry of /proc/self/status: "VmHWM", the peak of the memory in use, or "VmSize", the address space.

    Not getrusage's ru_maxrss: on Linux a process inherits that peak from the one that started it.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{entry}:")), None)


def main() -> None:
    """Serves requests until stdin is closed. What native code prints goes to stderr."""
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    worker: RequestHandler | None = None
    for line in requests:
        request = json.loads(line)
        operation = request.pop("do")
        try:
            if operation not in OPERATIONS:
                raise ValueError(f"unknown operation {operation!r}")
            worker = worker or RequestHandler()
            reply = {"answer": getattr(worker, operation)(**request)}
        except Exception as error:  # whatever it is, whoever asked decides what it means
            reply = {"error": str(error) or type(error).__name__, "type": type(error).__name__}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
