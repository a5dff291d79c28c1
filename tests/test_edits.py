"""pcaprewrite's edits, through its command line: single edits on packets made here, all of them on real captures."""

from __future__ import annotations

import ipaddress
import json
import pathlib
import random
import struct
import zlib

import captures
import pytest
from captures import (
    MACS,
    SOURCE4,
    SOURCE6,
    TARGET4,
    TARGET6,
    PcapngBlocks,
    ether,
    icmp,
    icmpv6,
    ipv4,
    ipv6,
    pseudo,
    summed,
    tcp,
    udp,
)

from pcaptools.commands import pcaprewrite
from pcaptools.core.batch import SUMS
from pcaptools.core.pipeline import Account
from pcaptools.engines.retime import Reorder


class Rewriter:
    """Runs the command on packets in a directory of its own."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.status = 0

    def bytes(self, data: bytes, *argv: str) -> bytes:
        source, target = self.directory / "in", self.directory / "out"
        source.write_bytes(data)
        target.unlink(missing_ok=True)
        self.status = pcaprewrite.main([*argv, "-w", str(target), str(source)])
        return target.read_bytes() if target.exists() else b""

    def __call__(self, packets: list, *argv: str, linktype: int = 1) -> list[bytes]:
        return [packet[3] for packet in captures.packets(self.bytes(captures.pcap(packets, linktype), *argv))]

    def one(self, packet: bytes, *argv: str, linktype: int = 1) -> bytes:
        [result] = self([packet], *argv, linktype=linktype)
        return result


@pytest.fixture
def rewriter(tmp_path: pathlib.Path) -> Rewriter:
    return Rewriter(tmp_path)


def sums(data: bytes) -> tuple[dict[str, int], dict[str, int]]:
    totals = [0] * 6, [0] * 6
    for batch in captures.batches(data):
        for total, found in zip(totals, batch.sums(False), strict=True):
            for k, count in enumerate(found):
                total[k] += count
    return dict(zip(SUMS, totals[0], strict=True)), dict(zip(SUMS, totals[1], strict=True))


def right(packet: bytes, linktype: int = 1) -> bool:
    return not any(found["wrong"] or found["malformed"] for found in sums(captures.pcap([packet], linktype)))


TCP = ether(ipv4(tcp(b"payload"), 6))
UDP6 = ether(ipv6(udp(b"payload", source=SOURCE6, target=TARGET6), 17), 0x86DD)


# ---- fields ----


def test_fields(rewriter: Rewriter) -> None:
    edited = rewriter.one(TCP, "--ttl=+10", "--tos=50", "-r", "80:8080,49000-50000:7")
    assert (edited[22], edited[15], edited[34:38]) == (74, 50, struct.pack(">HH", 7, 8080))
    assert right(edited)
    edited = rewriter.one(UDP6, "--ttl=-100", "--tclass=0xab", "--flowlabel=0x12345", "--portmap", "50+51+53:5353")
    assert edited[14:18] == bytes.fromhex("6ab12345") and edited[21] == 1 and edited[56:58] == struct.pack(">H", 5353)
    assert right(edited)


def test_the_documented_port_list_works(rewriter: Rewriter) -> None:
    assert rewriter.one(TCP, "-r", "79,80:8080")[36:38] == struct.pack(">H", 8080)


def test_ports_of_later_fragments_are_payload(rewriter: Rewriter) -> None:
    fragment = ether(ipv4(struct.pack(">HH", 80, 80) * 4, 6, fragment=100))
    assert rewriter.one(fragment, "-r", "80:8080") == fragment


def test_ports_behind_extension_headers(rewriter: Rewriter) -> None:
    inner = udp(b"x", source=SOURCE6, target=TARGET6)
    packet = ether(ipv6(bytes([17, 0, 1, 4, 0, 0, 0, 0]) + inner, 0), 0x86DD)
    edited = rewriter.one(packet, "-r", "53:54")
    assert edited[64:66] == struct.pack(">H", 54) and right(edited)


def test_sack_blocks_follow_the_sequence(rewriter: Rewriter) -> None:
    options = b"\1\1" + bytes([5, 10]) + struct.pack(">II", 1000, 2000)
    edited = rewriter.one(ether(ipv4(tcp(options=options), 6)), "--tcp-sequence=42")
    by = (struct.unpack(">I", edited[38:42])[0] - 1) % 2**32
    assert by and struct.unpack(">II", edited[58:66]) == ((1000 + by) % 2**32, (2000 + by) % 2**32)
    assert right(edited)


def test_ports_and_addresses_of_quotes(rewriter: Rewriter) -> None:
    quote = ipv4(tcp(b"abcd", source=TARGET4, target=SOURCE4), 6, TARGET4, SOURCE4)
    edited = rewriter.one(
        ether(ipv4(icmp(3, 1, bytes(4) + quote), 1)), "-N", "10.0.0.0/24:172.16.0.0/24", "-r", "80:81"
    )
    inner = edited[42:]
    assert inner[12:20] == bytes([172, 16, 0, 2, 172, 16, 0, 1]) and inner[22:24] == struct.pack(">H", 81)
    assert right(edited) and right(inner, 101)


# ---- addresses ----


def test_ipv6_prefix_of_any_length(rewriter: Rewriter) -> None:
    edited = rewriter.one(UDP6, "-S", "[2001:db8::/32]:[3fff:abcd:c000::/34]")
    assert ipaddress.ip_address(edited[22:38]) == ipaddress.ip_address("3fff:abcd:c000::1")


def test_pnat_tells_the_sides_apart(rewriter: Rewriter) -> None:
    syn = bytearray(tcp())
    syn[13] = 2
    syn = summed(bytes(syn), 16, pseudo(SOURCE4, TARGET4, 6, 20))
    back = tcp(sport=80, dport=49152, source=TARGET4, target=SOURCE4)
    packets = [ether(ipv4(syn, 6)), ether(ipv4(back, 6, TARGET4, SOURCE4)), ether(ipv4(tcp(b"more"), 6))]
    options = (
        "-N",
        "10.0.0.0/24:1.0.0.0/24",
        "-N",
        "10.0.0.0/24:2.0.0.0/24",
        "--enet-smac=02:00:00:00:00:0c,02:00:00:00:00:05",
    )
    edited = rewriter(packets, *options)
    client, server = bytes([1, 0, 0, 1]), bytes([2, 0, 0, 2])
    assert [packet[26:34] for packet in edited] == [client + server, server + client, client + server]
    assert [packet[11] for packet in edited] == [12, 5, 12]
    assert all(map(right, edited))
    assert [packet[26:34] for packet in rewriter(packets, "-e", "9.9.9.1:9.9.9.2")] == [
        bytes([9, 9, 9, 1, 9, 9, 9, 2]),
        bytes([9, 9, 9, 2, 9, 9, 9, 1]),
        bytes([9, 9, 9, 1, 9, 9, 9, 2]),
    ]


def test_arp_under_endpoints_keeps_two_hosts(rewriter: Rewriter) -> None:
    arp = ether(bytes.fromhex("0001080006040001") + MACS[:6] + SOURCE4 + bytes(6) + TARGET4, 0x0806)
    edited = rewriter.one(arp, "-e", "9.9.9.1:9.9.9.2")
    assert (edited[28:32], edited[38:42]) == (bytes([9, 9, 9, 1]), bytes([9, 9, 9, 2]))


def test_a_map_file(rewriter: Rewriter, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "map.csv"
    path.write_text("from,to\n10.0.0.0/8,172.16.0.0/12\n10.0.0.2,192.0.2.1\n2001:db8::/32,fd00::/32\n# end\n")
    assert rewriter.one(TCP, "--map", str(path))[26:34] == bytes([172, 16, 0, 1, 192, 0, 2, 1])
    assert rewriter.one(UDP6, "--map", str(path))[22:24] == b"\xfd\0"
    path.write_text("10.0.0.0/8,172.16.0.0/12\nrubbish\n")
    assert rewriter.one.__self__.bytes(captures.pcap([TCP]), "--map", str(path)) == b"" and rewriter.status == 2


def test_ipmap_is_both_ways(rewriter: Rewriter) -> None:
    assert rewriter.one(TCP, "--ipmap=10.0.0.0/24:10.9.9.0/24")[26:34] == bytes([10, 9, 9, 1, 10, 9, 9, 2])


def test_multicast_mac_follows_its_group(rewriter: Rewriter) -> None:
    group = bytes([224, 1, 2, 3])
    packet = ether(ipv4(udp(b"x", target=group), 17, target=group), macs=bytes.fromhex("01005e010203 020000000001"))
    assert rewriter.one(packet, "-D", "224.1.2.3:239.5.6.7")[:6] == bytes.fromhex("01005e050607")
    assert rewriter.one(TCP, "-D", "10.0.0.2:239.5.6.7")[:6] == MACS[:6]


def test_dns_answers_follow(rewriter: Rewriter) -> None:
    name = b"\3www\0"
    answer = (
        name + struct.pack(">HHIH", 1, 1, 60, 4) + TARGET4 + b"\xc0\x0c" + struct.pack(">HHIH", 28, 1, 60, 16) + TARGET6
    )
    message = struct.pack(">HHHHHH", 1, 0x8180, 1, 2, 0, 0) + name + struct.pack(">HH", 1, 1) + answer
    packet = ether(ipv4(udp(message, sport=53, dport=4000), 17))
    edited = rewriter.one(packet, "--dns-map", "--ipmap", "10.0.0.0/24:1.2.3.0/24,[2001:db8::]/32:[fd00::]/32")
    assert (
        bytes([1, 2, 3, 2]) in edited[42:]
        and TARGET4 not in edited[42:]
        and edited[-16:-12] == bytes.fromhex("fd000000")
    )
    assert right(edited)


def test_leaks_are_counted(rewriter: Rewriter, capsys: pytest.CaptureFixture[str]) -> None:
    packets = [TCP, ether(ipv4(udp(b"host 10.0.0.2:80 up"), 17)), ether(ipv4(udp(b"xy" + SOURCE4), 17))]
    rewriter(packets, "--ipmap=10.0.0.0/24:1.2.3.0/24", "--report-leaks")
    assert "payload of 2 packets holds one of 2 changed addresses" in capsys.readouterr().err


# ---- tunnels and link layers ----


def vxlan(inner: bytes, *, sums: bool = True) -> bytes:
    outer = udp(bytes([8, 0, 0, 0, 0, 0, 7, 0]) + inner, dport=4789)
    return ether(ipv4(outer if sums else outer[:6] + b"\0\0" + outer[8:], 17))


GRE = ether(ipv4(struct.pack(">HH", 0, 0x0800) + ipv4(tcp(b"in"), 6), 47))


@pytest.mark.parametrize("packet", [vxlan(TCP), vxlan(TCP, sums=False), GRE, vxlan(vxlan(TCP))])
@pytest.mark.parametrize("which", ["--outer", "--inner", "--all-layers"])
def test_layers(packet: bytes, which: str, rewriter: Rewriter) -> None:
    edited = rewriter.one(packet, which, "--ipmap=10.0.0.0/24:172.16.0.0/24", "--ttl=9")
    outer, inner = edited[26:28] == b"\xac\x10", edited[-(len(b"payload") + 28) :]
    assert outer == (which != "--inner")
    assert (b"\xac\x10\0\1" in edited[42:]) == (which != "--outer"), inner
    assert right(edited)


@pytest.mark.parametrize(
    "packet, wanted",
    [
        (vxlan(TCP), TCP),
        (vxlan(vxlan(TCP)), TCP),
        (GRE, ether(ipv4(tcp(b"in"), 6))),
        (ether(ipv4(ipv6(udp(b"payload", source=SOURCE6, target=TARGET6), 17), 41)), UDP6),
        (ether(bytes.fromhex("000010ff") + bytes.fromhex("000021ff") + TCP[14:], 0x8847), TCP),
        (
            ether(bytes.fromhex("0064") + b"\x88\x47" + bytes.fromhex("000021ff") + TCP[14:], 0x8100),
            ether(bytes.fromhex("0064") + b"\x08\x00" + TCP[14:], 0x8100),
        ),
        (ether(bytes.fromhex("11000001") + struct.pack(">HH", len(TCP) - 12, 0x21) + TCP[14:], 0x8864), TCP),
        (TCP, TCP),
    ],
)
def test_decap(packet: bytes, wanted: bytes, rewriter: Rewriter) -> None:
    assert rewriter.one(packet, "--decap") == wanted


@pytest.mark.parametrize("out", ["enet", "linuxsll", "linuxsll2", "hdlc"])
def test_decap_and_another_link_type(out: str, rewriter: Rewriter) -> None:
    """The inner frame is what is converted, with its MAC addresses and tags."""
    tagged = rewriter.one(TCP[:6] + b"\x02inner" + TCP[12:], "--vlan-push=7")
    assert rewriter.one(vxlan(tagged), "--decap", "--dlt", out) == rewriter.one(tagged, "--dlt", out)
    cut = rewriter.one(vxlan(tagged), "--decap", "--dlt", out, "-m44", "--mtu-trunc")
    assert cut == rewriter.one(tagged, "--dlt", out, "-m44", "--mtu-trunc")


def test_vlans(rewriter: Rewriter) -> None:
    tagged = rewriter.one(TCP, "--vlan-push=100.5,802.1ad:200.1.1")
    assert tagged[12:22] == bytes.fromhex("88a830c8 8100a064 0800")
    assert rewriter.one(tagged, "--vlan-translate=100-110:300,200:7")[12:22] == bytes.fromhex("88a83007 8100a12c 0800")
    assert rewriter.one(tagged, "--vlan-pop=1")[12:18] == bytes.fromhex("8100a064 0800")
    assert rewriter.one(tagged, "--vlan-pop=all") == TCP
    assert rewriter.one(tagged, "--enet-vlan=del")[12:14] == b"\x81\0"
    added = rewriter.one(TCP, "--enet-vlan=add", "--enet-vlan-tag=45", "--enet-vlan-pri=5", "--enet-vlan-cfi=1")
    assert added[12:18] == bytes.fromhex("8100b02d 0800")


TYPES = {"enet": 1, "raw": 101, "null": 0, "loop": 108, "linuxsll": 113, "linuxsll2": 276, "hdlc": 104, "ppp": 9}


@pytest.mark.parametrize("out", TYPES)
@pytest.mark.parametrize("source", TYPES)
def test_every_link_type_to_every_other(source: str, out: str, rewriter: Rewriter) -> None:
    first = rewriter.bytes(captures.pcap([TCP, UDP6]), "--dlt", source)
    second = rewriter.bytes(first, "--dlt", out)
    found = captures.packets(second)
    assert [packet[2] for packet in found] == [TYPES[out]] * 2
    assert [packet[3][-len(ip) :] for packet, ip in zip(found, (TCP[14:], UDP6[14:]), strict=True)] == [
        TCP[14:],
        UDP6[14:],
    ]
    assert struct.unpack("<I", second[20:24])[0] == TYPES[out]
    for batch in captures.batches(second):
        assert [batch.headers(k).depth for k in range(2)] == [1, 1]


def test_llc_frames_get_their_mac(rewriter: Rewriter) -> None:
    frame = MACS + struct.pack(">H", 38) + bytes.fromhex("424203") + bytes(35)
    assert rewriter.one(frame, "--enet-dmac=02:00:00:00:00:99")[:6] == bytes.fromhex("020000000099")


# ---- lengths ----


def test_fixlen(rewriter: Rewriter) -> None:
    cut = [(1, 2, TCP[:50], len(TCP)), (1, 3, UDP6[:64], len(UDP6)), TCP]
    padded = captures.packets(rewriter.bytes(captures.pcap(cut), "-F", "pad"))
    assert [len(packet[3]) for packet in padded] == [len(TCP), len(UDP6), len(TCP)]
    trunc = captures.packets(rewriter.bytes(captures.pcap(cut), "--fixlen=trunc"))
    assert [packet[1] for packet in trunc] == [50, 64, len(TCP)]
    assert trunc[0][3][16:18] == struct.pack(">H", 36) and trunc[1][3][18:20] == struct.pack(">H", 10)
    assert trunc[1][3][58:60] == struct.pack(">H", 10) and right(trunc[1][3])
    assert [packet[3] for packet in captures.packets(rewriter.bytes(captures.pcap(cut), "-F", "del"))] == [TCP]


def test_mtu_fcs_padding(rewriter: Rewriter) -> None:
    large = ether(ipv4(udp(bytes(2000)), 17))
    edited = rewriter.one(large, "--mtu-trunc", "-m", "300")
    assert len(edited) == 314 and edited[16:18] == struct.pack(">H", 300) and right(edited)
    assert rewriter.one(TCP + b"abcd", "-E") == TCP
    padded = ether(ipv4(udp(b"x"), 17)) + bytes(17)
    assert rewriter.one(padded, "--fixhdrlen")[16:18] == struct.pack(">H", len(padded) - 14)
    broken = padded[:24] + b"\0\0" + padded[26:]
    assert rewriter.one(broken, "-C") == padded


def test_chop_and_snaplen(rewriter: Rewriter) -> None:
    assert rewriter.one(TCP, "--chop=4,-2") == TCP[4:-2]
    assert rewriter.one(TCP, "--chop=12:4") == TCP[:12] + TCP[16:]
    [packet] = captures.packets(rewriter.bytes(captures.pcap([TCP]), "--snaplen=30"))
    assert (packet[1], packet[3]) == (len(TCP), TCP[:30])
    [packet] = captures.packets(rewriter.bytes(captures.pcap([TCP]), "--chop=-5", "--chop-length"))
    assert packet[1] == len(TCP) - 5


# ---- time and choosing ----

US = [(100 + k, k, ether(ipv4(udp(bytes([k]) * 9), 17)), 51) for k in range(6)]


def times(data: bytes) -> list[int]:
    return [packet[0] for packet in captures.packets(data)]


def test_time(rewriter: Rewriter) -> None:
    data = captures.pcap(US)
    assert times(rewriter.bytes(data, "--shift=-1.5"))[:2] == [98_500_000_000, 99_500_001_000]
    assert times(rewriter.bytes(data, "--shift=7ns", "--format=nspcap"))[:2] == [100_000_000_007, 101_000_001_007]
    assert times(rewriter.bytes(data, "--scale=0.1"))[:3] == [100_000_000_000, 100_100_000_000, 100_200_000_000]
    assert times(rewriter.bytes(data, "--start=2026-11-21T00:00:00Z"))[0] == 1_795_219_200_000_000_000
    assert times(rewriter.bytes(data, "--min-gap=2"))[:3] == [100_000_000_000, 102_000_000_000, 104_000_000_000]
    mixed = captures.pcap([US[0], US[2], US[1], US[3]])
    assert times(rewriter.bytes(mixed, "--monotonic"))[2] == 102_000_002_000
    assert times(rewriter.bytes(mixed, "--reorder=2")) == sorted(times(mixed))


@pytest.mark.parametrize("resolution", [3, 6, 9, 12, 0x8A, 0xBC])
def test_time_of_any_resolution(resolution: int, rewriter: Rewriter) -> None:
    blocks = PcapngBlocks(">")
    unit = 2 ** (resolution & 127) if resolution & 128 else 10**resolution
    ticks = [min(unit, 1 << 62) * k for k in (1, 2)]
    data = (
        blocks.section() + blocks.interface(resolution=resolution) + b"".join(blocks.packet(TCP, 0, t) for t in ticks)
    )
    before, after = times(data), times(rewriter.bytes(data, "--shift=1"))
    assert [b - a for a, b in zip(before, after, strict=True)] == [10**9] * 2


def numbers(data: bytes) -> list[int]:
    return [packet[3][42] for packet in captures.packets(data)]


def test_choosing(rewriter: Rewriter) -> None:
    data = captures.pcap(US)
    assert numbers(rewriter.bytes(data, "--packets=1-2,4,6-")) == [0, 1, 3, 5]
    assert numbers(rewriter.bytes(data, "--from=101.000001", "--to=104")) == [1, 2, 3]
    assert numbers(rewriter.bytes(data, "--sample=2", "-f", "udp")) == [0, 2, 4]
    edited = captures.packets(rewriter.bytes(data, "--packets=2", "--edit-only", "--ttl=9"))
    assert [packet[3][22] for packet in edited] == [64, 9, 64, 64, 64, 64]
    edited = captures.packets(rewriter.bytes(data, "-f", "udp[8]=1", "--edit-only", "--vlan-push=1"))
    assert [len(packet[3]) for packet in edited] == [51, 55, 51, 51, 51, 51]


@pytest.mark.parametrize("most, early", [(1 << 20, False), (3000, True)])
def test_a_window_that_memory_does_not_hold(most: int, early: bool) -> None:
    said: list[str] = []
    account = Account(said.append, said.append)
    packets = [(100 + k % 2 * 50 + k // 40, 0, TCP, len(TCP)) for k in range(400)]
    sorter = Reorder(account, 60 * 10**9, most)
    out = []
    for at in range(0, 400, 10):
        for batch in captures.batches(captures.pcap(packets[at : at + 10])):
            out += [record.time for made in sorter.feed(batch) for record in made.records()]
    out += [record.time for made in sorter.finish() for record in made.records()]
    assert len(out) == 400
    assert (out != sorted(out)) == (sorter.late > 0) == (account.status == 1) == early
    assert not early or "than memory" in said[-1]


def test_more_packets_than_a_window_in_time_holds(rewriter: Rewriter, capsys: pytest.CaptureFixture[str]) -> None:
    frame = ether(ipv4(bytes(4), 253))
    frames = [frame[:-4] + struct.pack(">I", k) for k in range(250_000)]
    data = captures.pcap([*frames, frames[0], frames[-1]])
    assert len(times(rewriter.bytes(data, "--dedup", "--dedup-window=1000000s"))) == 250_001
    assert rewriter.status == 1 and "too long for memory" in capsys.readouterr().err


def test_duplicates(rewriter: Rewriter) -> None:
    routed = bytearray(US[0][2])
    routed[22] -= 1
    twice = [US[0], (100, 9, rewriter.one(bytes(routed), "-C", "--vlan-push=3"), 55), US[1], (109, 0, US[0][2], 51)]
    data = captures.pcap(twice)
    assert len(times(rewriter.bytes(data, "--dedup"))) == 2
    assert len(times(rewriter.bytes(data, "--dedup", "--dedup-window=1"))) == 3
    assert len(times(rewriter.bytes(data, "--dedup", "--dedup-window=2s"))) == 3


# ---- reports and refusals ----


def test_report(rewriter: Rewriter, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--dry-run", "--json", "-S", "10.0.0.1:1.1.1.1,10.0.0.0/8:2.0.0.0/8", "-r", "80:81"]
    assert rewriter.bytes(captures.pcap([TCP, TCP, UDP6]), *argv) == b""
    found = json.loads(capsys.readouterr().out)
    assert [rule.get("addresses", rule.get("ports")) for rule in found["rules"]] == [2, 0, 2]
    assert [rule["packets"] for rule in found["rules"]] == [2, 0, 2]
    assert found["addresses"] == {"seen": 1, "unmapped": 0, "not_mapped": []}
    assert found["edits"]["edited"] == 2 and found["checksums_before"]["header"]["right"] == 2


def test_long_lists_of_rules(rewriter: Rewriter, tmp_path: pathlib.Path) -> None:
    """The first that fits decides, however many there are."""
    chance = random.Random(3)
    nets = [f"{ipaddress.ip_address(chance.getrandbits(32))}/{chance.randint(6, 32)}" for _ in range(9000)]
    options = tmp_path / "options"
    options.write_text("ipmap " + ",".join(f"{net}:{k >> 8 & 255}.{k & 255}.0.0/32" for k, net in enumerate(nets)))
    hosts = [chance.randbytes(4) for _ in range(60)]
    edited = rewriter([ether(ipv4(b"", 253, source=host)) for host in hosts], "-q", "--load-opts", str(options))
    known = [ipaddress.ip_network(net, strict=False) for net in nets]
    for host, packet in zip(hosts, edited, strict=True):
        number = next((k for k, net in enumerate(known) if ipaddress.ip_address(host) in net), None)
        assert packet[26:30] == (host if number is None else bytes([number >> 8, number & 255, 0, 0]))


def test_a_map_file_with_a_mistake_far_down(
    rewriter: Rewriter, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "map.csv"
    hosts = [f"{k >> 16}.{k >> 8 & 255}.{k & 255}" for k in range(300_000)]
    lines = "".join(f"10.{host},11.{host}\n" for host in hosts)
    path.write_text(lines)
    assert rewriter.one(TCP, "--map", str(path))[26:34] == bytes([11, 0, 0, 1, 11, 0, 0, 2])
    path.write_text(lines + "10.1.2.3;11.1.2.3\n")
    assert rewriter.bytes(captures.pcap([TCP]), "--map", str(path)) == b"" and rewriter.status == 2
    assert "line 300001 is not FROM,TO" in capsys.readouterr().err


def test_report_names_what_is_not_mapped(rewriter: Rewriter, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--dry-run", "--report", "--ipmap", "10.0.0.1:1.1.1.1", "--ttl=9", "--anonymize-payload=zero"]
    rewriter.bytes(captures.pcap([TCP, TCP, UDP6]), *argv)
    lines = capsys.readouterr().out.splitlines()
    assert "--ipmap 10.0.0.1/32 -> 1.1.1.1/32: 2 packets, 2 addresses" in lines
    assert "--ttl 9: 3 packets" in lines
    assert "addresses seen: 4, not mapped: 3 (10.0.0.2, 2001:db8::1, 2001:db8::2)" in lines
    assert "header checksums before: 2 right, 0 wrong, 1 none, 0 fragment, 0 snapped, 0 malformed" in lines
    rewriter.bytes(captures.pcap([TCP]), "--dry-run", "--json", "--anonymize=secret", "-e", "1.1.1.1:2.2.2.2")
    out = capsys.readouterr().out
    assert "secret" not in out and json.loads(out)["rules"][0]["option"] == "--endpoints"


@pytest.mark.parametrize(
    "argv",
    [
        "--portmap 80",
        "--portmap :",
        "--dns-map --ttl=3",
        "--report-leaks",
        "--portmap 1-0:3",
        "--ttl=x",
        "--ttl=256",
        "--tos=-1",
        "-N 1.1.1.1",
        "-N ,",
        "-e 1.1.1.1",
        "--enet-vlan=add",
        "--enet-vlan-tag=7",
        "--dlt=ieee80211",
        "--dlt=user",
        "-F cut",
        "--inner --outer",
        "--edit-only",
        "--anonymize-payload=random",
        "--anonymize=",
        "--packets=0",
        "--packets=3-1",
        "--sample=0",
        "--shift=1.0000000001",
        "--scale=0",
        "--start=never",
        "--chop=0",
        "--vlan-push=5000",
        "--vlan-pop=0",
        "--vlan-translate=1",
        "--dedup-window=3",
        "--comment=x",
        "--map=/no/such",
        "--cachefile=/no/such",
        "--load-opts=/no/such",
        "--user-dlink=zz",
        "--enet-smac=,",
        "--enet-subsmac=02:00:00:00:00:01",
        "--hdlc-address=1",
        "--pnat=a --pnat=b --pnat=c",
        "--seed=-1",
    ],
)
def test_refusals(argv: str, rewriter: Rewriter, capsys: pytest.CaptureFixture[str]) -> None:
    assert rewriter.bytes(captures.pcap([TCP]), *argv.split()) == b""
    assert rewriter.status == 2
    assert capsys.readouterr().err.startswith("pcaprewrite: ")


# ---- everything on everything ----

SINGLE = [
    "-N 0.0.0.0/1:128.0.0.0/1,[::]/1:[8000::]/1",
    "-e 10.10.0.1:10.10.0.2",
    "-s 55",
    "-s 5 -b",
    "-r 1-65535:7",
    "--tcp-sequence=42",
    "--ttl=+58",
    "--ttl=-58",
    "--tos=50 --tclass=7 --flowlabel=9",
    "-C",
    "--fixhdrlen",
    "--mtu-trunc -m 300",
    "-F pad",
    "-F trunc",
    "-F del",
    "-E",
    "--enet-dmac=00:12:13:14:15:16,00:22:33:44:55:66 --skipl2broadcast",
    "--enet-subsmac=00:1f:f3:3c:e1:13,00:22:33:44:55:66",
    "--enet-mac-seed=42 --enet-mac-seed-keep-bytes=3",
    "--enet-vlan=add --enet-vlan-tag=45",
    "--enet-vlan=del",
    "--decap",
    "--vlan-push=1,2",
    "--vlan-pop=all",
    "--fuzz-seed=42 --fuzz-factor=2",
    "--anonymize=key",
    "--anonymize=key:random --anonymize-mac=vendor",
    "--anonymize-payload=zero",
    "--anonymize=k --anonymize-payload=random",
    "--anonymize-payload=drop",
    "--snaplen=60",
    "--chop=2,-3",
    "--all-layers --ipmap 0.0.0.0/0:10.0.0.0/8",
    "--inner --ttl=3",
    "--shift=1.5 --scale=2 --monotonic",
    "--reorder=1",
    "--dedup",
    "--dns-map --ipmap 0.0.0.0/0:10.0.0.0/8 --report-leaks",
    "--strip-comments --discard-secrets",
    "--packets=2- --edit-only --tos=1",
]

MAY_DAMAGE = ("--fuzz", "--chop", "-E", "--mtu-trunc", "-F", "--fixhdrlen", "--snaplen", "--decap")


def small() -> list[str]:
    return [path for path in captures.sound(perf=False) if len(captures.content(path)) < 200_000]


def bad(data: bytes) -> int:
    return sum(found["wrong"] for found in sums(data))


def attempt(path: str, argv: list[str], rewriter: Rewriter) -> None:
    """No crash, a sound capture, no packet missing that was not dropped by name, no checksum bad that was good."""
    data = captures.content(path)
    out = rewriter.bytes(data, "-q", *argv)
    assert rewriter.status in (0, 1), (path, argv)
    before, after = len(captures.packets(data)), len(captures.packets(out))
    if not any(option in argv for option in ("-F", "--dedup", "--fuzz-seed=42", "--dlt=raw", "--dlt=linuxsll")):
        assert after == before, (path, argv)
    if not any(word.startswith(MAY_DAMAGE) for word in argv):
        assert bad(out) <= bad(data), (path, argv)


@captures.needs_captures
@pytest.mark.parametrize("argv", SINGLE)
def test_every_option_on_real_captures(argv: str, rewriter: Rewriter) -> None:
    chosen = random.Random(argv).sample(small(), 25)
    for path in chosen:
        attempt(path, argv.split(), rewriter)


@captures.needs_captures
@pytest.mark.parametrize("seed", range(12))
def test_random_combinations(seed: int, rewriter: Rewriter) -> None:
    chance = random.Random(seed)
    for path in chance.sample(small(), 12):
        argv = " ".join(
            chance.sample([one for one in SINGLE if "layers" not in one and "--inner" not in one], 3)
        ).split()
        names = [word.partition("=")[0] for word in argv if word.startswith("-") and word not in ("-N",)]
        if len(set(names)) < len(names):
            continue
        try:
            attempt(path, argv, rewriter)
        except AssertionError:
            if rewriter.status != 2:
                raise


@captures.needs_captures
@pytest.mark.parametrize(
    "argv", ["-N 1.1.1.1:2.2.2.2", "--ipmap [::9]:[::8]", "-r 1:1", "--vlan-translate=4000:1", "-F pad"]
)
def test_edits_that_match_nothing_change_nothing(argv: str, rewriter: Rewriter) -> None:
    for path in ("http/zeek__methods.pcap", "live-tcp/zeek__port4242.pcap", "formats/dnscap__dns.pcap.gz"):
        assert rewriter.bytes(captures.content(path), *argv.split()) == captures.content(path)


@captures.needs_captures
def test_tshark_finds_nothing_else_changed(rewriter: Rewriter, tmp_path: pathlib.Path) -> None:
    fields = (
        "ip.src",
        "ip.dst",
        "ip.ttl",
        "tcp.srcport",
        "tcp.seq_raw",
        "tcp.ack_raw",
        "eth.src",
        "eth.dst",
        "frame.len",
        "ip.checksum.status",
        "tcp.checksum.status",
        "tcp.payload",
    )
    path = captures.ROOT / "http/zeek__methods.pcap"
    rewriter.bytes(path.read_bytes(), "--ttl=9", "--portmap=80:8080")
    before, after = captures.tshark(path, fields), captures.tshark(tmp_path / "out", fields)
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert {name for name in fields if old[name] != new[name]} <= {"ip.ttl", "tcp.srcport"}
        assert new["ip.ttl"] == ["9"]


def test_icmpv6_errors_and_discovery(rewriter: Rewriter) -> None:
    quote = ipv6(udp(b"abcd", source=TARGET6, target=SOURCE6), 17, TARGET6, SOURCE6)
    for body in (icmpv6(1, 0, bytes(4) + quote), icmpv6(135, 0, bytes(4) + TARGET6)):
        edited = rewriter.one(ether(ipv6(body, 58), 0x86DD), "-N", "[2001:db8::]/32:[fd00::]/32")
        assert bytes.fromhex("20010db8") not in edited and right(edited)


# ---- frame check sequences, and checksums of rarer protocols ----


def with_fcs(frame: bytes) -> bytes:
    return frame + zlib.crc32(frame).to_bytes(4, "little")


RADIOTAP = bytes.fromhex("000009001000000010")
WLAN = bytes.fromhex("08000000 000000000001 020000000002 000000000003 0000 aaaa030000000800")


@pytest.mark.parametrize(
    "argv",
    (
        "-S 10.0.0.0/8:11.0.0.0/8 -C",
        "--ttl=9",
        "--enet-dmac=02:00:00:00:00:09",
        "--anonymize=k",
        "-C",
        "--vlan-push=5",
        "--anonymize-payload=zero",
    ),
)
def test_a_right_frame_check_sequence_stays_right(argv: str, rewriter: Rewriter) -> None:
    spoilt = bytearray(ipv4(udp(b"data", source=b"\x0a\0\0\1"), 17, source=b"\x0a\0\0\1"))
    if argv == "-C":
        spoilt[10] ^= 1
    frame = with_fcs(ether(bytes(spoilt)) + bytes(20))
    assert captures.has_fcs(frame)
    new = rewriter.one(frame, *argv.split())
    assert new[:-4] != frame[:-4]
    assert captures.has_fcs(new)
    wrong = frame[:-1] + bytes([frame[-1] ^ 1])
    if "payload" not in argv:
        assert rewriter.one(wrong, *argv.split())[-4:] == wrong[-4:]


def test_the_frame_check_sequence_of_802_11_stays_right(rewriter: Rewriter) -> None:
    frame = RADIOTAP + with_fcs(WLAN + ipv4(tcp(b"data"), 6))
    for argv in (f"--srcipmap={ipaddress.ip_address(SOURCE4)}:9.9.9.9", "--anonymize=key"):
        new = rewriter.one(frame, argv, linktype=127)
        assert new != frame
        assert new[-4:] == zlib.crc32(new[len(RADIOTAP) : -4]).to_bytes(4, "little")


def vrrp(source: bytes, target: bytes, *, covers: bool) -> bytes:
    """An advertisement of version 3 (RFC 5798), with or without the pseudo header in its checksum."""
    message = bytes.fromhex("31016401000a0000") + (SOURCE4 if len(source) == 4 else SOURCE6)
    total = captures.checksum((pseudo(source, target, 112, len(message)) if covers else b"") + message)
    return message[:6] + struct.pack(">H", total) + message[8:]


@pytest.mark.parametrize("covers", [True, False])
def test_checksum_of_vrrp(covers: bool, rewriter: Rewriter) -> None:
    new = rewriter.one(ether(ipv4(vrrp(SOURCE4, TARGET4, covers=covers), 112)), "-S", "0.0.0.0/0:9.9.9.9", "-b")
    assert new[34:] == vrrp(b"\x09" * 4, TARGET4, covers=covers)


def test_checksum_of_vrrp_over_ipv6(rewriter: Rewriter) -> None:
    packet = ether(ipv6(vrrp(SOURCE6, TARGET6, covers=True), 112), 0x86DD)
    new = rewriter.one(packet, "-S", "[::/0]:[fd00::9]")
    assert new[54:] == vrrp(ipaddress.ip_address("fd00::9").packed, TARGET6, covers=True)


def test_an_echo_reply_of_zeros_has_a_checksum(rewriter: Rewriter) -> None:
    new = rewriter.one(ether(ipv4(icmp(0, 0, bytes(4) + b"data"), 1)), "--anonymize-payload=zero")
    assert new[34:] == icmp(0, 0, bytes(4) + bytes(4)) == b"\0\0\xff\xff" + bytes(8)


def test_anonymous_payload_of_rarer_protocols(rewriter: Rewriter) -> None:
    eigrp = summed(bytes.fromhex("02050000") + bytes(16) + b"routes and more", 2)
    new = rewriter.one(ether(ipv4(eigrp, 88)), "--anonymize-payload=zero")
    assert new[34:] == summed(bytes.fromhex("02050000") + bytes(16) + bytes(15), 2)

    head = bytes.fromhex("1389138904010000 01000000 0000 0001")  # covers its header only
    dccp = head[:6] + struct.pack(">H", captures.checksum(pseudo(SOURCE4, TARGET4, 33, 20) + head)) + head[8:] + b"text"
    assert rewriter.one(ether(ipv4(dccp, 33)), "--anonymize-payload=zero")[34:] == dccp[:16] + bytes(4)

    gre = struct.pack(">HHHH", 0x8000, 0xFE, 0, 0) + b"something"
    gre = gre[:4] + struct.pack(">H", captures.checksum(gre)) + gre[6:]
    new = rewriter.one(ether(ipv4(gre, 47)), "--anonymize-payload=zero")[34:]
    assert (new[:4], new[8:]) == (gre[:4], bytes(9))
    assert captures.checksum(new) == 0


def test_what_has_no_ethernet_header_has_no_mac_to_replace(rewriter: Rewriter) -> None:
    packet = ipv4(tcp(), 6)
    assert rewriter.one(packet, "--enet-subsmac=02:00:00:00:00:01,02:00:00:00:00:02", linktype=101) == packet
    assert rewriter.status == 0


def test_two_outputs_contradict(rewriter: Rewriter, capsys: pytest.CaptureFixture) -> None:
    rewriter.bytes(captures.pcap([]), "-o", str(rewriter.directory / "other"))
    assert rewriter.status == 2
    assert "--outfile and --write contradict" in capsys.readouterr().err


def test_a_foreign_tool_is_named(capsys: pytest.CaptureFixture) -> None:
    assert pcaprewrite.main(["--compat=editcap", "in", "out"]) == 2
    assert "'editcap' is not tcprewrite" in capsys.readouterr().err
