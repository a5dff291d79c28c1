"""--anonymize: one to one, prefixes kept, the same everywhere, and nothing left beside the packets."""

from __future__ import annotations

import ipaddress
import pathlib
import random

import captures
import pytest
from captures import SOURCE4, SOURCE6, TARGET6, PcapngBlocks, ether, icmpv6, ipv4, ipv6, tcp, udp

from pcaptools.commands import pcaprewrite
from pcaptools.core._edits import Anonymizer
from pcaptools.core._info import other_blocks

KEY = bytes(range(16))
PREFIX, RANDOM = 1, 2


def common(a: bytes, b: bytes) -> int:
    """Bits of the common prefix."""
    return len(a) * 8 - (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).bit_length()


def run(data: bytes, directory: pathlib.Path, *argv: str) -> bytes:
    source, target = directory / "in", directory / "out"
    source.write_bytes(data)
    assert pcaprewrite.main([*argv, "-w", str(target), str(source)]) == 0
    return target.read_bytes()


@pytest.mark.parametrize("mode", [PREFIX, RANDOM])
def test_a_whole_network_maps_one_to_one(mode: int) -> None:
    mapping = Anonymizer(KEY, mode, 2)
    new = {mapping.address(bytes([192, 168, k >> 8, k & 255])) for k in range(1 << 16)}
    assert len(new) == 1 << 16
    assert (len({address[:2] for address in new}) == 1) == (mode == PREFIX)
    assert not any(address[0] >= 224 for address in new)


@pytest.mark.parametrize("size", [4, 16])
def test_prefixes_are_kept_exactly(size: int) -> None:
    mapping = Anonymizer(KEY, PREFIX, 2)
    chance = random.Random(size)
    for _ in range(3000):
        a = chance.randbytes(size)
        bits = chance.randrange(size * 8)
        b = (int.from_bytes(a, "big") ^ 1 << bits ^ chance.getrandbits(bits)).to_bytes(size, "big")
        assert common(mapping.address(a), mapping.address(b)) == common(a, b)


@pytest.mark.parametrize("mode", [PREFIX, RANDOM])
@pytest.mark.parametrize("size, macs", [(4, 2), (16, 2), (6, 2), (6, 1)])
def test_random_addresses_stay_distinct(mode: int, size: int, macs: int) -> None:
    mapping = Anonymizer(KEY, mode, macs)
    chance = random.Random(size)
    old = {chance.randbytes(size) for _ in range(20000)}
    new = {mapping.address(address) for address in old}
    assert len(new) == len(old)
    for address in old:
        result = mapping.address(address)
        if size == 4:
            assert (address[0] >> 4 == 14) == (result[0] >> 4 == 14)
        if size == 16:
            assert (address[0] == 0xFF) == (result[0] == 0xFF)
        if size == 6:
            assert address[0] & 3 == result[0] & 3
            assert macs == 2 or address[:3] == result[:3]


@pytest.mark.parametrize("text", ["0.0.0.0", "255.255.255.255", "224.0.0.251", "::", "::1"])
def test_what_is_nobody_stays(text: str) -> None:
    address = ipaddress.ip_address(text).packed
    for mode in (PREFIX, RANDOM):
        assert Anonymizer(KEY, mode, 2).address(address) == address


def test_keys_differ_and_runs_do_not(tmp_path: pathlib.Path) -> None:
    data = captures.pcap([ether(ipv4(tcp(), 6))])
    one = run(data, tmp_path, "--anonymize=one")
    assert one == run(data, tmp_path, "--anonymize=one:prefix-preserving") != run(data, tmp_path, "--anonymize=two")
    assert one != run(data, tmp_path, "--anonymize=one:random")


def test_the_same_in_arp_discovery_and_packets(tmp_path: pathlib.Path) -> None:
    mac = bytes.fromhex("080027852a08")
    macs = bytes.fromhex("ffffffffffff") + mac
    arp = ether(bytes.fromhex("0001080006040001") + mac + SOURCE4 + bytes(6) + SOURCE4, 0x0806, macs)
    solicit = icmpv6(135, 0, bytes(4) + TARGET6 + b"\1\1" + mac)
    packets = [arp, ether(ipv4(tcp(), 6), macs=macs), ether(ipv6(solicit, 58), 0x86DD, macs),
               ether(ipv6(udp(b"x", source=SOURCE6, target=TARGET6), 17), 0x86DD, macs)]  # fmt: skip
    out = run(captures.pcap(packets), tmp_path, "--anonymize=k")
    found = [packet[3] for packet in captures.packets(out)]
    assert found[0][28:32] == found[0][38:42] == found[1][26:30] != SOURCE4
    assert found[2][62:78] == found[3][38:54] != TARGET6
    assert found[0][6:12] == found[0][22:28] == found[1][6:12] == found[2][80:86] != mac
    assert found[0][:6] == b"\xff" * 6 and found[0][32:38] == bytes(6)
    for batch in captures.batches(out):
        assert not any(batch.sums(False)[kind][1] for kind in (0, 1))


MONITOR = {
    105: b"",
    119: bytes(144),  # Prism
    127: bytes.fromhex("0000080000000000"),  # radiotap
    163: bytes.fromhex("8021100100000010") + bytes(8),  # AVS
    192: bytes.fromhex("0000080069000000"),  # PPI
}


@pytest.mark.parametrize("linktype", MONITOR)
def test_the_same_in_every_802_11_capture(linktype: int, tmp_path: pathlib.Path) -> None:
    mac, front = bytes.fromhex("080027852a08"), MONITOR[linktype]
    frames = [b"\x08\x03" + bytes(2) + mac * 3 + bytes(2) + mac, b"\xd4\0" + bytes(2) + mac]  # WDS data, ACK
    out = run(captures.pcap([front + frame for frame in frames], linktype), tmp_path, "--anonymize=k")
    new = run(captures.pcap([ether(b"", macs=mac * 2)]), tmp_path, "--anonymize=k")[40:46]
    assert new != mac
    assert [data for *_, data in captures.packets(out)] == [front + frame.replace(mac, new) for frame in frames]


@pytest.mark.parametrize("mode", ["zero", "random", "drop"])
def test_payload(mode: str, tmp_path: pathlib.Path) -> None:
    secret = b"user=alice&password=secret"
    packets = [ether(ipv4(tcp(secret), 6)), ether(ipv6(udp(secret, source=SOURCE6, target=TARGET6), 17), 0x86DD)]
    out = run(captures.pcap(packets), tmp_path, "--anonymize=k", f"--anonymize-payload={mode}")
    assert b"alice" not in out
    found = captures.packets(out)
    assert [packet[1] for packet in found] == [len(packet) for packet in packets]
    assert [len(packet[3]) for packet in found] == [54, 62] if mode == "drop" else [len(packet) for packet in packets]
    for batch in captures.batches(out):
        assert not any(batch.sums(False)[kind][1] for kind in (0, 1))


def pcapng() -> bytes:
    blocks = PcapngBlocks()
    options = blocks.option(1, b"seen by alice") + blocks.option(2, b"alice0") + blocks.option(4, SOURCE4 + b"\xff" * 4)
    names = blocks.pack("HH", 1, 10) + captures.padded(SOURCE4 + b"alice\0") + blocks.pack("HH", 0, 0)
    return (
        blocks.section(blocks.option(1, b"by alice") + blocks.option(3, b"linux") + blocks.option(0))
        + blocks.interface(options=options) + blocks.block(4, names) + blocks.block(10, b"KLST\4\0\0\0alice..")
        + blocks.packet(ether(ipv4(tcp(), 6)), options=blocks.option(1, b"alice?") + blocks.option(0))
        + blocks.block(0xBAD, b"\0\0\0\1alice...")
    )  # fmt: skip


def test_what_pcapng_says_beside(tmp_path: pathlib.Path) -> None:
    out = run(pcapng(), tmp_path, "--anonymize=k")
    assert b"alice" not in out and SOURCE4 not in out and b"linux" in out
    address = captures.packets(out)[0][3][26:30]
    assert out.count(address) == 2
    kept = run(pcapng(), tmp_path, "--anonymize=k", "--keep-metadata")
    assert kept.count(b"alice") == 7 and kept.count(address) == 3 and SOURCE4 not in kept


def test_comments_and_secrets(tmp_path: pathlib.Path) -> None:
    stripped = run(pcapng(), tmp_path, "--strip-comments")
    assert b"by alice" not in stripped and b"alice?" not in stripped and b"alice0" in stripped and b"KLST" in stripped
    discarded = run(pcapng(), tmp_path, "--discard-secrets")
    assert b"KLST" not in discarded and discarded.count(b"alice") == 6
    commented = run(pcapng(), tmp_path, "--comment", "for the tests")
    assert commented.count(b"for the tests") == 1
    for data, kinds in ((stripped, 6), (discarded, 5), (commented, 6)):
        assert sum(len(other_blocks(batch)) for batch in captures.batches(data)) == kinds - 1
    made = run(captures.pcap([ether(b"")]), tmp_path, "--comment=x", "--format=pcapng")
    assert made[24:] != b"" and len(captures.packets(made)) == 1
