"""The bytes of a compressed stream as its decoders ask for them, and what they raise about them.

A decoder is a generator: it yields decoded bytes, and `b""` whenever it is about to wait for the raw stream.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any


class Damage(Exception):
    """What is wrong at the byte `offset` of the compressed stream: `back` bytes before where `data` is read."""

    def __init__(self, reason: str, data: CompressedInput, back: int = 0) -> None:
        self.reason = reason
        self.offset = data.offset - back


class CompressedInput:
    """The compressed bytes: a window of the raw stream, `offset` bytes from its beginning."""

    def __init__(self, raw: Any, head: bytes, buffer: int, offset: int) -> None:
        self._buffer = buffer
        self._read: Callable[[memoryview], int] = (
            getattr(raw, "readinto1", None) or getattr(raw, "readinto", None) or _reader(raw)
        )
        self._view = memoryview(bytearray(head))
        self._start = 0
        self._end = len(head)
        self._ended = False
        self.offset = offset

    def take(self, least: int, most: int) -> Generator[bytes, None, memoryview]:
        """From `least` to `most` bytes, as many as are there; fewer only at the end. Valid until the next call."""
        while self._end - self._start < least and not self._ended:
            yield b""
            self._fill(least)
        size = min(self._end - self._start, most)
        self._start += size
        self.offset += size
        return self._view[self._start - size : self._start]

    def need(self, size: int) -> Generator[bytes, None, bytes]:
        """Exactly `size` bytes. Raises Damage if the stream ends before."""
        piece = yield from self.take(size, size)
        if len(piece) < size:
            raise Damage("unexpected end", self)
        return bytes(piece)

    def peek(self, size: int) -> Generator[bytes, None, bytes]:
        """The next `size` bytes, fewer only at the end, left where they are."""
        piece = yield from self.take(size, size)
        self.unread(len(piece))
        return bytes(piece)

    def unread(self, size: int) -> None:
        """Give back the last `size` bytes of what was taken last."""
        self._start -= size
        self.offset -= size

    def _fill(self, wanted: int) -> None:
        if self._start + max(wanted, self._buffer // 2) > len(self._view):
            left = bytes(self._view[self._start : self._end])
            if max(wanted, self._buffer) > len(self._view):
                self._view = memoryview(bytearray(max(wanted, self._buffer)))
            self._view[: len(left)] = left
            self._start, self._end = 0, len(left)
        got = self._read(self._view[self._end :])
        self._end += got
        self._ended = not got


def _reader(raw: Any) -> Callable[[memoryview], int]:
    def readinto(view: memoryview) -> int:
        piece = raw.read(len(view))
        view[: len(piece)] = piece
        return len(piece)

    return readinto
