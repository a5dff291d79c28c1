"""Two sides: which packets go out of the first device and which out of the second; tcpprep's modes and cache files.

A packet's lane is 0 (primary), 1 (secondary) or 2 (not sent). Clients are primary; so are the packets that a list of
addresses, MAC addresses or an expression matches, and those to a server's port: tcpprep's labels. What is not IP is
primary, with `nonip` secondary. With `compat` everything is as tcpprep does it, also where its manual says otherwise:
what is not IP the other way round, all IPv6 hosts as one, a reversed expression with all packets on one side.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple

from pcaptools.core import _sides
from pcaptools.core.batch import Batch
from pcaptools.core.pipeline import Account, Transform
from pcaptools.engines.replay_choice import Drop, Ranges, complement, parse_numbers
from pcaptools.errors import InputError, UsageError

PRIMARY, SECONDARY, NONE = range(3)

SURVEYS = ("router", "bridge", "client", "server")
"""Modes that must see everything before they decide."""

MODES = (*SURVEYS, "first", "port", "cidr", "regex", "mac", "flow")

_LISTED = 4  # the first of the flags of a host that rules use

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Plan(NamedTuple):
    """How to split: a mode of MODES and what it takes.

    ratio: a host is a server when it sent so many times as many packets of a server as of a client. shortest, longest:
    prefix lengths that the router mode tries (of IPv4; IPv6: 32 to 126). ports: of servers.
    """

    mode: str
    value: str = ""
    reverse: bool = False
    nonip: bool = False
    compat: bool = False
    ratio: float = 2.0
    shortest: int = 8
    longest: int = 30
    ports: frozenset[int] = frozenset(range(1024))


def parse_mode(text: str) -> tuple[str, str]:
    """The mode and its list: `router`, `cidr:10.0.0.0/8,[fd00::/8]`. Raises ValueError."""
    mode, _, value = text.partition(":")
    if mode not in MODES:
        raise ValueError(f"'{mode}' is none of {', '.join(MODES)}")
    if (mode in ("cidr", "regex", "mac")) != bool(value):
        raise ValueError(f"{mode}:LIST, what list?" if not value else f"{mode} takes no list")
    checks: dict[str, Callable[[str], object]] = {"cidr": parse_networks, "regex": re.compile, "mac": parse_macs}
    try:
        checks.get(mode, str)(value)
    except re.error as error:
        raise ValueError(f"'{value}': {error}") from None
    return mode, value


def parse_networks(text: str) -> list[Network]:
    """`10.0.0.0/8,192.168.1.1,[fd00::/8]`; bits behind the prefix are ignored. Raises ValueError."""
    return [ipaddress.ip_network(part.strip("[] "), strict=False) for part in text.split(",")]


def parse_macs(text: str) -> bytes:
    """`00:11:22:33:44:55,...`, 6 bytes each. Raises ValueError."""
    macs = [bytes.fromhex(part.replace(":", "").replace("-", "")) for part in text.split(",")]
    if any(len(mac) != 6 for mac in macs):
        raise ValueError(f"'{text}' is not a list of MAC addresses")
    return b"".join(macs)


def parse_services(lines: Iterable[str]) -> frozenset[int]:
    """The ports of a file like /etc/services."""
    found = (re.match(r"\s*[^#\s]+\s+(\d+)/(?:tcp|udp)", line) for line in lines)
    return frozenset(int(match[1]) for match in found if match and int(match[1]) < 65536)


class Rule(NamedTuple):
    """An include or exclude rule: kind S, D, B, E (networks), P (packet numbers) or F (a filter)."""

    kind: str
    exclude: bool
    networks: list[Network]
    numbers: Ranges
    expression: str


def parse_rule(text: str, exclude: bool) -> Rule:
    """`S:10.0.0.0/8`, `P:61-65,88-`, `F:tcp port 80`. Raises ValueError."""
    kind, colon, value = text.partition(":")
    if kind not in ("S", "D", "B", "E", "P", "F") or not colon or not value:
        raise ValueError(f"'{text}' does not begin with S:, D:, B:, E:, P: or F:")
    networks = parse_networks(value) if kind in "SDBE" else []
    numbers = parse_numbers(value) if kind == "P" else []
    return Rule(kind, exclude, networks, complement(numbers) if kind == "P" and not exclude else numbers, value)


def _is_in(address: bytes, networks: list[Network]) -> bool:
    number = int.from_bytes(address, "big")
    version = 4 if len(address) == 4 else 6
    return any(
        network.version == version and number & int(network.netmask) == int(network.network_address)
        for network in networks
    )


class Splitter(Transform):
    """Gives every packet its lane. Modes of SURVEYS need `survey()` over all packets and `decide()` before.

    compile: a filter's program for a link type, as bytes.
    """

    def __init__(
        self, plan: Plan, rule: Rule | None = None, compile: Callable[[str, int], bytes] | None = None
    ) -> None:
        self._plan = plan
        self._rule = rule
        self._compile = compile
        self._hosts = _sides.Hosts()
        self._flows = _sides.Hosts()
        self._known = 0
        self._seen = 0
        self._first_of_v6 = NONE
        self._judge = self._judgement()
        self._swaps = plan.reverse and not (plan.compat and plan.mode == "regex")
        nonip = SECONDARY if plan.nonip else PRIMARY
        self._without = nonip ^ plan.compat ^ self._swaps  # what is not IP changes sides in the end, too
        self.surveys = plan.mode in SURVEYS
        """Whether it must see all packets first."""
        self.notice = ""

    def survey(self, batch: Batch) -> None:
        """Note who speaks as a client and who as a server."""
        self._hosts.note(batch)

    def decide(self) -> None:
        """Give all hosts of the survey their sides."""
        decide_sides(self._hosts, self._plan, self)
        self._known = len(self._hosts)

    def feed(self, batch: Batch) -> Iterable[Batch]:
        self._split(batch)
        if self._swaps:
            _sides.swap_lanes(batch)
        if self._rule:
            self._keep(batch, self._rule)
        self._seen += batch.n
        yield batch

    def finish(self) -> Iterable[Batch]:
        self._seen = 0
        return ()

    def _split(self, batch: Batch) -> None:
        mode = self._plan.mode
        if mode == "port":
            _sides.lanes_by_port(batch, self._port_bits(), self._without)
        elif mode == "mac":
            _sides.lanes_by_mac(batch, parse_macs(self._plan.value), SECONDARY if self._plan.compat else self._without)
        elif mode == "flow":
            self._flows.flow_lanes(batch, self._without)
        else:
            self._hosts.note(batch)
            self._meet()
            self._hosts.lanes(batch, self._without)

    def _port_bits(self) -> bytes:
        bits = bytearray(8192)
        for port in self._plan.ports:
            bits[port >> 3] |= 1 << (port & 7)
        return bytes(bits)

    def _meet(self) -> None:
        """Judge the hosts that were not seen before."""
        networks = self._rule.networks if self._rule and self._rule.kind in "SDBE" else []
        for k in range(self._known, len(self._hosts)):
            address, flags = self._hosts.host(k)[:2]
            self._hosts.set(k, self._judge(address, flags), _LISTED if _is_in(address, networks) else 0)
        self._known = len(self._hosts)

    def _judgement(self) -> Callable[[bytes, int], int]:
        """The lane of a host by its address and flags."""
        plan = self._plan
        if plan.mode == "cidr":
            networks = parse_networks(plan.value)
            return lambda address, flags: PRIMARY if _is_in(address, networks) else SECONDARY
        if plan.mode == "regex":
            pattern = re.compile(plan.value)
            if plan.compat and plan.reverse:
                return lambda address, flags: SECONDARY
            return lambda address, flags: PRIMARY if pattern.search(_text(address)) else SECONDARY
        if plan.mode == "first":
            return self._first_role
        return lambda address, flags: PRIMARY

    def _first_role(self, address: bytes, flags: int) -> int:
        """By whether the host was seen as a source or as a destination at first."""
        role = SECONDARY if flags & 2 else PRIMARY
        if self._plan.compat and len(address) == 16:
            self._first_of_v6 = role if self._first_of_v6 == NONE else self._first_of_v6
            return self._first_of_v6
        return role

    def _keep(self, batch: Batch, rule: Rule) -> None:
        if rule.kind == "P":
            for first, last in rule.numbers:
                start, stop = max(first - 1 - self._seen, 0), min(last - self._seen, batch.n)
                if start < stop:
                    _sides.set_lanes(batch, NONE, start, stop)
        elif rule.kind == "F":
            assert self._compile
            for linktype in dict.fromkeys(batch.linktypes):
                _sides.keep_matching(batch, linktype, self._compile(rule.expression, linktype))
        else:
            self._hosts.note(batch)
            self._list()
            self._hosts.keep(batch, _LISTED, rule.kind, rule.exclude)

    def _list(self) -> None:
        """For modes without a table of hosts of their own."""
        if self._known < len(self._hosts):
            self._meet()


def _text(address: bytes) -> str:
    return str(ipaddress.ip_address(address))


def decide_sides(hosts: _sides.Hosts, plan: Plan, splitter: Splitter) -> None:
    """Sides of all hosts by what they sent: see tcpprep(1) on its automatic modes."""
    found = [hosts.host(k) for k in range(len(hosts))]
    counts = [(client, server) for _, _, client, server, _ in found]
    if plan.compat:
        together = [sum(c[end] for c, host in zip(counts, found, strict=True) if len(host[0]) == 16) for end in (0, 1)]
        counts = [(together[0], together[1]) if len(h[0]) == 16 else c for c, h in zip(counts, found, strict=True)]
    sides = [_side(client, server, plan.ratio) for client, server in counts]
    unknown = {"client": PRIMARY, "server": SECONDARY, "bridge": SECONDARY, "router": PRIMARY}[plan.mode]
    networks: set[tuple[int, int, int]] = set()
    if plan.mode == "router":
        for version, lengths in ((4, range(plan.shortest, plan.longest + 1)), (6, range(32, 127))):
            networks |= _server_networks(found, sides, version, lengths, splitter)
    rule = splitter._rule
    listed = rule.networks if rule else []
    for k, (host, side) in enumerate(zip(found, sides, strict=True)):
        if side == NONE:
            side = SECONDARY if _in_networks(host[0], networks) else unknown
        hosts.set(k, side, _LISTED if _is_in(host[0], listed) else 0)


def _side(client: int, server: int, ratio: float) -> int:
    if not client and not server:
        return NONE
    return SECONDARY if server >= client * ratio else PRIMARY


def _prefix(address: bytes, length: int) -> tuple[int, int, int]:
    """(version, prefix length, prefix)."""
    bits = len(address) * 8
    return (4 if bits == 32 else 6, length, int.from_bytes(address, "big") >> (bits - length))


_Host = tuple[bytes, int, int, int, int]


def _server_networks(
    found: list[_Host], sides: list[int], version: int, lengths: Iterable[int], told: Splitter
) -> set[tuple[int, int, int]]:
    """The largest networks around the servers in which no client is."""
    size = 4 if version == 4 else 16
    servers = [host[0] for host, side in zip(found, sides, strict=True) if side == SECONDARY and len(host[0]) == size]
    clients = [host[0] for host, side in zip(found, sides, strict=True) if side == PRIMARY and len(host[0]) == size]
    for length in lengths:
        networks = {_prefix(address, length) for address in servers}
        if not any(_prefix(address, length) in networks for address in clients):
            return networks
    if servers:
        told.notice = f"no network of IPv{version} holds servers only: hosts that are neither go out as clients"
    return set()


def _in_networks(address: bytes, networks: set[tuple[int, int, int]]) -> bool:
    lengths = {length for version, length, _ in networks if version == (4 if len(address) == 4 else 6)}
    return any(_prefix(address, length) in networks for length in lengths)


# ---- tcpprep's cache files

_MAGIC, _VERSION = b"tcpprep\0", b"04\0\0"
_HEADER = struct.Struct(">8s4sQHH")


class CacheWriter:
    """Collects the lanes of packets; `bytes()` is the file. comment: text, or ""."""

    def __init__(self, comment: str = "") -> None:
        self._comment = comment.encode(errors="surrogateescape")
        self._bits = bytearray()

    def __call__(self, batch: Batch) -> None:
        self._bits += _sides.cache_bits(batch)

    def counts(self) -> tuple[int, int, int]:
        """Packets that are primary, secondary, and not sent."""
        return self._bits.count(3), self._bits.count(2), self._bits.count(0)

    def bytes(self) -> bytes:
        """The file."""
        n = len(self._bits)
        padded = self._bits + bytes(-n % 4)
        pairs = zip(padded[::4], padded[1::4], padded[2::4], padded[3::4], strict=True)
        packed = bytes(a | b << 2 | c << 4 | d << 6 for a, b, c, d in pairs)
        return _HEADER.pack(_MAGIC, _VERSION, n, 4, len(self._comment)) + self._comment + packed


class Cached(Transform):
    """Lanes as a cache file says. Raises InputError when it is none, or is of another capture."""

    def __init__(self, data: bytes, name: str) -> None:
        self._name = name
        if len(data) < _HEADER.size or not data.startswith(_MAGIC):
            raise InputError(f"{name}: not a cache file of tcpprep")
        _, version, self.packets, per_byte, comment = _HEADER.unpack_from(data)
        if version != _VERSION or per_byte != 4:
            raise InputError(f"{name}: cache file of version {version!r}, {per_byte} packets a byte: not known")
        self._bits = data[_HEADER.size + comment :]
        if len(self._bits) * 4 < self.packets:
            raise InputError(f"{name}: cut short: it has no word on all of its {self.packets} packets")
        self._seen = 0

    def feed(self, batch: Batch) -> Iterable[Batch]:
        if self._seen + batch.n > self.packets:
            raise InputError(f"{self._name}: is of {self.packets} packets, but the capture has more")
        _sides.lanes_from_cache(batch, self._bits, self._seen)
        self._seen += batch.n
        yield batch


class Side(Transform):
    """All packets of a capture go one way: the first one's are primary, the second one's secondary."""

    def __init__(self, lane: int) -> None:
        self._lane = lane

    def feed(self, batch: Batch) -> Iterable[Batch]:
        _sides.set_lanes(batch, self._lane)
        yield batch


def unsent(account: Account) -> Transform:
    """Leaves out the packets that the split does not send."""
    return Drop(lambda batch: _sides.drop_lane(batch, NONE), "not sent by the split", account)


def check_plan(plan: Plan) -> None:
    """Raises UsageError for what contradicts itself."""
    if plan.reverse and plan.mode not in ("cidr", "regex", "mac") and plan.compat:
        raise UsageError("--reverse: tcpprep knows it with cidr, regex and mac only")
    if not 0 <= plan.shortest <= plan.longest <= 32:
        raise UsageError("--minmask and --maxmask: prefix lengths from 0 to 32, the larger network's first")
