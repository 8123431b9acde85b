from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from onnxptq.runtimes import stdout_to_stderr
from onnxptq.runtimes.quiet import stderr_kept

C_PUTS = "ctypes.CDLL('ucrtbase' if sys.platform == 'win32' else None).puts"


def python(code: str) -> subprocess.CompletedProcess[str]:
    # PYTHONUNBUFFERED would take the buffers of the C library away, too.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)


def test_python_and_file_descriptor_output_both_go_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with stdout_to_stderr():
        print("printed")
        os.write(1, b"written\n")
    out, err = capfd.readouterr()
    assert out == ""
    assert "printed" in err
    assert "written" in err


def test_a_captured_sys_stdout_is_redirected_too(capsys: pytest.CaptureFixture[str]) -> None:
    with stdout_to_stderr():
        print("printed")
    assert capsys.readouterr() == ("", "printed\n")


def test_stdout_comes_back_after_the_outermost_of_nested_redirections(capfd: pytest.CaptureFixture[str]) -> None:
    print("before")
    with stdout_to_stderr():
        with stdout_to_stderr():
            os.write(1, b"inner\n")
        os.write(1, b"outer\n")
    os.write(1, b"after\n")
    assert capfd.readouterr() == ("before\nafter\n", "inner\nouter\n")


def test_stdout_comes_back_after_an_exception(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), stdout_to_stderr():
        raise KeyboardInterrupt
    print("after")
    assert capfd.readouterr().out == "after\n"


def test_buffers_of_the_c_library_do_not_reach_stdout_later() -> None:
    # Into a pipe, `puts` only fills a buffer of the C library, which would be written after the redirection ended.
    done = python(
        "import ctypes, sys\nfrom onnxptq.runtimes import stdout_to_stderr\n"
        f"puts = {C_PUTS}\nputs(b'before')\nwith stdout_to_stderr():\n    puts(b'inside')\nputs(b'after')"
    )
    assert done.stdout.split() == ["before", "after"]
    assert done.stderr.split() == ["inside"]


def test_a_closed_stdout_stays_closed() -> None:
    done = python(
        "import os, sys\nfrom onnxptq.runtimes import stdout_to_stderr\nos.close(1)\n"
        "with stdout_to_stderr():\n    os.write(1, b'inside')\n"
        "try:\n    os.fstat(1)\nexcept OSError:\n    sys.stderr.write(' still closed')"
    )
    assert (done.returncode, done.stderr) == (0, "inside still closed")


def test_output_is_dropped_where_stderr_is_closed_too() -> None:
    done = python(
        "import os\nfrom onnxptq.runtimes import stdout_to_stderr\nos.close(2)\n"
        "with stdout_to_stderr():\n    os.write(1, b'inside')\nos.write(1, b'outside')"
    )
    assert (done.returncode, done.stdout) == (0, "outside")


def test_threads_that_overlap_leave_stdout_where_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    def redirect(seconds: float) -> None:
        with stdout_to_stderr():
            time.sleep(seconds)

    threads = [threading.Thread(target=redirect, args=(0.02 * (i % 3),)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("python")
    os.write(1, b"descriptor\n")
    assert sorted(capfd.readouterr().out.split()) == ["descriptor", "python"]


def test_what_native_code_says_on_stderr_can_be_kept_and_read(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), stderr_kept() as said:
        os.write(2, b"attempt 1\n")
        assert said() == "attempt 1\n"
        os.write(2, b"attempt 2\n")
        assert said() == "attempt 1\nattempt 2\n"
        raise RuntimeError
    os.write(2, b"afterwards\n")
    assert capfd.readouterr() == ("", "afterwards\n")
