"""Which ports a live replay uses, ours and the host's: for the flows, for the kernel's filter and for the firewall."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from pcaptools.engines.script import Script

if TYPE_CHECKING:
    from pcaptools.engines.plan import Plan

FIRST_DYNAMIC, LAST_DYNAMIC = 49152, 65535
"""RFC 6335."""

MOST_RANGES = 64

Range = tuple[int, int]
"""First and last port."""


class Ports:
    """Source ports in turn: a block of them, or those of the recording (`block` None)."""

    def __init__(self, block: Sequence[int] | None, source: random.Random) -> None:
        self._block = list(block) if block is not None else None
        self._next = 0
        if self._block and len(self._block) > 1:
            source.shuffle(self._block)

    def take(self, script: Script, busy: Callable[[int], bool]) -> int | None:
        """A port for a flow; None when all are busy."""
        if self._block is None:
            return None if busy(script.client[1]) else script.client[1]
        for _ in self._block:
            port = self._block[self._next % len(self._block)]
            self._next += 1
            if not busy(port):
                return port
        return None


def ranges(ports: Iterable[int]) -> list[Range]:
    """The fewest ranges that hold these ports and no other; when they are too many, one from the lowest to the highest.

    A filter and a firewall look at every range for every packet.
    """
    found: list[Range] = []
    for port in sorted(set(ports)):
        if found and found[-1][1] == port - 1:
            found[-1] = found[-1][0], port
        else:
            found.append((port, port))
    return found if len(found) <= MOST_RANGES else [(found[0][0], found[-1][1])]


def block(first: int | str, size: int, source: random.Random) -> range:
    """`size` source ports from `first`, or somewhere in the dynamic range when that is "random"; fewer where there are
    no more."""
    size = min(size, LAST_DYNAMIC - FIRST_DYNAMIC + 1)
    start = first if isinstance(first, int) else source.randint(FIRST_DYNAMIC, LAST_DYNAMIC + 1 - size)
    return range(start, min(start + size, LAST_DYNAMIC + 1))


def serving(plan: Plan, scripts: Sequence[Script]) -> list[Range]:
    """The ports of whoever serves. Empty: not known before the captures are read."""
    if plan.dst_port:
        return [(plan.dst_port, plan.dst_port)]
    return ranges(script.server[1] for script in scripts)


def kernel_filter(source: bytes, plan: Plan, local: Sequence[Range], ethernet: bool) -> str:
    """What the kernel shall hand us, as libpcap says it (pcap-filter(7))."""
    from ipaddress import ip_address

    address = ip_address(source)
    ports = " or ".join(f"{'udp' if plan.udp else 'tcp'} dst portrange {low}-{high}" for low, high in local)
    host = f"src host {ip_address(plan.target)} and " if plan.target else ""
    errors, ask = ("icmp", " or arp") if address.version == 4 else ("icmp6", " or icmp6")
    return f"(dst host {address} and (({host}({ports})) or {errors})){ask if ethernet else ''}"
