"""Tables of conversations, endpoints and protocols: counted natively in one pass, with bounded memory.

A table of conversations or endpoints holds at most LIMIT rows. When it is full, the half that is smallest by the
measure it is sorted by moves into `other`, so that totals stay exact; a row that comes back starts anew, and lacks at
most what `other` says. The tree of protocols has at most 4096 nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pcaptools.core._info import ProtocolTree, Talkers
from pcaptools.core.batch import STATUS, Batch
from pcaptools.core.linktype import name as linktype_name
from pcaptools.engines.summary import NS, rfc3339

LIMIT = 1 << 18
"""Rows; each takes 96 bytes."""

PROTOCOLS = {
    1: "ICMP", 2: "IGMP", 4: "IPv4", 6: "TCP", 17: "UDP", 33: "DCCP", 41: "IPv6", 46: "RSVP", 47: "GRE", 50: "ESP",
    51: "AH", 58: "ICMPv6", 59: "no next header", 88: "EIGRP", 89: "OSPF", 103: "PIM", 108: "IPComp", 112: "VRRP",
    115: "L2TP", 132: "SCTP", 136: "UDP-Lite",
}  # fmt: skip

_ETHERTYPES = {
    1: "IP", 2: "LLC", 0x0800: "IPv4", 0x0806: "ARP", 0x0842: "Wake-on-LAN", 0x6558: "Ethernet", 0x8035: "RARP",
    0x8100: "VLAN", 0x86DD: "IPv6", 0x8808: "flow control", 0x8809: "LACP", 0x880B: "PPP", 0x8847: "MPLS",
    0x8848: "MPLS", 0x8863: "PPPoE discovery", 0x8864: "PPPoE", 0x888E: "EAPOL", 0x88A8: "QinQ", 0x88CC: "LLDP",
    0x88E5: "MACsec", 0x88F7: "PTP", 0x9100: "QinQ", 0x9000: "loopback test",
}  # fmt: skip

_TUNNELS = {4789: "VXLAN", 8472: "VXLAN", 6081: "GENEVE", 2152: "GTP-U", 3544: "Teredo"}

_SERVICES = {
    20: "ftp-data", 21: "ftp", 22: "ssh", 23: "telnet", 25: "smtp", 49: "tacacs", 53: "dns", 67: "dhcp",
    68: "dhcp", 69: "tftp", 80: "http", 88: "kerberos", 110: "pop3", 123: "ntp", 135: "msrpc",
    137: "netbios-ns", 138: "netbios-dgm", 139: "netbios-ssn", 143: "imap", 161: "snmp", 162: "snmp-trap",
    179: "bgp", 389: "ldap", 443: "https", 445: "smb", 465: "smtps", 500: "isakmp", 502: "modbus",
    514: "syslog", 520: "rip", 546: "dhcpv6", 547: "dhcpv6", 554: "rtsp", 587: "submission", 631: "ipp",
    636: "ldaps", 853: "dns-tls", 993: "imaps", 995: "pop3s", 1433: "mssql", 1521: "oracle", 1701: "l2tp",
    1723: "pptp", 1812: "radius", 1813: "radius-acct", 1883: "mqtt", 1900: "ssdp", 2049: "nfs", 3306: "mysql",
    3389: "rdp", 4500: "ipsec-nat-t", 5060: "sip", 5353: "mdns", 5355: "llmnr", 5432: "postgresql",
    5672: "amqp", 5900: "vnc", 6379: "redis", 6667: "irc", 8080: "http-alt", 8443: "https-alt",
    9200: "elasticsearch", 27017: "mongodb",
}  # fmt: skip


class TalkerTable:
    """Conversations or endpoints of one capture, the `top` of them by bytes, packets or time."""

    def __init__(self, kind: str, by: str, top: int, limit: int = LIMIT) -> None:
        """kind: `conversations` or `endpoints`."""
        self.kind = kind
        self.by = by
        self.top = top
        self._limit = limit
        # The hash differs from run to run, so that nobody can craft a capture that makes the table slow.
        self._native = Talkers(kind == "endpoints", by, limit, hash("pcapinfo"))

    def feed(self, batch: Batch) -> None:
        """Count a batch."""
        self._native.add(batch)

    def _rows(self) -> list[dict[str, Any]]:
        pack = self._conversation if self.kind == "conversations" else self._endpoint
        return [pack(*row) for row in self._native.top(self.top)]

    @staticmethod
    def _conversation(
        protocol: int, flipped: bool, a: Any, b: Any, packets: Any, count: Any, first: int | None, last: int | None
    ) -> dict[str, Any]:
        if flipped:
            a, b, packets, count = b, a, packets[::-1], count[::-1]
        return {
            "protocol": PROTOCOLS.get(protocol, str(protocol)),
            "a": {"address": address(a[0]), "port": a[1] or None},
            "b": {"address": address(b[0]), "port": b[1] or None},
            "packets": sum(packets),
            "bytes": sum(count),
            "a_to_b": {"packets": packets[0], "bytes": count[0]},
            "b_to_a": {"packets": packets[1], "bytes": count[1]},
            **_times(first, last),
        }

    @staticmethod
    def _endpoint(
        _: int, __: bool, a: Any, ___: Any, packets: Any, count: Any, first: int | None, last: int | None
    ) -> dict[str, Any]:
        return {
            "address": address(a[0]),
            "packets": sum(packets),
            "bytes": sum(count),
            "sent": {"packets": packets[0], "bytes": count[0]},
            "received": {"packets": packets[1], "bytes": count[1]},
            **_times(first, last),
        }

    def record(self) -> dict[str, Any]:
        """For --json. `other`: all that is in no row."""
        rows = self._rows()
        moved, moved_packets, moved_bytes, lost = self._native.other
        packets, count = self._native.sums
        without = self._native.no_ip
        return {
            "by": self.by,
            "rows": rows,
            "other": {
                "rows": self._native.rows - len(rows) + moved,
                "packets": packets + moved_packets - sum(row["packets"] for row in rows),
                "bytes": count + moved_bytes - sum(row["bytes"] for row in rows),
                "moved_rows": moved,
                "a_row_lacks_at_most": lost if self.by != "time" else None,
            },
            "without_ip": {"packets": without[0], "bytes": without[1]},
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        found = self.record()
        yield f"{self.kind.capitalize()} by {self.by}:"
        yield from columns(self._cells(found))
        if found["other"]["moved_rows"]:
            lacks = found["other"]["a_row_lacks_at_most"]
            bound = "" if lacks is None else f"; a row lacks at most {lacks} {self.by}"
            yield f"More than {self._limit} {self.kind}: the smallest were moved into the row of the others{bound}."

    def _cells(self, found: dict[str, Any]) -> Iterator[list[str]]:
        ways = ("a_to_b", "b_to_a") if self.kind == "conversations" else ("sent", "received")
        titles = ["A to B", "B to A"] if self.kind == "conversations" else ["sent", "received"]
        names = ["protocol", "A", "B"] if self.kind == "conversations" else ["address"]
        counted = [f"{unit} {title}" for title in titles for unit in ("packets", "bytes")]
        yield [*names, "packets", "bytes", *counted, "start", "duration s"]
        for row in found["rows"]:
            name = [row["address"]] if "address" in row else [row["protocol"], _end(row["a"]), _end(row["b"])]
            amounts = [str(row[way][unit]) for way in ways for unit in ("packets", "bytes")]
            duration = "" if row["duration_ns"] is None else f"{row['duration_ns'] / NS:.6f}"
            yield [*name, str(row["packets"]), str(row["bytes"]), *amounts, row["start"] or "", duration]
        for title, rest in ((f"{found['other']['rows']} others", found["other"]), ("without IP", found["without_ip"])):
            if rest["packets"]:
                yield [title, *[""] * (len(names) - 1), str(rest["packets"]), str(rest["bytes"]), *[""] * 6]


class ProtocolTable:
    """The hierarchy of protocols of one capture."""

    def __init__(self) -> None:
        self._native = ProtocolTree(_SERVICES)

    def feed(self, batch: Batch) -> None:
        """Count a batch."""
        self._native.add(batch)

    def record(self) -> list[dict[str, Any]]:
        """For --json: nodes with their children, the largest first."""
        nodes: list[dict[str, Any]] = [
            {"protocol": _protocol(kind, number), "packets": packets, "bytes": count, "children": []}
            for _, kind, number, packets, count in self._native.nodes
        ]
        for at, (parent, *_) in enumerate(self._native.nodes[1:], 1):
            nodes[parent]["children"].append(nodes[at])
        for node in nodes:
            node["children"].sort(key=lambda child: -child["packets"])
        return nodes[0]["children"] if nodes else []

    def lines(self) -> Iterator[str]:
        """For people."""
        yield "Protocols:"
        yield from columns([["protocol", "packets", "bytes"], *self._cells(self.record(), 0)])
        if self._native.overflow:
            yield f"{self._native.overflow} packets are not counted to their full depth: the tree has 4096 nodes."

    def _cells(self, nodes: list[dict[str, Any]], depth: int) -> Iterator[list[str]]:
        for node in nodes:
            yield ["  " * depth + node["protocol"], str(node["packets"]), str(node["bytes"])]
            yield from self._cells(node["children"], depth + 1)


def columns(rows: Any) -> Iterator[str]:
    """Cells as aligned columns: numbers to the right, and all but the first line indented alike."""
    rows = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numeric = [all(row[k].replace(".", "").isdigit() or not row[k] for row in rows[1:]) for k in range(len(widths))]
    for row in rows:
        cells = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, numeric, strict=True)
        ]
        yield ("  " + "  ".join(cells)).rstrip()


def address(packed: bytes) -> str:
    """An IP address in its usual form (RFC 5952)."""
    import ipaddress

    return str(ipaddress.ip_address(packed))


def _times(first: int | None, last: int | None) -> dict[str, Any]:
    if first is None or last is None:
        return {"start": None, "duration_ns": None}
    return {"start": rfc3339(first), "duration_ns": last - first}


def _end(end: dict[str, Any]) -> str:
    if not end["port"]:
        return str(end["address"])
    host = f"[{end['address']}]" if ":" in end["address"] else end["address"]
    return f"{host}:{end['port']}"


def _protocol(kind: int, number: int) -> str:
    """The name of a node (enum pt_protocol_kind of csrc/protocols.h)."""
    if kind == 0:
        return linktype_name(number)
    if kind == 1:
        return _ETHERTYPES.get(number, f"EtherType 0x{number:04x}")
    if kind == 2:
        return PROTOCOLS.get(number, f"IP protocol {number}")
    if kind == 3:
        return _TUNNELS[number]
    if kind == 4:
        return f"{_SERVICES[number]} ({number})"
    return STATUS[number]
