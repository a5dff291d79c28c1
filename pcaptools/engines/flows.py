"""Splitting a capture by flow: what makes a flow, which ones are wanted, and what is known of each.

The flow table is native (core/csrc/flows.h). Flows are rows of it; a file is a group of rows. Times are ns since the
epoch.
"""

from __future__ import annotations

import struct
from collections import namedtuple
from collections.abc import Callable

from pcaptools.core import linktype as link
from pcaptools.core._core import Program
from pcaptools.core._flows import FlowTable
from pcaptools.core.batch import Batch
from pcaptools.errors import UsageError

SECOND = 1_000_000_000
"""ns"""

PATIENCE = 60 * SECOND
"""How long a first fragment is waited for, ns of capture time (RFC 8200 section 4.5)."""

TIMEOUT = 300 * SECOND
"""Default idle time that ends a flow, ns (RFC 4787 REQ-5)."""

NOTHING = struct.pack("=HBBI", 6, 0, 0, 0)
"""The BPF program that no packet matches."""

OTHER = 0
"""The row and the group of packets without a flow."""

By = namedtuple("By", "name by grouping limit files expression", defaults=(0, 0, None))
"""What makes a file: its name on the command line, enum pt_by, enum pt_grouping, limit, files, filter expression."""

_BY = {
    "connection": (0, 0),
    "hosts": (1, 0),
    "source": (2, 0),
    "destination": (3, 0),
    "vlan": (4, 0),
    "link": (5, 0),
    "interface": (6, 0),
    "protocol": (7, 0),
    "client": (0, 1),
    "server": (0, 2),
    "client-port": (0, 3),
    "server-port": (0, 4),
}
_BY_LIMIT = {"count": (8, 1), "size": (9, 1), "time": (10, SECOND)}
_PARTS = ("count", "size", "time", "files")

PORTS, PAIR, ECHO, SPI, DATAGRAM, HOSTS, HOST, PORT, NUMBER, VLAN = range(10)
"""enum pt_key_kind: what a key is made of."""

_PROTOCOLS = {
    1: "icmp", 2: "igmp", 4: "ipip", 6: "tcp", 17: "udp", 33: "dccp", 41: "ipv6", 46: "rsvp", 47: "gre", 50: "esp",
    51: "ah", 58: "icmpv6", 88: "eigrp", 89: "ospf", 103: "pim", 108: "ipcomp", 112: "vrrp", 115: "l2tp", 132: "sctp",
    136: "udplite",
}  # fmt: skip

STARTS = ("middle", "syn", "syn-ack")
RELATIONS = ("", "dns", "sip", "ftp", "http")


def protocol_name(number: int) -> str:
    """Name of an IP protocol, `ip` and its number where it has none here."""
    return _PROTOCOLS.get(number, f"ip{number}")


class Row(
    namedtuple(
        "Row",
        "kind version protocol client client_port server server_port extra number vlans first last packets_out "
        "packets_in bytes_out bytes_in flags_out flags_in seen start end relation cause group client_first",
    )
):
    """One flow. `out` is from the client to the server; addresses are bytes; flags those of TCP, ored."""

    __slots__ = ()

    @property
    def packets(self) -> int:
        return self.packets_out + self.packets_in

    @property
    def proto(self) -> str:
        """Name of the IP protocol, empty where the key has none."""
        if self.kind in (HOSTS, HOST, PORT, NUMBER, VLAN):
            return ""
        return protocol_name(self.protocol)

    @property
    def how_started(self) -> str:
        """`syn`, `syn-ack` (without the SYN), `middle`; empty where that means nothing."""
        return STARTS[self.start] if self.protocol == 6 and self.kind == PORTS else ""

    @property
    def how_ended(self) -> str:
        """`rst`, `fin` (both), `half` (one), `reused`, `timeout`, or `open`."""
        if self.protocol == 6 and self.kind == PORTS:
            if self.seen & 16:
                return "rst"
            if self.seen & 12:
                return "fin" if self.seen & 12 == 12 else "half"
        return ("open", "timeout", "reused")[self.end]


def parse_by(text: str) -> By:
    """The value of --by. Raises ValueError."""
    name, _, value = text.partition(":")
    if text in _BY:
        return By(text, *_BY[text])
    if name == "filter" and value:
        return By(name, 11, 0, expression=value)
    if name == "files":
        return By(name, 0, 5, files=_whole(value, 1 << 20))
    if name in _BY_LIMIT:
        by, unit = _BY_LIMIT[name]
        return By(name, by, 0, limit=parse_seconds(value) if name == "time" else _whole(value, 1 << 62) * unit)
    raise ValueError(f"'{text}' is not one of {', '.join(_BY)}, count:N, size:BYTES, time:SECONDS, files:N, filter:BPF")


def _whole(text: str, most: int) -> int:
    units = {"k": 1000, "M": 1000**2, "G": 1000**3}
    digits, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    if not (digits.isascii() and digits.isdigit()) or not 0 < int(digits) * unit <= most:
        raise ValueError(f"'{text}' is not a number from 1 to {most}")
    return int(digits) * unit


def parse_seconds(text: str) -> int:
    """A positive number of seconds, as ns. Raises ValueError."""
    ns = parse_timeout(text)
    if not ns:
        raise ValueError(f"'{text}' seconds are none")
    return ns


def parse_timeout(text: str) -> int:
    """Seconds as ns; 0 is none. Raises ValueError."""
    from pcaptools.core.numbers import parse_number

    ns = int(parse_number(text) * SECOND)
    if not 0 <= ns < 1 << 62:
        raise ValueError(f"'{text}' seconds are out of range")
    return ns


def parse_related(text: str) -> int:
    """The value of --related, as bits of enum pt_telling. Raises ValueError."""
    bits = 0
    for name in text.split(","):
        if name not in RELATIONS[1:]:
            raise ValueError(f"'{name}' is not one of {', '.join(RELATIONS[1:])}")
        bits |= 1 << RELATIONS.index(name) - 1
    return bits


class Marker:
    """Marks the packets that a filter does not match. compile: files.bpf.compile_filter.

    strict: a filter that libpcap cannot compile for a link type is an error; else such packets do not match.
    """

    def __init__(self, expression: str, compile: Callable[[str, int, bool], bytes], strict: bool) -> None:
        self._expression = expression
        self._compile = compile
        self._strict = strict
        self._programs: dict[tuple[int, bool], Program] = {}

    def __call__(self, batch: Batch) -> None:
        for linktype in set(batch.linktypes):
            key = linktype, batch.swapped
            if key not in self._programs:
                self._programs[key] = Program(linktype, self._program(*key))
            self._programs[key].drop_others(batch)

    def _program(self, linktype: int, swapped: bool) -> bytes:
        try:
            return self._compile(self._expression, linktype, swapped)
        except UsageError as error:
            if self._strict or "link" not in str(error).replace(self._expression, ""):
                raise
            return NOTHING


# Which flows are wanted


Choice = namedtuple("Choice", "least complete top", defaults=(0, False, None))
"""Packets that a file must have; whether it must hold a connection from SYN to FIN or RST; so many of the largest."""

EVERYTHING = Choice()


def unwanted(table: FlowTable, choice: Choice) -> dict[int, int]:
    """The groups that were not chosen, and how many packets they have. Group `OTHER` is always wanted here."""
    packets, complete = table.packets_per_group()
    wanted = [
        group
        for group in range(1, len(packets))
        if packets[group] >= max(choice.least, 1) and (complete[group] or not choice.complete)
    ]
    if choice.top is not None:
        wanted = sorted(wanted, key=lambda group: (-packets[group], group))[: choice.top]
    kept = {OTHER, *wanted}
    return {group: packets[group] for group in range(len(packets)) if packets[group] and group not in kept}


# Numbers and names


class Numbers:
    """The number of each group's file, from 1, in order of first packets."""

    def __init__(self, table: FlowTable) -> None:
        self._table = table
        self._start = 0
        self._next = 1
        self.of: dict[int, int] = {OTHER: 0}
        """By group."""
        self.row: dict[int, int] = {}
        """The first row of each group."""

    def update(self, settled: bool) -> None:
        """Number the groups that flows were given since. settled: no flow waits for its group."""
        fresh = [(flow, group) for flow, group in self._table.firsts(self._start) if group not in self.of]
        self.of.update(zip((group for _, group in fresh), range(self._next, self._next + len(fresh)), strict=True))
        self.row.update((group, flow) for flow, group in fresh)
        self._next += len(fresh)
        if settled:
            self._start = self._table.flows


def address(data: bytes) -> str:
    """An address of 4 or 16 bytes as text."""
    if len(data) == 4:
        return ".".join(map(str, data))
    import ipaddress

    return str(ipaddress.IPv6Address(data))


def vlan(row: Row) -> str:
    """Numbers of VLANs, the outermost first, joined by dots."""
    return ".".join(map(str, row.vlans))


def ends(row: Row) -> tuple[str, int | None, str, int | None]:
    """Address and port of the client and of the server, as far as the key has them."""
    if row.kind in (PORT, NUMBER, VLAN) or (row.kind == PAIR and not row.version):
        return "", None, "", None
    if row.kind == HOST:
        return address(row.client), None, "", None
    ports = (row.client_port, row.server_port) if row.kind == PORTS else (None, None)
    return address(row.client), ports[0], address(row.server), ports[1]


def key_text(row: Row, by: By) -> str:
    """What tells this flow from others, for people."""
    if row.kind == VLAN:
        return f"vlan {vlan(row)}" if row.vlans else "untagged"
    if row.kind == NUMBER:
        if by.name == "link":
            return link.name(row.number)
        if by.name == "filter":
            return "rest" if row.number else "match"
        return f"{by.name} {row.number}"
    if row.kind == PAIR and not row.version:
        return row.proto
    client, client_port, server, server_port = ends(row)
    text = " ".join(filter(None, (row.proto, end_text(client, client_port), end_text(server, server_port))))
    if row.kind == PORTS and row.extra:
        text += f" call {row.extra}"
    if row.kind == ECHO:
        text += f" id {row.extra}"
    if row.kind == SPI:
        text += f" spi {row.extra:#010x}"
    return text + (f" vlan {vlan(row)}" if row.vlans else "")


def end_text(address: str, port: int | None) -> str:
    """`10.0.0.1:80`, `[2001:db8::1]:80`, or the address alone."""
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def is_part(by: By) -> bool:
    """Whether files are parts of the capture rather than flows."""
    return by.name in _PARTS


def flag_letters(flags: int) -> str:
    """TCP flags as letters, FSRPAUEC."""
    return "".join(letter for k, letter in enumerate("FSRPAUEC") if flags >> k & 1)
