"""Compressed streams: gzip, zstd, lz4, xz and bzip2, recognised by content on the way in and by suffix on the way out.

Each decoder below is a generator over a `CompressedInput`: it yields decoded bytes as soon as they exist, and `b""`
whenever it is about to wait for the stream, so that what is decoded reaches a live pipe's reader at once. Whatever is
wrong raises `Damage` after everything before it has been yielded. To lose little at a bad spot, zstd and lz4 are
decoded block by block, and the other three in steps that start small and grow with the member; that also bounds the
memory that one step takes, however well the data is compressed.

Formats: RFC 1952 (gzip), RFC 8878 (zstd), lz4_Frame_format.md 1.6, xz-file-format 1.2; bzip2 has no specification.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from typing import Any, Protocol

from pcaptools.errors import DamagedError
from pcaptools.files.compressed_input import CompressedInput, Damage

BUFFER = 256 * 1024  # bytes asked of the raw stream at a time
STEP = 8192  # bytes a decoder takes (gzip) or gives (xz, bzip2) at a time, at most
MAGIC = 12  # bytes that tell a format: bzip2 needs 10
ZSTD_WINDOW = 1 << 31  # bytes: what zstd --long=31 uses
STARTS = 1 << 15  # starts of members that are remembered, at most
RATIO_FROM = 16 << 20  # bytes: what is smaller is no bomb
XZ_MEMORY = (2 << 30) - 1  # bytes: the largest dictionary is 1.5 GiB

SUFFIXES = {".gz": "gzip", ".tgz": "gzip", ".zst": "zstd", ".lz4": "lz4", ".xz": "xz", ".bz2": "bzip2"}

_Decoder = Generator[bytes, None, None]


class Compressor(Protocol):
    """What `compressor` gives: the bytes of the two methods, joined, are one compressed stream."""

    def compress(self, data: Any, /) -> bytes: ...

    def flush(self) -> bytes: ...


def recognise(head: bytes) -> str | None:
    """The compression of a stream that begins with `head` ('gzip', 'zstd', 'lz4', 'xz', 'bzip2'), None if it has none.

    12 bytes are enough, except that skippable frames are zstd's unless `head` reaches an lz4 frame behind them.
    """
    while _skippable(head):
        head = head[8 + int.from_bytes(head[4:8], "little") :]
        if not head.startswith(b"\x04\x22\x4d\x18") and not _skippable(head):
            return "zstd"
    return _kind(head)


def kind_of_suffix(path: str) -> str | None:
    """The compression that an output's name asks for, None if it asks for none."""
    return SUFFIXES.get(os.path.splitext(path)[1].lower())


def _skippable(head: bytes) -> bool:
    return head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50


def _kind(head: bytes) -> str | None:
    if head.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    if head.startswith(b"\x28\xb5\x2f\xfd") or _skippable(head):
        return "zstd"
    if head.startswith(b"\x04\x22\x4d\x18"):
        return "lz4"
    if head.startswith(b"\xfd7zXZ\x00"):
        return "xz"
    if head.startswith(b"BZh") and head[3:4] in b"123456789" and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):
        return "bzip2"
    return None


class Decompressed:
    """The decompressed bytes of a compressed stream of any number of members, frames or streams.

    starts: where such begin, as far as they were decoded, as (offset in `raw`, offset decompressed); of many, some.

    `raw` is read with one readinto(view) (or read(n)) at a time; `head` is what the caller has read of it already.
    Errors of reading `raw` are passed on as they are.
    """

    def __init__(
        self,
        raw: Any,
        head: bytes = b"",
        name: str | None = None,
        max_ratio: int = 0,
        *,
        resume: tuple[bytes, int] | None = None,
        buffer: int = BUFFER,
        offset: int = 0,
    ) -> None:
        """max_ratio: what expands more than so many times is damage, once it fills RATIO_FROM bytes; 0: nothing is.

        resume: `raw` begins inside a gzip member, in the byte where a deflate block begins: (the 32 KiB before it, its
        first bit). buffer: bytes asked of `raw` at a time. offset: where `raw` begins, for messages.
        """
        self.name: str = str(getattr(raw, "name", "")) if name is None else name
        self._max_ratio = max_ratio
        self._size = 0
        self.kind = recognise(head)
        self._input = CompressedInput(raw, head, buffer, offset)
        self._pieces = self._members() if resume is None else self._resumed(*resume)
        self.starts = [(0, 0)]
        self._pending = memoryview(b"")
        self._error: DamagedError | None = None

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`, as far as that takes no second wait for the stream; return the bytes written, 0 at the end.

        Raises DamagedError for a damaged, cut or trailed stream, after all that is sound has been returned.
        """
        view = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(view) and self._decode(wait=not filled):
            taken = min(len(view) - filled, len(self._pending))
            view[filled : filled + taken] = self._pending[:taken]
            self._pending = self._pending[taken:]
            filled += taken
        if self._error and not filled and len(view):
            raise self._error
        return filled

    def _decode(self, wait: bool) -> bool:
        """Have decoded bytes pending. False at the end, and where that needs a wait that is not wanted."""
        while not self._pending:
            try:
                piece = next(self._pieces, None)
            except Damage as damage:
                where = f"{self.kind or 'compressed'} data damaged at byte {damage.offset} of the compressed file"
                self._error = DamagedError(f"{where}: {damage.reason}")
                return False
            if piece is None or not (piece or wait):
                return False
            self._size += len(piece)
            if self._max_ratio and self._size > RATIO_FROM and self._size > self._max_ratio * self._input.offset:
                where = f"{self.kind} data at byte {self._input.offset} of the compressed file"
                self._error = DamagedError(f"{where}: it expands more than {self._max_ratio}-fold (see --max-ratio)")
                return False
            self._pending = memoryview(piece)
        return True

    def _members(self) -> _Decoder:
        while True:
            head = yield from self._input.peek(MAGIC)
            if not head:
                return
            kind = _kind(head)
            if kind:
                self.kind = self.kind or kind
                if self._size > self.starts[-1][1]:
                    self.starts.append((self._input.offset, self._size))
                if len(self.starts) > STARTS:
                    del self.starts[1::2]
                yield from _DECODERS[kind](self._input)
            elif head[0] or not self.kind:
                raise Damage("garbage after the last member" if self.kind else "not compressed data", self._input)
            else:
                yield from self._padding()

    def _resumed(self, window: bytes, bit: int) -> _Decoder:
        self.kind = "gzip"
        yield from _regunzip(self._input, window, bit)
        yield from self._members()

    def _padding(self) -> _Decoder:
        """Zeros fill a last block on a tape or disk, and xz allows them."""
        piece = yield from self._input.take(1, BUFFER)
        self._input.unread(len(bytes(piece).lstrip(b"\0")))


def _run(decompress: Callable[..., bytes], piece: bytes | memoryview, data: CompressedInput, *limit: int) -> bytes:
    """decompress(piece), a library's own exception turned into damage at the beginning of `piece`."""
    try:
        return decompress(piece, *limit)
    except Exception as error:  # five libraries, five exceptions, and MemoryError for a size that the data asks for
        raise Damage(str(error) or "out of memory", data, len(piece)) from None


def _step(done: int) -> int:
    """How many bytes to decode at a time after `done`: what is lost at a bad spot is a sixteenth of the sound part."""
    return min(max(done >> 4, 64), STEP)


def _gunzip(data: CompressedInput) -> _Decoder:
    """One gzip member. The CRC is ours, so that a wrong one costs no data."""
    from isal import isal_zlib

    yield from _gzip_header(data)
    crc = size = 0
    for output in _inflate(data, isal_zlib.decompressobj(-15)):
        if output:
            crc = isal_zlib.crc32(output, crc)
            size += len(output)
        yield output
    trailer = yield from data.need(8)
    if int.from_bytes(trailer[:4], "little") != crc:
        raise Damage("the checksum does not match", data, 8)
    if int.from_bytes(trailer[4:], "little") != size & 0xFFFFFFFF:
        raise Damage("the length does not match", data, 4)


def _inflate(data: CompressedInput, inflate: Any) -> _Decoder:
    """Deflate blocks up to the last one."""
    start = data.offset
    while not inflate.eof:
        piece = yield from data.take(1, _step(data.offset - start))
        if not piece:
            raise Damage("unexpected end", data)
        output = _run(inflate.decompress, piece, data)
        if output:
            yield output
    data.unread(len(inflate.unused_data))


# Deflate blocks without contents, of 10 and of 91 bits, as (value, bits), the first bit lowest (RFC 1951): fixed codes
# and their end of block; and dynamic codes that give one bit to the literal 0 and the end of block.
_EMPTY_FIXED = (0b10, 10)
_EMPTY_DYNAMIC = (
    0b100 | 14 << 13 | 1 << 17 + 3 * 2 | 1 << 17 + 3 * 17  # the code lengths' own code: 18 and 1 take one bit each
    | (0 | (1 | 127 << 1) << 1 | (1 | 106 << 1) << 9) << 71  # one literal, 138 and 117 without, end of block, distance
    | 1 << 90,
    91,
)  # fmt: skip


def _aligned(bit: int, first: int) -> bytes:
    """Deflate data for a decoder at a byte boundary that leads to bit `bit` of the byte `first`, and that byte."""
    value = size = 0
    while size % 8 != bit:
        block, length = _EMPTY_DYNAMIC if size == 0 and bit % 2 else _EMPTY_FIXED
        value |= block << size
        size += length
    return (value | first >> bit << size).to_bytes(size // 8 + 1, "little")


def _regunzip(data: CompressedInput, window: bytes, bit: int) -> _Decoder:
    """The rest of a gzip member, from bit `bit` of the first byte on; its checksum covers more and is not looked at."""
    from isal import isal_zlib

    inflate = isal_zlib.decompressobj(-15)
    if window:
        size = len(window).to_bytes(2, "little")
        inflate.decompress(b"\0" + size + bytes(byte ^ 255 for byte in size) + window)  # a stored block
    if bit:
        first = yield from data.need(1)
        _run(inflate.decompress, _aligned(bit, first[0]), data)
    yield from _inflate(data, inflate)
    yield from data.need(8)


def _gzip_header(data: CompressedInput) -> _Decoder:
    header = yield from data.need(10)
    flags = header[3]
    if flags & 0xE0:
        raise Damage("the header has unknown flags", data, 7)
    if flags & 4:  # FEXTRA
        length = yield from data.need(2)
        yield from data.need(int.from_bytes(length, "little"))
    for _ in range((flags >> 3 & 1) + (flags >> 4 & 1)):  # FNAME, FCOMMENT: both end with a zero
        while (yield from data.need(1)) != b"\0":
            pass
    if flags & 2:  # FHCRC
        yield from data.need(2)


def _unzstd(data: CompressedInput) -> _Decoder:
    """One zstd frame, or one that is to be skipped."""
    import zstandard

    header = yield from data.need(5)
    if _skippable(header):
        rest = yield from data.need(3)
        yield from _skip(data, int.from_bytes(header[4:] + rest, "little"))
        return
    descriptor = header[4]
    single = descriptor >> 5 & 1
    extra = (1 - single) + (0, 1, 2, 4)[descriptor & 3] + (single, 2, 4, 8)[descriptor >> 6]
    header += yield from data.need(extra)
    decompress = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj().decompress
    _run(decompress, header, data)
    last = 0
    while not last:
        block = int.from_bytes((yield from data.need(3)), "little")
        last = block & 1
        size = 1 if block >> 1 & 3 == 1 else block >> 3  # a block of type 1 is one byte, repeated
        data.unread(3)
        yield from _block(data, decompress, 3 + size)
    if descriptor & 4:
        yield from _block(data, decompress, 4)


def _unlz4(data: CompressedInput) -> _Decoder:
    """One lz4 frame."""
    import lz4.frame

    header = yield from data.need(6)
    flags = header[4]
    header += yield from data.need((flags >> 3 & 1) * 8 + (flags & 1) * 4 + 1)  # content size, dictionary, checksum
    decompress = lz4.frame.LZ4FrameDecompressor().decompress
    _run(decompress, header, data)
    largest = 1 << 8 + 2 * (header[5] >> 4 & 7)
    room = largest + 1  # without it, what exceeds the room that the library guesses comes with the next block only
    while True:
        size = int.from_bytes((yield from data.need(4)), "little") & 0x7FFFFFFF
        data.unread(4)
        if size > largest:
            raise Damage(f"a block of {size} bytes exceeds the frame's {largest}", data)
        yield from _block(data, decompress, 4 + size + (flags >> 4 & 1) * 4 * bool(size), room)
        if not size:
            break
    if flags & 4:
        yield from _block(data, decompress, 4, room)


def _block(data: CompressedInput, decompress: Callable[..., bytes], size: int, *limit: int) -> _Decoder:
    """Decode one block of `size` bytes whole, or as much as is left of it."""
    block = bytes((yield from data.take(size, size)))
    output = _run(decompress, block, data, *limit)
    if output:
        yield output
    if len(block) < size:
        raise Damage("unexpected end", data)


def _skip(data: CompressedInput, size: int) -> _Decoder:
    while size:
        piece = yield from data.take(1, size)
        if not piece:
            raise Damage("unexpected end", data)
        size -= len(piece)


def _unxz(data: CompressedInput) -> _Decoder:
    import lzma

    return _unpack(data, lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY))


def _unbzip2(data: CompressedInput) -> _Decoder:
    import bz2

    return _unpack(data, bz2.BZ2Decompressor())


def _unpack(data: CompressedInput, decoder: Any) -> _Decoder:
    """One stream of a decoder of the standard library, which keeps what it has not yet used of its input."""
    done = 0
    piece: bytes | memoryview = b""
    while not decoder.eof:
        output = _run(decoder.decompress, piece, data, _step(done))
        done += len(output)
        if output:
            yield output
            piece = b""
        elif not decoder.eof:
            piece = yield from data.take(1, BUFFER)
            if not piece:
                raise Damage("unexpected end", data)
    data.unread(len(decoder.unused_data))


_DECODERS: dict[str, Callable[[CompressedInput], _Decoder]] = {
    "gzip": _gunzip,
    "zstd": _unzstd,
    "lz4": _unlz4,
    "xz": _unxz,
    "bzip2": _unbzip2,
}


def compressor(kind: str) -> Compressor:
    """A new compressed stream of one of the kinds of SUFFIXES. The same input gives the same bytes."""
    if kind == "gzip":
        from isal import isal_zlib

        return isal_zlib.compressobj(2, wbits=31)
    if kind == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(write_checksum=True).compressobj()
    if kind == "xz":
        import lzma

        return lzma.LZMACompressor(check=lzma.CHECK_CRC64)
    if kind == "bzip2":
        import bz2

        return bz2.BZ2Compressor()
    return _Lz4()


class _Lz4:
    """An lz4 frame, whose header goes out with the first bytes."""

    def __init__(self) -> None:
        import lz4.frame

        self._frame = lz4.frame.LZ4FrameCompressor(content_checksum=True)
        self._header: bytes = self._frame.begin()

    def compress(self, data: Any, /) -> bytes:
        return self._after_header(self._frame.compress(data))

    def flush(self) -> bytes:
        return self._after_header(self._frame.flush())

    def _after_header(self, data: bytes) -> bytes:
        header, self._header = self._header, b""
        return header + data
