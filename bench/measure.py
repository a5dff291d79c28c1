"""Whole processes by the clock: run them in turn, take medians, compare, print the comparison."""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, NoReturn, TypeVar

Result = TypeVar("Result")

TIMEOUT = 300
PATIENCE = 2


class Missing(Exception):
    """A program that a section needs is not there."""


class Failed(Exception):
    """A measured program did not do what was asked."""


class Run(NamedTuple):
    """One finished process. Seconds; peak resident memory in bytes; what it printed besides `output`."""

    wall: float
    user: float
    peak: int
    said: str


@dataclass
class Row:
    """One comparison of costs: less is better.

    The ratio is ours to the peer's, or with a bound like ">= 4.5" the peer's to ours. An absolute bound is one for
    our own value, in the row's unit.
    """

    section: str
    what: str
    unit: str
    ours: float
    peer_name: str = ""
    peer: float | None = None
    bound: str = ""
    absolute: bool = False

    @property
    def ratio(self) -> float | None:
        """None when there is nothing to compare with."""
        if not self.peer or not self.ours:
            return None
        return self.peer / self.ours if self.bound.startswith(">=") else self.ours / self.peer

    @property
    def met(self) -> bool | None:
        """None without a bound."""
        if not self.bound:
            return None
        sense, limit = self.bound.split()
        value = self.ours if self.absolute else self.ratio
        return value is not None and (value <= float(limit) if sense == "<=" else value >= float(limit))

    def record(self) -> dict[str, Any]:
        """The row for results.json."""
        return asdict(self) | {"ratio": self.ratio, "met": self.met}


def program(name: str) -> str:
    """The path of a program. Raises Missing."""
    path = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if path is None:
        raise Missing(name)
    return path


def command(directory: str, name: str) -> list[str]:
    """How a command under test begins. Raises Missing."""
    path = os.path.join(directory, name)
    if not os.path.exists(path):
        raise Missing(path)
    return [sys.executable, path]


def run(argv: list[str], output: str | None = None, timeout: float = TIMEOUT) -> Run:
    """Run a program to its end, its standard input empty, its standard output to the file `output` when given.

    Its peak memory is at least that of this process, from which it is started: this one must stay small.
    Raises Failed when it exits with a status other than 0, or is not done after `timeout` seconds.
    """
    with tempfile.TemporaryFile() as said:
        actions: list[Any] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, said.fileno(), 1),
            (os.POSIX_SPAWN_DUP2, said.fileno(), 2),
        ]
        if output is not None:
            actions.append((os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        start = time.perf_counter()
        pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setpgroup=0)
        status, usage = _wait(pid, timeout)
        wall = time.perf_counter() - start
        said.seek(0)
        text = said.read().decode(errors="replace")
    if status:
        raise Failed(f"{' '.join(argv)}: status {os.waitstatus_to_exitcode(status)}\n{text[-1000:]}")
    return Run(wall, usage.ru_utime, usage.ru_maxrss * 1024, text)


def _wait(pid: int, timeout: float) -> tuple[int, Any]:
    """Wait for the leader of a process group; the group does not outlive the timeout or an exception here."""
    signal.signal(signal.SIGALRM, _late)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        _, status, usage = os.wait4(pid, 0)
    except BaseException:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _end(pid)
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return status, usage


def _late(number: int, frame: object) -> NoReturn:
    raise Failed("a program was not done in time")


def _end(pid: int) -> None:
    """End a process group whose leader was not waited for."""
    os.killpg(pid, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        time.sleep(0.01)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def unwind_on_signals() -> None:
    """Let Ctrl-C and SIGTERM raise SystemExit, so that children end and working files go."""

    def leave(number: int, frame: object) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGTERM, leave)


def alternate(contenders: dict[str, Callable[[], Result]], rounds: int) -> dict[str, list[Result]]:
    """Let all contenders run in turn, `rounds` times, after a first time that does not count."""
    results: dict[str, list[Result]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, contend in contenders.items():
            result = contend()
            if number:
                results[name].append(result)
    return results


def medians(results: dict[str, list[Result]], value: Callable[[Result], float]) -> dict[str, float]:
    """The median of a value, per contender."""
    return {name: statistics.median(map(value, runs)) for name, runs in results.items()}


def table(rows: list[Row]) -> str:
    """The comparisons as lines of text."""
    lines = [("section", "what", "ours", "peer", "", "ratio", "target", "met"), *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.section,
        row.what,
        _amount(row.ours, row.unit),
        row.peer_name,
        _amount(row.peer, row.unit),
        "" if row.ratio is None else f"{row.ratio:.3g}",
        f"{row.bound} {row.unit}" if row.absolute else row.bound,
        {None: "", True: "yes", False: "NO"}[row.met],
    )


def _amount(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.3g} {unit}"
