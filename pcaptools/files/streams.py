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
        self.head = head
        self._stream = stream
        self.close: Callable[[], None] = getattr(stream, "close", lambda: None)

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer`; 0 at the end."""
        if not self.head:
            got: int = self._stream.readinto(buffer)
            return got
        size = min(len(buffer), len(self.head))
        buffer[:size] = self.head[:size]
        self.head = self.head[size:]
        return size


def decompressed(raw: Any, name: str, max_ratio: int = 0) -> Any:
    """The stream itself, from its start, or what it decompresses to: recognised by content.

    A file that can seek comes back as it is, so that what nobody reads can be skipped. max_ratio: as
    compression.Decompressed says. Raises OSError.
    """
    head = read_head(raw, HEAD)
    if compression.recognise(head):
        return compression.Decompressed(raw, head, name, max_ratio)
    if isinstance(raw, io.FileIO) and raw.seekable():
        raw.seek(-len(head), io.SEEK_CUR)
        return raw
    return Prefixed(head, raw)


class Ahead:
    """A stream that another thread reads ahead of whoever reads it here, so that decoding and the rest overlap."""

    def __init__(self, stream: Any, depth: int = 8, size: int = 1 << 19) -> None:
        """depth: pieces that may wait; size: bytes of one."""
        import threading
        from queue import SimpleQueue

        self._stream = stream
        self._free: SimpleQueue[bytearray | None] = SimpleQueue()
        self._filled: SimpleQueue[tuple[bytearray, int] | BaseException] = SimpleQueue()
        self._piece: bytearray | None = None
        self._view = memoryview(b"")
        self._end: BaseException | None = None
        self._ended = False
        self._closed = False
        for _ in range(depth):
            self._free.put(bytearray(size))
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            while (piece := self._free.get()) is not None and not self._closed:
                got = self._stream.readinto(piece)
                self._filled.put((piece, got))
                if not got:
                    return
        except BaseException as error:
            self._filled.put(error)

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer`; 0 at the end. Raises what the stream raised."""
        if not self._view and not self._next():
            return 0
        got = min(len(buffer), len(self._view))
        buffer[:got] = self._view[:got]
        self._view = self._view[got:]
        return got

    def _next(self) -> bool:
        if self._end:
            raise self._end
        if self._ended:
            return False
        if self._piece is not None:
            self._free.put(self._piece)
            self._piece = None
        item = self._filled.get()
        if isinstance(item, BaseException):
            self._end = item
            raise item
        self._piece, got = item
        self._view = memoryview(self._piece)[:got]
        self._ended = not got
        return bool(got)

    def close(self) -> None:
        """End the thread, once it has read what it is about to read; one that waits for a pipe is left alone."""
        self._closed = True
        self._free.put(None)
        self._thread.join(0.02)
