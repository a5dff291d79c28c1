"""Lanes: 0 primary, 1 secondary, 2 none. `without`: the lane of packets without what is asked for."""

from typing_extensions import Buffer

from pcaptools.core._core import NativeBatch

def lanes(batch: NativeBatch) -> list[int]: ...
def set_lanes(batch: NativeBatch, lane: int, start: int = 0, stop: int | None = None) -> None: ...
def swap_lanes(batch: NativeBatch) -> None: ...
def lanes_from_cache(batch: NativeBatch, bits: Buffer, first: int) -> None:
    """As two bits a packet say; `first`: how many packets came before. Raises ValueError when there is no word."""

def cache_bits(batch: NativeBatch) -> bytearray:
    """One byte a record: 3 primary, 2 secondary, 0 none."""

def keep_matching(batch: NativeBatch, linktype: int, program: Buffer) -> None:
    """No lane for the packets of a link type that a BPF program does not match."""

def lanes_by_hash(batch: NativeBatch, n: int) -> None:
    """Deal flows to n lanes."""

def lanes_by_port(batch: NativeBatch, servers: Buffer, without: int) -> None:
    """Primary: to one of the server ports, a bit each in 8192 bytes."""

def lanes_by_mac(batch: NativeBatch, macs: Buffer, without: int) -> None:
    """Primary: from one of the MAC addresses, 6 bytes each."""

class Hosts:
    """What is known of hosts: those of every packet are noted in order of appearance."""

    def __len__(self) -> int: ...
    def note(self, batch: NativeBatch) -> None: ...
    def host(self, k: int) -> tuple[bytes, int, int, int, int]:
        """Address, flags (1: was a source; 2: was a destination at first), packets that only a client sends, and that
        only a server sends, port."""
    def set(self, k: int, lane: int, flags: int = 0) -> None:
        """Say which lane the packets of a host go by, and add flags of your own, from 4 on."""
    def lanes(self, batch: NativeBatch, without: int) -> None:
        """By what was said of the source."""
    def keep(self, batch: NativeBatch, bit: int, ends: str, exclude: bool) -> None:
        """No lane for packets unless their source (S), destination (D), both (B) or either (E) have the flag;
        exclude: if they have it."""
    def flow_lanes(self, batch: NativeBatch, without: int) -> None:
        """Primary: from the side that began the flow. A table of its own: not for `note` too."""
    def sender_lanes(self, batch: NativeBatch, most: int) -> tuple[int, int, int]:
        """Narrow packets to their UDP payload, one lane for each original sender, at most so many. Drops the others:
        returns how many were not UDP, fragments, or cut. A table of its own."""

class FlowSet:
    """Counts flows by their addresses, ports and protocol, both directions together."""

    def add(self, batch: NativeBatch) -> None: ...
    counts: tuple[int, int, int]
    """Flows, packets of them, packets without IP."""

def drop_lane(batch: NativeBatch, lane: int) -> int:
    """Drop the packets of a lane; returns how many."""
