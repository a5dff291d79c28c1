"""A capture opened to be looked at: its packets once, forward, and what the file itself is."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from types import TracebackType

from pcaptools.core.batch import Batch
from pcaptools.files.capture import Capture
from pcaptools.files.hashes import Observed
from pcaptools.files.streams import name_of, open_raw

CAPACITY = 1 << 18
"""Bytes of a batch: what is only looked at stays in the processor's cache."""


class Inspected:
    """An open capture. Use it as a context manager; `size` (bytes of the file as stored) and `digests` are known after
    `finish`."""

    def __init__(self, path: str, hashes: bool) -> None:
        """Raises InputError."""
        self._raw = raw = open_raw(path)
        try:
            status = os.fstat(raw.fileno())
            regular = stat.S_ISREG(status.st_mode)
            self.size = status.st_size
            self._observed = Observed(raw, hashes) if hashes or not regular else None
            self.digests: dict[str, str | None] | None = None
            self.capture = Capture(self._observed or raw, name_of(path))
        except BaseException:
            raw.close()
            raise

    def __enter__(self) -> Inspected:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._observed:
            self._observed.close()
        self._raw.close()

    def batches(self) -> Iterator[Batch]:
        """The packets. Raises DamagedError behind the last sound one."""
        batch = Batch(CAPACITY)
        while self.capture.fill(batch):
            yield batch

    def finish(self) -> None:
        """Read what a damaged capture has left unread, for size and hashes."""
        if self._observed:
            self._observed.drain()
            self.size = self._observed.size
            self.digests = self._observed.digests()


def inspect(path: str, hashes: bool = False) -> Inspected:
    """Open a capture; `-` is standard input. Raises InputError."""
    return Inspected(path, hashes)
