"""Figures, timeline, conversations, endpoints and protocols against plain Python over the same packets."""

from __future__ import annotations

import collections
import itertools
import random
import statistics

import pytest
from captures import (
    SOURCE4,
    TARGET4,
    TARGET6,
    PcapngBlocks,
    Pieces,
    batches,
    ether,
    icmp,
    ipv4,
    ipv6,
    pcap,
    tcp,
    udp,
)

from pcaptools.core._info import Figures, Talkers, Timeline, other_blocks, packet_options
from pcaptools.core.blocks import Blocks
from pcaptools.engines.histogram import Series, draw
from pcaptools.engines.summary import Summary, rfc3339
from pcaptools.engines.talkers import ProtocolTable, TalkerTable

NS = 1_000_000_000
RNG = random.Random(4)


def counted(data: bytes, *takers) -> None:
    for batch in batches(data):
        for take in takers:
            take(batch)


def random_packets(n: int, most: int = 3000) -> list[tuple[int, int, bytes, int]]:
    """(seconds, microseconds, captured bytes, wire length), out of order here and there."""
    packets = []
    for k in range(n):
        size = RNG.choice((RNG.randrange(100), RNG.randrange(most)))
        packets.append((1000 + k // 7 + RNG.randrange(3), RNG.randrange(1_000_000), bytes(min(size, 64)), size))
    return packets


def test_figures_against_python() -> None:
    packets = random_packets(3000)
    figures = Figures()
    counted(pcap(packets), figures.add, figures.add_detail)
    times = [s * NS + us * 1000 for s, us, _, _ in packets]
    sizes = [wire for *_, wire in packets]
    cut = [len(data) for _, _, data, wire in packets if len(data) < wire]
    assert (figures.packets, figures.bytes, figures.captured) == (
        len(packets), sum(sizes), sum(len(data) for _, _, data, _ in packets),
    )  # fmt: skip
    assert (figures.first, figures.last) == (min(times), max(times))
    assert figures.backward == sum(b < a for a, b in itertools.pairwise(times))
    assert (figures.cut, figures.least_cut, figures.most_cut) == (len(cut), min(cut), max(cut))
    assert (figures.least_size, figures.most_size) == (min(sizes), max(sizes))
    assert figures.interfaces == [(len(packets), sum(sizes))]
    gaps = [b - max(times[: k + 1]) for k, b in enumerate(times[1:])]
    assert figures.gap == max(gaps) and figures.gap_before == gaps.index(max(gaps)) + 2
    for rank in (1, 2, 1500, 2999, 3000):
        assert figures.size_at(rank) == sorted(sizes)[rank - 1]
    assert figures.size_at(1500) == statistics.median_low(sizes)


@pytest.mark.parametrize("size", [65535, 65536, 65537, 131071, 131072, 10**6, 10**9, 2**32 - 1])
def test_large_sizes_are_at_most_a_64th_too_large(size: int) -> None:
    figures = Figures()
    counted(pcap([(1, 0, b"", size), (2, 0, b"", 2**32 - 1)]), figures.add, figures.add_detail)
    found = figures.size_at(1)
    assert size <= found <= size + size // 64


def test_interfaces_and_untimed_packets() -> None:
    b = PcapngBlocks()
    data = b.section() + b.interface() + b.interface(113)
    data += (
        b.packet(bytes(10), 1, 5) + b.simple_packet(bytes(20)) + b.packet(bytes(30), 1, 3) + b.packet(bytes(1), 0, 9)
    )
    figures = Figures()
    counted(data, figures.add)
    assert figures.interfaces == [(2, 21), (2, 40)]
    assert (figures.untimed, figures.backward) == (1, 1)
    assert (figures.first, figures.last, figures.first_interface, figures.last_interface) == (3000, 9000, 1, 0)


def test_nothing_at_all() -> None:
    figures = Figures()
    counted(pcap([]), figures.add)
    assert not figures.timed and figures.interfaces == [] and figures.size_at(1) == 0
    assert Timeline().end()[3] == []
    assert list(draw(Series())) == []


# Time


@pytest.mark.parametrize("scale", [1, 1000, 10**6, 10**9, 10**15])
def test_a_timeline_counts_everything_once_in_its_place(scale: int) -> None:
    b = PcapngBlocks()
    times = [RNG.randrange(9000) * scale + RNG.randrange(scale) for _ in range(400)]
    frames = [ether(ipv4(udp(b""), 17)), ether(ipv4(tcp(), 6)), ether(bytes(30), 0x0806), ether(ipv6(tcp(), 6), 0x86DD)]
    data = b.section() + b.interface(resolution=9, offset=-5)
    data += b"".join(b.packet(frames[k % 4], 0, time) for k, time in enumerate(times))
    series = Series()
    counted(data, series.feed)
    series.end()
    assert sum(map(sum, (one.packets for one in series.slices))) == 400
    kinds = [sum(one.packets[k] for one in series.slices) for k in range(6)]
    assert kinds == [200, 100, 0, 0, 100, 0]
    starts = [series.start + k * series.width for k in range(len(series.slices))]
    expected = collections.Counter((time - 5 * NS - series.start) // series.width for time in times)
    assert [sum(one.packets) for one in series.slices] == [expected[k] for k in range(len(starts))]
    assert len(series.slices) <= 2048
    coarse = series.merged(10)
    assert len(coarse.slices) <= 10 and sum(map(sum, (one.packets for one in coarse.slices))) == 400


def test_a_burst_is_the_most_in_10_ms() -> None:
    times = [(k, 0) for k in range(100)] + [(100, k * 10) for k in range(50)] + [(k, 0) for k in range(101, 200)]
    series = Series()
    counted(pcap([(s, us, bytes(100), 100) for s, us in times]), series.feed)
    series.end()
    assert series.bursts and max(one.burst_packets for one in series.slices) == 50
    assert max(series.burst_rates("bits")) == 50 * 800 * 100
    assert any("|" in line for line in draw(series))


@pytest.mark.parametrize("ticks", [0, 2**63 - 1, 2**64 - 1])
def test_a_timeline_of_all_times(ticks: int) -> None:
    b = PcapngBlocks()
    data = b.section() + b.interface(resolution=9) + b.interface(resolution=9, offset=-(2**62))
    series = Series()
    counted(data + b.packet(b"", 0, ticks) + b.packet(b"", 1, 0) + b.packet(b"", 0, 1), series.feed)
    series.end()
    assert sum(map(sum, (one.packets for one in series.slices))) == 3


def test_rfc3339() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00.000000000Z"
    assert rfc3339(951782400 * NS + 5) == "2000-02-29T00:00:00.000000005Z"
    assert rfc3339(-1) == "1969-12-31T23:59:59.999999999Z"
    assert rfc3339(-(2**63)) == "1677-09-21T00:12:43.145224192Z"
    assert rfc3339(2**63 - 1) == "2262-04-11T23:47:16.854775807Z"


# Who talks to whom


def conversation_packets(n: int, hosts: int) -> list[tuple[int, int, bytes, int]]:
    packets = []
    for k in range(n):
        a, b = (bytes([10, 0, host >> 8, host & 255]) for host in (RNG.randrange(hosts), RNG.randrange(hosts)))
        frame = ether(ipv4(udp(bytes(RNG.randrange(50)), 1000 + RNG.randrange(3), 53, a, b), 17, a, b))
        packets.append((k, 0, frame, len(frame)))
    return packets


def keys(frame: bytes) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    return (frame[26:30], frame[34:36]), (frame[30:34], frame[36:38])


@pytest.mark.parametrize("by", ["bytes", "packets", "time"])
def test_conversations_against_python(by: str) -> None:
    packets = conversation_packets(2000, 12)
    expected: dict = {}
    for seconds, _, frame, size in packets:
        row = expected.setdefault(frozenset(keys(frame)), [0, 0, seconds, seconds])
        row[0], row[1], row[3] = row[0] + 1, row[1] + size, seconds
    table = TalkerTable("conversations", by, 10**6)
    counted(pcap(packets), table.feed)
    found = table.record()
    measure = {"bytes": "bytes", "packets": "packets", "time": "duration_ns"}[by]
    assert [row[measure] for row in found["rows"]] == sorted((row[measure] for row in found["rows"]), reverse=True)
    assert sorted((row["packets"], row["bytes"], row["duration_ns"]) for row in found["rows"]) == sorted(
        (count, size, (last - first) * NS) for count, size, first, last in expected.values()
    )
    for row in found["rows"]:
        assert row["a_to_b"]["packets"] + row["b_to_a"]["packets"] == row["packets"]
        assert row["a_to_b"]["packets"]  # A spoke first
    assert found["other"]["packets"] == 0


@pytest.mark.parametrize("kind", ["conversations", "endpoints"])
@pytest.mark.parametrize("by", ["bytes", "packets", "time"])
def test_totals_stay_exact_when_the_table_is_full(kind: str, by: str) -> None:
    packets = conversation_packets(3000, 500)
    big = ether(ipv4(tcp(bytes(1000)), 6))
    packets = [p for k, p in enumerate(packets) for p in ([p, (k, 1, big, len(big))] if k % 3 == 0 else [p])]
    packets += [(5000, 0, ether(bytes(40), 0x0806), 54)]
    table = TalkerTable(kind, by, 5, limit=64)
    counted(pcap(packets), table.feed)
    found = table.record()
    ends = 2 if kind == "endpoints" else 1
    parts = [*found["rows"], found["other"]]
    assert sum(part["packets"] for part in parts) == (len(packets) - 1) * ends
    assert sum(part["bytes"] for part in parts) == (sum(size for *_, size in packets) - 54) * ends
    assert found["without_ip"] == {"packets": 1, "bytes": 54}
    assert found["other"]["moved_rows"] > 0
    if by != "time":
        truth = {"packets": 1000, "bytes": 1000 * len(big)}[by]
        assert found["rows"][0][by] >= truth - found["other"]["a_row_lacks_at_most"]
    assert any("More than 64" in line for line in table.lines())


def test_packets_without_a_time_have_none() -> None:
    b = PcapngBlocks()
    frame, other = ether(ipv4(tcp(), 6)), ether(ipv4(udp(b""), 17))
    data = b.section() + b.interface() + b.simple_packet(frame) + b.packet(frame, 0, 5) + b.packet(frame, 0, 3)
    table = TalkerTable("conversations", "packets", 10)
    counted(data + b.simple_packet(other), table.feed)
    first, second = table.record()["rows"]
    assert (first["packets"], first["start"], first["duration_ns"]) == (3, "1970-01-01T00:00:00.000003000Z", 2000)
    assert (second["packets"], second["start"], second["duration_ns"]) == (1, None, None)
    assert len(list(table.lines())) == 4


def test_a_table_is_bounded() -> None:
    table = Talkers(False, "bytes", 100, 1)
    counted(pcap(conversation_packets(5000, 60000)), table.add)
    assert table.rows <= 100 and table.other[0] > 4000


def test_endpoints_ports_and_versions() -> None:
    frames = [
        ether(ipv4(tcp(sport=5, dport=6), 6)),
        ether(ipv6(udp(b"", 7, 8), 17), 0x86DD),
        ether(ipv4(icmp(8, 0, b""), 1)),
    ]
    table = TalkerTable("conversations", "bytes", 10)
    ends = TalkerTable("endpoints", "bytes", 10)
    counted(pcap(frames), table.feed, ends.feed)
    rows = {row["protocol"]: row for row in table.record()["rows"]}
    assert rows["TCP"]["a"] == {"address": "10.0.0.1", "port": 5}
    assert rows["UDP"]["b"] == {"address": "2001:db8::2", "port": 8}
    assert rows["ICMP"]["a"] == {"address": "10.0.0.1", "port": None}
    assert {row["address"] for row in ends.record()["rows"]} == {"10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2"}
    assert any("[2001:db8::2]:8" in line for line in table.lines())


# Protocols


def tree(frames: list[bytes], linktype: int = 1) -> dict:
    table = ProtocolTable()
    counted(pcap(frames, linktype), table.feed)

    def flat(nodes, path=()):
        for node in nodes:
            yield "/".join((*path, node["protocol"])), node["packets"]
            yield from flat(node["children"], (*path, node["protocol"]))

    assert all(line for line in table.lines())
    return dict(flat(table.record()))


def test_the_hierarchy_of_protocols() -> None:
    vlan = ether(b"\0\5\x08\0" + ipv4(udp(bytes(20), 5, 53), 17), 0x8100)
    gre = ether(ipv4(b"\0\0\x08\0" + ipv4(tcp(dport=80), 6), 47))
    vxlan = ether(ipv4(udp(b"\x08" + bytes(7) + ether(ipv4(icmp(8, 0, b""), 1)), 5, 4789), 17))
    fragment = ether(ipv4(bytes(40), 17, fragment=5))
    found = tree([vlan, vlan, gre, vxlan, fragment, ether(bytes(40), 0x0806), b"\1\2"])
    assert found == {
        "EN10MB (1)": 7,
        "EN10MB (1)/VLAN": 2,
        "EN10MB (1)/VLAN/IPv4": 2,
        "EN10MB (1)/VLAN/IPv4/UDP": 2,
        "EN10MB (1)/VLAN/IPv4/UDP/dns (53)": 2,
        "EN10MB (1)/IPv4": 3,
        "EN10MB (1)/IPv4/GRE": 1,
        "EN10MB (1)/IPv4/GRE/IPv4": 1,
        "EN10MB (1)/IPv4/GRE/IPv4/TCP": 1,
        "EN10MB (1)/IPv4/GRE/IPv4/TCP/http (80)": 1,
        "EN10MB (1)/IPv4/UDP": 2,
        "EN10MB (1)/IPv4/UDP/VXLAN": 1,
        "EN10MB (1)/IPv4/UDP/VXLAN/IPv4": 1,
        "EN10MB (1)/IPv4/UDP/VXLAN/IPv4/ICMP": 1,
        "EN10MB (1)/IPv4/UDP/later fragment": 1,
        "EN10MB (1)/ARP": 1,
        "EN10MB (1)/truncated": 1,
    }


def test_the_tree_is_bounded() -> None:
    frames = [ether(bytes(40), 0x600 + k) for k in range(6000)]
    found = tree(frames)
    assert found["EN10MB (1)"] == 6000 and len(found) < 4096


def test_deep_tunnels() -> None:
    packet = ipv4(tcp(dport=22), 6)
    for _ in range(4):
        packet = ipv4(packet, 4)
    assert tree([ether(packet)])["EN10MB (1)" + "/IPv4" * 9 + "/TCP/ssh (22)"] == 1


# Blocks that are no packets


@pytest.mark.parametrize("order", "<>")
def test_blocks_are_found_between_packets_in_any_pieces(order: str) -> None:
    from pcaptools.files.capture import Capture

    b = PcapngBlocks(order)
    other = b.block(0xBAD, b.pack("I", 7) + bytes(5))
    comment = b.option(1, b"said") + b.option(0)
    data = b.section(b.option(4, b"one")) + b.interface() + other + b.packet(b"abc", 0, 1, options=comment) + other
    data += (
        other
        + b.packet(b"abcd", 0, 2)
        + b.section(b.option(4, b"two"))
        + b.interface(113)
        + b.packet(b"", 0, 3)
        + other
    )
    for size in (1, 2, 3, 5, 7, 1 << 20):
        blocks = Blocks()
        kinds, spans = [], 0
        for batch in Capture(Pieces(data, size), "test"):
            blocks.feed(batch)
            kinds += [kind for kind, *_ in other_blocks(batch)]
            spans += len(packet_options(batch))
        assert kinds == [0x0A0D0D0A, 1, 0xBAD, 0xBAD, 0xBAD, 0x0A0D0D0A, 1, 0xBAD]
        assert [section.application for section in blocks.sections] == ["one", "two"]
        assert [interface.linktype for interface in blocks.interfaces] == [1, 113]
        assert spans == 1


def test_blocks_with_every_byte_changed_do_no_harm() -> None:
    from pcaptools.errors import PcaptoolsError
    from pcaptools.files.capture import Capture

    b = PcapngBlocks()
    names = b.pack("HH", 1, 10) + SOURCE4 + b"host1\0" + b"\0\0" + b.pack("HH", 2, 20) + TARGET6 + b"abc\0"
    data = b.section(b.option(1, b"comment")) + b.interface(options=b.option(2, b"eth0"), resolution=9)
    data += b.packet(TARGET4, 0, 1, options=b.option(1, b"x")) + b.block(4, names) + b.block(5, b.pack("III", 0, 0, 0))
    for at in range(len(data)):
        for value in (0, 1, 0x7F, 0x80, 0xFF):
            blocks, figures = Blocks(), Figures()
            try:
                for batch in Capture(Pieces(data[:at] + bytes([value]) + data[at + 1 :]), "test"):
                    blocks.feed(batch)
                    figures.add(batch)
                    figures.add_detail(batch)
                    packet_options(batch)
            except PcaptoolsError:
                pass
            Summary("x", "pcapng", None, figures, blocks).record()
