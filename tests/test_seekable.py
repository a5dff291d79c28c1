"""Archives that are entered anywhere: every point, every compression, any number of places at once."""

import bz2
import gzip
import io
import lzma
import os
import random
import subprocess
import zlib

import lz4.frame
import pytest
import zstandard

from pcaptools.errors import DamagedError, InputError
from pcaptools.files import seekable
from pcaptools.files.compression import _aligned
from pcaptools.files.seekable import Access, Point, gztool_points, indexing

PART = 700_000


def text(size: int, seed: int = 1) -> bytes:
    """Bytes that compress like those of a capture."""
    chance = random.Random(seed)
    words = [chance.randbytes(chance.randint(2, 9)) for _ in range(3000)]
    return b"".join(chance.choices(words, k=size // 5))[:size]


DATA = text(6_000_000)


def parts(pack, size: int = 2_000_000) -> bytes:
    return b"".join(pack(DATA[at : at + size]) for at in range(0, len(DATA), size))


def xz_blocks(data: bytes) -> bytes:
    command = ["xz", "-1", "-T2", "--block-size=1000000", "-c"]
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


PACKED = {
    "gzip": lambda: gzip.compress(DATA, 6, mtime=0),
    "gzip members": lambda: parts(lambda data: gzip.compress(data, 1, mtime=0)),
    "gzip stored": lambda: gzip.compress(random.Random(3).randbytes(6_000_000), 1, mtime=0),
    "zstd": lambda: parts(zstandard.compress),
    "lz4": lambda: parts(lz4.frame.compress),
    "bzip2": lambda: parts(bz2.compress),
    "xz": lambda: xz_blocks(DATA),
    "xz streams": lambda: xz_blocks(DATA[:2_500_000]) + bytes(8) + xz_blocks(DATA[2_500_000:]),
}


class File:
    """A file, its compression, and what reading it once found."""

    def __init__(self, path, packed: bytes, kind: str) -> None:
        path.write_bytes(packed)
        self.raw = io.FileIO(str(path))
        self.kind = kind

    def read_once(self, size: int = 1 << 20) -> bytes:
        stream = indexing(self.raw, "x", self.kind)
        out, buffer = bytearray(), bytearray(size)
        self.error = ""
        try:
            while got := stream.readinto(buffer):
                out += buffer[:got]
        except DamagedError as error:
            self.error = str(error)
        self.points = stream.points()
        stream.close()
        return bytes(out)

    def access(self) -> Access:
        return Access(self.raw.fileno(), "x", self.kind, self.points)


def read(stream, size: int) -> bytes:
    out = bytearray()
    buffer = bytearray(50_000)
    while len(out) < size and (got := stream.readinto(memoryview(buffer)[: size - len(out)])):
        out += buffer[:got]
    return bytes(out)


@pytest.mark.parametrize("how", PACKED)
def test_from_every_point_and_anywhere(tmp_path, how):
    file = File(tmp_path / "x", PACKED[how](), how.split()[0])
    data = file.read_once()
    assert file.error == ""
    assert len(data) == len(DATA)
    assert len(file.points) > 2
    access = file.access()
    for point in file.points:
        assert read(access.open(point.output), 70_000) == data[point.output : point.output + 70_000]
    for at in [1, 32_768, len(data) - 1, len(data), *(random.Random(2).randrange(len(data)) for _ in range(6))]:
        assert read(access.open(at), 1_200_000) == data[at : at + 1_200_000]


@pytest.mark.parametrize("how", ["gzip", "xz", "zstd"])
def test_more_places_than_decoders(tmp_path, monkeypatch, how):
    file = File(tmp_path / "x", PACKED[how](), how)
    data = file.read_once()
    monkeypatch.setitem(seekable.DECODERS, how, 2)
    access = file.access()
    starts = range(0, 5_000_000, PART)
    cursors = [access.open(start) for start in starts]
    found = [bytearray() for _ in starts]
    for _ in range(4):
        for cursor, out in zip(cursors, found, strict=True):
            out += read(cursor, 30_000)
            assert len(access._decoding) <= 2
    for start, out in zip(starts, found, strict=True):
        assert out == data[start : start + 120_000]
    cursors[-1].close()
    assert len(access._decoding) <= 1


def test_every_alignment():
    for bit in range(1, 8):
        for first in range(0, 256, 5):
            code, value = 0x30 + 65, 0b011  # the last block, fixed codes, "A", its end
            for k in range(8):
                value |= (code >> 7 - k & 1) << 3 + k
            stream = (value << bit | first & (1 << bit) - 1).to_bytes((18 + bit + 7) // 8, "little")
            assert zlib.decompressobj(-15).decompress(_aligned(bit, stream[0]) + stream[1:]) == b"A"


@pytest.mark.parametrize("kind", ["zstd", "xz"])
def test_what_can_only_be_read_from_its_beginning_is_known_at_once(tmp_path, kind):
    packed = {"zstd": zstandard.compress(DATA), "xz": lzma.compress(DATA[:1_000_000], preset=0)}[kind]
    with pytest.raises(InputError, match=f"x is one {kind} .*--window SECONDS .*--spool DIR"):
        indexing(File(tmp_path / "x", packed, kind).raw, "x", kind)
    assert indexing(File(tmp_path / "x", packed * 2, kind).raw, "x", kind)


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_cut_file_gives_what_is_there(tmp_path, kind):
    packed = PACKED[kind]()
    file = File(tmp_path / "x", packed[: len(packed) * 3 // 4], kind)
    data = file.read_once()
    assert "unexpected end" in file.error
    assert DATA.startswith(data)
    assert len(data) > 4_000_000
    assert read(file.access().open(4_000_000), 1000) == DATA[4_000_000:4_001_000]


def test_damaged_gzip_is_told(tmp_path):
    packed = bytearray(PACKED["gzip"]())
    packed[-6] ^= 1
    file = File(tmp_path / "x", bytes(packed), "gzip")
    file.read_once()
    assert file.error.startswith("gzip data damaged")
    packed[len(packed) // 2 : len(packed) // 2 + 300] = bytes(300)
    file = File(tmp_path / "x", bytes(packed), "gzip")
    data = file.read_once()
    assert file.error.startswith("gzip data damaged")
    assert data[:2_000_000] == DATA[:2_000_000]


def test_an_index_that_lies():
    with pytest.raises(ValueError, match="cut short"):
        gztool_points(bytes(16) + (5).to_bytes(8, "big") + bytes(100) + b"\xff" * 30)


def test_a_plain_file(tmp_path):
    (tmp_path / "x").write_bytes(DATA)
    fd = os.open(tmp_path / "x", os.O_RDONLY)
    access = Access(fd, "x", None, [])
    assert read(access.open(123), 99) == DATA[123:222]
    os.close(fd)


def test_a_file_that_shrank(tmp_path):
    file = File(tmp_path / "x", gzip.compress(DATA[:100_000]), "gzip")
    access = Access(file.raw.fileno(), "x", "gzip", [Point(0, 0)])
    with pytest.raises(DamagedError, match="was longer"):
        access.open(200_000).readinto(bytearray(10))
