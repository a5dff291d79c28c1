"""Many captures out of one, as members of one tar stream (POSIX pax)."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from pcaptools.core._flows import FlowTable
from pcaptools.files.compression import compressor
from pcaptools.files.output import Output
from pcaptools.files.store import Store

PIECE = 1 << 20
_BLOCK = 512


class Tar:
    """Writes each group as a member of one tar stream on standard output. Use it as a context manager.

    compression: of the members, `gzip`, `zstd` or None. directory: in front of their names. time: gives a group's time
    of modification, s since the epoch.
    """

    def __init__(self, compression: str | None, directory: str, time: Callable[[int], int]) -> None:
        self._output = Output(None)
        self._compression = compression
        self._directory = directory
        self._time = time

    def write(
        self, table: FlowTable, store: Store, groups: Sequence[int], names: Mapping[int, str], last: bool = True
    ) -> None:
        """Write the groups in this order."""
        for group in groups:
            store.check()
            name = os.path.join(self._directory, names[group])
            if self._compression:
                stream = compressor(self._compression)
                pieces = [stream.compress(piece) for piece in table.pieces(group, False, PIECE)] + [stream.flush()]
                self._member(name, group, sum(map(len, pieces)), pieces)
            else:
                self._member(name, group, table.size(group), table.pieces(group, False, PIECE))

    def _member(self, name: str, group: int, size: int, pieces: Iterable[Any]) -> None:
        head = tarfile.TarInfo(name)
        head.size = size
        head.mtime = max(self._time(group), 0)
        self._output.write(head.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        for piece in pieces:
            self._output.write(piece)
        self._output.write(bytes(-size % _BLOCK))

    def __enter__(self) -> Tar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self._output.write(bytes(2 * _BLOCK))
            self._output.commit()
        else:
            self._output.abort()
