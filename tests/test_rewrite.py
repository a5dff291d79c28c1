"""Edits in place: what a map means, and that every checksum follows."""

import ipaddress
import random
import struct

import captures
import pytest
from captures import (
    MACS,
    SOURCE4,
    SOURCE6,
    TARGET4,
    TARGET6,
    PcapngBlocks,
    batches,
    checksum,
    ether,
    icmp,
    icmpv6,
    ipv4,
    ipv6,
    one_batch,
    one_packet,
    pseudo,
    summed,
    tcp,
    udp,
    udplite,
)
from test_checksums import BAD, FIELDS, GOOD, every_kind, found, statuses

from pcaptools.engines.rewrite import Rewrite, narrowing, parse_mac, parse_map

NOISE = random.Random(3).randbytes(200)


def rewrite(source: str | None = None, target: str | None = None, **options) -> Rewrite:
    maps = {"source_map": source, "destination_map": target}
    return Rewrite(**{name: parse_map(text) for name, text in maps.items() if text}, **options)


def edited(packet: bytes, transform: Rewrite, linktype: int = 101, wire: int | None = None) -> bytes:
    batch = one_packet(packet, linktype, wire)
    assert list(transform.feed(batch)) == [batch]
    return bytes(batch.packet(0))


# ---- maps ----


def mapped(address: bytes, rules) -> bytes:
    """What a list of (network, network) makes of an address: the first that fits decides."""
    old = ipaddress.ip_address(address)
    for source, target in rules:
        if old.version == source.version and old in source:
            return (int(target.network_address) | int(old) & int(target.hostmask)).to_bytes(len(address), "big")
    return address


def random_network(chance: random.Random, version: int, near: bytes):
    """A network of any prefix length, often one that an address lies in."""
    size = len(near)
    address = near if chance.randrange(3) else chance.randbytes(size)
    return ipaddress.ip_network((address, chance.randint(0, size * 8)), strict=False)


def text(rules) -> str:
    form = {4: "{}".format, 6: lambda network: f"[{network.network_address}]/{network.prefixlen}"}
    return ",".join(":".join(form[network.version](network) for network in rule) for rule in rules)


def random_rules(chance: random.Random, *addresses: bytes):
    rules = []
    for _ in range(chance.randint(1, 4)):
        near = chance.choice(addresses)
        version = 4 if len(near) == 4 else 6
        rules.append(
            (random_network(chance, version, near), random_network(chance, version, chance.randbytes(len(near))))
        )
    return rules


@pytest.mark.parametrize("version", [4, 6])
def test_any_networks(version):
    """Prefix lengths of 0 to all bits, narrowing and widening, several rules: as the arithmetic of ipaddress has it."""
    chance = random.Random(version)
    size, at = (4, 12) if version == 4 else (16, 8)
    changed = 0
    for _ in range(1500):
        source, target = chance.randbytes(size), chance.randbytes(size)
        packet = (ipv4 if version == 4 else ipv6)(NOISE[:8], 255 if version == 4 else 59, source, target)
        maps = [random_rules(chance, source, target) for _ in range(2)]
        result = edited(packet, rewrite(text(maps[0]), text(maps[1])))
        expected = mapped(source, maps[0]) + mapped(target, maps[1])
        assert result[at : at + 2 * size] == expected, maps
        assert result[at + 2 * size :] == packet[at + 2 * size :]
        changed += result != packet
    assert changed > 500


def test_the_first_rule_decides():
    two = "10.0.0.0/8:192.0.2.0/24,10.0.0.1/32:198.51.100.0/24"
    assert edited(ipv4(b"", 255), rewrite(two))[12:20] == bytes([192, 0, 2, 1]) + TARGET4
    other = ",".join(reversed(two.split(",")))
    assert edited(ipv4(b"", 255), rewrite(other))[12:20] == bytes([198, 51, 100, 1]) + TARGET4


def test_source_and_target_each_have_their_map():
    packet = ipv4(tcp(), 6)
    assert edited(packet, rewrite(target="10.0.0.0/24:10.1.0.0/24"))[12:20] == SOURCE4 + bytes([10, 1, 0, 2])
    assert edited(packet, rewrite("10.0.0.0/24:10.1.0.0/24"))[12:20] == bytes([10, 1, 0, 1]) + TARGET4


def test_versions_do_not_mix():
    both = rewrite("10.0.0.0/8:11.0.0.0/8,[2001:db8::]/32:[2001:db9::]/32")
    assert edited(ipv4(b"", 255), both)[12:16] == bytes([11, 0, 0, 1])
    assert edited(ipv6(b"", 59), both)[8:24] == bytes.fromhex("20010db9") + SOURCE6[4:]
    assert edited(ipv6(b"", 59), rewrite("0.0.0.0/0:1.2.3.4/32")) == ipv6(b"", 59)


@pytest.mark.parametrize(
    "map_text, rules",
    [
        ("10.0.0.0/8:192.168.0.0/16", [("10.0.0.0/8", "192.168.0.0/16")]),
        ("10.0.0.1:10.0.0.2", [("10.0.0.1/32", "10.0.0.2/32")]),
        ("10.1.2.3/8:1.2.3.4/30", [("10.0.0.0/8", "1.2.3.4/30")]),
        ("[2001:db8::]/32:[fd00::]/8", [("2001:db8::/32", "fd00::/8")]),
        ("[2001:db8::/32]:[fd00::/8]", [("2001:db8::/32", "fd00::/8")]),
        ("[::1]:[::2],1.1.1.1:2.2.2.2", [("::1/128", "::2/128"), ("1.1.1.1/32", "2.2.2.2/32")]),
    ],
)
def test_parse_map(map_text, rules):
    assert [(str(source), str(target)) for source, target in parse_map(map_text)] == rules


@pytest.mark.parametrize(
    "bad", ["", "10.0.0.0/8", "10.0.0.0/33:1.1.1.1", "10.0.0.0/8:[fd00::]/8", "x:y", "fd00::/8:fe80::/8",
            "1.1.1.1:2.2.2.2,", "[::1:[::2]", "1.1.1.1:2.2.2.2:3.3.3.3"]
)  # fmt: skip
def test_parse_map_refuses(bad):
    with pytest.raises(ValueError):
        parse_map(bad)


def test_narrowing():
    rules = parse_map("10.0.0.0/8:192.168.0.0/16,10.0.0.0/16:11.0.0.0/16,10.0.0.0/16:11.0.0.0/8")
    assert narrowing(rules) == ["10.0.0.0/8 onto 192.168.0.0/16"]


def test_parse_mac():
    assert parse_mac("08:00:27:85:2a:8") == parse_mac("08-00-27-85-2A-08") == bytes.fromhex("080027852a08")
    for bad in (
        "",
        "08:00:27:85:2a",
        "08:00:27:85:2a:08:01",
        "08:00:27:85:2a:100",
        "08:00:27:85:2a:x",
        "08:00:27:85:2a:",
    ):
        with pytest.raises(ValueError, match="MAC"):
            parse_mac(bad)


# ---- checksums follow ----

AT = {6: 16, 17: 6, 136: 6, 1: 2, 2: 2, 58: 2}


def wrongness(packet: bytes) -> tuple[int, ...]:
    """By how much the sums of a whole packet are off: 0 is right. Modulo 2**16 - 1, in which 0 and all ones are one."""
    if packet[0] >> 4 == 4:
        head, protocol, addresses = (packet[0] & 15) * 4, packet[9], packet[12:20]
    else:
        head, protocol, addresses = 40, packet[6], packet[8:40]
    data, half = packet[head:], len(addresses) // 2
    front = pseudo(addresses[:half], addresses[half:], protocol, len(data)) if protocol in (6, 17, 58, 136) else b""
    transport = checksum(front + data) % 0xFFFF if protocol in AT else 0
    return (checksum(packet[:head]) % 0xFFFF if packet[0] >> 4 == 4 else 0, transport)


def everywhere(chance: random.Random) -> Rewrite:
    """Maps that change every address."""
    first, second = (f"{chance.randrange(1, 224)}.0.0.0/{chance.randint(1, 31)}" for _ in range(2))
    six, seven = (f"[{ipaddress.ip_address(chance.randbytes(16))}]/{chance.randint(1, 127)}" for _ in range(2))
    return rewrite(f"0.0.0.0/0:{first},[::]/0:{six}", f"0.0.0.0/0:{second},[::]/0:{seven}")


def spoilt(packet: bytes, chance: random.Random) -> bytes:
    """Another header checksum, and another byte behind the header."""
    head = 20 if packet[0] >> 4 == 4 else 40
    wrong = bytearray(packet)
    wrong[10 if head == 20 else 7] ^= chance.randrange(256)
    wrong[min(head + 8, len(packet) - 1)] ^= chance.randrange(256)
    return bytes(wrong)


def test_right_stays_right_and_wrong_stays_wrong():
    chance = random.Random(11)
    edits = 0
    for _ in range(300):
        for name, packet, *_ in every_kind(chance.randrange(40)):
            if chance.randrange(2):
                packet = spoilt(packet, chance)
            after = edited(packet, everywhere(chance))
            assert wrongness(after) == wrongness(packet), name
            edits += after != packet
    assert edits > 3000


def test_a_sum_of_zero_is_all_ones_in_udp():
    """A source whose right checksum is zero, and its neighbours: UDP and UDP-Lite must not send zero."""
    for packet in (ipv4(udp(b"data"), 17), ipv4(udplite(b"data"), 136)):
        (value,) = struct.unpack_from(">H", packet, 26)
        seen = []
        for low in (value, value + 1, value + 2):  # the source was 10.0.0.1
            after = edited(packet, rewrite(f"10.0.0.1:10.0.{low >> 8}.{low & 255}"))
            assert found(after) == ("right", "right")
            seen.append(after[26:28])
        assert seen == [b"\0\1", b"\xff\xff", b"\xff\xfe"]


def test_no_udp_checksum_stays_none():
    packet = ipv4(udp(b"data")[:6] + b"\0\0data", 17)
    after = edited(packet, rewrite("0.0.0.0/0:1.2.3.4", "0.0.0.0/0:4.3.2.1"))
    assert after[12:] == bytes([1, 2, 3, 4, 4, 3, 2, 1]) + packet[20:]
    assert found(after) == ("right", "none")


def fragments4(packet: bytes, size: int):
    data = packet[20:]
    for at in range(0, len(data), size):
        more = 0x2000 if at + size < len(data) else 0
        yield ipv4(data[at : at + size], packet[9], packet[12:16], packet[16:20], fragment=more | at // 8)


def fragments6(packet: bytes, size: int):
    data = packet[40:]
    for at in range(0, len(data), size):
        header = struct.pack(">BBHI", packet[6], 0, at | (at + size < len(data)), 7)
        yield ipv6(header + data[at : at + size], 44, packet[8:24], packet[24:40])


@pytest.mark.parametrize("size", [8, 16, 24, 40])
def test_fragments_put_together_are_right(size):
    """Wherever the fragment with the checksum begins."""
    six = {"source": SOURCE6, "target": TARGET6}
    maps = rewrite("0.0.0.0/0:1.2.0.0/15,[::]/0:[fd00::]/9", "0.0.0.0/0:99.0.0.0/8,[::]/0:[fe00::]/7")
    for name, data, protocol in (("tcp", tcp, 6), ("udp", udp, 17)):
        packet = ipv4(data(NOISE[:77]), protocol)
        parts = [edited(part, maps) for part in fragments4(packet, size)]
        assert all(checksum(part[:20]) == 0 for part in parts)
        assert len({part[12:20] for part in parts}) == 1
        whole = ipv4(b"".join(part[20:] for part in parts), protocol, parts[0][12:16], parts[0][16:20])
        assert wrongness(whole) == (0, 0), name
        packet = ipv6(data(NOISE[:77], **six), protocol)
        parts = [edited(part, maps) for part in fragments6(packet, size)]
        whole = ipv6(b"".join(part[48:] for part in parts), protocol, parts[0][8:24], parts[0][24:40])
        assert wrongness(whole) == (0, 0), name


def test_snapped_packets():
    """What was captured is edited as if all had been; without both addresses nothing is."""
    chance = random.Random(13)
    for name, packet, *_ in every_kind(30):
        maps = everywhere(chance)
        after, behind = edited(packet, maps), 20 if packet[0] >> 4 == 4 else 40
        for cut in range(len(packet)):
            part = edited(packet[:cut], maps, 101, len(packet))
            if cut >= behind and not packet[0] & 15 > 5:
                split = {behind + AT.get(packet[9 if behind == 20 else 6], -9) + 1}
                if name == "igmp":  # its checksum follows a group that is not there
                    split.update(range(behind + 4, behind + 8))
                assert cut in split or part == after[:cut], (name, cut)
            elif cut < behind:
                assert part == packet[:cut]
    maps = everywhere(chance)
    edited(ipv4(tcp(), 6)[:19], maps, 101, 40)
    assert maps.counts["cut"] == 1


def test_padding_is_left_alone():
    """Behind an IP packet that ends before its transport checksum, too."""
    packet = ipv4(tcp()[:12], 6) + NOISE[:14]
    after = edited(packet, everywhere(random.Random(1)))
    assert after[20:] == packet[20:]


def test_source_routes():
    """The pseudo header holds the last address of a route."""
    final = bytes([172, 16, 0, 9])
    packet = ipv4(tcp(b"data", target=final), 6, options=b"\1\x83\x07\x04" + final)
    after = edited(packet, rewrite("10.0.0.1:1.1.1.1", "10.0.0.2:2.2.2.2"))
    assert after[12:20] == bytes([1, 1, 1, 1, 2, 2, 2, 2]) and after[24:28] == final
    assert found(after) == ("right", "right")
    for options in (b"\1\x83\x07\x04" + final, b"\x83\x07\x04" + final + b"\0"):
        packet = ipv4(tcp(b"data", target=final), 6, options=options)
        after = edited(packet, rewrite("0.0.0.0/0:99.0.0.0/8", "0.0.0.0/0:98.0.0.0/8"))
        assert final not in after and found(after) == ("right", "right")
    last = bytes.fromhex("20010db80000000000000000000000ff")
    packet = ipv6(struct.pack(">BBBBI", 6, 2, 0, 1, 0) + last + tcp(b"data", source=SOURCE6, target=last), 43)
    after = edited(packet, rewrite("[::]/0:[fd00::]/8", "[::]/0:[fc00::]/8"))
    assert after[8:40] != packet[8:40] and after[48:64] == b"\xfc" + last[1:]
    assert found(after) == ("none", "right")


def test_recorded_addresses():
    """What is not recorded yet is no address."""
    maps = rewrite("10.0.0.0/8:1.0.0.0/8", "0.0.0.0/0:99.0.0.0/8")
    seen, free = bytes([10, 0, 0, 7]), bytes([1, 2, 3, 4])
    for option, old in (
        (bytes([7, 11, 8]) + seen + free, free),
        (bytes([68, 20, 13, 1]) + seen + bytes(4) + free * 2, free),
        (bytes([68, 12, 5, 0]) + seen + free, seen + free),
    ):
        packet = ipv4(tcp(b"data"), 6, options=option + bytes(-len(option) % 4))
        after = edited(packet, maps)
        assert old in after and found(after) == ("right", "right")
        assert (bytes([99, 0, 0, 7]) in after) == (option[3] != 0)


def test_routing_headers():
    """Types 0 and 4, with and without segments left; in quotes too."""
    maps = rewrite("[2001:db8::]/32:[fd01::]/32", "[2001:db8::]/32:[fd02::]/32")
    hops = [TARGET6[:15] + bytes([k]) for k in (7, 8)]
    for kind, left, final in ((0, 2, hops[1]), (0, 0, TARGET6), (4, 1, hops[0]), (4, 0, TARGET6), (2, 1, hops[0])):
        head = struct.pack(">BBBBBBH", 6, 4, kind, left, 1 if kind == 4 else 0, 0, 0) + b"".join(hops)
        packet = ipv6(head + tcp(b"data", source=SOURCE6, target=final), 43)
        after = edited(packet, maps)
        assert found(packet) == found(after) == ("none", "right"), (kind, left)
        assert after[48:52] == bytes.fromhex("fd020000")
        assert after[64:68] == (packet if kind == 2 else after[48:])[:4] or kind == 2
        error = edited(ipv6(icmpv6(1, 0, bytes(4) + packet), 58), rewrite("[2001:db8::]/32:[fd02::]/32"))
        assert found(error) == ("none", "right")


@pytest.mark.parametrize("kind", [0x11, 0x16, 0x17, 0x22])
def test_igmp_groups(kind):
    group, source = bytes([239, 1, 2, 3]), bytes([10, 9, 8, 7])
    rest = {0x11: group + bytes([2, 20, 0, 1]) + source, 0x22: b"\0\0\0\1" + bytes([1, 0, 0, 1]) + group + source}
    data = summed(bytes([kind, 0, 0, 0]) + rest.get(kind, group), 2)
    after = edited(ipv4(data, 2, target=group), rewrite("10.0.0.0/8:1.0.0.0/8", "239.0.0.0/8:238.0.0.0/8"))
    assert after[16:20] == bytes([238, 1, 2, 3]) and group not in after and source not in after
    assert found(after) == ("right", "right")
    general = ipv4(summed(bytes([0x11, 9, 0, 0]) + bytes(8), 2), 2)
    assert edited(general, everywhere(random.Random(1)))[20:] == general[20:]


def test_mld_groups_and_router_advertisements():
    maps = rewrite("[2001:db8::]/32:[fd01::]/32", "[2001:db8::]/32:[fd02::]/32,[ff00::]/8:[ff77::]/16")
    group = bytes.fromhex("ff05") + bytes(13) + b"\x09"
    report = bytes(2) + struct.pack(">H", 1) + bytes([1, 0, 0, 1]) + group + SOURCE6
    prefix = bytes([3, 4, 32, 0]) + bytes(12) + TARGET6[:4] + bytes(12)
    servers = bytes([25, 3]) + bytes(6) + TARGET6
    route = bytes([24, 2, 32, 0]) + bytes(4) + TARGET6[:4] + bytes(4)
    quote = ipv6(udp(b"", source=SOURCE6, target=TARGET6), 17)
    redirected = bytes([4, 7]) + bytes(6) + quote
    for body in (
        icmpv6(131, 0, bytes(4) + group),
        icmpv6(130, 0, bytes(4) + group + bytes(2) + struct.pack(">H", 1) + SOURCE6),
        icmpv6(143, 0, report),
        icmpv6(134, 0, bytes(12) + prefix + servers + route),
        icmpv6(137, 0, bytes(4) + TARGET6 + TARGET6 + redirected),
    ):
        after = edited(ipv6(body, 58), maps)
        assert bytes.fromhex("20010db8") not in after and group not in after
        assert found(after) == ("none", "right")
    after = edited(ipv6(icmpv6(134, 0, bytes(12) + prefix), 58), maps)
    assert after[-16:] == bytes.fromhex("fd010000") + bytes(12)


def test_icmp_redirects_and_router_advertisements():
    maps = rewrite("10.0.0.0/8:1.0.0.0/8", "10.0.0.0/8:2.0.0.0/8")
    redirect = edited(ipv4(icmp(5, 1, bytes([10, 9, 9, 9]) + ipv4(tcp(), 6)), 1), maps)
    assert redirect[24:28] == bytes([2, 9, 9, 9]) and found(redirect) == ("right", "right")
    routers = edited(ipv4(icmp(9, 0, bytes([1, 2, 0, 9, 10, 9, 9, 9]) + bytes(4)), 1), maps)
    assert routers[28:32] == bytes([1, 9, 9, 9]) and found(routers) == ("right", "right")


def test_behind_extension_headers():
    data = udp(b"data", source=SOURCE6, target=TARGET6)
    packet = ipv6(b"\x3c\0" + bytes(6) + b"\x33\0" + bytes(6) + b"\x11\4" + bytes(22) + data, 0)
    assert found(edited(packet, everywhere(random.Random(2)))) == ("none", "right")
    packet = ipv4(b"\6\4" + bytes(22) + tcp(b"data"), 51)
    assert found(edited(packet, everywhere(random.Random(2)))) == ("right", "right")


def test_only_the_outermost_layer():
    inner = ipv4(tcp(b"data"), 6)
    for packet in (ipv4(inner, 4), ipv4(udp(bytes.fromhex("0800000000000100") + ether(inner), dport=4789), 17)):
        batch = one_packet(packet, 101)
        list(everywhere(random.Random(4)).feed(batch))
        assert bytes(batch.packet(0)).endswith(inner)
        assert bytes(batch.packet(0))[12:20] != packet[12:20]
        assert batch.sums(False)[1][1] == batch.sums(False)[0][1] == 0  # none wrong


# ---- inside ICMP ----


@pytest.mark.parametrize("kind", [3, 4, 5, 11, 12])
def test_quoted_packets_are_edited_like_themselves(kind):
    """With all their checksums, as far as they are quoted; the enclosing checksum stays right."""
    maps = rewrite("0.0.0.0/0:1.2.0.0/15", "0.0.0.0/0:99.0.0.0/8")
    for quoted in (ipv4(tcp(NOISE[:9]), 6), ipv4(udp(NOISE[:9]), 17, options=b"\1" * 8), ipv4(NOISE[:30], 47)):
        for length in (20, 24, 28, 36, 38, len(quoted)):
            packet = ipv4(icmp(kind, 0, bytes(4) + quoted[:length]), 1, TARGET4, SOURCE4)
            after = edited(packet, maps)
            assert found(after) == ("right", "right"), length
            if length >= (quoted[0] & 15) * 4:
                assert after[28:] == edited(quoted[:length], maps, 101, len(quoted))


def test_quoted_ipv6_packets():
    maps = rewrite("[::]/0:[fd00::]/8", "[::]/0:[fc00::]/8")
    quoted = ipv6(tcp(NOISE[:9], source=SOURCE6, target=TARGET6), 6)
    for kind in (1, 2, 3, 4):
        for length in (40, 48, 58, len(quoted)):
            packet = ipv6(icmpv6(kind, 0, bytes(4) + quoted[:length]), 58)
            after = edited(packet, maps)
            assert found(after) == ("none", "right")
            assert after[48:] == edited(quoted[:length], maps, 101, len(quoted))


def test_a_quote_cut_by_the_snap_length():
    """The captured part of the quote is edited; the checksum changes by what of it was."""
    maps = rewrite("0.0.0.0/0:1.2.0.0/15", "0.0.0.0/0:99.0.0.0/8")
    packet = ipv4(icmp(3, 1, bytes(4) + ipv4(tcp(NOISE[:9]), 6)), 1)
    for cut in range(20, len(packet)):
        after = edited(packet[:cut], maps, 101, len(packet))
        if cut >= 48:
            assert wrongness(after + packet[cut:]) == (0, 0), cut
        else:
            assert after[20:] == packet[20:cut]


def test_other_icmp_is_payload():
    for packet in (ipv4(icmp(8, 0, bytes(4) + ipv4(b"", 6)), 1), ipv4(icmp(3, 1, bytes(4) + bytes(20)), 1)):
        assert edited(packet, everywhere(random.Random(5)))[20:] == packet[20:]


def test_neighbour_discovery():
    """Targets follow: solicitations ask for a destination, advertisements speak of the sender."""
    maps = rewrite("[2001:db8::]/32:[fd01::]/32", "[2001:db8::]/32:[fd02::]/32")
    for kind, expected in ((135, "fd02"), (136, "fd01"), (137, "fd02")):
        rest = bytes(4) + TARGET6 + (SOURCE6 if kind == 137 else b"") + b"\2\1" + MACS[:6]
        after = edited(ipv6(icmpv6(kind, 0, rest), 58), maps)
        assert after[48:64] == bytes.fromhex(expected) + bytes(2) + TARGET6[4:]
        assert kind != 137 or after[64:80] == bytes.fromhex("fd02") + bytes(2) + SOURCE6[4:]
        assert after[-8:] == rest[-8:]
        assert found(after) == ("none", "right")


# ---- ARP, MAC addresses ----


def arp(hardware: int = 6, protocol: int = 0x800, size: int = 4) -> bytes:
    macs = [bytes([2 + k]) * hardware for k in (0, 1)]
    return struct.pack(">HHBBH", 1, protocol, hardware, size, 1) + macs[0] + SOURCE4 + macs[1] + TARGET4


def test_arp_follows_the_map():
    maps = rewrite("10.0.0.0/24:1.1.1.0/24", "10.0.0.0/24:2.2.2.0/24")
    for hardware in (6, 8, 0):
        for link in (b"", b"\x81\0\0\7"):
            frame = MACS + link + b"\x08\x06" + arp(hardware) + NOISE[:9]
            expected = frame.replace(SOURCE4, bytes([1, 1, 1, 1])).replace(TARGET4, bytes([2, 2, 2, 2]))
            assert edited(frame, maps, 1) == expected
    for other in (arp(protocol=0x86DD), arp(size=5)):
        assert edited(ether(other, 0x806), maps, 1) == ether(other, 0x806)
    cut = ether(arp(), 0x806)[:41]
    assert edited(cut, maps, 1, 60) == cut
    assert maps.counts["cut"] == 1


def test_mac_addresses():
    one, two = parse_mac("02:00:00:00:00:aa"), parse_mac("02:00:00:00:00:bb")
    frame = ether(ipv4(udp(b"data"), 17))
    assert edited(frame, rewrite(source_mac=one), 1) == MACS[:6] + one + frame[12:]
    assert edited(frame, rewrite(destination_mac=two), 1) == two + MACS[6:] + frame[12:]
    assert edited(frame, rewrite(source_mac=one, destination_mac=two), 1) == two + one + frame[12:]
    assert edited(frame[:12], rewrite(source_mac=one), 1, 60) == MACS[:6] + one
    transform = rewrite(source_mac=one)
    assert edited(frame[:11], transform, 1, 60) == frame[:11]
    assert edited(frame[14:], transform, 101) == frame[14:]
    assert (transform.counts["cut"], transform.counts["no_ethernet"], transform.counts["edited"]) == (1, 1, 0)


def test_counts():
    transform = rewrite("10.0.0.1:10.0.0.1,10.0.0.0/8:11.0.0.0/8", "10.0.0.2:1.1.1.1")
    packets = [ipv4(tcp(), 6), ipv4(tcp(), 6, TARGET4), ipv4(tcp(), 6, TARGET4, SOURCE4), b"\x44" + bytes(30), b"\x45"]
    list(transform.feed(batch := one_batch(packets, 101)))
    assert transform.counts == {"edited": 3, "cut": 1, "malformed": 1, "no_ethernet": 0, "matched": (3, 2)}
    assert [record.flags for record in batch.records()] == [1, 1, 1, 0, 0]


# ---- pcapng: what an edit makes stale ----


@pytest.mark.parametrize("order", "<>")
def test_the_hash_of_an_edited_packet_goes(order):
    b = PcapngBlocks(order)
    comment, digest, flags = b.option(1, b"comment"), b.option(3, b"\2abcd"), b.option(2, b"\0\0\0\1")
    packet, other = ether(ipv4(tcp(b"odd"), 6)), ether(arp(protocol=1), 0x806)
    start = b.section() + b.interface()
    for options, left in (
        (comment + digest + flags + b.option(0), comment + flags + b.option(0) + bytes(len(digest))),
        (digest, bytes(len(digest))),
        (digest + digest + comment, comment + bytes(2 * len(digest))),
        (comment + flags, comment + flags),
        (b"", b""),
        (b.option(0) + digest, b.option(0) + digest),
    ):
        batch = next(batches(start + b.packet(packet, options=options) + b.packet(other, options=options)))
        list(rewrite("10.0.0.1:10.0.0.9").feed(batch))
        after = bytes(batch.packet(0))
        assert after != packet
        assert bytes(batch.view()) == start + b.packet(after, options=left) + b.packet(other, options=options)


# ---- real captures ----

ABSENT = "203.0.113.77:1.2.3.4,[2001:db8:dead:beef::77]:[::1]"


@captures.every(captures.sound())
def test_a_map_that_matches_nothing_is_the_identity(path):
    transform = rewrite(ABSENT, ABSENT)
    content = bytearray()
    for batch in batches(captures.content(path)):
        for again in transform.feed(batch):
            content += again.view()
    assert bytes(content) == captures.content(path)
    assert transform.counts["edited"] == 0


MAPS = {
    "everything": "0.0.0.0/0:10.0.0.0/8,[::]/0:[fd00::]/8",
    "networks": "10.0.0.0/16:172.16.0.0/16,192.168.0.0/16:10.99.0.0/16,[fe80::]/10:[fd80::]/10,[2001::]/16:[3001::]/16",
}
SAME = ("frame.len", "frame.cap_len", "frame.time_epoch", "ip.len", "ip.id", "ip.ttl", "ip.proto", "ipv6.plen",
        "ipv6.nxt", "tcp.srcport", "tcp.dstport", "tcp.seq_raw", "tcp.len", "udp.srcport", "udp.length", "icmp.type",
        "icmpv6.type", "arp.opcode")  # fmt: skip
MOVED = ("ip.src", "ip.dst", "ipv6.src", "ipv6.dst")


@pytest.mark.parametrize("name", MAPS)
def test_real_captures_mapped(name, merged, tmp_path):
    """As tshark reads it: the addresses are the mapped ones, no checksum changes its status, nothing else changes."""
    before = merged.rows(*FIELDS, *SAME, *MOVED)
    transform = rewrite(MAPS[name], MAPS[name])
    with open(tmp_path / "mapped", "wb") as out:
        for batch in batches(merged.path.read_bytes()):
            for again in transform.feed(batch):
                out.write(again.view())
    after = captures.tshark(tmp_path / "mapped", (*FIELDS, *SAME, *MOVED))
    assert len(after) == len(before)
    rules = parse_map(MAPS[name])
    checked = changed = 0
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        where = merged.capture_of(number)
        assert {field: old[field] for field in SAME} == {field: new[field] for field in SAME}, where
        kinds = list(zip(statuses(old), statuses(new), strict=True))
        assert all(was == now for was, now in kinds), (where, kinds)
        checked += sum(was.count(GOOD) + was.count(BAD) for was, _ in kinds)
        changed += outermost(old, new, rules, where)
    assert checked > 30_000
    assert changed > 5_000
    assert transform.counts["malformed"] == 0


def outermost(old: dict, new: dict, rules, where) -> bool:
    """Check the addresses of the outermost IP layer; returns whether they changed."""
    protocols = "".join(old["frame.protocols"]).split(":")
    version = next((name for name in protocols if name in ("ip", "ipv6")), None)
    if version is None or any(name in ("nsh", "cmd", "6lowpan") for name in protocols) or where[0] in NOT_WALKED:
        return False
    for field in (f"{version}.src", f"{version}.dst"):
        address = ipaddress.ip_address(old[field][0])
        assert ipaddress.ip_address(new[field][0]).packed == mapped(address.packed, rules), where
    return old[f"{version}.src"] != new[f"{version}.src"]


NOT_WALKED = ("linktypes/PcapPlusPlus__NullLoopback.pcap",)


def allowed(batch, k: int) -> set[int]:
    """The bytes of a packet that a map may change."""
    where, data = batch.headers(k), bytes(batch.packet(k))
    layer, may = where.outer, set()
    if captures.has_fcs(data):
        may.update(range(len(data) - 4, len(data)))
    if where.ethertype == 0x806:
        return may | set(range(where.network + 8, where.network + 16 + 2 * batch.packet(k)[where.network + 4]))
    if layer.ip is None:
        return may
    may.update(range(layer.ip + 12, layer.ip + 20) if layer.version == 4 else range(layer.ip + 8, layer.ip + 40))
    if layer.version == 4:
        may.update((layer.ip + 10, layer.ip + 11))
    if layer.transport is not None and layer.protocol in AT:
        may.update(range(layer.transport + AT[layer.protocol], layer.transport + AT[layer.protocol] + 2))
        if layer.protocol in (1, 2, 58):
            may.update(range(layer.transport + 4, layer.end))
    return may


def test_nothing_but_addresses_and_checksums_changes(merged):
    data = merged.path.read_bytes()
    originals = iter(captures.packets(data))
    changed = 0
    for batch in batches(data):
        list(rewrite(MAPS["everything"], MAPS["everything"]).feed(batch))
        for k in range(batch.n):
            old, new = next(originals)[3], bytes(batch.packet(k))
            if old != new:
                differ = {at for at, (a, b) in enumerate(zip(old, new, strict=True)) if a != b}
                assert differ <= allowed(batch, k), (batch.headers(k), sorted(differ))
                changed += 1
    assert changed > 10_000
