from collections.abc import Sequence
from typing import Any

from pcaptools.core._core import NativeBatch

_Rules = tuple[list[tuple[bytes, bytes, bytes, bytes]], list[tuple[bytes, bytes, bytes, bytes]]]
"""For IPv4 and for IPv6: (from, mask, to, keep), each of 4 or of 16 bytes."""

_Macs = Sequence[Sequence[bytes | None]]
"""For destination and source, each from the client and from the server: 6 bytes, or None."""

def seed_mix(seed: int) -> tuple[int, int]:
    """What tcprewrite makes of a seed: (state of its generator, number drawn last)."""

def seed_mac_mask(seed: int) -> bytes:
    """The six bytes that --enet-mac-seed works with."""

class Tcprewrite:
    """tcprewrite's edits with all its mistakes. fields: the scalars of pt_tcprewrite (csrc/compat.h) by name."""

    def __init__(
        self,
        fields: dict[str, Any],
        *,
        maps: Sequence[_Rules],
        ports: Sequence[tuple[int, int, int]],
        macs: _Macs,
        swaps: Sequence[bytes],
        links: Sequence[bytes],
        seed: int | None,
        fuzz: int | None,
        sequence: int | None,
        mac_mask: bytes | None,
        cache: bytes | None,
    ) -> None: ...
    def edit(self, batch: NativeBatch, out: NativeBatch, nanoseconds: bool) -> None:
        """Append the edited packets to `out` as classic pcap records. Raises MemoryError."""
    out_type: int
    dropped: int
    overrun: bool
    """The capture has more packets than the cache."""

class Anonymizer:
    """A keyed one-to-one mapping of addresses. key: 16 bytes; mode: enum pt_anonymity; macs: enum pt_mac_anonymity."""

    def __init__(self, key: bytes, mode: int, macs: int) -> None: ...
    def address(self, data: bytes) -> bytes:
        """The new form of an address of 4, 16 or (MAC) 6 bytes. Raises ValueError."""

class Table:
    """A map of networks from text of lines FROM,TO. Raises ValueError, MemoryError."""

    def __init__(self, data: bytes) -> None: ...
    n: int
    overlaps: int
    """Lines that name a network which an earlier one named."""

class Directions:
    """Remembers of each flow which side is the client."""

    def note(self, batch: NativeBatch) -> None:
        """Mark the packets that come from servers."""

def note_cached(batch: NativeBatch, cache: bytes) -> None:
    """The same from a cache, one byte a packet. Raises ValueError."""

class Job:
    """All edits that keep lengths; the arguments are those of engines/edits.py, in the terms of csrc/edits.h."""

    def __init__(
        self,
        *,
        maps: Sequence[_Rules],
        pnat: Sequence[_Rules],
        both: _Rules,
        table: Table | None = None,
        seed: int | None = None,
        anonymizer: Anonymizer | None = None,
        skip_broadcast: bool = False,
        which: int = 0,
        ttl: tuple[int, int] = (0, 0),
        tos: int = -1,
        tclass: int = -1,
        flowlabel: int = -1,
        ports: Sequence[tuple[int, int, int]] = (),
        sequence: int = 0,
        macs: _Macs = ...,
        swaps: Sequence[bytes] = (),
        mac_mask: bytes | None = None,
        mac_keep: int = 0,
        skip_l2_broadcast: bool = False,
        fuzz: int | None = None,
        fuzz_factor: int = 8,
        payload: int = 0,
        payload_key: bytes = b"",
        dns: bool = False,
        fix_lengths: bool = False,
        leaks: bool = False,
        note: bool = False,
        skip_soft: bool = False,
    ) -> None: ...
    def apply(self, batch: NativeBatch, out: NativeBatch, fix: bool = False) -> bool:
        """Edit in place; compute checksums anew where packets are marked so, and with `fix` all of them.

        True: packets were cut, and what comes out is in `out` (empty before). Raises MemoryError.
        """
    sums: tuple[list[int], list[int]]
    """What `fix` found so far: counts by batch.SUMS, of IP headers and of transport headers."""
    def address(self, data: bytes) -> bytes:
        """The new form of an IP address that stands outside of packets."""
    counts: dict[str, Any]
    dropped: tuple[int, int]
    """Packets dropped so far: as not editable, and fuzzed away."""
    leaked_addresses: tuple[int, int]
    """Addresses that were looked for in payloads, and those that found no room."""
    addresses: tuple[list[bytes], list[bytes]] | None
    """With `note`, the addresses that were seen, and those of them that nothing mapped; up to 49152 each."""
    packets: list[int]
    """Packets that each option changed, in the order of enum pt_counted (csrc/rewrite.h)."""
    def rule_counts(self) -> list[list[tuple[int, int]]]:
        """How often each rule fitted, as (addresses, packets): source, destination, pseudo-NAT's two, both; IPv4's
        before IPv6's."""
    port_counts: list[tuple[int, int]]
    """The same of each port rule: (ports, packets)."""

def resum(batch: NativeBatch) -> None:
    """Compute the checksums anew of the packets that edits marked so."""

class Shape:
    """Edits that change lengths. fields: scalars of pt_shape (csrc/shape.h) by name, those left out being off."""

    def __init__(
        self,
        fields: dict[str, Any],
        *,
        macs: _Macs = ...,
        links: Sequence[bytes] = (),
        push: Sequence[int] = (),
        translate: Sequence[tuple[int, int, int]] = (),
    ) -> None: ...
    def apply(self, batch: NativeBatch, out: NativeBatch) -> None:
        """Build the batch anew in `out`, which is empty. Raises MemoryError."""
    counts: dict[str, int]

def splice(batch: NativeBatch, at: int, size: int, data: bytes) -> None:
    """Replace bytes that belong to no record; records behind them move. Raises ValueError, MemoryError."""
