"""Edits of payload: DNS messages that follow the address maps, and payloads that are taken away."""

from __future__ import annotations

import ipaddress
import pathlib
import struct

import captures
import pytest
from captures import SOURCE4, SOURCE6, TARGET4, TARGET6, checksum, ether, icmp, ipv4, ipv6, pseudo, sctp, tcp, udp

from pcaptools.commands import pcaprewrite

MAPS = "10.0.0.0/24:1.2.3.0/24,[2001:db8::]/32:[fd00::]/32"
NEW4, NEW6 = bytes([1, 2, 3, 2]), bytes.fromhex("fd000000") + TARGET6[4:]


def name(text: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".") if label) + b"\0"


def record(owner: bytes, kind: int, data: bytes) -> bytes:
    return owner + struct.pack(">HHIH", kind, 1, 60, len(data)) + data


def message(question: bytes, *records: bytes) -> bytes:
    head = struct.pack(">HHHHHH", 1, 0x8180, 1, len(records), 0, 0)
    return head + question + struct.pack(">HH", 12, 1) + b"".join(records)


def run(packets: list, tmp_path: pathlib.Path, *argv: str, status: int = 0) -> list[bytes]:
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(captures.pcap(packets))
    assert pcaprewrite.main([*argv, "-w", str(target), str(source)]) == status
    data = target.read_bytes()
    for batch in captures.batches(data):
        assert not any(counts[1] for counts in batch.sums(False))
    return [packet[3] for packet in captures.packets(data)]


def mapped(packet: bytes, tmp_path: pathlib.Path, **status: int) -> bytes:
    return run([packet], tmp_path, "--dns-map", "--ipmap", MAPS, **status)[0]


ADDRESSES = message(
    name("www.example"),
    record(b"\xc0\x0c", 1, TARGET4),
    record(b"\xc0\x0c", 28, TARGET6),
    record(b"\xc0\x0c", 16, TARGET4),
)


@pytest.mark.parametrize("port", [53, 5353, 5355])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("over_tcp", [False, True])
def test_answers(port: int, version: int, over_tcp: bool, tmp_path: pathlib.Path) -> None:
    source, target = (SOURCE4, TARGET4) if version == 4 else (SOURCE6, TARGET6)
    data = (struct.pack(">H", len(ADDRESSES)) + ADDRESSES) * 2 if over_tcp else ADDRESSES
    segment = (tcp if over_tcp else udp)(data, sport=port, source=source, target=target)
    packet = (ipv4 if version == 4 else ipv6)(segment, 6 if over_tcp else 17)
    payload = mapped(ether(packet, 0x0800 if version == 4 else 0x86DD), tmp_path)[-len(data) :]
    assert payload.count(NEW4) == payload.count(NEW6) == 1 + over_tcp
    assert payload.count(TARGET4) == 1 + over_tcp, "text records stay"


def test_hints_and_client_subnets(tmp_path: pathlib.Path) -> None:
    hints = (
        struct.pack(">H", 1)
        + b"\0"
        + struct.pack(">HH", 4, 8)
        + TARGET4
        + SOURCE4
        + struct.pack(">HH", 6, 16)
        + TARGET6
    )
    subnet = struct.pack(">HHHBB", 8, 7, 1, 24, 0) + TARGET4[:3]
    options = b"\0" + struct.pack(">HHIH", 41, 1232, 0, len(subnet)) + subnet
    data = message(name("svc.example"), record(b"\xc0\x0c", 65, hints), options)
    edited = mapped(ether(ipv4(udp(data, sport=53), 17)), tmp_path)
    assert NEW4 + bytes([1, 2, 3, 1]) in edited and NEW6 in edited and edited.endswith(NEW4[:3])


def reverse(address: bytes) -> bytes:
    return name(ipaddress.ip_address(address).reverse_pointer)


@pytest.mark.parametrize("old, new", [(bytes([10, 0, 0, 7]), bytes([1, 2, 3, 7])), (TARGET6, NEW6)])
def test_reverse_names(old: bytes, new: bytes, tmp_path: pathlib.Path) -> None:
    maps = "10.0.0.0/24:12.2.3.0/24" if len(old) == 4 else MAPS
    wanted = bytes([12]) + new[1:] if len(old) == 4 else new
    data = message(reverse(old), record(b"\xc0\x0c", 12, name("host.example")))
    packet = ether(ipv4(udp(data, sport=53), 17))
    [edited] = run([packet], tmp_path, "--dns-map", "--ipmap", maps)
    assert edited[42:] == data.replace(reverse(old), reverse(wanted))


def test_reverse_names_of_another_length_are_counted(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packet = ether(ipv4(udp(message(reverse(SOURCE4)), sport=53), 17))
    assert mapped(packet, tmp_path, status=1)[42:] == packet[42:]
    assert "1 reverse names not mapped" in capsys.readouterr().err


def test_parts_of_messages_are_counted(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = struct.pack(">H", len(ADDRESSES)) + ADDRESSES
    for cut in (1, 2, 13, len(data) - 1):
        packets = [ether(ipv4(tcp(part, sport=53), 6)) for part in (data[:cut], data[cut:])]
        edited = run(packets, tmp_path, "--dns-map", "--ipmap", MAPS, status=1)
        assert [packet[54:] for packet in edited] == [data[:cut], data[cut:]]
        assert "2 packets hold parts of DNS messages" in capsys.readouterr().err


# ---- payloads that are taken away ----


def fragments(packet: bytes, size: int) -> list[bytes]:
    data = packet[20:]
    return [
        ipv4(data[at : at + size], packet[9], fragment=(0x2000 if at + size < len(data) else 0) | at // 8)
        for at in range(0, len(data), size)
    ]


def whole(parts: list[bytes]) -> int:
    """The checksum over all of a datagram; 0: right."""
    data = b"".join(part[34:] for part in parts)
    front = b"" if parts[0][23] == 1 else pseudo(parts[0][26:30], parts[0][30:34], parts[0][23], len(data))
    return checksum(front + data)


@pytest.mark.parametrize("mode", ["zero", "random"])
@pytest.mark.parametrize(
    "packet",
    [ipv4(udp(bytes(range(203))), 17), ipv4(tcp(bytes(range(202))), 6), ipv4(icmp(8, 0, bytes(range(200))), 1)],
)
def test_payload_of_fragments_keeps_the_checksum(mode: str, packet: bytes, tmp_path: pathlib.Path) -> None:
    """Which stands in the first fragment: the last word of each later one makes up for what changed in it."""
    for size in (8, 24, 104):
        parts = run(
            [ether(part) for part in fragments(packet, size)], tmp_path, "--anonymize=k", f"--anonymize-payload={mode}"
        )
        assert whole(parts) == 0
        if mode == "zero":
            assert not any(any(part[34:-3]) for part in parts[3:])


def test_fragments_whose_checksum_cannot_be_kept(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    for packet in (ipv4(udp(b"x" * 25), 17), ipv4(sctp(b"x" * 28), 132)):
        source, target = tmp_path / "in", tmp_path / "out"
        source.write_bytes(captures.pcap([ether(part) for part in fragments(packet, 32)]))
        assert pcaprewrite.main(["--anonymize-payload=zero", "-w", str(target), str(source)]) == 1
        assert "in fragments did not follow" in capsys.readouterr().err


def test_quoted_packets_keep_headers_and_checksums(tmp_path: pathlib.Path) -> None:
    for inner in (ipv4(tcp(b"secret"), 6), ipv4(sctp(b"secret--"), 132), ipv4(udp(b"secret"), 17, options=b"\1" * 8)):
        [edited] = run([ether(ipv4(icmp(3, 1, bytes(4) + inner), 1))], tmp_path, "--anonymize-payload=zero")
        assert b"secret" not in edited and edited[42:62] == inner[:20]
        for batch in captures.batches(captures.pcap([edited[42:]], 101)):
            assert batch.sums(False)[1][0] == 1
