"""Which flows a flow caused: DNS answers and the connections to what they gave, SIP calls and their media, FTP control
and data connections, web pages and the requests that they led to.

Only the few packets that tell of others come here, and every new flow once (`Relations.feed`). What they promise is
remembered until it comes about or expires; a flow has one cause, the first that is found.

Formats: RFC 1035 (DNS), RFC 3261 and RFC 4566 (SIP, SDP), RFC 959 and RFC 2428 (FTP), RFC 9110 (HTTP).
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections import OrderedDict
from collections.abc import Hashable, Iterator

from pcaptools.core._flows import FlowTable
from pcaptools.core.batch import Batch
from pcaptools.engines.flows import PORTS, SECOND, Row

DNS, SIP, FTP, HTTP = 1, 2, 3, 4
"""Numbers of relations: indices of flows.RELATIONS."""

_BITS = {1: DNS, 2: SIP, 4: FTP, 8: HTTP}

LEAST_TTL = 5 * SECOND
"""An address with TTL 0 is for what is under way: so long."""

DATA_WAIT = 300 * SECOND
"""How long a promised FTP data connection is waited for."""

MOST = 1 << 20
"""Promises remembered of each kind; the oldest go first."""

_TCP, _UDP = 6, 17
_REDIRECTS = ("301", "302", "303", "307", "308")


class _Promises(OrderedDict[Hashable, tuple[int, int | None]]):
    """Which flow promised something, and until when (ns, None: for ever)."""

    def add(self, key: Hashable, flow: int, until: int | None) -> None:
        self[key] = (flow, until)
        self.move_to_end(key)
        if len(self) > MOST:
            self.popitem(last=False)

    def due(self, key: Hashable, time: int) -> int | None:
        """The flow that promised this, if it still holds."""
        flow, until = self.get(key, (None, None))
        return flow if until is None or time <= until else None


class Relations:
    """Finds causes while a capture is indexed, and relates flows in the table."""

    def __init__(self, table: FlowTable) -> None:
        self._table = table
        self._met = 1
        self._addresses = _Promises()
        self._data = _Promises()
        self._media = _Promises()
        self._calls = _Promises()
        self._pages = _Promises()
        self._redirects = _Promises()
        self._requests: OrderedDict[int, list[str]] = OrderedDict()
        self._endpoints: dict[tuple[bytes, int], int] = {}
        self._listening = False

    def feed(self, batch: Batch) -> None:
        """Look at the batch that was indexed last."""
        told = iter(self._table.told(batch))
        packet = next(told, None)
        for flow in range(self._met, self._table.flows):
            while packet is not None and packet[0] < self._table.ordinal(flow):
                self._packet(*packet)
                packet = next(told, None)
            self._new_flow(flow)
        self._met = self._table.flows
        while packet is not None:
            self._packet(*packet)
            packet = next(told, None)

    def _row(self, flow: int) -> Row:
        return Row._make(self._table.row(flow))

    def _relate(self, flow: int, cause: int | None, relation: int) -> bool:
        return cause is not None and cause != flow and self._table.relate(flow, cause, relation)

    def _new_flow(self, flow: int) -> None:
        row = self._row(flow)
        if row.kind != PORTS:
            return
        if row.protocol == _UDP:
            for end in ((row.client, row.client_port), (row.server, row.server_port)):
                if self._relate(flow, self._media.due(end, row.first), SIP):
                    return
                self._endpoints[end] = flow
            if len(self._endpoints) > MOST:
                self._endpoints.clear()
        elif row.protocol == _TCP and self._relate(flow, self._data.due((row.server, row.server_port), row.first), FTP):
            return
        if row.server_port != 53:
            self._relate(flow, self._addresses.due((row.client, row.server), row.first), DNS)

    def _packet(self, ordinal: int, flow: int, kind: int, way: int, tcp: bool, time: int, payload: bytes) -> None:
        flow = self._table.resolved(flow)
        relation = _BITS[kind]
        if relation == DNS:
            self._dns(flow, payload[2:] if tcp else payload, time)
        elif relation == SIP:
            self._sip(flow, payload)
        elif relation == FTP:
            self._ftp(flow, payload, time)
        else:
            self._http(flow, payload)

    # DNS

    def _dns(self, flow: int, message: bytes, time: int) -> None:
        client = self._row(flow).client
        for address, ttl in dns_addresses(message):
            self._addresses.add((client, address), flow, time + max(ttl * SECOND, LEAST_TTL))

    # SIP

    def _sip(self, flow: int, message: bytes) -> None:
        text = message.decode("latin-1")
        call = re.search(r"^(?:call-id|i)\s*:\s*(\S+)", text, re.IGNORECASE | re.MULTILINE)
        if call:
            self._relate(flow, self._calls.due(call[1], 0), SIP)
            if call[1] not in self._calls:
                self._calls.add(call[1], flow, None)
        for end in sdp_ends(text):
            self._media.add(end, flow, None)
            media = self._endpoints.get(end)
            if media is not None:
                self._relate(media, flow, SIP)

    # FTP

    def _ftp(self, flow: int, line: bytes, time: int) -> None:
        row = self._row(flow)
        end = ftp_end(line.decode("latin-1"), row)
        if end:
            self._data.add(end, flow, time + DATA_WAIT)

    # HTTP

    def _http(self, flow: int, message: bytes) -> None:
        text = message.decode("latin-1")
        client = self._row(flow).client
        if text.startswith("HTTP/"):
            self._response(flow, client, text)
        else:
            self._request(flow, client, text)

    def _request(self, flow: int, client: bytes, text: str) -> None:
        target = text.split(" ", 2)[1]
        url = _plain_url(target if "://" in target else (_field(text, "host") or "") + target)
        cause = self._redirects.due((client, url), 0)
        if cause is None:
            cause = self._pages.due((client, _plain_url(_field(text, "referer") or "")), 0)
        self._relate(flow, cause, HTTP)
        self._pages.add((client, url), flow, None)
        waiting = self._requests.setdefault(flow, [])
        if len(waiting) < 64:
            waiting.append(url)
        if len(self._requests) > MOST:
            self._requests.popitem(last=False)

    def _response(self, flow: int, client: bytes, text: str) -> None:
        waiting = self._requests.get(flow)
        url = waiting.pop(0) if waiting else ""
        location = _field(text, "location")
        if text[9:12] not in _REDIRECTS or not location:
            return
        if "://" not in location:
            location = url.partition("/")[0] + "/" + location.lstrip("/")
        self._redirects.add((client, _plain_url(location)), flow, None)


def dns_addresses(message: bytes) -> Iterator[tuple[bytes, int]]:
    """The addresses that a DNS answer gives, with their TTL in s, as far as the message can be read."""
    if len(message) < 12:
        return
    _, flags, questions, answers = struct.unpack_from("!HHHH", message)
    if not flags & 0x8000:
        return
    at = 12
    for _ in range(questions):
        at = _after_name(message, at) + 4
    for _ in range(answers):
        at = _after_name(message, at)
        if at + 10 > len(message):
            return
        kind, _, ttl, size = struct.unpack_from("!HHIH", message, at)
        data = message[at + 10 : at + 10 + size]
        if (kind, len(data)) in ((1, 4), (28, 16)):
            yield data, ttl
        at += 10 + size


def _after_name(message: bytes, at: int) -> int:
    """The offset behind a domain name, beyond the message where it is cut."""
    while at < len(message):
        length = message[at]
        if length >= 0xC0:
            return at + 2
        at += 1 + length
        if not length:
            return at
    return len(message)


def sdp_ends(text: str) -> Iterator[tuple[bytes, int]]:
    """The addresses and ports at which a session description receives RTP and RTCP."""
    _, found, body = text.replace("\r\n", "\n").partition("\n\n")
    session: bytes | None = None
    ports: list[int] = []
    host = session
    for line in [*body.split("\n"), "m="] if found else []:
        if line.startswith("c=IN IP"):
            host = _packed(line.split(" ")[-1].split("/")[0])
            session = host if not ports else session
        elif line.startswith("a=rtcp:") and line[7:].split(" ")[0].isdigit():
            ports.append(int(line[7:].split(" ")[0]))
        elif line.startswith("m="):
            if host:
                yield from ((host, port) for port in ports)
            fields = line.split(" ")
            number = fields[1].split("/")[0] if len(fields) > 1 else ""
            ports = [int(number), int(number) + 1] if number.isdigit() and 0 < int(number) < 65535 else []
            host = session


def ftp_end(line: str, row: Row) -> tuple[bytes, int] | None:
    """Where an FTP data connection is to go. row: the control connection."""
    numbers = re.match(r"(?:227 [^\d]*|PORT )(\d+),(\d+),(\d+),(\d+),(\d+),(\d+)", line)
    if numbers:
        values = [int(value) for value in numbers.groups()]
        return (bytes(values[:4]), values[4] << 8 | values[5]) if max(values) < 256 else None
    passive = re.match(r"229 .*\((.)\1\1(\d+)\1\)", line)
    if passive:
        return row.server, int(passive[2])
    active = re.match(r"EPRT (.)[12]\1([^|]+)\1(\d+)\1", line)
    host = _packed(active[2]) if active else None
    return (host, int(active[3])) if active and host else None


def _packed(text: str) -> bytes | None:
    try:
        return ipaddress.ip_address(text.strip()).packed
    except ValueError:
        return None


def _field(text: str, name: str) -> str | None:
    """The value of a header field."""
    found = re.search(rf"^{name}:[ \t]*([^\r\n]*)", text, re.IGNORECASE | re.MULTILINE)
    return found[1].strip() if found else None


def _plain_url(url: str) -> str:
    """Host and path, without scheme, default port and fragment."""
    host, slash, path = url.split("#")[0].partition("://")[2 if "://" in url else 0].partition("/")
    return host.lower().removesuffix(":80") + (slash or "/") + path
