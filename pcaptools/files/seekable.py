"""Random access to archives: plain files, and compressed ones that can be entered at several points.

A gzip file is entered where rapidgzip, which reads it once, found deflate blocks to begin: with the 32 KiB before such
a point, isal decodes on from there. zstd, lz4 and bzip2 files are entered where a frame or stream begins, xz files
where a block begins (xz-file-format 1.2 section 4: the index says where). Any number of `Cursor`s read side by side;
each has a decoder of its own while it is among those that were used last, and enters anew when it is not.
"""

from __future__ import annotations

import io
import os
import threading
import zlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

from pcaptools.errors import DamagedError, InputError
from pcaptools.files.compression import Decompressed

PIECE = 1 << 18
"""Bytes read at a time to get to where reading begins."""

BUFFER = 1 << 16
"""Compressed bytes that one cursor reads at a time."""

DECODERS = {"gzip": 256, "zstd": 16, "lz4": 32, "bzip2": 16, "xz": 8}
"""Decoders that are kept at a time: of what they need, the sum stays below 100 MB at usual settings."""

WINDOW = 1 << 15
"""Bytes that deflate looks back (RFC 1951)."""

SPACING = 1 << 20
"""Compressed bytes from point to point of gzip, at least."""

POINTS = 16384
"""Points that an index has at most, about; one of gzip takes some 3 KiB. When a large archive would have more, their
spacing grows."""

LARGEST_CHUNK = 16 << 20
"""Compressed bytes from point to point at most: rapidgzip decodes as much at a time."""


class Point(NamedTuple):
    """Where an archive can be entered: offset of the decompressed data, of the compressed data, first bit there.

    context: for gzip, the 32 KiB before it, compressed by zlib; for xz, where the block ends and its stream begins.
    """

    output: int
    input: int
    bit: int = 0
    context: bytes = b""


class At:
    """A file from some byte on, whatever else reads it."""

    def __init__(self, fd: int, position: int, end: int = 1 << 63) -> None:
        self._fd = fd
        self._end = end
        self.position = position

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer`; 0 at the end."""
        got = os.preadv(self._fd, [memoryview(buffer)[: self._end - self.position]], self.position)
        self.position += got
        return got


class Access:
    """An archive that is read from wherever one likes.

    kind: its compression, None for none; points: where it can be entered, the first at its beginning.
    """

    def __init__(self, fd: int, name: str, kind: str | None, points: Sequence[Point]) -> None:
        self.kind = kind
        self.points = points
        self._fd = fd
        self._name = name
        self._outputs = [point.output for point in points]
        self.end = points[-1].output if kind == "xz" else 1 << 63
        self._decoding: OrderedDict[int, Cursor] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, offset: int) -> Any:
        """A stream of the decompressed archive from a byte on."""
        return Cursor(self, offset) if self.kind else At(self._fd, offset)

    def enter(self, cursor: Cursor) -> tuple[Any, int, int]:
        """A decoder for a cursor: the stream, its offset, and where it ends. Another cursor may lose its own."""
        try:
            at = bisect_right(self._outputs, cursor.position) - 1
            point = self.points[at]
            raw, head, end, resume = At(self._fd, point.input), b"", 1 << 63, None
            if self.kind == "gzip" and point.output:
                window = zlib.decompressobj().decompress(point.context, WINDOW) if point.context else b""
                resume = (window, point.bit)
            elif self.kind == "xz":
                block_end, stream_start = map(int, point.context.split())
                head = os.pread(self._fd, XZ_HEADER, stream_start)
                raw = At(self._fd, point.input, block_end)
                end = self._outputs[at + 1]
        except (ValueError, IndexError, zlib.error):
            raise DamagedError("the index is none of this archive: remove it") from None
        stream = Decompressed(raw, head, self._name, resume=resume, buffer=BUFFER, offset=point.input - len(head))
        with self._lock:
            if len(self._decoding) >= DECODERS[self.kind or "gzip"]:
                self._decoding.popitem(last=False)[1].drop()
            self._decoding[id(cursor)] = cursor
        return stream, point.output, end

    def used(self, cursor: Cursor) -> None:
        """A cursor is read."""
        with self._lock:
            if id(cursor) in self._decoding:
                self._decoding.move_to_end(id(cursor))

    def leave(self, cursor: Cursor) -> None:
        """A cursor needs no decoder any more."""
        with self._lock:
            self._decoding.pop(id(cursor), None)


class Cursor:
    """A place in a compressed archive. position: offset of the next byte."""

    def __init__(self, access: Access, position: int) -> None:
        self.position = position
        self._access = access
        self._stream: Any = None
        self._at = 0
        self._end = 0

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer`; 0 at the end. Raises DamagedError."""
        if self.position >= self._access.end:
            return 0
        stream = self._stream  # another thread may drop it
        if stream is None or self.position >= self._end:
            self._access.leave(self)
            stream, self._at, self._end = self._access.enter(self)
            self._stream = stream
        else:
            self._access.used(self)
        self._skip(stream)
        room = min(len(buffer), self._end - self.position)
        got: int = stream.readinto(memoryview(buffer)[:room])
        self._at += got
        self.position += got
        return got

    def _skip(self, stream: Any) -> None:
        scratch = memoryview(bytearray(min(PIECE, self.position - self._at)))
        while self._at < self.position:
            got = stream.readinto(scratch[: self.position - self._at])
            if not got:
                raise DamagedError("the archive ends here, but was longer when it was indexed")
            self._at += got

    def drop(self) -> None:
        """Lose the decoder, keep the place."""
        self._stream = None

    def close(self) -> None:
        """Give the decoder up."""
        self.drop()
        self._access.leave(self)


# Reading once and finding the points


class Indexing:
    """A compressed archive that is read once, forward; `points` then says where it can be entered."""

    def __init__(self, raw: io.FileIO, name: str, kind: str, max_ratio: int) -> None:
        raw.seek(0)
        self.kind = kind
        self._stream = Decompressed(raw, os.pread(raw.fileno(), 0, 0), name, max_ratio)
        self._blocks = xz_points(raw) if kind == "xz" else []

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer`; 0 at the end. Raises DamagedError."""
        return self._stream.readinto(buffer)

    def points(self) -> list[Point]:
        """Where the archive can be entered."""
        return self._blocks or [Point(output, start) for start, output in self._stream.starts]

    def close(self) -> None:
        """End reading."""


class GzipIndexing(Indexing):
    """Of gzip: rapidgzip reads; where it gives up or ends, we look ourselves at what is wrong with the rest."""

    def __init__(self, raw: io.FileIO, name: str, max_ratio: int) -> None:
        import rapidgzip

        self.kind = "gzip"
        self._raw = raw
        self._name = name
        self._position = 0
        self._error = ""
        self._rest: Any = None
        self._ratio = max_ratio
        self._points: list[Point] = []
        size = os.fstat(raw.fileno()).st_size
        chunk = min(max(SPACING, size // POINTS), LARGEST_CHUNK)
        self._formats = rapidgzip.IndexFormat
        self._file: Any = rapidgzip.RapidgzipFile(raw.fileno(), parallelization=1, chunk_size=chunk)

    def readinto(self, buffer: Any) -> int:
        if self._rest is None:
            try:
                got: int = self._file.readinto(buffer)
            except (ValueError, RuntimeError, ArithmeticError, IndexError) as error:
                self._error = str(error)
                got = 0
            self._position += got
            if got:
                self._check_ratio()
                return got
            self._finish()
        got = self._rest.readinto(buffer)
        if not got and self._error:
            raise DamagedError(f"gzip data damaged: {self._error}")
        return got

    def _check_ratio(self) -> None:
        if self._ratio and self._position > self._ratio * self._file.tell_compressed() // 8 + (16 << 20):
            raise DamagedError(f"gzip data expands more than {self._ratio}-fold (see --max-ratio)")

    def _finish(self) -> None:
        """Take the points over, and go on from the last one as far as there is something."""
        self._export()
        access = Access(self._raw.fileno(), self._name, "gzip", self._points)
        self._rest = access.open(self._position)

    def _export(self) -> None:
        written = io.BytesIO()
        try:
            self._file.export_index(written, self._formats.GZTOOL)
            self._points = gztool_points(written.getvalue())
        except (ValueError, RuntimeError, ArithmeticError, IndexError):
            self._points = []
        self._points = self._points or [Point(0, 0)]
        self.close()

    def points(self) -> list[Point]:
        return self._points or [Point(0, 0)]

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def gztool_points(data: bytes) -> list[Point]:
    """The points of an index in the format of gztool. Raises ValueError."""
    count = int.from_bytes(data[16:24], "big")
    at, points = 32, []
    for _ in range(count):
        output, start = (int.from_bytes(data[at + k : at + k + 8], "big") for k in (0, 8))
        bits, size = (int.from_bytes(data[at + k : at + k + 4], "big") for k in (16, 20))
        context = data[at + 24 : at + 24 + size]
        if len(context) < size:
            raise ValueError("the index is cut short")
        first = start * 8 - bits
        at += 24 + size
        points.append(Point(output, first // 8, first % 8, context) if output else Point(0, 0))
    return points


def indexing(raw: io.FileIO, name: str, kind: str, max_ratio: int = 0) -> Indexing:
    """An archive to be read once, forward. Raises InputError at once for one that can only be entered at its beginning,
    as far as that shows."""
    single = {"zstd": _one_frame, "xz": lambda raw: len(xz_points(raw)) < 3}.get(kind)
    if single and single(raw):
        raise unseekable(name, f"one {kind} {'frame' if kind == 'zstd' else 'block'}")
    return GzipIndexing(raw, name, max_ratio) if kind == "gzip" else Indexing(raw, name, kind, max_ratio)


def unseekable(name: str, what: str) -> InputError:
    """What a user is told who wants to merge from something that can be read only once, forward."""
    return InputError(
        f"{name} is {what}: its captures cannot be read side by side. "
        "Give --window SECONDS to sort within a window, or --spool DIR to allow storage there"
    )


# zstd: whether there is more than one frame (RFC 8878 section 3.1)


def _one_frame(raw: io.FileIO) -> bool:
    """Whether the first frame that is not to be skipped is the last one; a damaged file is taken for one frame."""
    fd, size = raw.fileno(), os.fstat(raw.fileno()).st_size
    frames = at = 0
    while at < size and frames < 2:
        following = _frame_end(fd, at)
        if following is None:
            return frames < 1
        end, skippable = following
        frames += not skippable
        at = end
    return frames < 2


def _frame_end(fd: int, at: int) -> tuple[int, bool] | None:
    """Where the frame at a byte ends, and whether it holds no data; None for no whole frame."""
    head = os.pread(fd, 18, at)
    if head[1:4] == b"\x2a\x4d\x18" and head[:1] and head[0] & 0xF0 == 0x50:
        return at + 8 + int.from_bytes(head[4:8], "little"), True
    if head[:4] != b"\x28\xb5\x2f\xfd" or len(head) < 5:
        return None
    descriptor = head[4]
    alone = descriptor >> 5 & 1
    at += 5 + (1 - alone) + (0, 1, 2, 4)[descriptor & 3] + (alone, 2, 4, 8)[descriptor >> 6]
    last = 0
    while not last:
        header = os.pread(fd, 3, at)
        if len(header) < 3:
            return None
        block = int.from_bytes(header, "little")
        last = block & 1
        at += 3 + (1 if block >> 1 & 3 == 1 else block >> 3)
    return at + (4 if descriptor & 4 else 0), False


# xz: where blocks begin (xz-file-format 1.2 sections 2.1.2 and 4), read from the end

XZ_HEADER = 12
"""Bytes of a stream's header, and of its footer."""


def xz_points(raw: io.FileIO) -> list[Point]:
    """Where the blocks of an xz file begin, and where the last one ends. Empty if the file is damaged."""
    fd = raw.fileno()
    end = size = os.fstat(fd).st_size
    streams = []
    try:
        while end > 0:
            if os.pread(fd, 4, end - 4) == bytes(4):
                end -= 4
                continue
            start, blocks = _xz_stream(fd, end)
            streams.append((start, blocks))
            end = start
    except (ValueError, IndexError):
        return []
    points, output = [], 0
    for start, blocks in reversed(streams):
        at = start + XZ_HEADER
        for stored, length in blocks:
            points.append(Point(output, at, 0, b"%d %d" % (at + (stored + 3 & ~3), start)))
            at += stored + 3 & ~3
            output += length
    return [*points, Point(output, size)] if points else []


def _xz_stream(fd: int, end: int) -> tuple[int, list[tuple[int, int]]]:
    """(start of the stream that ends there, (bytes stored, bytes decompressed) of each block). Raises ValueError."""
    footer = os.pread(fd, XZ_HEADER, end - XZ_HEADER)
    if footer[10:] != b"YZ":
        raise ValueError("no footer")
    size = (int.from_bytes(footer[4:8], "little") + 1) * 4
    index = os.pread(fd, size, end - XZ_HEADER - size)
    if index[:1] != b"\0":
        raise ValueError("no index")
    count, at = _xz_number(index, 1)
    blocks = []
    for _ in range(count):
        stored, at = _xz_number(index, at)
        length, at = _xz_number(index, at)
        blocks.append((stored, length))
    start = end - 2 * XZ_HEADER - size - sum(stored + 3 & ~3 for stored, _ in blocks)
    if start < 0 or os.pread(fd, 6, start) != b"\xfd7zXZ\x00":
        raise ValueError("no header")
    return start, blocks


def _xz_number(data: bytes, at: int) -> tuple[int, int]:
    """A number of variable length (section 1.2), and where it ends. Raises IndexError."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        shift += 7
        if byte < 128:
            return value, at
