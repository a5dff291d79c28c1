"""Compressed streams against the programs that define the formats, cut, damaged and dribbled."""

import io
import os
import random
import subprocess
import tracemalloc
import zlib

import pytest

from pcaptools.errors import DamagedError
from pcaptools.files.compression import Decompressed, compressor, kind_of_suffix, recognise

KINDS = ["gzip", "zstd", "lz4", "xz", "bzip2"]
SKIPPABLE = b"\x53\x2a\x4d\x18\x05\x00\x00\x00hello"


def text(size: int) -> bytes:
    """Bytes that compress like those of a capture."""
    chance = random.Random(1)
    words = [chance.randbytes(chance.randint(2, 9)) for _ in range(500)]
    out = bytearray()
    while len(out) < size:
        out += chance.choice(words)
    return bytes(out[:size])


def peer(kind: str, data: bytes, *options: str) -> bytes:
    return subprocess.run([kind, "-c", *options], input=data, stdout=subprocess.PIPE, check=True).stdout


class Dribble:
    """A raw stream that gives at most `size` bytes a read, and counts the reads."""

    def __init__(self, data: bytes, size: int = 1) -> None:
        self.data = io.BytesIO(data)
        self.size = size
        self.reads = 0

    def readinto(self, view: memoryview) -> int:
        self.reads += 1
        return self.data.readinto(view[: self.size])


def unpack(raw, head: bytes = b"", room: int = 1 << 16) -> tuple[bytes, str]:
    """What is decoded, and the message of the error that ends it."""
    if isinstance(raw, bytes):
        raw, head = io.BytesIO(raw[12:]), raw[:12]
    stream = Decompressed(raw, head)
    buffer = bytearray(room)
    out = bytearray()
    try:
        while got := stream.readinto(buffer):
            out += buffer[:got]
        assert stream.readinto(buffer) == 0
    except DamagedError as error:
        with pytest.raises(DamagedError):
            stream.readinto(buffer)
        return bytes(out), str(error)
    return bytes(out), ""


SMALL = text(3000)
LARGE = text(2_000_000)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", [b"", b"x", SMALL, LARGE, bytes(5_000_000)], ids=["0", "1", "small", "large", "zeros"])
def test_reads_what_the_program_wrote(kind, data):
    packed = peer(kind, data)
    assert recognise(packed[:12]) == kind
    assert unpack(packed) == (data, "")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["0", "small", "large"])
def test_the_program_reads_what_was_written(kind, data):
    pack = compressor(kind)
    packed = b"".join(pack.compress(memoryview(data)[at : at + 70_001]) for at in range(0, len(data), 70_001))
    packed += pack.flush()
    assert peer(kind, packed, "-d") == data
    assert len(packed) < len(data) or not data
    again = compressor(kind)
    if data == SMALL:
        assert again.compress(data) + again.flush() == packed


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("gzip", "-1"),
        ("gzip", "-n -9"),
        ("zstd", "--no-check"),
        ("zstd", "-19 --long=31"),
        ("zstd", "--ultra -22"),
        ("zstd", "--rsyncable -T2"),
        ("lz4", "-9 --no-frame-crc"),
        ("lz4", "-B4 -BD -BX"),
        ("lz4", "-B7"),
        ("lz4", "--content-size -BX"),
        ("xz", "-0 -C none"),
        ("xz", "-9e -C sha256"),
        ("xz", "--block-size=100000 -T2"),
        ("bzip2", "-1"),
    ],
)
def test_options_of_the_programs(kind, options):
    assert unpack(peer(kind, LARGE, *options.split())) == (LARGE, "")


def test_zstd_and_lz4_of_a_file_whose_size_is_known(tmp_path):
    (tmp_path / "in").write_bytes(LARGE)
    for kind, options in [("zstd", []), ("lz4", ["--content-size"])]:
        packed = subprocess.run(
            [kind, "-q", "-c", *options, "in"], cwd=tmp_path, stdout=subprocess.PIPE, check=True
        ).stdout
        assert unpack(packed) == (LARGE, "")


def test_incompressible_data():
    noise = random.Random(2).randbytes(1_500_000)
    for kind in KINDS:
        assert unpack(peer(kind, noise)) == (noise, "")


@pytest.mark.parametrize("kind", KINDS)
def test_many_members(kind):
    parts = [SMALL, b"", b"y", LARGE[:200_000], SMALL]
    packed = b"".join(peer(kind, part) for part in parts)
    assert unpack(packed) == (b"".join(parts), "")
    assert unpack(Dribble(packed, 7)) == (b"".join(parts), "")


@pytest.mark.parametrize("kind", KINDS)
def test_zero_padding(kind):
    packed = peer(kind, SMALL)
    assert unpack(packed + bytes(10_000)) == (SMALL, "")
    assert unpack(packed + bytes(512) + packed) == (SMALL + SMALL, "")


def test_skippable_frames():
    zstd, lz4 = peer("zstd", SMALL), peer("lz4", SMALL)
    assert recognise(SKIPPABLE) == recognise(SKIPPABLE[:9]) == recognise(SKIPPABLE + zstd) == "zstd"
    assert recognise(SKIPPABLE + SKIPPABLE + lz4) == "lz4"
    assert unpack(SKIPPABLE + zstd + SKIPPABLE + zstd) == (SMALL + SMALL, "")
    assert unpack(SKIPPABLE + lz4 + SKIPPABLE) == (SMALL, "")
    assert "unexpected end" in unpack(zstd + SKIPPABLE[:-1])[1]


def test_gzip_header_fields():
    deflate = zlib.compressobj(9, wbits=-15)
    body = deflate.compress(SMALL) + deflate.flush()
    body += zlib.crc32(SMALL).to_bytes(4, "little") + len(SMALL).to_bytes(4, "little")
    fields = {4: b"\x03\x00\x00ab", 8: b"name\0", 16: b"\0", 2: b"zz"}
    for flags in range(0, 32, 2):
        header = bytes([0x1F, 0x8B, 8, flags, 0, 0, 0, 0, 0, 255])
        packed = header + b"".join(field for bit, field in fields.items() if flags & bit) + body
        assert unpack(packed) == (SMALL, "")
        assert unpack(Dribble(packed)) == (SMALL, "")
    assert "unknown flags" in unpack(bytes([0x1F, 0x8B, 8, 32]) + body)[1]


@pytest.mark.parametrize("kind", KINDS)
def test_one_byte_at_a_time(kind):
    packed = peer(kind, SMALL) * 2
    assert unpack(Dribble(packed)) == (SMALL * 2, "")
    assert unpack(packed, room=1) == (SMALL * 2, "")
    assert unpack(Dribble(packed[5:]), packed[:5]) == (SMALL * 2, "")


class ReadOnly:
    def __init__(self, data: bytes) -> None:
        self.read = io.BytesIO(data).read


def test_stream_with_read_only():
    assert unpack(ReadOnly(peer("gzip", LARGE))) == (LARGE, "")


@pytest.mark.parametrize("kind", KINDS)
def test_cut_at_every_byte(kind):
    member = peer(kind, SMALL[:700])
    size = len(member)
    longest = 0
    for cut in range(1, size):
        out, error = unpack(member + member[:cut])
        where, reason = error.split(": ", 1)
        recognised = reason != "garbage after the last member"
        assert recognised or cut < 10
        assert where == f"{kind} data damaged at byte {size + cut * recognised} of the compressed file"
        assert not recognised or reason == "unexpected end"
        assert out == (SMALL[:700] * 2)[: len(out)]
        assert len(out) >= max(longest, 700)
        longest = len(out)
    assert longest == 1400


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9])
def test_a_cut_file_gives_as_much_as_the_library_can(cut):
    packed = peer("gzip", LARGE)
    packed = packed[: int(len(packed) * cut)]
    out, expected = unpack(packed)[0], zlib.decompressobj(31).decompress(packed)
    assert expected.startswith(out)
    assert len(expected) - len(out) <= 258  # isal wants to see a little beyond a symbol


@pytest.mark.parametrize("kind", KINDS)
def test_garbage_after_the_last_member(kind):
    packed = peer(kind, LARGE)
    for garbage in [b"g", b"garbage" * 5000, bytes(600) + b"g"]:
        out, error = unpack(packed + garbage)
        zeros = len(garbage) - len(garbage.lstrip(b"\0"))
        assert out == LARGE
        where = f"{kind} data damaged at byte {len(packed) + zeros} of the compressed file"
        assert error == f"{where}: garbage after the last member"


@pytest.mark.parametrize("options", ["-B7", "-B7 -BD", "-B4 -BX"])
def test_a_cut_lz4_file_gives_every_whole_block(options):
    data = bytes(range(256)) * 40_000
    packed = peer("lz4", data, *options.split())
    assert len(unpack(packed[:-8])[0]) == len(data)
    assert len(unpack(packed[: len(packed) // 2])[0]) >= 4 << 20


@pytest.mark.parametrize(("kind", "trailer"), [("gzip", 8), ("gzip", 1), ("zstd", 1), ("lz4", 1)])
def test_wrong_checksum_costs_no_data(kind, trailer):
    for data in (SMALL, LARGE):
        packed = bytearray(peer(kind, data))
        packed[-trailer] ^= 1
        out, error = unpack(bytes(packed))
        assert out == data
        assert f"damaged at byte {len(packed) - (8 if trailer == 8 else 4)} " in error


@pytest.mark.parametrize("kind", KINDS)
def test_every_damaged_byte_is_noticed_or_harmless(kind):
    data = text(1500)
    packed = peer(kind, data) + peer(kind, b"")
    chance = random.Random(3)
    noticed = 0
    for at in range(len(packed)):
        damaged = bytearray(packed)
        damaged[at] ^= 1 << chance.randrange(8)
        out, error = unpack(io.BytesIO(bytes(damaged)))
        noticed += bool(error)
        assert error or out in (data, b"")
    assert noticed > len(packed) * 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_damage_in_the_middle_leaves_what_is_before(kind):
    packed = bytearray(peer(kind, LARGE))
    middle = len(packed) // 2
    packed[middle : middle + 64] = bytes(64)
    out, error = unpack(bytes(packed))
    sound = next(at for at in range(0, len(LARGE), 1000) if out[: at + 1000] != LARGE[: at + 1000])
    assert error.startswith(f"{kind} data damaged at byte ")
    assert sound > len(LARGE) * 0.3


class Live(Dribble):
    """One compressed piece a read; asking for more than there is fails the test."""

    def readinto(self, view: memoryview) -> int:
        assert self.size, "read although decoded data was there"
        piece, self.size = self.data.read(self.size), 0
        view[: len(piece)] = piece
        return len(piece)


@pytest.mark.parametrize("kind", ["gzip", "zstd", "lz4", "xz"])
def test_a_live_stream_is_delivered_at_once(kind):
    if kind == "gzip":
        stream = zlib.compressobj(6, wbits=31)
        first = stream.compress(SMALL) + stream.flush(zlib.Z_SYNC_FLUSH)
    else:
        first = peer(kind, SMALL)  # a whole frame
    live = Live(first + b"not yet", len(first))
    decompressed = Decompressed(live)
    buffer = bytearray(1 << 16)
    out = b""
    while len(out) < len(SMALL):
        got = decompressed.readinto(buffer)
        out += buffer[:got]
    assert out == SMALL


def test_each_readinto_reads_once():
    raw = Dribble(peer("gzip", LARGE), 10_000)
    stream = Decompressed(raw)
    for reads in range(1, 20):
        assert stream.readinto(bytearray(1 << 20)) > 0
        assert raw.reads == reads


@pytest.mark.parametrize("kind", KINDS)
def test_a_bomb_takes_little_memory(kind):
    pack = compressor(kind)
    zeros = bytes(1 << 20)
    packed = b"".join(pack.compress(zeros) for _ in range(64)) + pack.flush()
    stream = Decompressed(io.BytesIO(packed))
    buffer = bytearray(1 << 20)
    tracemalloc.start()
    size = 0
    while got := stream.readinto(buffer):
        size += got
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size == 64 << 20
    assert peak < 32 << 20


def test_recognise_nothing_else():
    for head in [
        b"",
        b"\x1f\x8b",
        b"BZh9",
        b"BZh91AY&S",
        b"BZhello world",
        b"\xd4\xc3\xb2\xa1" + bytes(20),
        b"\x0a\x0d\x0d\x0a",
    ]:
        assert recognise(head) is None
    assert unpack(b"neither compressed nor anything") == (
        b"",
        "compressed data damaged at byte 0 of the compressed file: not compressed data",
    )


def test_kind_of_suffix():
    names = {"a.gz": "gzip", "/x.y/a.tar.tgz": "gzip", "A.ZST": "zstd", "a.lz4": "lz4", "a.xz": "xz", "a.bz2": "bzip2"}
    assert {name: kind_of_suffix(name) for name in names} == names
    assert kind_of_suffix("a.pcap") is kind_of_suffix("gz") is kind_of_suffix("x.gz/a") is None


def test_errors_of_the_stream_pass_through():
    with open(os.devnull, "rb", buffering=0) as closed:
        pass
    with pytest.raises(ValueError, match="closed"):
        Decompressed(closed).readinto(bytearray(10))
