"""Editing packets in place: what the options of pcaprewrite mean, and the transform that applies them.

The edits themselves are native (core/csrc/edits.h). Checksums always follow an edit incrementally (RFC 1624): a
right one stays right, a wrong one stays wrong. `fix_checksums` recomputes them, as far as a packet holds all bytes
that they cover.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterable, Sequence

from pcaptools.core._edits import Job
from pcaptools.core._edits import resum as _resum
from pcaptools.core.batch import SUMS, Batch
from pcaptools.core.pipeline import Transform

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ipaddress

Rule = namedtuple("Rule", "source target")
"""One `FROM:TO` of an address map: two networks of the same IP version."""

_Rule = tuple[bytes, bytes, bytes, bytes]


def parse_map(text: str) -> list[Rule]:
    """`CIDR:CIDR[,CIDR:CIDR...]`, IPv6 in brackets, as rules; the first that fits an address decides.

    A missing prefix length means a single host. Raises ValueError.
    """
    return [_parse_rule(entry) for entry in text.split(",")]


def _parse_rule(entry: str) -> Rule:
    fields = _split_pair(entry.strip())
    if fields is None:
        raise ValueError(f"'{entry}' is not CIDR:CIDR (IPv6 addresses stand in brackets)")
    source, target = (_parse_network(field) for field in fields)
    if source.version != target.version:
        raise ValueError(f"'{entry}' maps IPv{source.version} to IPv{target.version}")
    return Rule(source, target)


def _split_pair(entry: str) -> tuple[str, str] | None:
    """The two sides of a colon that is not inside brackets."""
    depth = 0
    for at, character in enumerate(entry):
        depth += (character == "[") - (character == "]")
        if character == ":" and depth == 0:
            return entry[:at], entry[at + 1 :]
    return None


def _parse_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    import ipaddress

    bare = text
    if text.startswith("["):
        if "]" not in text:
            raise ValueError(f"'{text}': ']' is missing")
        address, _, behind = text[1:].partition("]")
        bare = address + behind
    try:
        network = ipaddress.ip_network(bare, strict=False)
    except ValueError:
        raise ValueError(f"'{text}' is not an address or CIDR network") from None
    return network


def narrowing(rules: Sequence[Rule]) -> list[str]:
    """The rules that map a network onto a narrower one, which makes different hosts one, as text."""
    return [f"{rule.source} onto {rule.target}" for rule in rules if rule.target.prefixlen > rule.source.prefixlen]


def parse_mac(text: str) -> bytes:
    """`08:00:27:85:2a:08` (or with `-`) as 6 bytes. Raises ValueError."""
    fields = text.replace("-", ":").split(":")
    try:
        if len(fields) != 6 or not all(0 < len(field) <= 2 for field in fields):
            raise ValueError
        return bytes(int(field, 16) for field in fields)
    except ValueError:
        raise ValueError(f"'{text}' is not a MAC address such as 08:00:27:85:2a:08") from None


def _native(rule: Rule) -> _Rule:
    """A rule as (from, mask, to, keep): the target's network bits over the remaining low bits of the old address."""
    source, target = rule
    return (
        source.network_address.packed,
        source.netmask.packed,
        target.network_address.packed,
        target.hostmask.packed,
    )


def by_version(rules: Iterable[Rule]) -> tuple[list[_Rule], list[_Rule]]:
    both: tuple[list[_Rule], list[_Rule]] = ([], [])
    for rule in rules:
        both[rule.source.version == 6].append(_native(rule))
    return both


class Rewrite(Transform):
    """Edit every packet in place.

    source_map, destination_map: rules; source_mac, destination_mac: 6 bytes. Or `job`, which has all edits that keep
    lengths (engines/edits.py). resum: packets that the reshaping marked get new
    checksums. `counts` tells what happened.
    """

    def __init__(
        self,
        *,
        source_map: Sequence[Rule] = (),
        destination_map: Sequence[Rule] = (),
        source_mac: bytes | None = None,
        destination_mac: bytes | None = None,
        fix_checksums: bool = False,
        job: Job | None = None,
        resum: bool = False,
    ) -> None:
        both = (None if mac is None else (mac, mac) for mac in (destination_mac, source_mac))
        macs = tuple(pair or (None, None) for pair in both)
        edits = bool(source_map or destination_map or source_mac or destination_mac)
        none: tuple[list, list] = ([], [])
        maps = (by_version(source_map), by_version(destination_map))
        self._job = job or (Job(maps=maps, pnat=(none, none), both=none, macs=macs) if edits else None)
        self._out = Batch()
        self._resum = resum
        self._fix = fix_checksums
        self._sums = [0] * len(SUMS), [0] * len(SUMS)

    @property
    def counts(self) -> dict:
        """Packets edited, cut (addresses not captured), malformed (no IP header can be so), no_ethernet; and
        matched: addresses that a rule fitted, source and destination."""
        names = ("edited", "cut", "malformed", "no_ethernet", "matched")
        return {name: self._job.counts[name] for name in names} if self._job else {}

    @property
    def sums(self) -> dict[str, dict[str, int]]:
        """What fixing the checksums found before it fixed them: by `header` or `transport`, then by SUMS."""
        header, transport = self._job.sums if self._job else self._sums
        return {"header": dict(zip(SUMS, header, strict=True)), "transport": dict(zip(SUMS, transport, strict=True))}

    def feed(self, batch: Batch) -> Iterable[Batch]:
        if self._job:
            self._out.clear()
            if self._job.apply(batch, self._out, self._fix):
                self._out.forget_section_length()
                batch = self._out
        else:
            self._sum(batch)
        batch.drop_stale_options()
        yield batch

    def _sum(self, batch: Batch) -> None:
        if self._resum:
            _resum(batch)
        if not self._fix:
            return
        for sums, found in zip(self._sums, batch.sums(True), strict=True):
            for k, count in enumerate(found):
                sums[k] += count
