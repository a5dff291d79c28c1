"""Running a command on each of many files, a few at a time."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType


class Commands:
    """Runs `command` by the shell for every file. Call it with paths; use it as a context manager, which waits.

    `{}` in the command is the file's quoted name; without one the name stands at its end. Their standard input
    is empty. As many run at once as there are processors. report: called with what went wrong.
    """

    def __init__(self, command: str, report: Callable[[str], None]) -> None:
        self._command = command if "{}" in command else command + " {}"
        self._report = report
        self._running: list[subprocess.Popen[bytes]] = []
        self._most = os.cpu_count() or 1
        self._started = self._failed = 0

    def __call__(self, paths: Sequence[str]) -> None:
        """Start one for every path, waiting for others to end where too many run."""
        for path in paths:
            if len(self._running) >= self._most:
                self._wait()
            name = shlex.quote(path if path.startswith("/") else f"./{path}")
            line = self._command.replace("{}", name)
            self._running.append(subprocess.Popen(["/bin/sh", "-c", line], stdin=subprocess.DEVNULL))
            self._started += 1

    def finish(self) -> None:
        """Wait for all, and report those that failed."""
        while self._running:
            self._wait()
        if self._failed:
            self._report(f"{self._failed} of {self._started} commands failed")
        self._failed = 0

    def __enter__(self) -> Commands:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.finish()
            return
        for process in self._running:
            with suppress(OSError):
                process.terminate()

    def _wait(self) -> None:
        self._failed += self._running.pop(0).wait() != 0
