"""The flow table: which packets are of one flow, against packets made by hand and against tshark on real captures."""

from __future__ import annotations

import struct
from pathlib import Path

import captures
import pytest
from captures import SOURCE4, SOURCE6, TARGET4, TARGET6, ether, icmp, icmpv6, ipv4, ipv6, udp

from pcaptools.core._flows import FlowTable
from pcaptools.core.batch import Batch
from pcaptools.engines.flows import Row, parse_by

SYN, ACK, FIN, RST = 2, 16, 1, 4
A, B = SOURCE4, TARGET4


def tcp(flags: int, seq: int, ack: int = 0, *, back: bool = False, sport: int = 4000, data: bytes = b"") -> bytes:
    """A frame of one connection, from A:sport to B:80, or back."""
    ports = (80, sport) if back else (sport, 80)
    head = struct.pack(">HHIIBBHHH", *ports, seq, ack, 5 << 4, flags, 8192, 0, 0)
    return ether(ipv4(head + data, 6, *((B, A) if back else (A, B))))


def table(packets, *, linktype: int = 1, **options) -> FlowTable:
    """packets: frames a second apart, or (seconds, frame)."""
    timed = [packet if isinstance(packet, tuple) else (k, packet) for k, packet in enumerate(packets)]
    data = captures.pcap([(1000 + seconds, 0, frame, len(frame)) for seconds, frame in timed], linktype)
    by = parse_by(options.pop("by", "connection"))
    flows = FlowTable(by=by.by, grouping=by.grouping, limit=by.limit, files=by.files, **options)
    for batch in captures.batches(data):
        flows.index(batch)
    flows.assign(True)
    return flows


def partition(packets, **options) -> list[int]:
    """The flow of every packet, numbered by first appearance; 0: none."""
    numbers = {0: 0}
    return [numbers.setdefault(owner, len(numbers)) for owner in table(packets, **options).owners()]


HANDSHAKE = [tcp(SYN, 100), tcp(SYN | ACK, 900, 101, back=True), tcp(ACK, 101, 901)]
CLOSE = [tcp(FIN | ACK, 101, 901), tcp(FIN | ACK, 901, 102, back=True), tcp(ACK, 102, 902)]


@pytest.mark.parametrize(
    ("packets", "flows"),
    [
        ([*HANDSHAKE, *CLOSE], [1] * 6),
        ([*HANDSHAKE, tcp(SYN, 100)], [1] * 4),  # the SYN sent again
        ([tcp(SYN, 100), tcp(RST | ACK, 0, 101, back=True), tcp(SYN, 100)], [1] * 3),  # and after a refusal
        ([*HANDSHAKE, tcp(SYN, 5000)], [1, 1, 1, 2]),  # another initial sequence number
        ([*HANDSHAKE, *CLOSE, tcp(SYN, 100)], [1] * 6 + [2]),  # after FIN
        ([*HANDSHAKE, tcp(RST, 101), tcp(SYN, 100)], [1] * 4 + [2]),  # after RST
        ([*HANDSHAKE, *CLOSE, tcp(FIN | ACK, 901, 102, back=True), tcp(ACK, 102, 902)], [1] * 8),  # late ones
        ([HANDSHAKE[1], HANDSHAKE[0], HANDSHAKE[2]], [1] * 3),  # out of order
        ([tcp(ACK, 101, 901, data=b"x"), tcp(SYN, 100)], [1, 1]),
        ([tcp(ACK, 500, 901, data=b"x"), tcp(SYN, 100)], [1, 2]),
        ([tcp(SYN, 100), tcp(SYN, 700, back=True)], [1, 1]),  # both open at once
        ([*HANDSHAKE, tcp(SYN | ACK, 4444, 3001, back=True)], [1, 1, 1, 2]),  # its SYN was lost
        ([tcp(SYN, 100), tcp(SYN | ACK, 900, 101, back=True), tcp(SYN | ACK, 950, 101, back=True)], [1] * 3),
        ([*HANDSHAKE, tcp(SYN, 100, sport=4001)], [1, 1, 1, 2]),
    ],
)
def test_tcp(packets, flows) -> None:
    assert partition(packets) == flows


def test_an_open_connection_never_times_out_unless_asked() -> None:
    packets = [(0, HANDSHAKE[0]), (1, HANDSHAKE[1]), (2, HANDSHAKE[2]), (99999, tcp(ACK, 101, 901, data=b"x"))]
    assert partition(packets, timeout=10**9) == [1] * 4
    assert partition(packets, timeout=10**9, open_timeout=60 * 10**9) == [1, 1, 1, 2]


def test_a_closed_connection_times_out() -> None:
    packets = [*enumerate([*HANDSHAKE, *CLOSE]), (7, CLOSE[-1]), (500, CLOSE[-1])]
    assert partition(packets, timeout=300 * 10**9) == [1] * 7 + [2]
    assert partition(packets) == [1] * 8


def test_udp_times_out_when_idle() -> None:
    frame, back = ether(ipv4(udp(b"x"), 17)), ether(ipv4(udp(b"x", 53, 49152, B, A), 17, B, A))
    packets = [(0, frame), (299, back), (598, frame), (899, back)]
    assert partition(packets, timeout=300 * 10**9) == [1, 1, 1, 2]
    assert partition(packets) == [1] * 4


def fragments(more: int = 0) -> tuple[bytes, bytes]:
    """Two fragments of one datagram of UDP."""
    whole = udp(bytes(64))
    return (
        ether(ipv4(whole[:40], 17, fragment=0x2000, ident=7 + more)),
        ether(ipv4(whole[40:], 17, fragment=5, ident=7 + more)),
    )


def test_fragments_follow_their_datagram() -> None:
    first, later = fragments()
    whole = ether(ipv4(udp(b"x"), 17))
    other = ether(ipv4(udp(b"x", 1, 2), 17))
    assert partition([first, later, whole]) == [1] * 3
    assert partition([whole, later, other, first]) == [1, 1, 2, 1]  # the first one comes late
    assert partition([other, later, first]) == [1, 2, 2]


def test_flows_are_in_order_of_first_packets_also_when_a_fragment_is_the_first() -> None:
    first, later = fragments()
    flows = table([later, ether(ipv4(udp(b"x", 1, 2), 17)), ether(ipv4(udp(b"x"), 17)), first])
    assert [group for _, group in flows.firsts(1)] == [flows.owners()[0], flows.owners()[1]]


def test_fragments_without_a_first_one_are_of_their_hosts() -> None:
    later = [fragments(k)[1] for k in range(3)]
    assert partition([*later, ether(ipv4(udp(b"x"), 17))]) == [1, 1, 1, 2]


def test_an_identification_is_used_again() -> None:
    first, later = fragments()
    other_first = ether(ipv4(udp(bytes(64), 1, 2)[:40], 17, fragment=0x2000, ident=7))
    packets = [(0, first), (1, later), (100, later), (101, other_first), (102, later)]
    assert partition(packets) == [1, 1, 2, 2, 2]


def test_ipv6_fragments() -> None:
    whole = udp(bytes(64), source=SOURCE6, target=TARGET6)
    first = ether(ipv6(struct.pack(">BBHI", 17, 0, 1, 99) + whole[:40], 44), 0x86DD)
    later = ether(ipv6(struct.pack(">BBHI", 17, 0, 40, 99) + whole[40:], 44), 0x86DD)
    plain = ether(ipv6(whole, 17), 0x86DD)
    assert partition([later, plain, first]) == [1] * 3


def test_icmp_errors_follow_the_flow_that_they_quote() -> None:
    syn = tcp(SYN, 100)
    quoted = syn[14:42]
    error = ether(ipv4(icmp(3, 3, bytes(4) + quoted), 1, B, A))
    stranger = ether(ipv4(icmp(3, 3, bytes(4) + tcp(SYN, 1, sport=9)[14:42]), 1, B, A))
    assert partition([syn, error, stranger]) == [1, 1, 2]
    assert partition([syn, error], own_icmp_errors=True) == [1, 2]
    six = ipv6(udp(b"x", source=SOURCE6, target=TARGET6), 17)
    error6 = ether(ipv6(icmpv6(1, 4, bytes(4) + six, TARGET6, SOURCE6), 58, TARGET6, SOURCE6), 0x86DD)
    assert partition([ether(six, 0x86DD), error6]) == [1, 1]


def test_icmp_echo_by_identifier() -> None:
    def echo(kind: int, identifier: int, back: bool = False) -> bytes:
        return ether(ipv4(icmp(kind, 0, struct.pack(">HH", identifier, 1)), 1, *((B, A) if back else (A, B))))

    packets = [echo(8, 1), echo(8, 2), echo(0, 1, True), echo(0, 2, True)]
    assert partition(packets) == [1, 2, 1, 2]
    assert Row._make(table([packets[2]]).row(1)).client == A


def test_esp_by_spi_and_the_rest_by_hosts() -> None:
    esp = [ether(ipv4(struct.pack(">II", spi, 1) + bytes(16), 50)) for spi in (1, 2, 1)]
    gre = [ether(ipv4(bytes(8), 88, *ends)) for ends in ((A, B), (B, A))]
    assert partition([*esp, *gre]) == [1, 2, 1, 3, 3]


def test_packets_without_a_flow() -> None:
    arp, cut, bad = ether(bytes(28), 0x0806), ether(ipv4(b"", 6))[:20], ether(bytes([0x42]) + bytes(19))
    assert partition([arp, cut, bad, tcp(SYN, 1)]) == [0, 0, 0, 1]


def tagged(frame: bytes, *vlans: int) -> bytes:
    tags = b"".join(struct.pack(">HH", 0x8100, vlan) for vlan in vlans)
    return frame[:12] + tags + frame[12:]


def test_vlans() -> None:
    frame = tcp(SYN, 100)
    packets = [frame, tagged(frame, 5), tagged(frame, 5, 6), tagged(frame, 6), tagged(frame, 0), tagged(frame, 5)]
    assert partition(packets) == [1, 2, 3, 4, 1, 2]
    assert partition(packets, ignore_vlan=True) == [1] * 6
    flows = table(packets, by="vlan")
    assert [Row._make(flows.row(k)).vlans for k in range(1, flows.flows)] == [(), (5,), (5, 6), (6,)]


def test_the_innermost_layer() -> None:
    tunnelled = [ether(ipv4(tcp(SYN, 1, sport=sport)[14:], 4)) for sport in (1, 2)]
    assert partition(tunnelled) == [1, 1]
    assert partition(tunnelled, inner=True) == [1, 2]


@pytest.mark.parametrize(
    ("packets", "client"),
    [
        ([HANDSHAKE[0]], A), ([HANDSHAKE[1]], A), ([tcp(ACK, 1, 1, back=True)], A), ([tcp(ACK, 1, 1)], A),
        ([ether(ipv4(udp(b"", 53, 40000, B, A), 17, B, A))], A),
        ([ether(ipv4(udp(b"", 5000, 4000, B, A), 17, B, A))], B),
    ],
)  # fmt: skip
def test_who_is_the_client(packets, client) -> None:
    assert Row._make(table(packets).row(1)).client == client


def test_what_is_known_of_a_flow() -> None:
    row = Row._make(table([*HANDSHAKE, *CLOSE]).row(1))
    assert (row.packets_out, row.packets_in, row.bytes_out, row.bytes_in) == (4, 2, 4 * 54, 2 * 54)
    assert (row.how_started, row.how_ended, row.client_port, row.server_port) == ("syn", "fin", 4000, 80)
    assert (row.first, row.last) == (1000 * 10**9, 1005 * 10**9)


def test_by_hosts_and_by_packet() -> None:
    packets = [tcp(SYN, 1), tcp(SYN, 1, sport=9), tcp(ACK, 1, back=True), ether(ipv4(udp(b""), 17)), ether(b"", 0x0806)]
    assert partition(packets, by="hosts") == [1, 1, 1, 1, 0]
    assert partition(packets, by="source") == [1, 1, 2, 1, 0]
    assert partition(packets, by="destination") == [1, 1, 2, 1, 0]
    assert partition(packets, by="protocol") == [1, 1, 1, 2, 0]
    assert partition(packets, by="count:2") == [1, 1, 2, 2, 3]
    assert partition(packets, by="time:3") == [1, 1, 1, 2, 2]


def test_parts_of_a_size_are_never_larger() -> None:
    flows = table([tcp(SYN, 1)] * 10, by="size:200")
    assert [flows.owners().count(k) for k in range(1, flows.flows)] == [2] * 5  # 24 + 2 * (16 + 54) bytes


def test_a_million_keys_do_not_collide() -> None:
    flows = FlowTable(by=0, grouping=0, keep=False)
    frames = [ether(ipv4(udp(b"", 1, 2), 17))] * 1
    head, frame = frames[0][:26], frames[0]
    total = 200_000
    for start in range(0, total, 20_000):
        data = captures.pcap(
            [(1, 0, head + struct.pack(">I", k) + frame[30:], len(frame)) for k in range(start, start + 20_000)]
        )
        for batch in captures.batches(data):
            flows.index(batch)
    assert flows.flows == total + 1


@captures.every([path for path in captures.sound(perf=False) if path.startswith("malformed/")])
def test_hostile_bytes_do_no_harm(path: str) -> None:
    data = bytearray(captures.content(path))
    for at in range(24, len(data), 7):
        data[at] ^= 0x55
    flows = FlowTable(by=0, grouping=0, inner=True, tells=15)
    try:
        for batch in captures.batches(bytes(data)):
            flows.index(batch)
    except Exception as error:
        assert "packet" in str(error)
    flows.assign(True)
    assert len(flows.owners()) == flows.places


# Against tshark

# Where tshark's streams are others, and why ours are right or cannot be the same.
DIFFERENT = {
    "encap/arkime__gtp-iphone.pcap": "RTP set up by SDP: tshark counts its two directions as two streams",
    "encap/arkime__arkime_synthetic.pcap": "GENEVE from, not to, its port: not decoded here (RFC 8926 section 3.3)",
    "tcp-odd/arkime__tcp-reassembly-synthetic.pcap": "a SYN of the same number after FIN: a new connection here",
    "tcp-odd/libpcap__AH-IPcomp-IPv4.pcap": "IPComp: not decompressed here",
}


@captures.needs_captures
def test_the_partition_is_that_of_tshark(merged) -> None:
    fields = ("tcp.stream", "udp.stream", "frame.protocols")
    rows = merged.rows(*fields)
    flows = FlowTable(by=0, grouping=0, inner=True, ignore_vlan=True, pcapng=True)
    for batch in _batches(merged.path):
        flows.index(batch)
    flows.assign(True)
    owners = flows.owners()
    assert len(owners) == len(rows)
    differ, compared = set(), 0
    stream_of: dict[tuple[str, int], int] = {}
    flow_of: dict[tuple[str, int], int] = {}
    for number, (owner, row) in enumerate(zip(owners, rows, strict=True)):
        protocols = row["frame.protocols"][0].split(":") if row["frame.protocols"] else []
        last = next((name for name in reversed(protocols) if name in ("tcp", "udp")), None)
        if not last or {"icmp", "icmpv6"} & set(protocols) or not row[f"{last}.stream"]:
            continue
        compared += 1
        stream = last, int(row[f"{last}.stream"][-1])
        if flow_of.setdefault(stream, owner) != owner or stream_of.setdefault((last, owner), stream[1]) != stream[1]:
            differ.add(merged.capture_of(number)[0])
    assert compared > 10_000
    assert differ == set(DIFFERENT)


def _batches(path: Path):
    from pcaptools.files.capture import open_capture

    capture = open_capture(str(path))
    batch = Batch()
    while capture.fill(batch):
        yield batch
