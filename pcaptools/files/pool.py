"""More files than descriptors: those that were not read for longest are closed, and opened again where they were."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from typing import Any

from pcaptools.errors import InputError

SPARE = 64
"""Descriptors that are left to the rest of the process."""


class Pool:
    """So many files are open at most. The limit of the process is raised first, as far as it may be."""

    def __init__(self, most: int | None = None) -> None:
        self._most = max(most if most is not None else _allowed() - SPARE, 1)
        self._open: OrderedDict[PooledFile, None] = OrderedDict()

    def use(self, file: PooledFile) -> None:
        """`file` is about to be read."""
        if file in self._open:
            self._open.move_to_end(file)
            return
        while len(self._open) >= self._most:
            self._open.popitem(last=False)[0].park()
        self._open[file] = None

    def leave(self, file: PooledFile) -> None:
        """`file` is closed."""
        self._open.pop(file, None)


def _allowed() -> int:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    except (OSError, ValueError):
        wanted = soft
    return max(soft, wanted)


class PooledFile:
    """A raw stream (files/streams.py) over a regular file. Raises InputError when it is not there any more."""

    def __init__(self, path: str, pool: Pool) -> None:
        self._path = path
        self._pool = pool
        self._file: io.FileIO | None = None
        self._identity: tuple[int, int] | None = None
        self._offset = 0
        self._reopen()

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer`; 0 at the end."""
        if self._file is None:
            self._reopen()
        self._pool.use(self)
        assert self._file is not None
        got = self._file.readinto(buffer) or 0
        self._offset += got
        return got

    def _reopen(self) -> None:
        self._pool.use(self)
        try:
            self._file = io.FileIO(self._path)
            if self._offset:
                self._file.seek(self._offset)
            status = os.fstat(self._file.fileno())
        except OSError as error:
            self._pool.leave(self)
            raise InputError(f"{self._path}: {error.strerror or error}") from None
        identity = status.st_dev, status.st_ino
        if self._identity not in (None, identity):
            self.close()
            raise InputError(f"{self._path}: is another file now than when it was opened first")
        self._identity = identity

    def park(self) -> None:
        """Give the descriptor back; the next read opens the file again."""
        file, self._file = self._file, None
        if file:
            file.close()

    def close(self) -> None:
        """Close for good."""
        self.park()
        self._pool.leave(self)
