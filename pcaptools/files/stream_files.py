"""The bytes of streams as files, each with a map of what lacks in it.

A file holds the bytes of one direction that were captured, one behind the other; nothing stands for those that were
not. Where some lack, `NAME.gaps.json` beside it tells where: `file_offset` in the file, `offset` and `size` in the
stream. No map: nothing lacks. Files are made exclusively; while they grow none is kept open, so that many sessions need
no descriptors.
"""

from __future__ import annotations

import errno
import json
import os
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

from pcaptools.errors import OutputError

PIECE = 1 << 16
"""Bytes of a stream that wait in memory to be written."""
WAITING = 32 << 20
"""Of all streams together."""
GAPS = ".gaps.json"


class _File:
    """A stream. gaps: [offset in the stream, size, time, packet], in order of offsets."""

    __slots__ = ("gaps", "path", "position", "size", "waiting")

    def __init__(self, path: str) -> None:
        self.path = path
        self.waiting = bytearray()
        self.position = self.size = 0
        self.gaps: list[list[int]] = []

    def lacking(self, offset: int) -> int:
        """Bytes that lack in front of an offset of the stream."""
        count = bisect_right(self.gaps, [offset])
        return sum(min(start + size, offset) - start for start, size, *_ in self.gaps[:count])


class StreamFiles:
    """Writes streams to files of a directory. Raises OutputError.

    clock: a time (ns) in words, for the maps.
    """

    def __init__(self, directory: str, clock: Callable[[int], str]) -> None:
        self._directory, self._clock = directory, clock
        self._open: dict[str, _File] = {}
        self._waiting = 0
        self.files = self.bytes = self.missing = 0
        """Complete files, bytes in them, bytes that lack in them."""
        try:
            os.makedirs(directory, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{directory}: {error.strerror}") from None

    def take(self, name: str, start: int, size: int, data: Any, time: int, packet: int) -> None:
        """Bytes [start, start + size) of the stream that is called so; data None: they lack."""
        file = self._open.get(name)
        if file is None:
            file = _File(os.path.join(self._directory, name))
            self._make(file.path)
            self._open[name] = file
        if start < file.position:
            self._go_back(file, start, bytes(data or b""))
            return
        file.position = start + size
        if data is None:
            file.gaps.append([start, size, time, packet])
            return
        file.waiting += data
        self._waiting += size
        if len(file.waiting) >= PIECE:
            self._flush(file)
        elif self._waiting >= WAITING:
            for other in self._open.values():
                self._flush(other)

    def close(self, name: str, **about: Any) -> None:
        """A stream is complete; about: what its map says besides. One that never said anything has no file."""
        file = self._open.get(name)
        if file is None:
            return
        self._flush(file)
        if file.gaps:
            self._write_map(file, about)
        del self._open[name]
        self.files += 1
        self.bytes += file.size
        self.missing += sum(size for _, size, *_ in file.gaps)

    def abandon(self) -> list[str]:
        """Remove the files that are not complete; returns those that could not be removed."""
        left = []
        for file in self._open.values():
            try:
                os.unlink(file.path)
            except OSError:
                left.append(file.path)
        self._open.clear()
        return left

    def _flush(self, file: _File) -> None:
        """Write what waits."""
        if not file.waiting:
            return
        self._write(file, file.size, file.waiting)
        file.size += len(file.waiting)
        self._waiting -= len(file.waiting)
        file.waiting = bytearray()

    def _make(self, path: str) -> None:
        os.close(self._try(path, os.open, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))

    def _write(self, file: _File, at: int, data: bytes | bytearray | memoryview) -> None:
        fd = self._try(file.path, os.open, file.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            view = memoryview(data)
            while view:
                done = self._try(file.path, os.pwrite, fd, view, at)
                view, at = view[done:], at + done
        finally:
            os.close(fd)

    def _try(self, path: str, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except FileNotFoundError:
            raise OutputError(f"{path}: was removed while it was written") from None
        except OSError as error:
            if error.errno == errno.EEXIST:
                raise OutputError(f"{path}: exists: choose a directory without it") from None
            raise OutputError(f"{path}: {error.strerror}") from None

    def _go_back(self, file: _File, start: int, data: bytes) -> None:
        """Bytes for what was written, or for what lacked."""
        self._flush(file)
        end = start + len(data)
        for gap in [gap for gap in file.gaps if gap[0] < end and gap[0] + gap[1] > start]:
            self._fill(file, gap, start, data)
        self._write(file, start - file.lacking(start), data)

    def _fill(self, file: _File, gap: list[int], start: int, data: bytes) -> None:
        """Make room in the file for the part of a gap that is there after all."""
        low, high = max(gap[0], start), min(gap[0] + gap[1], start + len(data))
        at = low - file.lacking(low)
        self._shift(file, at, high - low)
        where = file.gaps.index(gap)
        rest = [[gap[0], low - gap[0], *gap[2:]], [high, gap[0] + gap[1] - high, *gap[2:]]]
        file.gaps[where : where + 1] = [one for one in rest if one[1]]

    def _shift(self, file: _File, at: int, by: int) -> None:
        """Move what stands behind an offset of the file further back, from its end on."""
        fd = self._try(file.path, os.open, file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            end = file.size
            while end > at:
                low = max(at, end - PIECE)
                self._write(file, low + by, self._try(file.path, os.pread, fd, end - low, low))
                end = low
        finally:
            os.close(fd)
        file.size += by

    def _write_map(self, file: _File, about: dict[str, Any]) -> None:
        lacked, gaps = 0, []
        for start, size, time, packet in file.gaps:
            gaps.append(
                {"file_offset": start - lacked, "offset": start, "size": size, "before": self._clock(time)}
                | ({"before_packet": packet} if packet else {})
            )
            lacked += size
        text = json.dumps({**about, "bytes": file.size, "missing": lacked, "gaps": gaps}, indent=1) + "\n"
        beside = _File(file.path + GAPS)
        self._make(beside.path)
        self._write(beside, 0, text.encode())
