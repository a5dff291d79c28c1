from collections.abc import Mapping

from pcaptools.core._core import NativeBatch

class Flood:
    """SYNs, one per source address and then the next port. header: the link layer's; source: the first of `addresses`
    addresses, 4 or 16 bytes like target; ports: first and last source port; interval: ns from packet to packet as
    (whole, numerator, denominator of the rest); start: ns since the epoch; least: bytes that frames are padded to."""

    def __init__(
        self,
        *,
        linktype: int,
        header: bytes,
        source: bytes,
        target: bytes,
        addresses: int,
        ports: tuple[int, int],
        dport: int,
        packets: int,
        interval: tuple[int, int, int],
        start: int,
        seed: int,
        least: int = 0,
        nanoseconds: bool = False,
    ) -> None: ...
    def fill(self, batch: NativeBatch) -> bool:
        """Replace what the batch holds by the next packets, as classic pcap records; False: there are none."""

class Mix:
    """A mix of traffic. headers: the link layer's by (IPv6, from the server, with a VLAN tag), each 0 or 1; duration in
    ns; shares, loss and reorder in 2^-32; the rest as for `Flood`."""

    def __init__(
        self,
        *,
        linktype: int,
        headers: Mapping[tuple[int, int, int], bytes],
        flows: int,
        packets: int,
        duration: int,
        start: int,
        seed: int,
        vlan_share: int,
        ipv6_share: int,
        loss: int,
        reorder: int,
        least: int = 0,
        nanoseconds: bool = False,
    ) -> None: ...
    def fill(self, batch: NativeBatch) -> bool:
        """Replace what the batch holds by the next packets, as classic pcap records; False: there are none."""
    counts: dict
    """What was made so far: the members of pt_counts (csrc/mix.h)."""
    largest: list[tuple[int, tuple[bytes, int], tuple[bytes, int], int, int, int, int, int]]
    """Of the largest flows that ended: kind, client, server (address, port), VLAN, packets, bytes, first and last time
    in ns after the start."""
