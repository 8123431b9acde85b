"""The way to a Ray cluster: whether somebody listens there, and what it takes to be let in, said at once.

Ray itself tries for many minutes where nobody listens, and for half a minute where it is not let in, and logs each try.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from onnxptq.errors import UsageError
from onnxptq.runtimes.quiet import stderr_kept

_SECONDS_TO_ANSWER = 4.0
"""Until a machine must have taken a connection."""

_TRIES = 2
"""Of Ray, where somebody listens; its default of 20 takes half a minute to be refused by one that wants a token."""

_TRIES_VARIABLE = "RAY_NUM_REDIS_GET_RETRIES"
"""What Ray calls it; read when it is imported (`ray._private.ray_constants`, `_init_gcs_client` of `node.py`)."""

_CLIENT = "ray://"


def connect(address: str | None, workers: int) -> Any:
    """Ray, connected.

    Args:
        address: of a cluster: HOST:PORT, ray://HOST:PORT, or "auto"; None starts one on this machine.
        workers: CPUs of the one that is started.

    Raises:
        UsageError: Ray is missing, or the cluster cannot be reached; the message says what helps.
    """
    if address is not None:
        check_listens(address)
    with _few_tries():
        ray = import_ray()
    # "local": None would join the cluster of RAY_ADDRESS, or the one that was started here last.
    options: dict[str, Any] = {"address": "local", "num_cpus": workers, "include_dashboard": False}
    if address is not None:
        options = {"address": address}
    with _own_handler(), stderr_kept() as said:
        try:
            ray.init(logging_level=logging.ERROR, **options)
        except (ConnectionError, RuntimeError, ValueError, ImportError, ray.exceptions.RayError) as error:
            raise UsageError(_why(address, error, said())) from error
    return ray


def check_listens(address: str) -> None:
    """Raises UsageError where nobody takes a connection at an address. What Ray finds by itself is left to it."""
    place = address.removeprefix(_CLIENT)
    if place in ("auto", "local") or "://" in place:
        return
    host, _, port = place.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or not 0 < int(port) < 2**16:
        raise UsageError(f"--ray-address {address!r} is no address. Expected HOST:PORT, {_CLIENT}HOST:PORT or auto.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER).close()
    except (OSError, UnicodeError) as error:  # The latter is of a host's name that nobody can have.
        raise UsageError(_why(address, error, "")) from error


def import_ray() -> Any:
    """Ray. Raises UsageError where it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise UsageError(f"--engine ray needs Ray: pip install 'onnxptq[ray]' ({error}).") from error
    return ray


def _why(address: str | None, error: Exception, said: str) -> str:
    if address is None:
        return f"Ray does not start on this machine: {error}. `ray start --head` may say more."
    # Ray only logs why it was refused.
    if "InvalidAuthToken" in said or type(error).__name__ == "AuthenticationError":
        if os.environ.get("RAY_AUTH_MODE") == "token":
            return (
                f"the Ray cluster at {address} wants another token than there is here (~/.ray/auth_token, "
                "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH). `ray get-auth-token` on its machine prints it."
            )
        return (
            f"the Ray cluster at {address} wants its token. Start this command with RAY_AUTH_MODE=token in its "
            "environment; on another machine than the cluster's also with RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH."
        )
    reason = " ".join((getattr(error, "strerror", None) or str(error)).split()).rstrip(".")
    return (
        f"the Ray cluster at {address} cannot be reached: {reason}. Check --ray-address (`ray status` on the cluster's "
        "machine says whether it runs), or leave it out for a cluster on this machine."
    )


@contextmanager
def _few_tries() -> Iterator[None]:
    """Only while Ray is imported: what others set stays, and no process of ours inherits it."""
    if _TRIES_VARIABLE in os.environ:
        yield
        return
    os.environ[_TRIES_VARIABLE] = str(_TRIES)
    try:
        yield
    finally:
        del os.environ[_TRIES_VARIABLE]


@contextmanager
def _own_handler() -> Iterator[None]:
    """Ray puts a handler of SIGTERM in place; ours, which tidies up, comes back."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
