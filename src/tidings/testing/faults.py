"""Faults, and the processes that suffer them: fork, kill -9, stop and continue, SIGTERM, failing system calls.

A parent imports everything once and forks; a child opens the store after the fork. Every step is a record of the
history, so that the checker can tell a redelivery that a fault explains from one that nothing does.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tidings.testing.history import History

Ready = Callable[[], None]
"""What a child calls once it is at work."""


class Child:
    """A forked process that runs one function and ends.

    Args:
        run: Called in the child with a function to say "ready". Returning ends the process with code 0; an exception
            is shown on stderr and ends it with 1. It never returns into the parent's program.
        history: Where faults are recorded, or None.
    """

    def __init__(self, run: Callable[[Ready], object], history: History | None = None) -> None:
        self._history = history
        self.code: int | None = None
        self.pipe, says = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(says)
            return
        code = 1
        try:
            gc.freeze()  # what the parent has not cleaned up yet may belong to threads that are not here
            os.close(self.pipe)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
                signal.signal(number, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, 0)
            run(lambda: _say(says))
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except BaseException:  # noqa: BLE001 - shown; the parent sees the code
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def wait_ready(self, timeout: float = 30.0) -> bool:
        """Wait until the child says that it is at work; False when it ended without a word.

        Raises:
            TimeoutError: It did neither in time.
        """
        readable, _, _ = select.select([self.pipe], [], [], timeout)
        if not readable:
            raise TimeoutError(f"process {self.pid} was not ready after {timeout} s")
        return os.read(self.pipe, 1) == b"!"

    def wait(self, timeout: float = 60.0) -> int:
        """The exit code, negative for a signal.

        Raises:
            TimeoutError: It still runs after `timeout` seconds.
        """
        end = time.monotonic() + timeout
        while self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                os.close(self.pipe)
            elif time.monotonic() > end:
                raise TimeoutError(f"process {self.pid} still runs after {timeout} s")
            else:
                time.sleep(0.001)
        return self.code

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self._fault("kill")
        self._signal(signal.SIGKILL)
        self.wait()

    def stop(self) -> None:
        """SIGSTOP: the process is a zombie to the others until `resume`."""
        self._fault("stop")
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def terminate(self, timeout: float = 60.0) -> int:
        """SIGTERM, and wait for the drain; the exit code."""
        if self._history is not None:
            self._history.note("drain", "invoke", target=self.pid)
        self._signal(signal.SIGTERM)
        code = self.wait(timeout)
        if self._history is not None:
            self._history.note("drain", "ok", target=self.pid, reason=str(code))
        return code

    def end(self) -> None:
        """Make sure that it is gone; for the end of a test."""
        if self.code is None:
            self._signal(signal.SIGKILL)
            self.wait()

    def _fault(self, reason: str) -> None:
        if self._history is not None:
            self._history.note("fault", "invoke", target=self.pid, reason=reason)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


def _say(pipe: int) -> None:
    os.write(pipe, b"!")


def strace_reason() -> str | None:
    """Why system calls cannot be traced and made to fail on this machine; None where they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    probe = ["strace", "-qq", "-e", "trace=getpid", "-e", "inject=getpid:error=EIO", "true"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words
    return None if done.returncode == 0 else f"strace may not trace here: {done.stderr.strip().splitlines()[-1:]}"


class Tracing:
    """strace on a running process and all its threads: breaks chosen system calls, or writes down what they did.

    Args:
        pid: The process; it waits for something while strace takes hold of it.
        options: Of strace: what to trace, and with which fault.
    """

    def __init__(self, pid: int, *options: str) -> None:
        command = ["strace", "-f", "-qq", *options, "-p", str(pid)]
        self._strace = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # noqa: S603
        end = time.monotonic() + 10.0
        status = Path(f"/proc/{pid}/status")
        while "TracerPid:\t0" in status.read_text("utf-8"):
            if self._strace.poll() is not None or time.monotonic() > end:
                _, said = self._strace.communicate()
                raise RuntimeError(f"strace could not take hold of process {pid}: {said.decode()}")
            time.sleep(0.001)

    @classmethod
    def breaking(cls, pid: int, call: str, fault: str, when: str) -> Tracing:
        """Make system calls fail.

        Args:
            pid: The process.
            call: The system call, as "fdatasync"; several are joined by commas, and each counts for itself.
            fault: "signal=SIGKILL" or "error=EIO".
            when: Which call: "3" for the third, "3+" from the third on.
        """
        return cls(pid, "-o", os.devnull, "-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={when}")

    @classmethod
    def recording(cls, pid: int, calls: str, log: Path) -> Tracing:
        """Write down system calls with all their data and the paths of their files."""
        return cls(pid, "-xx", "-y", "-s", str(1 << 24), "-o", str(log), "-e", f"trace={calls}")

    def end(self) -> None:
        """Wait until strace let go; the process has ended or ends now."""
        self._strace.communicate(timeout=30)
