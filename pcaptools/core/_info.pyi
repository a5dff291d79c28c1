from collections.abc import Iterable

from pcaptools.core._core import NativeBatch

class Figures:
    """The figures of a capture. Sizes and lengths in bytes, times in ns since the epoch.

    Counts of packets: cut (captured in part), overlong (more captured than there was), untimed (simple packet blocks
    have no time and count in none of the times), backward (earlier than the one before).
    """

    packets: int
    bytes: int
    """On the wire."""
    captured: int
    cut: int
    overlong: int
    untimed: int
    backward: int
    least_cut: int
    """Smallest captured length of the cut packets."""
    most_cut: int
    most_captured: int
    timed: bool
    """There is a time: only then the next four mean something."""
    first: int
    last: int
    """Earliest and latest time."""
    first_interface: int
    last_interface: int
    interfaces: list[tuple[int, int]]
    """(packets, bytes) of each interface."""
    gap: int
    """Longest time without a packet, in file order; with all that follows only after `add_detail`."""
    gap_before: int
    """Number of the packet that ended it, from 1."""
    status: list[int]
    """Packets by the status of their outermost layer, in the order of `batch.STATUS`."""
    least_size: int
    most_size: int
    def add(self, batch: NativeBatch) -> None:
        """Count a batch. Raises MemoryError."""
    def add_detail(self, batch: NativeBatch) -> None:
        """Count its sizes, gaps and statuses too. Raises MemoryError."""
    def size_at(self, rank: int) -> int:
        """The size of the packet that is number `rank` by size, from 1; exact below 64 KiB, else at most 1/64 above."""

class Timeline:
    """Packets and bytes over time, in at most 2048 equal bins whose width fits itself to the capture."""

    def add(self, batch: NativeBatch) -> None: ...
    def end(self) -> tuple[int, int, int, list[tuple[list[int], list[int], int, int]]]:
        """(time of the first bin, width of a bin, burst interval, bins), times in ns; a bin is (packets, bytes) by kind
        (TCP, UDP, ICMP, other IP, ARP, other), and the most packets and bytes in one burst interval."""

class Talkers:
    """A table of conversations, or of endpoints, of at most `limit` rows: when it is full, the half that is smallest by
    the measure `by` (`bytes`, `packets` or `time`: from first to last packet) moves into `other`."""

    def __init__(self, endpoints: bool, by: str, limit: int, seed: int) -> None: ...
    def add(self, batch: NativeBatch) -> None:
        """Raises MemoryError."""
    def top(self, n: int) -> list[tuple]:
        """(IP protocol, the first packet went from B to A, (A's address, port), (B's address, port), packets from A and
        from B, bytes likewise, first and last time in ns or None), the largest by the measure first."""
    rows: int
    sums: tuple[int, int]
    """Packets and bytes of all rows."""
    other: tuple[int, int, int, int]
    """Rows moved out, their packets and bytes, and what a remaining row may lack at most, in the measure."""
    no_ip: tuple[int, int]
    """Packets and bytes without IP addresses."""

class ProtocolTree:
    """Packets and bytes by protocol. services: ports of TCP and UDP that get a node of their own."""

    def __init__(self, services: Iterable[int]) -> None: ...
    def add(self, batch: NativeBatch) -> None: ...
    nodes: list[tuple[int, int, int, int, int]]
    """(index of the parent, enum pt_protocol_kind, number, packets, bytes); the first one is all packets."""
    overflow: int
    """Packets that were not counted to their full depth, because the tree was full."""

def packet_limit(linktype: int) -> int:
    """The largest captured length, in bytes, that a packet of this link type may have."""

def other_blocks(batch: NativeBatch) -> list[tuple[int, int, int]]:
    """(type, offset, length) of every pcapng block of the batch that is no packet."""

def packet_options(batch: NativeBatch) -> list[tuple[int, int, int]]:
    """(record, start, end) of the options of every packet block that has some."""
