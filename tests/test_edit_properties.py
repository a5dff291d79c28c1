"""Every edit on packets of every kind: Wireshark finds no checksum bad that was good, no packet missing, no field
changed that was not named; and no hostile packet does harm."""

from __future__ import annotations

import itertools
import pathlib
import random
import struct

import captures
import pytest
from captures import (
    SOURCE4,
    SOURCE6,
    TARGET6,
    PcapngBlocks,
    ether,
    icmp,
    icmpv6,
    ipv4,
    ipv6,
    sctp,
    tcp,
    udp,
    udplite,
)

from pcaptools.commands import pcaprewrite

ADDRESSES = "ip.src ip.dst ip.addr ipv6.src ipv6.dst arp.src.proto_ipv4 arp.dst.proto_ipv4 icmp.redir_gw igmp.maddr"
PORTS = "tcp.srcport tcp.dstport udp.srcport udp.dstport"
MAC = "eth.src eth.dst"
HARDWARE = f"{MAC} sll.src.eth wlan.sa wlan.da wlan.bssid wlan.ta wlan.ra arp.src.hw_mac arp.dst.hw_mac"
NEIGHBOUR = "icmpv6.nd.ns.target_address icmpv6.nd.na.target_address icmpv6.opt.linkaddr"
LENGTH = "frame.len frame.cap_len"
SEQUENCE = "tcp.seq_raw tcp.ack_raw tcp.options.sack_le tcp.options.sack_re"
PAYLOAD = "tcp.payload udp.payload dns.a dns.aaaa"
REST = (
    "ip.id ip.len ip.ttl ip.dsfield ip.frag_offset ip.proto ipv6.plen ipv6.nxt ipv6.hlim ipv6.tclass ipv6.flow "
    "tcp.flags tcp.window_size_value tcp.len udp.length icmp.type icmpv6.type arp.opcode vlan.id vlan.priority eth.type"
)
SUMS = "ip.checksum tcp.checksum udp.checksum icmp.checksum icmpv6.checksum igmp.checksum sctp.checksum"
STATUS = [f"{name}.status" for name in SUMS.split()]
FIELDS = tuple(
    " ".join((ADDRESSES, PORTS, HARDWARE, NEIGHBOUR, LENGTH, SEQUENCE, PAYLOAD, REST, "frame.time_epoch")).split()
    + STATUS
)
GOOD, BAD = "1", "0"

SWAPPED = "0.0.0.0/1:128.0.0.0/1,[::]/1:[8000::]/1"
MAPPED = f"{ADDRESSES} {NEIGHBOUR} {MAC}"  # a group's MAC address follows
INSIDE = f"{MAPPED} udp.payload"  # which may be a tunnel

# options: the fields that they may change, beside checksums
EDITS = {
    f"-S {SWAPPED}": MAPPED,
    f"-D {SWAPPED}": MAPPED,
    f"-N {SWAPPED}": MAPPED,
    f"-N {SWAPPED} -b": MAPPED,
    f"--ipmap {SWAPPED}": MAPPED,
    f"--ipmap {SWAPPED} --inner": INSIDE,
    f"--ipmap {SWAPPED} --all-layers": INSIDE,
    "-e 10.10.0.1:10.10.0.2": MAPPED,
    "-e [fd00::1]:[fd00::2]": MAPPED,
    "-s 55": MAPPED,
    "--anonymize=key": f"{INSIDE} {HARDWARE}",
    "--anonymize=key:random --anonymize-mac=keep": INSIDE,
    "--anonymize=key --anonymize-mac=vendor --skipbroadcast": f"{INSIDE} {HARDWARE}",
    "-r 1-1023:40000,5353:5354": PORTS,
    "--tcp-sequence=42": SEQUENCE,
    "--ttl=9": "ip.ttl ipv6.hlim",
    "--ttl=+200": "ip.ttl ipv6.hlim",
    "--ttl=-200": "ip.ttl ipv6.hlim",
    "--tos=50": "ip.dsfield",
    "--tclass=7": "ipv6.tclass",
    "--flowlabel=9": "ipv6.flow",
    "-C": "udp.payload",
    "--enet-dmac=00:12:13:14:15:16": MAC,
    "--enet-smac=00:12:13:14:15:16,00:22:33:44:55:66 --skipl2broadcast": MAC,
    "--enet-subsmac=ff:ff:ff:ff:ff:ff,00:22:33:44:55:66": MAC,
    "--enet-mac-seed=42": MAC,
    "--enet-mac-seed=42 --enet-mac-seed-keep-bytes=3": MAC,
    "--vlan-translate=0-4000:1": "vlan.id",
    "--anonymize-payload=zero": PAYLOAD,
    "--anonymize=k --anonymize-payload=random --keep-metadata": f"{MAPPED} {HARDWARE} {PAYLOAD}",
    f"--dns-map --ipmap {SWAPPED}": f"{MAPPED} {PAYLOAD}",
    f"--report-leaks --ipmap {SWAPPED}": MAPPED,
    "--shift=1.5": "frame.time_epoch",
    "--scale=2": "frame.time_epoch",
    "--start=2026-11-21T00:00:00Z": "frame.time_epoch",
    "--min-gap=1ms": "frame.time_epoch",
    "--monotonic": "frame.time_epoch",
    "--strip-comments": "",
    "--discard-secrets": "",
    "--comment=seen": "",
    "--packets=2- --edit-only --tos=1": "ip.dsfield",
    "--dedup --edit-only --ttl=9": "ip.ttl ipv6.hlim",
    "--sample=3 --edit-only --ttl=9": "ip.ttl ipv6.hlim",
    "--from=2010-01-01 --to=2020-01-01 --edit-only --ttl=9": "ip.ttl ipv6.hlim",
    "--snaplen=2000": f"frame.cap_len {PAYLOAD}",
}

# what adds or takes away layers, bytes or packets: no field can be compared, but checksums
RESHAPES = (
    "-E --fixhdrlen",
    "--fixhdrlen",
    "--mtu-trunc -m 300",
    "--mtu-trunc",
    "-F pad",
    "-F trunc",
    "-F del",
    "--enet-vlan=add --enet-vlan-tag=45 --enet-vlan-pri=1 --enet-vlan-cfi=1 --enet-vlan-proto=802.1ad",
    "--enet-vlan=del",
    "--vlan-push=1,802.1ad:2.3.1",
    "--vlan-pop=all",
    "--decap",
    "--decap --dlt=linuxsll",
    "--dlt=enet",
    "--dlt=raw",
    "--dlt=null",
    "--dlt=loop",
    "--dlt=linuxsll",
    "--dlt=linuxsll2",
    "--dlt=hdlc",
    "--dlt=hdlc --hdlc-address=15 --hdlc-control=0",
    "--dlt=ppp",
    "--dlt=pppserial",
    "--dlt=user --user-dlt=147 --user-dlink=0f,00,08,00 --user-dlink=0f,00,08,01",
    "--fuzz-seed=42 --fuzz-factor=2",
    "--anonymize-payload=drop",
    "--snaplen=60",
    "--chop=4,-3 --chop-length",
    "--reorder=1",
    "--dedup --dedup-window=1s",
    "--dedup --dedup-window=100",
    "--sample=2",
    "--packets=1-10,20,30-",
    "--from=2010-01-01",
    "-f tcp",
    "--format=nspcap",
    "--format=pcap",
    f"--skip-soft-errors -N {SWAPPED} --enet-dmac=00:12:13:14:15:16",
)


def run(data: bytes, directory: pathlib.Path, argv: str) -> bytes:
    source, target = directory / "in", directory / "out"
    source.write_bytes(data)
    status = pcaprewrite.main([*argv.split(), "-q", "-w", str(target), str(source)])
    assert status in (0, 1), argv
    return target.read_bytes()


def assorted(most: int = 5) -> bytes:
    """The first packets of every capture, in one pcapng."""
    blocks, interfaces, packets = PcapngBlocks(), [], []
    for path in captures.sound(perf=False):
        found = captures.packets(captures.content(path))
        for time, wire, linktype, data in found[:most]:
            if linktype not in interfaces:
                interfaces.append(linktype)
            packets.append(blocks.packet(data, interfaces.index(linktype), max(time, 0), max(wire, len(data))))
    described = b"".join(blocks.interface(linktype, resolution=9) for linktype in interfaces)
    return blocks.section() + described + b"".join(packets)


class Seen:
    """What Wireshark says of several captures, asked once."""

    def __init__(self, directory: pathlib.Path, outputs: dict[str, bytes]) -> None:
        path = directory / "all.pcapng"
        path.write_bytes(b"".join(outputs.values()))
        rows = iter(captures.tshark(path, FIELDS))
        counts = {name: len(captures.packets(data)) for name, data in outputs.items()}
        self.rows = {name: list(itertools.islice(rows, n)) for name, n in counts.items()}
        assert not list(rows)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    directory = tmp_path_factory.mktemp("edits")
    data = assorted()
    chance = random.Random(9)
    names = [*EDITS, *(" ".join(chance.sample(sorted(EDITS), 3)) for _ in range(25))]
    names = [name for name in names if compatible(name)]
    return Seen(directory, {"": data, **{name: run(data, directory, name) for name in names}})


def compatible(name: str) -> bool:
    options = [word.partition("=")[0] for word in name.split() if word.startswith("-")]
    once = len(set(options)) == len(options)
    layers = sum(option in ("--inner", "--all-layers") for option in options)
    both = {"-e", "-N"} <= set(options) or {"--strip-comments", "--comment"} <= set(options)
    macs = "--enet-mac-seed" in options and any(o in options for o in ("--enet-dmac", "--enet-smac", "--enet-subsmac"))
    times = {"--start", "--shift"} <= set(options)
    return once and layers < 2 and not (both or macs or times)


def spoilt(old: dict[str, list[str]], new: dict[str, list[str]]) -> list[str]:
    """The checksums of one packet that were good and are bad."""
    found = []
    for name in STATUS:
        if len(old[name]) == len(new[name]):
            found += [name for a, b in zip(old[name], new[name], strict=True) if a == GOOD and b == BAD]
        elif BAD in new[name] and BAD not in old[name]:
            found.append(name)
    return found


@captures.needs_captures
def test_no_field_changes_that_was_not_named(seen: Seen) -> None:
    before = seen.rows[""]
    assert len(before) > 400
    parts = {name: set(fields.split()) for name, fields in EDITS.items()}
    for name, after in seen.rows.items():
        assert len(after) == len(before), name
        may = set().union(*(fields for edit, fields in parts.items() if edit in name)) | set(STATUS)
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            changed = {field for field in FIELDS if old[field] != new[field]}
            if "--anonymize-payload" not in name:  # to which all is payload that pcaptools does not know
                assert changed <= may, (name, number, {f: (old[f], new[f]) for f in changed - may})
            assert not spoilt(old, new), (name, number, spoilt(old, new))


@captures.needs_captures
def test_every_edit_edits(seen: Seen) -> None:
    for name in EDITS:
        if EDITS[name] and "--min-gap" not in name:
            assert seen.rows[name] != seen.rows[""], name


@captures.needs_captures
def test_reshaped_packets_keep_good_checksums(tmp_path: pathlib.Path) -> None:
    """Counted over all packets of a kind: which ones are left depends on the option."""
    data = assorted(3)
    outputs = {name: run(data, tmp_path, name) for name in RESHAPES if not name.startswith(("--format", "-f"))}
    seen = Seen(tmp_path, {"": data, **outputs})
    bad = sum(row[name].count(BAD) for row in seen.rows[""] for name in STATUS)
    for name, rows in seen.rows.items():
        if name.startswith(("--fuzz", "--chop", "-E", "--fixhdrlen")):
            continue
        assert sum(row[status].count(BAD) for row in rows for status in STATUS) <= bad, name


# ---- hostile packets ----


def hostile() -> list[bytes | tuple[int, int, bytes, int]]:
    """Whole packets of many kinds cut at every byte, and those that contradict themselves."""
    dns = (
        struct.pack(">HHHHHH", 1, 0x8180, 1, 1, 0, 0)
        + b"\1a\0\0\1\0\1\xc0\x0c"
        + struct.pack(">HHIH", 1, 1, 60, 4)
        + SOURCE4
    )
    route = b"\1\x83\x0b\x04" + SOURCE4 * 2
    routing = struct.pack(">BBBBI", 6, 2, 0, 1, 0) + TARGET6
    inner = ether(ipv6(udp(b"", source=SOURCE6, target=TARGET6), 17), 0x86DD)
    seeds = [
        ether(ipv4(tcp(b"payload", options=b"\1\1\5\x0a" + bytes(8)), 6)),
        ether(ipv4(udp(dns, sport=53), 17)),
        ether(ipv4(tcp(struct.pack(">H", len(dns)) + dns, sport=53), 6)),
        ether(ipv4(tcp(b"x"), 6, options=route)),
        ether(ipv6(routing + tcp(b"x", source=SOURCE6, target=TARGET6), 43), 0x86DD),
        ether(ipv6(bytes([17, 0, 1, 4, 0, 0, 0, 0]) + udp(b"x", source=SOURCE6, target=TARGET6), 0), 0x86DD),
        ether(ipv4(icmp(3, 1, bytes(4) + ipv4(tcp(b"x"), 6, options=route)), 1)),
        ether(ipv6(icmpv6(134, 0, bytes(12) + bytes([3, 4, 64]) + bytes(29) + bytes([25, 3]) + bytes(22)), 58), 0x86DD),
        ether(ipv4(b"\x22\0\0\0\0\0\0\2" + b"\1\0\0\1" + SOURCE4 * 2 + b"\1\0\xff\xff" + SOURCE4, 2)),
        ether(ipv4(sctp(b"data"), 132)),
        ether(ipv4(udplite(b"data", 8), 136)),
        ether(bytes.fromhex("0001080006040001") + bytes(20), 0x0806),
        ether(bytes.fromhex("0064810000c80800") + ipv4(tcp(), 6), 0x8100),
        ether(ipv4(struct.pack(">HH", 0x8000, 0x6558) + bytes(4) + ether(ipv4(tcp(), 6)), 47)),
        ether(ipv4(udp(bytes([8, 0, 0, 0, 0, 0, 7, 0]) + inner, dport=4789), 17)),
        ether(ipv4(udp(b"\x30\xff\0\0\0\0\0\1" + ipv4(tcp(), 6), dport=2152), 17)),
    ]  # fmt: skip
    found: list = [(1, 2, seed[:cut], len(seed)) for seed in seeds for cut in range(len(seed) + 1)]
    for words in range(5):
        found.append(ether(bytes([0x40 | words]) + ipv4(tcp(), 6)[1:]))
    for length in (0, 1, 19, 21, 0xFFFF):
        found.append(ether(ipv4(tcp(b"abc"), 6, length=length)))
        found.append(ether(ipv6(udp(b"abc"), 17, length=length), 0x86DD))
        found.append(ether(ipv4(struct.pack(">HHHH", 53, 53, length, 1) + dns, 17)))
    for offset in range(0, 16, 3):
        segment = bytearray(tcp(b"abc"))
        segment[12] = offset << 4
        found.append(ether(ipv4(bytes(segment), 6)))
    chain = b"".join(bytes([0, 0, 1, 4, 0, 0, 0, 0]) for _ in range(1000))
    nested = ipv4(tcp(), 6)
    for _ in range(100):
        nested = ipv4(icmp(3, 1, bytes(4) + nested), 1)
    return [
        *found,
        ether(b"\x81\0\0\1" * 1000, 0x8100),
        ether(b"\0\0\x10\0" * 3000, 0x8847),
        ether((bytes.fromhex("00001100 00000000") + ether(b"", 0x8847)) * 20, 0x8847),
        ether(ipv6(chain + udp(b""), 0), 0x86DD),
        ether(ipv6((b"\x2c\0\0\1" + bytes(4)) * 9 + udp(b""), 44), 0x86DD),
        ether(ipv6(bytes(8), 59), 0x86DD),
        ether(ipv6(bytes(8), 50), 0x86DD),
        ether(ipv4(bytes(range(40)), 6, options=bytes([7, 3, 0, 131, 255, 1, 68, 4, 137, 40, 0, 0]))),
        ether(ipv4(bytes(8), 17, fragment=0x2000)),
        ether(ipv4(b"odd", 17, fragment=0x1FFF)),
        ether(ipv4(b"!", 6, fragment=1)),
        ether(nested),
        ether(b"\0\1\x08\0\xff\4\0\1" + bytes(30), 0x0806),
        ether(bytes(18), 1500),
        b"",
    ]


@pytest.mark.parametrize("linktype", [1, 101])
def test_hostile_packets(linktype: int, tmp_path: pathlib.Path) -> None:
    """Under every option: a sound capture comes out, of the same number of packets where none is to be left out."""
    packets = hostile()
    data = captures.pcap(
        [p for p in packets if linktype == 1] or [p[14:] for p in packets if isinstance(p, bytes)], linktype
    )
    count = len(captures.packets(data))
    for name in (*EDITS, *RESHAPES):
        if name.startswith("--comment"):
            continue
        out = captures.packets(run(data, tmp_path, name))
        assert name not in EDITS or len(out) == count, name
        assert len(out) <= count


NOTHING = """
-N 1.2.3.4/32:5.6.7.8 -S 9.9.9.9:8.8.8.8 -D [::9]:[::8]
--ipmap [::9]:[::8]
--vlan-pop=1 --dns-map --ipmap 9.9.9.9:8.8.8.8
-r 4:4,5:5
-r 0:0
--vlan-translate=4001:1
--enet-subsmac=00:00:00:00:00:03,02:00:00:00:00:09
--ttl=0
--ttl=+0
--shift=0
--scale=1
--from=0
--packets=1-
--sample=1
--snaplen=262144
--strip-comments
--discard-secrets
--reorder=0
--monotonic
--min-gap=0
"""


@pytest.mark.parametrize("argv", NOTHING.strip().splitlines())
def test_what_matches_nothing_changes_nothing(argv: str, tmp_path: pathlib.Path) -> None:
    """Byte for byte, pcap and pcapng, whole packets and cut ones."""
    frames = [ether(ipv4(tcp(bytes([k])), 6)) for k in range(9)] + [ether(ipv4(udp(b"x"), 17))[:30]]
    blocks = PcapngBlocks(">")
    told = blocks.section() + blocks.interface(resolution=9) + blocks.block(0xBAD, b"kept")
    told += b"".join(blocks.packet(frame, 0, k, 99) for k, frame in enumerate(frames)) + blocks.block(5, bytes(12))
    for data in (captures.pcap(frames), captures.pcap(frames, order=">", magic=0xA1B23C4D), told):
        if data is told and argv.startswith("--reorder"):
            continue  # other blocks go in front of what is held back
        assert run(data, tmp_path, argv) == data
