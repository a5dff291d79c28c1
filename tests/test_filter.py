"""Filters: our machine for BPF programs against tcpdump's, over the real captures of every link type."""

import collections
import functools
import struct
import subprocess

import captures
import pytest
from captures import PcapngBlocks, batches, ether, ipv4, one_packet, pcap, tcp, udp

from pcaptools.core._core import Program
from pcaptools.core.pipeline import Account
from pcaptools.engines.select import Filter
from pcaptools.errors import UsageError
from pcaptools.files.bpf import compile_filter

EXPRESSIONS = (
    "ip",
    "ip6",
    "arp",
    "tcp",
    "udp port 53",
    "icmp or icmp6 or sctp",
    "port 80",
    "portrange 1000-2000",
    "src net 10.0.0.0/8",
    "dst net 192.168.0.0/16 or host fe80::1",
    "not ip and not ip6",
    "len > 500",
    "less 60",
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
    "ip[6:2] & 0x1fff != 0",
    "ip[2:2] / 3 > 100 and ip[8] % 2 = 1",
    "tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420",
    "ip[8] * 2 - 5 < len and ip[8] ^ 0x40 = 0",
    "vlan and ip",
    "mpls",
    "ether multicast",
    "ether src host 00:04:76:96:7b:da or ether broadcast",
    "type data",
    "ip6[6] = 17 or ip6[40] = 58",
)


def program(expression: str, linktype: int = 1) -> Program:
    return Program(linktype, compile_filter(expression, linktype))


@functools.cache
def by_linktype() -> dict[int, list[bytes]]:
    """All packets of the real captures; link types of which there are none are left out."""
    packets = collections.defaultdict(list)
    for path in captures.sound(perf=False):
        for _, wire, linktype, data in captures.packets(captures.content(path)):
            packets[linktype].append((1000 + len(packets[linktype]), 0, data, wire))
    return dict(packets)


def tcpdump(path, expression: str) -> list[int] | None:
    """The numbers of the packets that match; None when there is no such filter for the link type."""
    run = subprocess.run(
        [captures.tool("tcpdump"), "-n", "-r", path, "-w", "-", expression], capture_output=True, check=False
    )
    if run.returncode:
        return None
    data, at, numbers = run.stdout, 24, []
    while at < len(data):
        seconds, _, length, _ = struct.unpack_from("<IIII", data, at)
        numbers.append(seconds - 1000)
        at += 16 + length
    return numbers


def ours(data: bytes, expression: str, linktype: int) -> list[int] | None:
    try:
        selected = program(expression, linktype)
    except UsageError:
        return None
    numbers = []
    for batch in batches(data):
        before = batch.n
        dropped = selected.drop_others(batch)
        numbers += [record.time // 10**9 - 1000 for record in batch.records() if not record.flags & 2]
        batch.compact()
        assert batch.n == before - dropped
    return numbers


LINKTYPES = sorted(by_linktype()) or [pytest.param(None, marks=pytest.mark.skip(reason=captures.MISSING))]


@pytest.mark.parametrize("linktype", LINKTYPES)
def test_as_tcpdump_filters(linktype, tmp_path):
    data = pcap(by_linktype()[linktype], linktype)
    (tmp_path / "all").write_bytes(data)
    for expression in EXPRESSIONS:
        assert ours(data, expression, linktype) == tcpdump(tmp_path / "all", expression), expression


@captures.needs_captures
def test_the_expressions_tell_packets_apart():
    """Each matches some Ethernet packets but not all, or only those of wireless."""
    packets = by_linktype()
    for expression in EXPRESSIONS:
        linktype = 105 if expression == "type data" else 1
        matched = ours(pcap(packets[linktype], linktype), expression, linktype)
        assert 0 < len(matched) < len(packets[linktype]), expression


# ---- the transform ----


def filtered(data: bytes, expression: str) -> tuple[bytes, Account]:
    account = Account(pytest.fail, pytest.fail)
    transform = Filter(lambda linktype, swapped: compile_filter(expression, linktype, swapped), account)
    return b"".join(bytes(again.view()) for batch in batches(data) for again in transform.feed(batch)), account


def test_what_is_left_is_the_same_file_without_the_others():
    one, two = ether(ipv4(tcp(b"one"), 6)), ether(ipv4(udp(b"two"), 17))
    left, account = filtered(pcap([(1, 0, one, 60), (2, 0, two, 70), (3, 0, one, 80)]), "tcp")
    assert left == pcap([(1, 0, one, 60), (3, 0, one, 80)])
    assert account.dropped == {"filtered": 1}


@pytest.mark.parametrize("order", "<>")
def test_other_blocks_stay(order):
    b = PcapngBlocks(order)
    one, two = ether(ipv4(tcp(b"one"), 6)), ether(ipv4(udp(b"two"), 17))
    names, custom = b.block(4, bytes(4)), b.block(0xBAD, bytes(8))
    start = b.interface() + names + b.interface(101)
    data = (
        b.section(length=999)
        + start
        + b.packet(two)
        + custom
        + b.packet(one, options=b.option(1, b"c"))
        + b.packet(two[14:], 1)
    )
    left, account = filtered(data + names + b.packet(one[14:], 1) + b.simple_packet(two), "tcp")
    kept = custom + b.packet(one, options=b.option(1, b"c")) + names + b.packet(one[14:], 1)
    assert left == b.section(length=-1) + start + kept
    assert account.dropped == {"filtered": 3}


@pytest.mark.parametrize("expression", ["nonsense here", "tcp port", "host 1.2.3.4.5", "(ip"])
def test_expressions_that_do_not_compile(expression):
    with pytest.raises(UsageError, match="filter '"):
        compile_filter(expression, 1)


def test_loops_are_refused():
    for expression in ("ip protochain 6", "ip6 protochain 17 and port 53"):
        with pytest.raises(UsageError, match="protochain"):
            compile_filter(expression, 1)


def test_the_empty_expression_matches_all():
    assert ours(pcap([b"", b"abc"]), "", 1) == [0, 1]


def test_lengths_are_those_on_the_wire():
    batch = one_packet(b"abc", 1, 1500)
    assert program("len = 1500").drop_others(batch) == 0
    assert program("len = 3").drop_others(batch) == 1


def test_packets_of_another_link_type_are_left_alone():
    assert program("tcp", 101).drop_others(one_packet(b"abc", 1)) == 0


# ---- the machine ----

RETURN_A, RETURN_0 = (0x16, 0, 0, 0), (0x06, 0, 0, 0)


def run(*instructions, data: bytes = bytes(range(1, 9)), wire: int = 1000) -> bool:
    """Whether a program returns something but 0."""
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
    return Program(1, code).drop_others(one_packet(data, 1, wire)) == 0


def value(*instructions) -> int:
    """What is in the accumulator at the end, bit by bit."""
    return sum(run(*instructions, (0x54, 0, 0, 1 << bit), RETURN_A) << bit for bit in range(32))


@pytest.mark.parametrize(
    "instructions, expected",
    [
        ([(0x20, 0, 0, 0)], 0x01020304),
        ([(0x28, 0, 0, 1)], 0x0203),
        ([(0x30, 0, 0, 7)], 8),
        ([(0x80, 0, 0, 0)], 1000),
        ([(0x00, 0, 0, 0xDEADBEEF)], 0xDEADBEEF),
        ([(0x01, 0, 0, 2), (0x48, 0, 0, 1)], 0x0405),
        ([(0xB1, 0, 0, 5), (0x87, 0, 0, 0)], 24),
        ([(0x00, 0, 0, 9), (0x02, 0, 0, 15), (0x00, 0, 0, 1), (0x60, 0, 0, 15)], 9),
        ([(0x00, 0, 0, 9), (0x07, 0, 0, 0), (0x03, 0, 0, 3), (0x60, 0, 0, 3)], 9),
        ([(0x00, 0, 0, 9), (0x02, 0, 0, 3), (0x61, 0, 0, 3), (0x87, 0, 0, 0)], 9),
        ([(0x81, 0, 0, 0), (0x87, 0, 0, 0)], 1000),
        ([(0x00, 0, 0, 5), (0x14, 0, 0, 6)], 0xFFFFFFFF),
        ([(0x00, 0, 0, 0x80000001), (0x24, 0, 0, 2)], 2),
        ([(0x00, 0, 0, 100), (0x34, 0, 0, 7)], 14),
        ([(0x00, 0, 0, 100), (0x94, 0, 0, 7)], 2),
        ([(0x00, 0, 0, 1), (0x64, 0, 0, 31)], 0x80000000),
        ([(0x00, 0, 0, 1), (0x64, 0, 0, 32)], 0),
        ([(0x00, 0, 0, 0x80000000), (0x74, 0, 0, 31)], 1),
        ([(0x00, 0, 0, 1), (0x84, 0, 0, 0)], 0xFFFFFFFF),
        ([(0x00, 0, 0, 6), (0xA4, 0, 0, 3)], 5),
        ([(0x00, 0, 0, 6), (0x44, 0, 0, 3)], 7),
        ([(0x01, 0, 0, 6), (0x00, 0, 0, 3), (0x0C, 0, 0, 0)], 9),
        ([(0x05, 0, 0, 1), (0x06, 0, 0, 0), (0x00, 0, 0, 7)], 7),
    ],
)
def test_instructions(instructions, expected):
    assert value(*instructions) == expected


def test_jumps():
    for code, operand, taken in ((0x15, 5, 1), (0x15, 6, 0), (0x25, 4, 1), (0x25, 5, 0), (0x35, 5, 1), (0x35, 6, 0),
                                 (0x45, 4, 1), (0x45, 2, 0)):  # fmt: skip
        assert run((0x00, 0, 0, 5), (code, 0, 1, operand), (0x06, 0, 0, 1), RETURN_0) == taken


def test_what_cannot_be_loaded_or_divided_matches_not():
    for bad in (
        (0x20, 0, 0, 5),
        (0x28, 0, 0, 7),
        (0x30, 0, 0, 8),
        (0x20, 0, 0, 0xFFFFFFFF),
        (0x3C, 0, 0, 0),
        (0x9C, 0, 0, 0),
    ):
        assert not run(bad, (0x06, 0, 0, 1))
    assert not run((0x01, 0, 0, 0xFFFFFFFF), (0x50, 0, 0, 2), (0x06, 0, 0, 1))
    assert not run((0xB1, 0, 0, 8), (0x06, 0, 0, 1))


@pytest.mark.parametrize(
    "code",
    [
        [],
        [(0x00, 0, 0, 1)],
        [(0x60, 0, 0, 16), RETURN_A],
        [(0x61, 0, 0, 16), RETURN_A],
        [(0x02, 0, 0, 16), RETURN_A],
        [(0x03, 0, 0, 16), RETURN_A],
        [(0x05, 0, 0, 1), RETURN_A],
        [(0x05, 0, 0, 0xFFFFFFFF), RETURN_A],
        [(0x15, 1, 0, 1), RETURN_A],
        [(0x15, 0, 1, 1), RETURN_A],
    ],
)
def test_programs_that_would_go_astray_are_refused(code):
    with pytest.raises(ValueError, match="not a valid BPF program"):
        run(*code)
