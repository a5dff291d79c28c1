"""Byte streams that are read forward: files, standard input, archive members; plain or compressed.

A stream has `readinto(buffer) -> int`, which returns 0 at the end.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pcaptools.errors import InputError
from pcaptools.files import compression

HEAD = 24
"""First bytes that tell compression and format: those of a pcap file header."""

PIPE_SIZE = 1 << 20
"""Bytes."""

STDIN = "standard input"


def name_of(path: str | None) -> str:
    """What messages call an input."""
    return STDIN if path is None or path == "-" else path


def open_raw(path: str | None) -> io.FileIO:
    """Open a file, or standard input for None and `-`, unbuffered. Raises InputError."""
    if path is None or path == "-":
        widen_pipe(0)
        return io.FileIO(0, closefd=False)
    try:
        return io.FileIO(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None


def widen_pipe(fd: int) -> None:
    """Let a pipe hold 1 MiB, so that neighbours in a pipeline switch less often. Linux only, as far as the user may."""
    if sys.platform != "linux":
        return
    import fcntl

    with suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)


def read_head(stream: Any, size: int) -> bytes:
    """The first `size` bytes of a stream, fewer at its end, whatever pieces they come in."""
    data = bytearray(size)
    have = 0
    while have < size and (got := stream.readinto(memoryview(data)[have:])):
        have += got
    return bytes(data[:have])


class Prefixed:
    """A stream with bytes put back in front of it."""

    def __init__(self, head: bytes, stream: Any) -> None:
        self._head = head
        self._stream = stream
        self.close: Callable[[], None] = getattr(stream, "close", lambda: None)

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer`; 0 at the end."""
        if not self._head:
            got: int = self._stream.readinto(buffer)
            return got
        size = min(len(buffer), len(self._head))
        buffer[:size] = self._head[:size]
        self._head = self._head[size:]
        return size


def decompressed(raw: Any, name: str) -> Any:
    """The stream itself, from its start, or what it decompresses to: recognised by content.

    A file that can seek comes back as it is, so that what nobody reads can be skipped. Raises OSError.
    """
    head = read_head(raw, HEAD)
    if compression.recognise(head):
        return compression.Decompressed(raw, head, name)
    if isinstance(raw, io.FileIO) and raw.seekable():
        raw.seek(-len(head), io.SEEK_CUR)
        return raw
    return Prefixed(head, raw)
