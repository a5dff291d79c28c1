"""Packets and captures made by hand, the real captures, and the real tools to compare with.

Nothing here uses the code under test, but for `batches()` and what follows it.
"""

from __future__ import annotations

import bz2
import csv
import functools
import gzip
import io
import lzma
import os
import pathlib
import shutil
import struct
import subprocess
import zlib

import pytest

# ---- packets ------------------------------------------------------------------------------------------------------

SOURCE4, TARGET4 = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
SOURCE6 = bytes.fromhex("20010db8000000000000000000000001")
TARGET6 = bytes.fromhex("20010db8000000000000000000000002")
MACS = bytes.fromhex("020000000002 020000000001")


def checksum(data: bytes) -> int:
    """The Internet checksum of data (RFC 1071), word by word."""
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def pseudo(source: bytes, target: bytes, protocol: int, length: int) -> bytes:
    """The pseudo header of both IP versions (it sums up alike)."""
    return source + target + struct.pack(">IHH", length, 0, protocol)


def summed(
    data: bytes, field: int, pseudo_header: bytes = b"", *, covered: int | None = None, udp: bool = False
) -> bytes:
    """data with the right checksum at offset field."""
    data = data[:field] + b"\0\0" + data[field + 2 :]
    value = checksum(pseudo_header + data[:covered])
    return data[:field] + struct.pack(">H", value or 0xFFFF * udp) + data[field + 2 :]


def ether(payload: bytes, ethertype: int = 0x0800, macs: bytes = MACS) -> bytes:
    return macs + struct.pack(">H", ethertype) + payload


def ipv4(
    payload, protocol, source=SOURCE4, target=TARGET4, *, options=b"", fragment=0, length=None, ident=0x1234
) -> bytes:
    """An IPv4 packet; fragment is the flags and offset field, length what its length field says if not the truth."""
    words = 5 + len(options) // 4
    length = words * 4 + len(payload) if length is None else length
    head = struct.pack(">BBHHHBBH", 0x40 | words, 0, length, ident, fragment, 64, protocol, 0)
    return summed(head + source + target + options, 10) + payload


def ipv6(payload, protocol, source=SOURCE6, target=TARGET6, *, length=None) -> bytes:
    length = len(payload) if length is None else length
    return struct.pack(">IHBB", 0x60000000, length, protocol, 64) + source + target + payload


def udp(payload, sport=49152, dport=53, source=SOURCE4, target=TARGET4) -> bytes:
    data = struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload
    return summed(data, 6, pseudo(source, target, 17, len(data)), udp=True)


def udplite(payload, coverage=0, source=SOURCE4, target=TARGET4) -> bytes:
    data = struct.pack(">HHHH", 49152, 53, coverage, 0) + payload
    return summed(data, 6, pseudo(source, target, 136, len(data)), covered=coverage or None, udp=True)


def tcp(payload=b"", sport=49152, dport=80, source=SOURCE4, target=TARGET4, options=b"") -> bytes:
    head = struct.pack(">HHIIBBHHH", sport, dport, 1, 2, (5 + len(options) // 4) << 4, 0x10, 8192, 0, 0) + options
    return summed(head + payload, 16, pseudo(source, target, 6, len(head + payload)))


def icmp(kind, code, rest) -> bytes:
    return summed(struct.pack(">BBH", kind, code, 0) + rest, 2)


def icmpv6(kind, code, rest, source=SOURCE6, target=TARGET6) -> bytes:
    data = struct.pack(">BBH", kind, code, 0) + rest
    return summed(data, 2, pseudo(source, target, 58, len(data)))


def has_fcs(frame: bytes) -> bool:
    """Whether a frame, of Ethernet or behind a radiotap header, ends in its right frame check sequence."""
    starts = (0, int.from_bytes(frame[2:4], "little"))
    return any(zlib.crc32(frame[start:-4]).to_bytes(4, "little") == frame[-4:] for start in starts)


def crc32c(data: bytes) -> int:
    """CRC32c bit by bit (RFC 9260 appendix A)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def sctp(payload) -> bytes:
    head = struct.pack(">HHI", 49152, 80, 1)
    return head + struct.pack("<I", crc32c(head + bytes(4) + payload)) + payload


# ---- captures -----------------------------------------------------------------------------------------------------


def pcap_header(linktype=1, *, order="<", magic=0xA1B2C3D4, version=(2, 4), snaplen=262144) -> bytes:
    return struct.pack(order + "IHHiIII", magic, *version, 0, 0, snaplen, linktype)


def pcap(packets, linktype=1, *, order="<", magic=0xA1B2C3D4, version=(2, 4), swapped=False) -> bytes:
    """packets: bytes, or (seconds, fraction, bytes, wire length). swapped: the lengths, as before version 2.3."""
    out = [pcap_header(linktype, order=order, magic=magic, version=version)]
    for k, packet in enumerate(packets):
        seconds, fraction, data, wire = (1000 + k, k, packet, len(packet)) if isinstance(packet, bytes) else packet
        lengths = (wire, len(data)) if swapped else (len(data), wire)
        out.append(struct.pack(order + "IIII", seconds, fraction, *lengths))
        if magic == 0xA1B2CD34:
            out.append(struct.pack(order + "IHBx", 1, 0x800, 0))
        out.append(data)
    return b"".join(out)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


class PcapngBlocks:
    """Blocks of pcapng in one byte order: struct's `<` or `>`."""

    def __init__(self, order: str = "<") -> None:
        self.order = order

    def pack(self, layout: str, *values) -> bytes:
        return struct.pack(self.order + layout, *values)

    def block(self, kind: int, body: bytes) -> bytes:
        length = self.pack("I", 12 + len(padded(body)))
        return self.pack("I", kind) + length + padded(body) + length

    def option(self, code: int, value: bytes = b"") -> bytes:
        return self.pack("HH", code, len(value)) + padded(value)

    def section(self, options: bytes = b"", *, version=(1, 0), length: int = -1) -> bytes:
        return self.block(0x0A0D0D0A, self.pack("IHHq", 0x1A2B3C4D, *version, length) + options)

    def interface(
        self, linktype: int = 1, snaplen: int = 0, resolution=None, offset=None, options: bytes = b""
    ) -> bytes:
        if resolution is not None:
            options += self.option(9, bytes([resolution]))
        if offset is not None:
            options += self.option(14, self.pack("q", offset))
        return self.block(1, self.pack("HHI", linktype, 0, snaplen) + options + (self.option(0) if options else b""))

    def packet(self, data: bytes, interface: int = 0, ticks: int = 0, wire=None, options: bytes = b"") -> bytes:
        head = self.pack(
            "IIIII", interface, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data) if wire is None else wire
        )
        return self.block(6, head + padded(data) + options)

    def old_packet(self, data: bytes, interface: int = 0, ticks: int = 0, wire=None, drops: int = 0) -> bytes:
        lengths = len(data), len(data) if wire is None else wire
        return self.block(2, self.pack("HHIIII", interface, drops, ticks >> 32, ticks & 0xFFFFFFFF, *lengths) + data)

    def simple_packet(self, data: bytes, wire=None) -> bytes:
        return self.block(3, self.pack("I", len(data) if wire is None else wire) + data)


class Pieces:
    """A raw stream with nothing but readinto, which gives `size` bytes at most."""

    def __init__(self, data: bytes, size: int = 1 << 30) -> None:
        self.data = io.BytesIO(data)
        self.size = size

    def readinto(self, view: memoryview) -> int:
        return self.data.readinto(view[: self.size])


# ---- the real captures --------------------------------------------------------------------------------------------

ROOT = pathlib.Path(
    os.environ.get("PCAPTOOLS_CAPTURES") or pathlib.Path(__file__).resolve().parents[2] / "shared" / "captures"
)
MISSING = "no real captures: name their directory in PCAPTOOLS_CAPTURES"

# What the index calls them, whatever their names say: other formats, and what is beyond help.
_FOREIGN = ("snoop", "erf", "netmon")
_DAMAGED = ("truncated", "corrupt")
# Sound, but the index calls them unsupported or unreadable for the sake of the program that it was made with.
_SOUND = ("formats/dnscap__dns.pcap.xz", "linktypes/tcpdump__dsa.pcap")


@functools.cache
def index() -> list[dict]:
    """The rows of the index; none when there are no real captures."""
    try:
        with open(ROOT / "INDEX.tsv", newline="") as rows:
            return list(csv.DictReader(rows, delimiter="\t", quoting=csv.QUOTE_NONE))
    except OSError:
        return []


def is_foreign(row: dict) -> bool:
    return row["format"].startswith(_FOREIGN)


def is_sound(row: dict) -> bool:
    bad = row["status"] in (*_DAMAGED, "unsupported", "unreadable") and row["path"] not in _SOUND
    return not bad and not is_foreign(row)


@functools.cache
def sound(*, perf: bool = True) -> tuple[str, ...]:
    """Paths of all sound captures, relative to ROOT."""
    return tuple(row["path"] for row in index() if is_sound(row) and (perf or not row["path"].startswith("perf/")))


def every(paths) -> pytest.MarkDecorator:
    """Run a test with each of these captures as `path`, or skip it with the reason."""
    nothing = pytest.param(None, marks=pytest.mark.skip(reason=MISSING))
    return pytest.mark.parametrize("path", list(paths) or [nothing])


needs_captures = pytest.mark.skipif(not index(), reason=MISSING)


@functools.cache
def content(path: str) -> bytes:
    """The decompressed bytes of a real capture."""
    data = (ROOT / path).read_bytes()
    suffix = path.rpartition(".")[2]
    if suffix == "zst":
        import zstandard

        return zstandard.ZstdDecompressor().stream_reader(data).read()
    if suffix == "lz4":
        import lz4.frame

        return lz4.frame.decompress(data)
    plain = {"gz": gzip.decompress, "xz": lzma.decompress, "bz2": bz2.decompress}.get(suffix, bytes)
    return plain(data)


# ---- the real tools -----------------------------------------------------------------------------------------------


def tool(name: str) -> str:
    """The path of a program, or skip the test."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not path:
        pytest.skip(f"{name} is not installed")
    return path


_PREFERENCES = (
    "ip.defragment:FALSE", "ipv6.defragment:FALSE", "tcp.desegment_tcp_streams:FALSE", "ip.check_checksum:TRUE",
    "tcp.check_checksum:TRUE", "udp.check_checksum:TRUE", "udplite.check_checksum:TRUE",
    "udplite.ignore_checksum_coverage:FALSE", "sctp.checksum:CRC 32c", "dccp.check_checksum:TRUE",
)  # fmt: skip


def tshark(path, fields: tuple[str, ...], *options: str) -> list[dict[str, list[str]]]:
    """One dict a packet: field to its occurrences. Packet by packet: nothing is put together from several."""
    command = [tool("tshark"), "-n", "-r", os.fspath(path), "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=;"]
    for field in fields:
        command += ["-e", field]
    for preference in _PREFERENCES:
        command += ["-o", preference]
    run = subprocess.run(
        [*command, *options], capture_output=True, text=True, env={**os.environ, "TZ": "UTC"}, check=False
    )
    rows = [line.split("\t") for line in run.stdout.splitlines()]
    return [{f: v.split(";") if v else [] for f, v in zip(fields, row, strict=True)} for row in rows]


class Merged:
    """All sound captures in one, made and read by Wireshark: one start of tshark instead of hundreds.

    path: the pcapng. span: of each capture, the numbers of its first packet and of the first behind it.
    """

    # No packets and an unknown link type, or a link type that Wireshark 4.0 does not know.
    LEFT_OUT = (
        "linktypes/tcpdump__dsa.pcap",
        "pcapng/pcapng-test-generator__le_test017.pcapng",
        "pcapng/python-pcapng__test008.ntar",
    )

    def __init__(self, directory: pathlib.Path) -> None:
        self.path = directory / "all.pcapng"
        self.span: dict[str, tuple[int, int]] = {}
        self._rows: dict = {}
        files = []
        for path in sound(perf=False):
            if path not in self.LEFT_OUT:
                files.append(directory / str(len(files)))
                files[-1].write_bytes(content(path))
                self.span[path] = (0, 0)
        self._count(files)
        subprocess.run([tool("mergecap"), "-a", "-F", "pcapng", "-w", self.path, *files], check=True)

    def _count(self, files: list[pathlib.Path]) -> None:
        told = subprocess.run([tool("capinfos"), "-TMrc", *files], capture_output=True, text=True, check=True).stdout
        first = 0
        for path, line in zip(self.span, told.splitlines(), strict=True):
            behind = first + int(line.rpartition(",")[2] if "," in line else line.split("\t")[-1])
            self.span[path] = (first, behind)
            first = behind

    def rows(self, *fields: str) -> list[dict[str, list[str]]]:
        """What tshark says of every packet; asked once."""
        if fields not in self._rows:
            self._rows[fields] = tshark(self.path, fields)
        return self._rows[fields]

    def capture_of(self, number: int) -> tuple[str, int]:
        """Which capture packet `number` comes from, and its number there, counted from 1."""
        return next((p, number - first + 1) for p, (first, behind) in self.span.items() if first <= number < behind)


# ---- through the code under test ----------------------------------------------------------------------------------


def batches(data: bytes, size: int = 1 << 30):
    """The batches of a capture. The same one again and again: use it before the next."""
    from pcaptools.files.capture import Capture

    return iter(Capture(Pieces(data, size), "test"))


def one_batch(packets, linktype: int = 1, **options):
    """A batch of these packets, however many."""
    from pcaptools.core.batch import Batch
    from pcaptools.files.capture import Capture

    data = pcap(packets, linktype, **options)
    batch = Batch(len(data))
    Capture(Pieces(data, 1 << 30), "test").fill(batch)
    return batch


def one_packet(data: bytes, linktype: int = 1, wire: int | None = None):
    """A batch of one packet, of which `data` was captured."""
    return one_batch([(1, 2, data, len(data) if wire is None else wire)], linktype)


def packets(data: bytes, size: int = 1 << 30):
    """(time in ns, wire length, link type, bytes) of every packet."""
    return [
        (record.time, record.wirelen, batch.linktype(k), bytes(batch.packet(k)))
        for batch in batches(data, size)
        for k, record in enumerate(batch.records())
    ]
