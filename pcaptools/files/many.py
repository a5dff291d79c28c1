"""Many captures out of one: files made exclusively under their final names.

A writer is given the sorted groups of a flow table and what each one's file is called. What it has completed stays;
a file that it could not complete is removed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import takewhile

from pcaptools.core._flows import FlowTable
from pcaptools.errors import OutputError
from pcaptools.files._many import ManyFiles
from pcaptools.files.compression import compressor
from pcaptools.files.store import Store

BUDGET = 8 << 20
"""Bytes between two looks at signals and at the input."""

PIECE = 1 << 20
AT_ONCE = 512
"""Files of one native run: whoever waits for finished ones gets them after so many."""
WORKERS = 2
"""Files written at the same time: making one and filling another overlap."""

_Part = tuple[Sequence[int], Sequence[str], Sequence[bool]]
_Write = Callable[[Sequence[int], Sequence[str], Sequence[bool], Sequence[BaseException]], None]
_Done = Callable[[Sequence[str]], None]


class Directory:
    """Writes each group to a file below a directory.

    compression: `gzip`, `zstd` or None. force: a file that is there is replaced; keep: files that never are.
    done: called with the paths of files that are complete. told: called now and then with how far it is.
    """

    def __init__(
        self, path: str, *, compression: str | None = None, force: bool = False, keep: Sequence[str] = (),
        done: _Done | None = None, told: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        self._path = path
        self._compression = compression
        self._force = force
        self._keep = [os.stat(name) for name in keep if os.path.exists(name)]
        self._done = done
        self._told = told
        self._made: set[str] = set()
        self._written: dict[int, str] = {}
        self._tried: list[int] = []

    def write(
        self, table: FlowTable, store: Store, groups: Sequence[int], names: Mapping[int, str], last: bool
    ) -> None:
        """Write what is sorted of these groups, in this order; names: of those that have no file yet; last: no
        more comes.

        Raises OutputError, which names what is complete.
        """
        self._make_directories(names)
        self._tried += [group for group in groups if group not in self._written]
        front = os.path.join(self._path, "") if self._path else ""
        paths = [self._written.get(group) or front + names[group] for group in groups]
        append = [group in self._written for group in groups]
        parts = [
            (groups[start : start + AT_ONCE], paths[start : start + AT_ONCE], append[start : start + AT_ONCE])
            for start in range(0, len(groups), AT_ONCE)
        ]
        done = self._done if last else None
        if self._compression:
            self._run(parts, partial(self._write_compressed, table, store), 1, done)
        else:
            workers = 1 if done else WORKERS
            self._run(parts, partial(self._write_plain, table, store), workers, done)
        if done:
            written = set(groups)
            done([path for group, path in self._written.items() if group not in written])

    def _run(self, parts: Sequence[_Part], write: _Write, workers: int, done: _Done | None) -> None:
        """Write all parts, several at once. One that fails ends the others."""
        import threading

        waiting = iter(parts)
        errors: list[BaseException] = []
        size = sum(len(paths) for _, paths, _ in parts)
        lock = threading.Lock()

        def work() -> None:
            try:
                while not errors:
                    with lock:
                        part = next(waiting, None)
                    if part is None:
                        return
                    write(*part, errors)
                    if self._told:
                        self._told(f"{len(self._written)} of {size} files")
                    if done:
                        done(part[1])
            except BaseException as error:
                errors.append(error)

        others = [threading.Thread(target=work, daemon=True) for _ in range(min(workers, len(parts)) - 1)]
        for other in others:
            other.start()
        work()
        while others:
            try:
                others[-1].join()
                others.pop()
            except BaseException as error:  # Ctrl-C while waiting: the others stop, and remove what is not complete
                errors.append(error)
        if errors:
            first = errors[0]
            raise self._explained(first) if isinstance(first, OutputError) else first

    def _make_directories(self, names: Mapping[int, str]) -> None:
        wanted = {os.path.dirname(name) for name in names.values() if "/" in name} | ({""} if names else set())
        for directory in sorted(wanted - self._made):
            path = os.path.join(self._path, directory)
            try:
                if path:
                    os.makedirs(path, exist_ok=True)
            except FileExistsError:
                raise self._explained(self._failure(path.rstrip("/"), errno.ENOTDIR)) from None
            except OSError as error:
                raise self._explained(self._failure(path, error.errno)) from None
        self._made |= wanted

    def _write_plain(
        self, table: FlowTable, store: Store, groups: Sequence[int], paths: Sequence[str], append: Sequence[bool],
        stop: Sequence[BaseException],
    ) -> None:  # fmt: skip
        files = ManyFiles(table, [os.fsencode(path) for path in paths], groups, append)
        try:
            while not files.write(BUDGET):
                store.check()
                if files.error:
                    self._handle(paths[files.done], files.error)
                    files.retry()
                if stop:
                    break
        finally:
            done = files.done
            if files.abandon():
                _remove(paths[done])
            for at in range(done):
                self._written[groups[at]] = paths[at]

    def _write_compressed(
        self, table: FlowTable, store: Store, groups: Sequence[int], paths: Sequence[str], append: Sequence[bool],
        stop: Sequence[BaseException],
    ) -> None:  # fmt: skip
        for group, path, more in zip(groups, paths, append, strict=True):
            store.check()
            fd = self._open(path, more)
            before = os.lseek(fd, 0, os.SEEK_END)
            try:
                _compress(fd, table.pieces(group, more, PIECE), self._compression)
            except BaseException as error:
                if more:
                    os.ftruncate(fd, before)
                else:
                    _remove(path)
                if isinstance(error, OSError):
                    raise self._failure(path, error.errno) from None
                raise
            finally:
                os.close(fd)
            self._written[group] = path

    def _open(self, path: str, append: bool) -> int:
        flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY | (os.O_APPEND if append else os.O_CREAT | os.O_EXCL)
        while True:
            try:
                return os.open(path, flags, 0o666)
            except OSError as error:
                self._handle(path, error.errno)

    def _handle(self, path: str, number: int | None) -> None:
        """Make way for a new file where that is allowed. Raises OutputError otherwise."""
        if number != errno.EEXIST or not self._force:
            raise self._failure(path, number)
        try:
            there = os.lstat(path)
            if any(os.path.samestat(there, kept) for kept in self._keep):
                raise OutputError(f"{path}: is the input")
            os.unlink(path)
        except OSError as error:
            raise self._failure(path, error.errno) from None

    def _failure(self, path: str, number: int | None) -> OutputError:
        if number == errno.EEXIST:
            return OutputError(f"{path}: exists: --force replaces it, -d DIR or --name writes elsewhere")
        return OutputError(f"{path}: {os.strerror(number) if number else 'not written'}")

    def _explained(self, error: OutputError) -> OutputError:
        """The same, and which files are complete."""
        complete = sum(1 for _ in takewhile(self._written.__contains__, self._tried))
        first, last = (self._written.get(self._tried[k], "") if self._tried else "" for k in (0, complete - 1))
        more = len(self._written) - complete
        if not complete:
            return OutputError(f"{error}; {f'{more} files are complete' if more else 'no file was completed'}")
        named = f"{first} is complete" if complete == 1 else f"{complete} files are complete, {first} to {last}"
        return OutputError(f"{error}; {named}" + (f", and {more} behind the one that failed" if more else ""))

    @property
    def written(self) -> Mapping[int, str]:
        """The paths of complete files, by group."""
        return self._written


def _compress(fd: int, pieces: Iterable[memoryview], kind: str | None) -> None:
    assert kind
    stream = compressor(kind)
    for piece in pieces:
        _write(fd, stream.compress(piece))
    _write(fd, stream.flush())


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
