"""Cutting captures into records: all formats, whole, in pieces, cut at every byte, with garbage and lies in them."""

import itertools
import random
import re
import struct
from fractions import Fraction

import captures
import pytest
from captures import PcapngBlocks, Pieces, ether, ipv4, pcap, pcap_header, udp

from pcaptools.errors import DamagedError, InputError
from pcaptools.files.capture import Capture

PIECES = (1, 2, 3, 5, 7)
DATA = [bytes([k]) * k for k in (14, 1, 60, 0, 3, 33)]
WIRES = [14, 1500, 60, 0, 70000, 33]


class Seen:
    """What came out of a capture: packets as (time, wire length, link type, bytes), all bytes, and the damage."""

    def __init__(self, stream) -> None:
        self.packets = []
        self.damage = None
        content = bytearray()
        self.capture = Capture(stream, "C")
        try:
            for batch in self.capture:
                content += batch.view()
                for k, r in enumerate(batch.records()):
                    self.packets.append((r.time, r.wirelen, batch.linktype(k), bytes(batch.packet(k))))
        except DamagedError as damage:
            self.damage = str(damage)
        self.content = bytes(content)


def seen(data: bytes, size: int = 1 << 30) -> Seen:
    return Seen(Pieces(data, size))


def damaged(data: bytes, packet: int, offset: int, words: str) -> None:
    """All packets before number `packet` are delivered, and the message says where and what."""
    result = seen(data)
    assert len(result.packets) == packet - 1
    assert result.damage is not None, "no damage reported"
    assert re.fullmatch(f"C: packet {packet} at offset {offset}: .*{words}.*", result.damage), result.damage
    assert result.content == data[:offset]


# ---- classic pcap ----


def classic(order: str, magic: int, version=(2, 4)) -> bytes:
    swapped = version < (2, 3) or version == (543, 0)
    packets = [(1_700_000_000 + k, 123_456 + k, d, w) for k, (d, w) in enumerate(zip(DATA, WIRES, strict=True))]
    return pcap(packets, 113, order=order, magic=magic, version=version, swapped=swapped)


@pytest.mark.parametrize("version", [(2, 4), (2, 3), (2, 2), (2, 0), (543, 0)])
@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34])
@pytest.mark.parametrize("order", "<>")
def test_classic_pcap(order, magic, version):
    data = classic(order, magic, version)
    unit = 1 if magic == 0xA1B23C4D else 1000
    expected = [
        ((1_700_000_000 + k) * 10**9 + (123_456 + k) * unit, w, 113, d)
        for k, (d, w) in enumerate(zip(DATA, WIRES, strict=True))
    ]
    for size in (1 << 30, *PIECES):
        result = seen(data, size)
        assert result.packets == expected
        assert result.content == data
        assert result.damage is None
    names = {0xA1B2C3D4: "pcap", 0xA1B23C4D: "nspcap", 0xA1B2CD34: "modified pcap"}
    assert result.capture.format == names[magic]


def test_version_2_3_may_have_its_lengths_in_either_order():
    lengths = [(60, 1500), (1500, 60)]
    data = pcap_header(version=(2, 3)) + b"".join(struct.pack("<IIII", 1, 2, *pair) + bytes(60) for pair in lengths)
    assert [packet[1] for packet in seen(data).packets] == [1500, 1500]


def test_captured_beyond_the_wire_length_is_kept():
    (packet,) = seen(pcap([(1, 2, b"abcdef", 4)])).packets
    assert packet[1:] == (4, 1, b"abcdef")


def test_seconds_are_unsigned_and_fractions_may_be_too_large():
    times = [packet[0] for packet in seen(pcap([(0xFFFFFFFF, 999_999, b"a", 1), (1, 4_000_000_000, b"b", 1)])).packets]
    assert times == [0xFFFFFFFF * 10**9 + 999_999_000, 10**9 + 4_000_000_000_000]


@pytest.mark.parametrize("version", [(1, 4), (2, 5), (3, 0), (543, 1)])
def test_unknown_versions_are_refused(version):
    with pytest.raises(InputError, match=rf"C: pcap version {version[0]}\.{version[1]}"):
        seen(pcap(DATA, version=version))


@pytest.mark.parametrize(
    "linktype, limit",
    [(1, 262144), (189, 128 << 20), (220, 128 << 20), (249, 128 << 20), (231, 128 << 20), (279, 32 << 20)],
)
def test_limits(linktype, limit):
    """A length beyond the limit is damage, one within it is a record that is cut short here."""
    start = pcap([b"abc"], linktype)
    damaged(
        start + struct.pack("<IIII", 1, 1, limit + 1, limit + 1), 2, 43, f"{limit + 1} exceeds the limit of {limit} "
    )
    damaged(start + struct.pack("<IIII", 1, 1, limit, limit), 2, 43, f"cut short: 16 of {limit + 16} bytes")


def test_the_largest_packet_larger_than_the_buffer():
    data = pcap([random.Random(1).randbytes(262144) for _ in range(6)] + [random.Random(2).randbytes(3 << 20)], 189)
    for size in (1 << 30, 70_001):
        result = seen(data, size)
        assert result.content == data
        assert [len(packet[3]) for packet in result.packets] == [262144] * 6 + [3 << 20]


def test_no_packets():
    for data in (pcap([]), PcapngBlocks().section(), PcapngBlocks(">").section() + PcapngBlocks(">").interface()):
        result = seen(data, 1)
        assert (result.packets, result.content, result.damage) == ([], data, None)


@pytest.mark.parametrize(
    "data", [b"", b"\xd4", b"\xd4\xc3\xb2\xa1", b"\n\r\r", pcap([])[:23], b"text\n" * 9, bytes(99)]
)
def test_no_capture_at_all(data):
    with pytest.raises(InputError, match=r"^C: "):
        seen(data)


# ---- pcapng ----


def blocks_of_all_kinds(order: str) -> list[bytes]:
    b = PcapngBlocks(order)
    return [
        b.section(b.option(4, b"some program") + b.option(0)),
        b.interface(1, 40, options=b.option(2, b"eth0")),
        b.interface(101, resolution=9),
        b.packet(DATA[2], 0, 1_000_001, options=b.option(1, b"comment") + b.option(3, b"\2abcd") + b.option(0)),
        b.block(4, b"\0" * 4),  # name resolution
        b.packet(DATA[5], 1, 1_700_000_000 * 10**9 + 7, 1500),
        b.simple_packet(DATA[2][:40], 60),
        b.old_packet(DATA[1], 0, 5, 9, drops=3),
        b.block(0xBAD, bytes(8)),  # custom
        b.block(0x40000BAD, b"keep me"),
        b.block(10, b"TLSK" + bytes(8)),  # secrets
        b.block(0x7654321, b"unknown"),
        b.packet(DATA[3], 1, 2),
        b.block(5, bytes(12)),  # statistics
    ]


EXPECTED = [
    (1_000_001_000, 60, 1, DATA[2]),
    (1_700_000_000 * 10**9 + 7, 1500, 101, DATA[5]),
    (0, 60, 1, DATA[2][:40]),
    (5000, 9, 1, DATA[1]),
    (2, 0, 101, DATA[3]),
]
IS_PACKET = [3, 5, 6, 7, 12]


@pytest.mark.parametrize("orders", ["<", ">", "<>", "><", "><<>"])
def test_pcapng(orders):
    data = b"".join(itertools.chain(*map(blocks_of_all_kinds, orders)))
    for size in (1 << 30, *PIECES):
        result = seen(data, size)
        assert result.packets == EXPECTED * len(orders)
        assert result.content == data
        assert result.damage is None
    assert result.capture.format == "pcapng"
    assert result.capture.interfaces == [(1, 40, 6, 0), (101, 0, 9, 0)] * len(orders)


@pytest.mark.parametrize(
    "resolution", [None, 0, 3, 6, 9, 12, 19, 27, 28, 29, 100, 127, 128, 129, 138, 148, 191, 192, 255]
)
@pytest.mark.parametrize("offset", [None, 0, 1_700_000_000, -3, 2**62, -(2**62)])
def test_resolutions_and_offsets(resolution, offset):
    b = PcapngBlocks()
    power = 6 if resolution is None else resolution & 0x7F
    tick = Fraction(10**9, 2**power if (resolution or 0) & 0x80 else 10**power)
    for ticks in (0, 1, 999, 123_456_789_012_345, 2**63 + 12345, 2**64 - 1):
        exact = int(ticks * tick) + (offset or 0) * 10**9
        (packet,) = seen(b.section() + b.interface(1, 0, resolution, offset) + b.packet(b"x", 0, ticks)).packets
        assert packet[0] == max(min(exact, 2**63 - 1), -(2**63))


def test_the_first_resolution_is_of_its_own_interface():
    b = PcapngBlocks(">")
    data = b.section() + b.interface(resolution=3) + b.interface() + b.interface(resolution=0x80 | 8)
    data += b"".join(b.packet(b"x", k, 512) for k in range(3))
    assert [packet[0] for packet in seen(data).packets] == [512_000_000, 512_000, 2_000_000_000]


def test_interfaces_are_those_of_the_section():
    b = PcapngBlocks()
    start = b.section() + b.interface(1) + b.interface(113)
    second = start + b.packet(b"x", 1) + b.section() + b.interface(101)
    assert [packet[2] for packet in seen(second + b.packet(b"x", 0)).packets] == [113, 101]
    damaged(second + b.packet(b"x", 1), 2, len(second), "packet of interface 1, which is not described")
    damaged(b.section() + b.simple_packet(b"x"), 1, 28, "packet of interface 0, which is not described")


def test_a_simple_packet_ends_at_the_snap_length():
    b = PcapngBlocks()
    data = b.section() + b.interface(1, 5) + b.simple_packet(b"abcdefgh", 1500) + b.simple_packet(b"abc")
    assert [packet[1:] for packet in seen(data).packets] == [(1500, 1, b"abcde"), (3, 1, b"abc")]


def test_section_lengths_and_padding_do_not_matter():
    b = PcapngBlocks()
    packet = b.packet(b"abcde")
    for section in (b.section(length=0), b.section(length=12345), b.section(version=(1, 2))):
        data = section + b.interface() + packet[:33] + b"\xff\xff\xff" + packet[36:]
        result = seen(data)
        assert (result.content, result.damage, result.packets[0][3]) == (data, None, b"abcde")


def patched(block: bytes, at: int, value: int, layout: str = "<I") -> bytes:
    return block[:at] + struct.pack(layout, value) + block[at + struct.calcsize(layout) :]


def lies():
    """What a block can say that is not true: (block, words of the message)."""
    b = PcapngBlocks()
    packet, interface = b.packet(b"abcdefgh"), b.interface(options=b.option(2, b"eth0"))
    yield "repetition", patched(packet, len(packet) - 4, 44), "block length 44 is impossible"
    yield "odd length", patched(packet, 4, 41), "block length 41 is impossible"
    yield "short length", patched(packet, 4, 8), "block length 8 is impossible"
    yield "huge length", patched(packet, 4, 0x7FFFFFFC), "block length 2147483644 is impossible"
    yield "huge unknown block", struct.pack("<II", 77, (16 << 20) + 4), "block length 16777220 is impossible"
    yield "captured beyond the block", patched(packet, 20, 9), "block of 40 bytes is too short"
    yield "captured beyond the limit", patched(packet, 20, 262145), "captured length 262145 exceeds the limit of 262144"
    yield "captured beyond all", patched(packet, 20, 0xFFFFFFFF), "4294967295 exceeds"
    yield "no room for fields", b.block(6, bytes(8)), "block of 20 bytes is too short"
    yield "no room in a simple packet", b.block(3, b""), "block of 12 bytes is too short"
    yield "simple packet without its end", b.simple_packet(b"abcdefgh", 1500), "block of 24 bytes is too short"
    yield "no room in an interface", b.block(1, bytes(4)), "block of 16 bytes is too short"
    yield (
        "no room in a section",
        b.block(0x0A0D0D0A, struct.pack("<II", 0x1A2B3C4D, 1)),
        "block of 20 bytes is too short",
    )
    yield "option beyond its block", patched(interface, 18, 99, "<H"), "option 2 reaches beyond"
    yield "byte order", patched(b.section(), 8, 0x12345678), "byte-order magic 0x12345678"
    yield "version", b.section(version=(2, 0)), "section of version 2"
    yield "zeros", bytes(64), "block length 0 is impossible"


@pytest.mark.parametrize("block, words", [pytest.param(*rest, id=name) for name, *rest in lies()])
def test_lies(block, words):
    b = PcapngBlocks()
    start = b.section() + b.interface() + b.packet(b"one") + b.packet(b"two")
    damaged(start + block + b.packet(b"behind"), 3, len(start), words)
    damaged(start + block + bytes(1 << 21), 3, len(start), words)


def test_the_limit_named_is_that_of_the_interface():
    b = PcapngBlocks()
    start = b.section() + b.interface(1) + b.interface(189)
    damaged(start + patched(b.packet(b"abcdefgh"), 20, 262145), 1, len(start), "exceeds the limit of 262144 bytes")


# ---- cut, and with garbage behind ----


def small(name: str) -> tuple[bytes, list[int], list[int]]:
    """A capture, the offsets at which it may end, and those of them at which a packet ends."""
    if name.startswith("pcapng"):
        blocks = blocks_of_all_kinds(name[-1])
        ends = list(itertools.accumulate(map(len, blocks)))
        return b"".join(blocks), ends, [ends[k] for k in IS_PACKET]
    magic = {"us": 0xA1B2C3D4, "ns": 0xA1B23C4D, "modified": 0xA1B2CD34}[name[:-1]]
    header = 24 if name.startswith("modified") else 16
    ends = list(itertools.accumulate((header + len(d) for d in DATA), initial=24))
    return classic(name[-1], magic), ends, ends[1:]


SMALL = ["us<", "us>", "ns<", "ns>", "modified<", "modified>", "pcapng<", "pcapng>"]


@pytest.mark.parametrize("name", SMALL)
def test_cut_at_every_byte(name):
    data, ends, packet_ends = small(name)
    expected = seen(data).packets
    first = 4 if name.startswith("pcapng") else 24
    for cut in range(first):
        with pytest.raises(InputError, match=r"^C: "):
            seen(data[:cut])
    for cut in range(first, len(data) + 1):
        result = seen(data[:cut], 7 if cut % 3 else 1 << 30)
        whole = sum(end <= cut for end in packet_ends)
        assert result.packets == expected[:whole]
        last = max((end for end in ends if end <= cut), default=0)
        assert result.content == data[:last]
        if cut == last:
            assert result.damage is None
        else:
            assert re.fullmatch(
                rf"C: packet {whole + 1} at offset {last}: cut short: {cut - last} of \d+ bytes are there",
                result.damage,
            )


@pytest.mark.parametrize("name", SMALL)
def test_garbage_behind(name):
    data, _, packet_ends = small(name)
    damaged(data + b"\xff" * 100, len(packet_ends) + 1, len(data), "(exceeds the limit|impossible)")


@pytest.mark.parametrize("name", SMALL)
def test_mutated(name):
    """Whatever the bytes are: what comes out went in, in order, and the rest is named as damage."""
    data, _, _ = small(name)
    chance = random.Random(name)
    for _ in range(300):
        copy = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            copy[chance.randrange(24, len(copy))] = chance.choice((0, 1, 0xFF, chance.randrange(256)))
        result, pieces = seen(bytes(copy)), seen(bytes(copy), 7)
        assert bytes(copy).startswith(result.content)
        assert (result.damage is None) == (result.content == copy)
        assert (pieces.packets, pieces.damage) == (result.packets, result.damage)


# ---- real captures ----


@captures.every(captures.sound())
def test_identity(path):
    data = captures.content(path)
    result = seen(data)
    assert result.damage is None
    assert result.content == data
    expected = next(row["packets"] for row in captures.index() if row["path"] == path)
    assert len(result.packets) == int(expected)
    sizes = PIECES if len(data) < 16_000 else (65_537, 4_099)
    for size in sizes:
        again = seen(data, size)
        assert (again.packets, again.content, again.damage) == (result.packets, data, None)


@captures.every(row["path"] for row in captures.index() if captures.is_foreign(row))
def test_other_formats_are_refused(path):
    with pytest.raises(InputError, match="not a pcap or pcapng capture"):
        seen(captures.content(path))


DAMAGED = {
    "malformed/PcapPlusPlus__clusterfuzz-testcase-minimized-FuzzTarget-5696447256461312": (2, "cut short"),
    "malformed/PcapPlusPlus__crash-8534c61cdf5987482365d7877ade12eef5aaf8b7": (2, "cut short: 2 of 16"),
    "malformed/PcapPlusPlus__crash-pcapng-epb-unbounded-length": (0, "block of 32 bytes is too short"),
    "malformed/dpkt__truncated_dns_2.pcap": (1, "cut short: 7 of 16"),
    "malformed/jnetpcap-legacy__tc_TC_IDPRE_EXT0140.pcap": (587, "cut short: 86 of 146"),
    "malformed/joincap__bad_first_header.pcap": (1, "captured length 2368110654 exceeds"),
    "malformed/joincap__partial_first_header.pcap": (0, "cut short: 11 of 16"),
    "malformed/libpcap__shb-option-too-long.pcapng": (0, "block length 808464432"),
    "pcapng/gopacket__le_test901.pcapng": (1, "section of version 2"),
}


@captures.every(DAMAGED if captures.index() else [])
def test_damaged(path):
    packets, words = DAMAGED[path]
    data = captures.content(path)
    offset = len(seen(data).content)
    damaged(data, packets + 1, offset, words)


# A fraction of a second and more: Wireshark reads 0, libpcap and we what is said.
OTHER_TIMES = ["malformed/tcpdump__timestamp_invalid_micro.pcap"]


def test_times_and_lengths_as_wireshark_reads_them(merged):
    rows = merged.rows("frame.time_epoch", "frame.len", "frame.cap_len")
    for path, (first, behind) in merged.span.items():
        if path in OTHER_TIMES:
            continue
        ours = [(time, wire, len(data)) for time, wire, _, data in seen(captures.content(path)).packets]
        theirs = [
            (int(Fraction(row["frame.time_epoch"][0]) * 10**9), int(row["frame.len"][0]), int(row["frame.cap_len"][0]))
            for row in rows[first:behind]
        ]
        assert ours == theirs, path


def test_bytes_as_wireshark_reads_them(merged):
    """Wireshark wrote every packet into another file; it must be the same there."""
    copied = seen(merged.path.read_bytes()).packets
    for path, (first, behind) in merged.span.items():
        ours = [data for *_, data in seen(captures.content(path)).packets]
        assert ours == [data for *_, data in copied[first:behind]], path


def test_a_generated_packet_is_what_wireshark_sees(tmp_path):
    """All the ways to store a packet, byte orders and resolutions, against tshark."""
    packet = ether(ipv4(udp(b"hello"), 17))
    b = PcapngBlocks(">")
    pcapng = (
        b.section() + b.interface(resolution=9, offset=100) + b.interface(resolution=0x80 | 20) + b.interface(1, 50)
    )
    pcapng += (
        b.packet(packet, 0, 12345678901)
        + b.packet(packet, 1, 7 << 19, 60)
        + b.old_packet(packet, 2, 5)
        + b.packet(packet, 2)
    )
    files = {
        f"{order}{magic:x}{version}": pcap([(5, 6, packet, 99)] * 2, order=order, magic=magic, version=version,
                                           swapped=version == (2, 2))
        for order in "<>" for magic in (0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34) for version in ((2, 4), (2, 2))
    }  # fmt: skip
    files["pcapng"] = pcapng
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        rows = captures.tshark(tmp_path / name, ("frame.time_epoch", "frame.len", "frame.cap_len", "udp.dstport"))
        ours = [
            (Fraction(time, 10**9), wire, len(data), struct.unpack(">H", data[36:38])[0])
            for time, wire, _, data in seen(data).packets
        ]
        assert len(rows) == (4 if name == "pcapng" else 2)
        assert ours == [tuple(Fraction(v[0]) for v in row.values()) for row in rows], name
