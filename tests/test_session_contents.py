"""What sessions carry, against tshark: HTTP, TLS, DNS and the bytes of streams in every real capture."""

import os
import re
import struct
import subprocess
from collections import Counter

import captures
import pytest

import pcaptools.engines.contents as engine
from pcaptools.core.wire import ACK, RST, SYN, TCP
from pcaptools.engines.contents import Contents, Reader, Seek, stream_names
from pcaptools.engines.hellos import ClientHello
from pcaptools.engines.http_messages import Wanted
from pcaptools.engines.sessions import BIT, ROW_SIZE, Session, Tracker

FIELDS = (
    "frame.number", "http.request.method", "http.response.code", "tls.handshake.type",
    "tls.handshake.extensions_server_name", "tls.handshake.extensions_alpn_str", "tls.handshake.ciphersuite",
    "dns.qry.name", "tcp.stream",
)  # fmt: skip


HTTP_DIFFERENT = {
    # Responses whose FIN was captured in front of them: tshark takes what comes behind a FIN for nothing.
    "formats/nprint__example_port80.pcap": [("+", 1373, 200), ("+", 1408, 200), ("+", 307, 200), ("+", 309, 200)],
    # Heads that never end: tshark waits for the end, we say that it is not there.
    "fragments/zeek__ipv6-http-atomic-frag.pcap": [
        ("+", 16, "GET"), ("+", 26, "GET"), ("+", 36, "GET"), ("+", 8, "GET"),
    ],
    "mixed/PcapPlusPlus__many-protocols.pcap": [("+", 2664, 200), ("+", 3856, "POST"), ("+", 813, 200)],
    "tcp-odd/zeek__reassembly.pcap": [("+", 4, "SEARCH")],
    # Answers that stand in front of the requests, and a head with an urgent byte: tshark finds no requests.
    "tcp-odd/peafowl__http-2-out-of-order.pcap": [("+", 10, "GET"), ("+", 4, 401), ("+", 8, 200)],
    "tcp-odd/suricata-verify__tcp-urgent1.pcap": [("+", 8, "GET")],
    # Within L2TP, in IP fragments of 8 bytes, under TLS with the keys in the capture, under AH: not looked into.
    "encap/dpkt__nb6-http.pcap": [("-", 56, "GET"), ("-", 58, 200)],
    "fragments/peafowl__http_ip_fragmented.pcap": [
        ("-", 240, 401), ("-", 389, "GET"), ("-", 441, 200), ("-", 52, "GET"),
    ],
    "pcapng/pcapsql__tls12-dsb.pcapng": [("-", 14, "HEAD"), ("-", 15, 200), ("-", 6, "HEAD"), ("-", 7, 200)],
    "tcp-odd/libpcap__AH-IPcomp-IPv4.pcap": [("-", 3, "GET"), ("-", 4, 200)],
}  # fmt: skip
"""By capture: what only we (+) or only tshark (-) find, with the number of the packet that completes the head."""

OVERLAPPING = {"tcp-odd/zeek__reassembly.pcap"}
"""Made to have other bytes in the second copy of a segment: Wireshark takes the one, we, under `first`, the other."""

ODD = sum(
    BIT[name] for name in ("retransmission", "out_of_order", "lost_segment", "partial_overlap", "ack_lost_segment")
)

_MISSING = re.compile(b"\\[\\d+ bytes missing in capture file\\]\0?")


def contents(data: bytes, seek: Seek, size: int = 1 << 20, **options) -> list[tuple[Session, Contents]]:
    """Of every session that carries something."""
    tracker = Tracker(rows=True)
    reader = Reader(tracker, seek, **options)
    found = []
    for batch in captures.batches(data, size):
        tracker.feed(batch)
        reader.feed(batch)
        found += [(Session.of(row), reader.close(row[0])) for row in tracker.ended()]
    found += [(Session.of(row), reader.close(row[0])) for row in tracker.finish()]
    assert reader.budget.used == 0
    return [(session, one) for session, one in found if one]


@pytest.fixture(scope="module")
def found(merged) -> list[tuple[Session, Contents]]:
    return contents(merged.path.read_bytes(), Seek(http=Wanted(None, None), tls=True, dns=True))


@pytest.fixture(scope="module")
def told(merged) -> list[dict[str, list[str]]]:
    """What tshark finds in streams, with its own reassembly; HTTP where a head is complete."""
    command = [captures.tool("tshark"), "-n", "-r", merged.path, "-o", "http.desegment_body:FALSE"]
    command += ["-Y", "tcp", "-T", "fields", "-E", "aggregator=;"]
    command += [word for field in FIELDS for word in ("-e", field)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = [line.split("\t") for line in run.stdout.splitlines()]
    return [dict(zip(FIELDS, (cell.split(";") if cell else [] for cell in row), strict=True)) for row in rows]


def differences(merged, ours: Counter, theirs: Counter) -> dict[str, list]:
    """By capture, what only one of the two says, with numbers of packets in that capture; +: ours."""
    different: dict[str, list] = {}
    for sign, counter in (("+", ours - theirs), ("-", theirs - ours)):
        for (number, *rest), count in counter.items():
            path, packet = merged.capture_of(number - 1)
            different.setdefault(path, []).extend([(sign, packet, *rest)] * count)
    return {path: sorted(entries, key=str) for path, entries in different.items()}


def test_http(merged, found, told) -> None:
    ours: Counter = Counter()
    for _, one in found:
        for exchange in one.exchanges:
            for message in (exchange.request, exchange.response, *exchange.interim):
                if message:
                    ours[message.head_packet, message.method or message.status] += 1
    theirs: Counter = Counter()
    for row in told:
        number = int(row["frame.number"][0])
        theirs.update((number, method) for method in row["http.request.method"])
        theirs.update((number, int(code)) for code in row["http.response.code"])
    assert differences(merged, ours, theirs) == HTTP_DIFFERENT
    assert sum(ours.values()) > 1000


def followed_by_tshark(path, numbers: list[int]) -> dict[int, dict[tuple[str, int], str]]:
    """The bytes of streams as Wireshark puts them together, in hex, by who sent them."""
    command = [captures.tool("tshark"), "-n", "-q", "-r", os.fspath(path)]
    command += [word for number in numbers for word in ("-z", f"follow,tcp,raw,{number}")]
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = {}
    for part in text.split("=" * 67 + "\n"):
        head = re.search(r"Filter: tcp.stream eq (\d+)\nNode 0: (.*):(\d+)\nNode 1: (.*):(\d+)\n", part)
        if head:
            ends = ((head[2], int(head[3])), (head[4], int(head[5])))
            sides = found[int(head[1])] = {ends[0]: "", ends[1]: ""}
            for line in part[head.end() :].splitlines():
                sides[ends[line.startswith("\t")]] += line.strip()
    return found


def test_follow(merged, told) -> None:
    said: dict[int, tuple[dict[int, bytes], dict[int, bytes]]] = {}

    def takers(number: int, slot: int):
        said[number] = ({}, {})
        return [lambda way, piece: said[number][way].update({piece.start: bytes(piece.data or b"")})]

    stream = {int(row["frame.number"][0]): int(row["tcp.stream"][-1]) for row in told if row["tcp.stream"]}
    sessions = {
        stream[session.first_packet]: session
        for session, _ in contents(merged.path.read_bytes(), Seek(), takers=takers)
    }
    some = {number: session for number, session in sessions.items() if number % 3 == 0}
    some |= {number: session for number, session in sessions.items() if session.bits & ODD}
    theirs = followed_by_tshark(merged.path, sorted(some))
    assert len(theirs) > 200
    for number, session in some.items():
        ours = sorted(b"".join(data for _, data in sorted(side.items())) for side in said[session.id])
        path = merged.capture_of(session.first_packet - 1)[0]
        same = ours == sorted(_MISSING.sub(b"", bytes.fromhex(text)) for text in theirs[number].values())
        assert same != (path in OVERLAPPING), f"{path}: stream {number}"


def test_tls(merged, found, told) -> None:
    ours: Counter = Counter()
    for _, one in found:
        for hello in filter(None, one.hellos):
            what = (hello.server_name, ",".join(hello.alpn)) if isinstance(hello, ClientHello) else hello.cipher
            ours[hello.packet, what] += 1
    theirs: Counter = Counter()
    for row in told:
        number, kinds = int(row["frame.number"][0]), row["tls.handshake.type"]
        if "1" in kinds:
            name = (*row["tls.handshake.extensions_server_name"], None)[0]
            theirs[number, (name, ",".join(row["tls.handshake.extensions_alpn_str"]))] += 1
        elif "2" in kinds:
            theirs[number, int(row["tls.handshake.ciphersuite"][0], 0)] += 1
    assert differences(merged, ours, theirs) == {}
    assert sum(ours.values()) > 70


def test_dns(merged, found, told) -> None:
    ours = Counter((one.packet, one.name) for _, several in found for one in several.questions)
    theirs = Counter((int(row["frame.number"][0]), name) for row in told for name in row["dns.qry.name"])
    assert differences(merged, ours, theirs) == {}
    assert ours


# ---- sessions made by hand ------------------------------------------------------------------------------------------


class Wire:
    """Packets of one connection on their way into a capture."""

    def __init__(self, port: int = 80) -> None:
        self.packets: list[tuple[int, int, bytes, int]] = []
        self.ends = (40000, port)

    def segment(
        self, way: int, seq: int, ack: int, flags: int, payload: bytes = b"", *, at: int, snap: int = 0
    ) -> None:
        """at: us."""
        ports = self.ends if not way else self.ends[::-1]
        head = struct.pack(">HHIIBBHHH", *ports, seq % 2**32, ack % 2**32, 5 << 4, flags, 8192, 0, 0)
        addresses = (captures.SOURCE4, captures.TARGET4) if not way else (captures.TARGET4, captures.SOURCE4)
        packet = captures.ether(captures.ipv4(head + payload, TCP, *addresses))
        self.packets.append((1000 + at // 10**6, at % 10**6, packet[: snap or None], len(packet)))

    def capture(self) -> bytes:
        return captures.pcap(self.packets)


def opened(port: int = 80, base: int = 2**32 - 20) -> Wire:
    wire = Wire(port)
    wire.segment(0, base - 1, 0, SYN, at=0)
    wire.segment(1, 500, base, SYN | ACK, at=1)
    wire.segment(0, base, 501, ACK, at=2)
    return wire


REQUEST = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n" + b"x" * 30


def test_a_connection_with_loss_reordering_and_a_wrap() -> None:
    wire, base = opened(), 2**32 - 20
    text = REQUEST % 1
    wire.segment(0, base + 10, 501, ACK, text[10:], at=10)
    wire.segment(0, base, 501, ACK, text[:10], at=11)
    first, second = RESPONSE[:50], RESPONSE[60:]
    wire.segment(1, 501, base + len(text), ACK, first, at=20)
    wire.segment(1, 561, base + len(text), ACK, second, at=21)  # ten bytes were not captured
    end = 501 + len(RESPONSE)
    wire.segment(0, base + len(text), end, ACK, at=30)
    wire.segment(0, base + len(text), end, ACK, REQUEST % 2, at=60_000)
    wire.segment(1, end, base + 2 * len(text), ACK, RESPONSE, at=60_010)
    for size in (1 << 20, 7, 100):
        ((session, one),) = contents(wire.capture(), Seek(http=Wanted()), size)
        first_exchange, second_exchange = one.exchanges
        assert (first_exchange.request.target, first_exchange.response.missing) == ("/1", 10)
        assert (first_exchange.request.packet, first_exchange.request.head_packet) == (5, 4)
        assert first_exchange.response.complete
        assert (second_exchange.request.target, second_exchange.response.status) == ("/2", 200)
        assert stream_names(session) == ("00000-10.0.0.1_40000-10.0.0.2_80", "00000-10.0.0.2_80-10.0.0.1_40000")


def test_a_payload_cut_by_the_snap_length_is_a_gap() -> None:
    wire, base = opened(), 2**32 - 20
    wire.segment(0, base, 501, ACK, REQUEST % 1, at=10)
    wire.segment(1, 501, base + 28, ACK, RESPONSE + RESPONSE, at=20, snap=14 + 40 + len(RESPONSE) - 5)
    wire.segment(0, base + len(REQUEST % 1), 501 + 2 * len(RESPONSE), ACK, REQUEST % 2, at=30)
    ((_, one),) = contents(wire.capture(), Seek(http=Wanted()))
    assert one.exchanges[0].response.missing == 5
    assert [exchange.request.target for exchange in one.exchanges] == ["/1", "/2"]
    assert one.exchanges[1].response is None


def test_what_is_something_else_is_left_alone() -> None:
    wire, base = opened(22), 2**32 - 20
    for k in range(100):
        wire.segment(0, base + 30_000 * k, 501, ACK, b"SSH-2.0-something\r\n" + bytes(29_981), at=10 + k)
    tracker = Tracker(rows=True)
    reader = Reader(tracker, Seek(http=Wanted(), tls=True, dns=True), unwatch=True)
    rows = 0
    for batch in captures.batches(wire.capture()):
        tracker.feed(batch)
        rows += len(tracker.rows())
        reader.feed(batch)
    assert rows < 60 * ROW_SIZE
    (row,) = tracker.finish()
    assert reader.close(row[0]) is None


def test_sessions_that_nobody_tells_of_are_forgotten(monkeypatch) -> None:
    monkeypatch.setattr(engine, "SWEEP", 5)
    wires = []
    for port in range(1, 40):
        wire, base = opened(port), 2**32 - 20
        wire.segment(0, base, 501, ACK, bytes(60_000), at=port * 2_000_000)
        wire.segment(0, base, 501, RST | ACK, at=port * 2_000_000)
        wires += wire.packets
    tracker = Tracker(rows=True, linger_ns=1)
    tracker.choose(incomplete=True)
    reader = Reader(tracker, Seek(tls=True))
    most = 0
    for batch in captures.batches(captures.pcap(wires)):
        tracker.feed(batch)
        reader.feed(batch)
        list(tracker.ended())
        most = max(most, len(reader._open))
    assert 9 < most < 39


def test_exchanges_are_kept_within_bounds(monkeypatch) -> None:
    monkeypatch.setattr(engine, "MOST_EXCHANGES", 10)
    wires = []
    for port in (80, 81):
        wire, base = opened(port), 2**32 - 20
        wire.segment(0, base, 501, ACK, REQUEST % 1 * 30, at=10)
        wire.segment(1, 501, base + 30 * 28, ACK, RESPONSE * 8, at=20)
        wires += wire.packets
    found = contents(captures.pcap(wires), Seek(http=Wanted()))
    assert sum(len(one.exchanges) for _, one in found) >= 10
    assert all(one._room.used == 0 for _, one in found)
    assert [len(one.exchanges) + one.exchanges_dropped for _, one in found] == [30 + 7, 30 + 7]
