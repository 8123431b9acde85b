"""A Ray cluster that cannot be used is said at once, with what to do, and without the log of Ray."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from onnxptq.errors import UsageError
from onnxptq.sweeps.ray_connection import check_listens
from onnxptq.sweeps.ray_engine import explain

_CLUSTER = """
import sys

import ray

ray.init(num_cpus=1, include_dashboard=False)
print("address", ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


def sweep(*arguments: str, folder: Path, limit: float) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("onnxptq")), "sweep", "--engine", "ray", "--store", str(folder)]
    return subprocess.run(
        [*command, *arguments], cwd=folder, capture_output=True, text=True, timeout=limit, check=False
    )


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody listens: bound, so that nobody else takes it."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nobody_listens_is_said_at_once(nobody: str, scheme: str) -> None:
    with pytest.raises(UsageError, match=rf"{scheme}{nobody} cannot be reached: .*refused.*Check --ray-address"):
        check_listens(scheme + nobody)


@pytest.mark.parametrize("address", ["127.0.0.1", "host:", "host:http", ":1", "host:0", "host:65536", "host:²"])
def test_what_is_no_address_is_said(address: str) -> None:
    with pytest.raises(UsageError, match=r"is no address\. Expected HOST:PORT"):
        check_listens(address)


def test_a_host_that_nobody_can_have_cannot_be_reached() -> None:
    with pytest.raises(UsageError, match=r"the Ray cluster at a\.\.b:80 cannot be reached"):
        check_listens("a..b:80")


@pytest.mark.parametrize("address", ["auto", "anyscale://cluster"])
def test_what_ray_finds_by_itself_is_left_to_it(address: str) -> None:
    check_listens(address)


def test_a_cluster_without_onnxptq_is_said_as_what_it_is() -> None:
    class Failure(Exception):
        cause = ModuleNotFoundError("No module named 'onnxptq'")

    assert explain(Failure("The remote function failed to import\n No module named 'onnxptq'")).startswith(
        "the Python of the Ray cluster has no onnxptq."
    )
    assert explain(Failure("two\nlines")) == "two lines"


@pytest.mark.ray
def test_a_cluster_that_cannot_be_reached_is_one_line(nobody: str, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'onnxptq[ray]'")
    refused = sweep("--ray-address", nobody, folder=tmp_path, limit=60)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"onnxptq: the Ray cluster at {nobody} cannot be reached")
    assert refused.stderr.count("\n") == 1


@pytest.mark.ray
@pytest.mark.skipif(sys.platform == "win32", reason="Ray's tokens were tried on Linux")
def test_a_cluster_that_wants_its_token_is_said_without_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'onnxptq[ray]'")
    monkeypatch.setenv("HOME", str(tmp_path))  # Where Ray writes a token.
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", _CLUSTER], text=True, **pipes) as process:  # type: ignore[call-overload]
        found = next((line.split()[1] for line in process.stdout if line.startswith("address ")), None)
        assert found, "the cluster did not start"
        refused = sweep("--ray-address", found, folder=tmp_path, limit=60)
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
        wrong = sweep("--ray-address", found, folder=tmp_path, limit=60)
        process.stdin.close()
        process.wait(60)
    assert refused.returncode == 2
    assert "wants its token. Start this command with RAY_AUTH_MODE=token" in refused.stderr
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1) and "wants another token" in wrong.stderr
    assert refused.stderr.count("\n") == 1, "Ray's log of its tries is kept off the terminal"
