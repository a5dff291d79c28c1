"""Captures for the benchmarks, the same for the same seed: classic pcap, microseconds, Ethernet, nothing cut short.

Every checksum is right. One end of each flow is in 10.1.0.0/16, so that address maps match; some flows of the large
capture are IPv6. Payloads are slices of one pool of half text and half random bytes whose 16-bit words were summed
once, so that a checksum costs a subtraction.

    captures.py large|small|paced FILE [--packets N] [--seed N]
"""

from __future__ import annotations

import argparse
import random
import struct
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

CLIENT_MAC = bytes.fromhex("020000000001")
SERVER_MAC = bytes.fromhex("0200000000fe")
START = 1_700_000_000_000_000
SMALLEST, LARGEST = 60, 1514
POOL_BYTES = 1 << 20
AREA_BYTES = 2048
FLOWS = 4096
PACKETS_PER_WRITE = 8192
TCP, UDP = 6, 17

FILE_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
RECORD = struct.Struct("<IIII")
IPV4 = struct.Struct("!14sBxHHHBBH8s")
IPV6 = struct.Struct("!14sIHBB32s")
TCP_HEADER = struct.Struct("!4sIIHHHxx")
UDP_HEADER = struct.Struct("!4sHH")

Frame = tuple[bytes, ...]


class Flow(NamedTuple):
    """One direction of a conversation; `sum` is that of addresses, ports and protocol (RFC 1071, not folded)."""

    ipv6: bool
    protocol: int
    ethernet: bytes
    addresses: bytes
    ports: bytes
    sum: int


class Pool:
    """Payload bytes, and sums[k], the sum of their first k 16-bit words."""

    def __init__(self, rng: random.Random) -> None:
        words = [bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(500)]
        areas = []
        for _ in range(POOL_BYTES // AREA_BYTES // 2):
            areas.append(b" ".join(rng.choices(words, k=AREA_BYTES))[:AREA_BYTES])
            areas.append(rng.getrandbits(8 * AREA_BYTES).to_bytes(AREA_BYTES, "big"))
        self.data = b"".join(areas)
        self.sums = [0, *accumulate(_words(self.data))]

    def sum(self, start: int, size: int) -> int:
        """The sum over data[start:start + size]; `start` is even."""
        stop = start + size
        odd = self.data[stop - 1] << 8 if size & 1 else 0
        return self.sums[stop >> 1] - self.sums[start >> 1] + odd


def large(path: str, packets: int = 1_000_000, seed: int = 1) -> None:
    """Write packets of 60 to 1514 bytes, 700 on average: TCP and UDP, one in ten IPv6; one every 6 us on average."""
    rng = random.Random(seed)
    _write(path, rng, _clock(rng, packets, 6), _mixed_sizes(rng, packets), _flows(rng, ipv6_share=0.1))


def small(path: str, packets: int = 1_500_000, seed: int = 2) -> None:
    """Write packets of 60 bytes, one every microsecond on average: padded TCP acknowledgements and UDP, IPv4."""
    rng = random.Random(seed)
    _write(path, rng, _clock(rng, packets, 1), (SMALLEST for _ in range(packets)), _flows(rng, ipv6_share=0))


def paced(path: str, packets: int = 100_000, seconds: float = 5, seed: int = 3) -> None:
    """Write packets of 60 to 300 bytes over exactly that time: irregular gaps, three in ten packets without one."""
    rng = random.Random(seed)
    ticks = list(accumulate(0 if rng.random() < 0.3 else rng.expovariate(1) for _ in range(packets - 1)))
    unit = seconds * 1_000_000 / ticks[-1]
    times = [START, *(START + round(tick * unit) for tick in ticks)]
    _write(path, rng, times, (rng.randint(SMALLEST, 300) for _ in range(packets)), _flows(rng, ipv6_share=0))


def _mixed_sizes(rng: random.Random, packets: int) -> Iterator[int]:
    """Acknowledgements, small messages, large ones, full segments: 700 bytes on average."""
    classes = [(SMALLEST, SMALLEST)] * 8 + [(61, 600)] * 5 + [(601, 1513)] + [(LARGEST, LARGEST)] * 8
    return (rng.randint(*rng.choice(classes)) for _ in range(packets))


def _clock(rng: random.Random, packets: int, mean: int) -> Iterator[int]:
    return accumulate((rng.randint(0, 2 * mean) for _ in range(packets - 1)), initial=START)


def _flows(rng: random.Random, ipv6_share: float) -> list[Flow]:
    return [_flow(rng, rng.random() < ipv6_share) for _ in range(FLOWS)]


def _flow(rng: random.Random, ipv6: bool) -> Flow:
    if ipv6:
        client = bytes.fromhex("20010db800010000") + rng.getrandbits(64).to_bytes(8, "big")
        server = bytes.fromhex("20010db8000f0000") + rng.getrandbits(64).to_bytes(8, "big")
    else:
        client = bytes((10, 1, rng.randrange(256), rng.randint(1, 254)))
        server = bytes((198, 18 + rng.randrange(2), rng.randrange(256), rng.randint(1, 254)))
    protocol = TCP if rng.random() < 0.75 else UDP
    ends = [(CLIENT_MAC, client, rng.randint(32768, 60999)), (SERVER_MAC, server, rng.choice((8443, 9443, 50443)))]
    rng.shuffle(ends)
    (source_mac, source, sport), (destination_mac, destination, dport) = ends
    addresses = source + destination
    ports = struct.pack("!HH", sport, dport)
    ethernet = destination_mac + source_mac + (b"\x86\xdd" if ipv6 else b"\x08\x00")
    return Flow(ipv6, protocol, ethernet, addresses, ports, sum(_words(addresses + ports)) + protocol)


def _write(path: str, rng: random.Random, times: Iterable[int], sizes: Iterable[int], flows: list[Flow]) -> None:
    pool = Pool(rng)
    pieces = [FILE_HEADER]
    count = len(flows)
    with open(path, "wb") as file:
        for number, (time, size) in enumerate(zip(times, sizes, strict=True)):
            frame = _frame(flows[int(rng.random() * count)], number, size, pool, rng)
            length = sum(map(len, frame))
            pieces.append(RECORD.pack(time // 1_000_000, time % 1_000_000, length, length))
            pieces += frame
            if number % PACKETS_PER_WRITE == 0:
                file.write(b"".join(pieces))
                pieces.clear()
        file.write(b"".join(pieces))


def _frame(flow: Flow, number: int, size: int, pool: Pool, rng: random.Random) -> Frame:
    """The parts of a frame of `size` bytes; of more when its headers alone are longer."""
    network = 54 if flow.ipv6 else 34
    header = 20 if flow.protocol == TCP else 8
    room = max(size - network - header, 0)
    # A frame of minimal size is an acknowledgement and Ethernet's padding, as from a real host.
    payload, padding = (0, room) if flow.protocol == TCP and size == SMALLEST else (room, 0)
    start = int(rng.random() * (POOL_BYTES - LARGEST)) & ~1
    length = header + payload
    total = flow.sum + length + pool.sum(start, payload)
    transport = _tcp(flow, number, total) if flow.protocol == TCP else _udp(flow, length, total)
    return _ip(flow, number, length), transport, pool.data[start : start + payload], bytes(padding)


def _ip(flow: Flow, number: int, length: int) -> bytes:
    if flow.ipv6:
        return IPV6.pack(flow.ethernet, 0x60000000, length, flow.protocol, 64, flow.addresses)
    identity = number & 0xFFFF
    words = struct.unpack("!4H", flow.addresses)
    checksum = -(0x4500 + 20 + length + identity + 0x4000 + 0x4000 + flow.protocol + sum(words)) % 0xFFFF
    return IPV4.pack(flow.ethernet, 0x45, 20 + length, identity, 0x4000, 64, flow.protocol, checksum, flow.addresses)


def _tcp(flow: Flow, number: int, total: int) -> bytes:
    """`total`: the sum of everything but this header without its ports. Here and in _udp: RFC 1071, folded by the
    remainder modulo 65535."""
    sequence = number * 1460 & 0xFFFFFFFF
    total += (sequence >> 16) + (sequence & 0xFFFF) + 1 + 0x5010 + 0xFFFF
    return TCP_HEADER.pack(flow.ports, sequence, 1, 0x5010, 0xFFFF, -total % 0xFFFF)


def _udp(flow: Flow, length: int, total: int) -> bytes:
    return UDP_HEADER.pack(flow.ports, length, -(total + length) % 0xFFFF or 0xFFFF)


def _words(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"!{len(data) // 2}H", data)


def main() -> None:
    """Write one capture, as the command line says."""
    parser = argparse.ArgumentParser(description="Write a capture for the benchmarks.")
    parser.add_argument("kind", choices=("large", "small", "paced"))
    parser.add_argument("file")
    parser.add_argument("--packets", type=int, help="how many; 1000000, 1500000 or 100000 when not given")
    parser.add_argument("--seed", type=int)
    args = parser.parse_args()
    makers: dict[str, Callable[..., None]] = {"large": large, "small": small, "paced": paced}
    given = {"packets": args.packets, "seed": args.seed}
    makers[args.kind](args.file, **{name: value for name, value in given.items() if value is not None})


if __name__ == "__main__":
    main()
