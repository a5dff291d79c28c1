"""From one format to another: every packet, time and length, as Wireshark reads them."""

import struct
import subprocess
from fractions import Fraction

import captures
import pytest
from captures import PcapngBlocks, Pieces, pcap

from pcaptools.core.pipeline import Account
from pcaptools.engines.convert import ToPcap, ToPcapng, converter
from pcaptools.files.capture import Capture

FORMATS = {"pcap": "pcap", "nspcap": "nsecpcap", "pcapng": "pcapng"}


class Said(Account):
    """An account that remembers what it was told."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        super().__init__(self.messages.append, self.messages.append)


def through(transform, *contents: bytes, size: int = 1 << 30) -> bytes:
    out = bytearray()
    for content in contents:
        for batch in Capture(Pieces(content, size), "C"):
            for again in transform.feed(batch):
                out += again.view()
    for again in transform.finish():
        out += again.view()
    return bytes(out)


def converted(wanted: str, *contents: bytes, account: Account | None = None, size: int = 1 << 30) -> bytes:
    found = Capture(Pieces(contents[0]), "C").format
    transforms = converter(wanted, found, len(contents) > 1, account or Said())
    return through(transforms[0], *contents, size=size) if transforms else contents[0]


def all_kinds(order: str) -> bytes:
    """Records of every size, link type, resolution and way to store them."""
    b = PcapngBlocks(order)
    blocks = [
        b.section(),
        b.interface(1),
        b.interface(1, resolution=9),
        b.interface(1, 9, resolution=0x80 | 30, offset=5),
    ]
    for k in range(40):
        data = bytes([k]) * k
        blocks.append(
            [b.packet(data, k % 3, 10**9 + k, k + 5, b.option(1, b"comment")), b.simple_packet(data),
             b.old_packet(data, 1, 1234567890123), b.block(5, bytes(12))][k % 4]
        )  # fmt: skip
    return b"".join(blocks)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("wanted", FORMATS)
def test_all_kinds_of_records(wanted, order):
    data = all_kinds(order)
    expected = captures.packets(data)
    if wanted == "pcap":
        expected = [(time // 1000 * 1000, *rest) for time, *rest in expected]
    for size in (1 << 30, 1, 7, 100):
        assert captures.packets(converted(wanted, data, size=size)) == expected


@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("wanted", FORMATS)
def test_from_any_pcap(wanted, order, magic):
    data = pcap([(k, 999_999 - k, bytes([k]) * k, k + k % 3) for k in range(30)], 147, order=order, magic=magic)
    expected = captures.packets(data)
    if wanted == "pcap" and magic == 0xA1B23C4D:
        expected = [(time // 1000 * 1000, *rest) for time, *rest in expected]
    result = through(converter(wanted, "another", False, Said())[0], data)
    assert captures.packets(result) == expected
    assert through(converter(wanted, "another", False, Said())[0], data, size=7) == result


def test_the_bytes_of_a_pcap():
    data = b"".join(
        [
            PcapngBlocks(">").section(),
            PcapngBlocks(">").interface(113),
            PcapngBlocks(">").packet(b"abc", 0, 5_000_007, 9),
        ]
    )
    assert converted("pcap", data) == pcap([(5, 7, b"abc", 9)], 113, order="=")
    assert converted("nspcap", data) == pcap([(5, 7000, b"abc", 9)], 113, order="=", magic=0xA1B23C4D)


def test_the_bytes_of_a_pcapng():
    b = PcapngBlocks("=")
    ticks = 5 * 10**9 + 7000
    expected = b.section() + b.interface(113, resolution=9) + b.packet(b"abc", 0, ticks, 9)
    assert converted("pcapng", pcap([(5, 7, b"abc", 9)], 113)) == expected


def test_nothing_to_convert_is_no_transform():
    for wanted, found in (
        (None, "pcap"),
        (None, "pcapng"),
        ("pcap", "pcap"),
        ("nspcap", "nspcap"),
        ("pcapng", "pcapng"),
    ):
        assert converter(wanted, found, False, Said()) == []
    assert isinstance(converter(None, "pcap", True, Said())[0], ToPcap)
    assert isinstance(converter("pcapng", "pcapng", True, Said())[0], ToPcapng)


@pytest.mark.parametrize("wanted", FORMATS)
def test_no_packets(wanted):
    """What is left is a capture without packets, of the link type that was described."""
    b = PcapngBlocks()
    for data in (pcap([], 113), b.section() + b.interface(113) + b.interface(1)):
        result = through(converter(wanted, "another", False, Said())[0], data)
        assert captures.packets(result) == []
        assert Capture(Pieces(result), "C").format == wanted
        if wanted != "pcapng":
            assert struct.unpack_from("=I", result, 20) == (113,)


def test_lost_digits_are_told():
    b = PcapngBlocks()
    start = b.section() + b.interface(resolution=9)
    for ticks, told in ((1_000, False), (1_001, True), (2**32 * 10**9 - 1000, False), (2**32 * 10**9, True)):
        account = Said()
        converted("pcap", start + b.packet(b"x", 0, ticks), account=account)
        assert bool(account.messages) == told, ticks
        assert account.status == (ticks >= 2**32 * 10**9)
    account = Said()
    converted("nspcap", start + b.packet(b"x", 0, 1_001), account=account)
    assert account.messages == []


def test_other_link_types_are_left_out_and_counted():
    b = PcapngBlocks()
    data = b.section() + b.interface(1) + b.interface(101)
    data += b"".join(b.packet(bytes([k]), k % 2) for k in range(7))
    account = Said()
    assert [packet[3] for packet in captures.packets(converted("pcap", data, account=account))] == [
        b"\0",
        b"\2",
        b"\4",
        b"\6",
    ]
    assert sum(account.failed.values()) == 3
    assert account.status == 1
    assert "3 packets" in account.messages[0]
    assert "pcapng keeps them" in account.messages[0]
    assert [packet[2:] for packet in captures.packets(converted("pcapng", data))] == [
        (101 if k % 2 else 1, bytes([k])) for k in range(7)
    ]


def test_several_captures_become_one():
    b = PcapngBlocks(">")
    contents = [
        pcap([(1, 2, b"one", 3)], 1), pcap([(2, 3, b"two", 3)], 101, order=">", magic=0xA1B23C4D),
        b.section() + b.interface(101) + b.interface(1, resolution=9) + b.packet(b"three", 1, 7),
    ]  # fmt: skip
    times = [1_000_002_000, 2_000_000_003, 7]
    result = converted("pcapng", *contents)
    assert captures.packets(result) == [
        (times[0], 3, 1, b"one"),
        (times[1], 3, 101, b"two"),
        (times[2], 5, 1, b"three"),
    ]
    assert result.count(b"\x0a\x0d\x0d\x0a") == 1
    for wanted in (None, "nspcap"):
        result = converted(wanted, *contents)
        assert captures.packets(result) == [(times[0], 3, 1, b"one"), (times[2], 5, 1, b"three")]
        assert result[:4] == struct.pack("=I", 0xA1B23C4D)


@pytest.mark.parametrize("wanted", FORMATS)
def test_times_that_a_format_cannot_hold_move_to_its_ends(wanted):
    b, account = PcapngBlocks("<"), Said()
    early, late = -(10**15), 2**32 * 10**9
    data = b.section() + b.interface(1, resolution=9, offset=-(10**6)) + b.packet(b"e", 0, 0)
    data += b.packet(b"1", 0, 10**15) + b.packet(b"l", 0, 10**15 + late)
    if wanted == "pcapng":  # it could stay as it is: a second capture lets it be made anew
        result = converted(wanted, data, pcap([b"x"]), account=account)
    else:
        result = converted(wanted, data, account=account)
    assert captures.packets(data)[0][0] == early
    end = {"pcap": late - 1000, "nspcap": late - 1, "pcapng": late}[wanted]
    assert [packet[0] for packet in captures.packets(result)][:3] == [0, 0, end]
    assert account.status == 1
    assert ("1 packets" if wanted == "pcapng" else "2 packets") in account.messages[-1]


def test_dropped_packets_do_not_come():
    for transform in (ToPcap(Said(), nanoseconds=True), ToPcapng(Said())):
        out = b""
        for batch in Capture(Pieces(pcap([b"a", b"b", b"c"])), "C"):
            batch.drop(1)
            out += b"".join(bytes(again.view()) for again in transform.feed(batch))
        assert [packet[3] for packet in captures.packets(out)] == [b"a", b"c"]


def test_locations_stay_valid():
    batch = captures.one_batch([captures.ether(captures.ipv4(captures.tcp(b"x" * k), 6)) for k in range(9)])
    batch.locate()
    before = [batch.headers(k) for k in range(batch.n)]
    batch.to_pcap(True)
    assert [batch.headers(k) for k in range(batch.n)] == before
    assert batch.sums(False)[1][0] == 9


@pytest.mark.parametrize("wanted", FORMATS)
def test_real_captures_as_wireshark_reads_them(wanted, merged, tmp_path):
    """Before and after: the same times, lengths and bytes."""
    fields = ("frame.time_epoch", "frame.len", "frame.cap_len")
    rows, expected, files = merged.rows(*fields), [], []
    for path, (first, behind) in merged.span.items():
        content = captures.content(path)
        linktypes = [packet[2] for packet in captures.packets(content)]
        keep = [wanted == "pcapng" or linktype == linktypes[0] for linktype in linktypes]
        expected += [row for row, kept in zip(rows[first:behind], keep, strict=True) if kept and path not in ODD_TIMES]
        if path not in ODD_TIMES:
            files.append(tmp_path / str(len(files)))
            files[-1].write_bytes(converted(wanted, content))
    kinds = subprocess.run(
        [captures.tool("capinfos"), "-TMrt", *files], capture_output=True, text=True, check=True
    ).stdout
    # the modified format is pcap: asked for pcap, it stays as it is
    assert {line.split("\t")[1] for line in kinds.splitlines()} - {"modpcap"} == {FORMATS[wanted]}
    together = tmp_path / "together"
    subprocess.run([captures.tool("mergecap"), "-a", "-F", "pcapng", "-w", together, *files], check=True)
    unit = 1000 if wanted == "pcap" else 1
    assert times_and_lengths(captures.tshark(together, fields), 1) == times_and_lengths(expected, unit)
    assert len(expected) > 20_000


# A fraction of a second and more: see test_records.py.
ODD_TIMES = ["malformed/tcpdump__timestamp_invalid_micro.pcap"]


def times_and_lengths(rows: list[dict], unit: int) -> list[tuple[int, ...]]:
    """unit: ns in which a time is stored."""
    return [
        (
            int(Fraction(row["frame.time_epoch"][0]) * 10**9) // unit * unit,
            int(row["frame.len"][0]),
            int(row["frame.cap_len"][0]),
        )
        for row in rows
    ]
