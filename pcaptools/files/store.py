"""The bytes of a stream for who needs them again, in another order: a mapped file, memory, or a temporary file."""

from __future__ import annotations

import io
import mmap
import os
import stat
from collections.abc import Callable
from typing import Any

from pcaptools.core._flows import FlowTable
from pcaptools.errors import InputError, OutputError
from pcaptools.files import compression
from pcaptools.files.streams import HEAD

_SLACK = 1 << 20


class Store:
    """Base: keeps nothing, is never full."""

    full = False

    def add(self, data: memoryview) -> None:
        """The next bytes of the stream."""

    def hold(self, table: FlowTable) -> None:
        """Let the table read what was added, until `release`."""

    def check(self) -> None:
        """Raises InputError when bytes that were there are not any more."""

    def release(self, table: FlowTable) -> None:
        table.release()

    def drop(self, until: int) -> None:
        """Nothing before this offset of the stream is needed again."""


class Mapped(Store):
    """A file that can be read again: mapped, because random access is the point."""

    def __init__(self, raw: io.FileIO, start: int) -> None:
        self._raw = raw
        self._start = start
        self._needed = 0
        self._map: mmap.mmap | None = None

    def add(self, data: memoryview) -> None:
        self._needed += len(data)

    def hold(self, table: FlowTable) -> None:
        if not self._needed:
            return
        self.check()
        try:
            self._map = mmap.mmap(self._raw.fileno(), self._start + self._needed, prot=mmap.PROT_READ)
        except OSError as error:
            raise InputError(f"{self._raw.name}: {error.strerror or error}") from None
        table.hold(memoryview(self._map)[self._start :], 0)

    def check(self) -> None:
        if os.fstat(self._raw.fileno()).st_size < self._start + self._needed:
            raise InputError(f"{self._raw.name}: became shorter while it was read")

    def release(self, table: FlowTable) -> None:
        table.release()
        if self._map:
            self._map.close()
            self._map = None


class Held(Store):
    """What comes through a pipe: in memory up to `limit` bytes; then it is `full`, or goes to a temporary file."""

    def __init__(self, limit: int, spool: str | None) -> None:
        """spool: the directory, made when missing, of a temporary file for what exceeds the limit; None:
        whoever adds has to drop."""
        self._limit = limit
        self._spool = spool
        self._memory: Any = mmap.mmap(-1, limit + _SLACK)
        self._size = 0
        self._at = 0
        self._file: Any = None

    @property
    def full(self) -> bool:  # type: ignore[override]
        """Whether it is time to drop something."""
        return self._spool is None and self._size >= self._limit

    def add(self, data: memoryview) -> None:
        if self._file is None and self._spool is not None and self._size + len(data) > len(self._memory):
            self._to_file()
        if self._file is not None:
            self._write(data)
            return
        if self._size + len(data) > len(self._memory):
            self._grow(self._size + len(data))
        self._memory[self._size : self._size + len(data)] = data
        self._size += len(data)

    def _grow(self, size: int) -> None:
        larger = mmap.mmap(-1, size + _SLACK)
        larger[: self._size] = memoryview(self._memory)[: self._size]
        self._memory.close()
        self._memory = larger

    def _to_file(self) -> None:
        import tempfile

        assert self._spool is not None
        try:
            os.makedirs(self._spool, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._spool, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise OutputError(f"a temporary file in {self._spool}: {error.strerror or error}") from None
        with memoryview(self._memory) as view:
            self._write(view[: self._size])
        self._memory.close()
        self._memory = None

    def _write(self, data: memoryview) -> None:
        size = self._size if self._memory is None else 0
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise OutputError(f"the temporary file in {self._spool}: {error.strerror or error}") from None
        self._size = max(size, self._file.tell())

    def hold(self, table: FlowTable) -> None:
        if self._file is not None:
            self._memory = mmap.mmap(self._file.fileno(), self._size, prot=mmap.PROT_READ)
        if self._size:
            table.hold(memoryview(self._memory)[: self._size], self._at)

    def release(self, table: FlowTable) -> None:
        table.release()
        if self._file is not None and self._memory is not None:
            self._memory.close()
            self._memory = None

    def drop(self, until: int) -> None:
        gone = until - self._at
        rest = self._size - gone
        if rest:
            self._memory.move(0, gone, rest)
        self._size = rest
        self._at = until


def position(raw: Any) -> Callable[[], float] | None:
    """Tells how much of a regular file is read, 0 to 1; None for everything else."""
    if not isinstance(raw, io.FileIO):
        return None
    try:
        status = os.fstat(raw.fileno())
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return None
    return lambda: min(raw.tell() / status.st_size, 1)


def plain_start(raw: Any) -> int | None:
    """Where the content of an uncompressed regular file that was not read yet begins; None for everything else."""
    if not isinstance(raw, io.FileIO):
        return None
    try:
        if not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
            return None
        start = raw.tell()
        head = os.pread(raw.fileno(), HEAD, start)
    except OSError:
        return None
    return None if compression.recognise(head) else start
