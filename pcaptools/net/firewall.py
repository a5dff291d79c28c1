"""Keeping this machine's kernel quiet about connections that it does not know: rules of nftables, for a while.

It answers what arrives for our connections by resets, and for our exchanges by ICMP errors, since it has no socket for
them. The rules drop those on their way out. Their table belongs to the netlink socket that made it (NFT_TABLE_F_OWNER
of <linux/nf_tables.h>, Linux 5.12): when that is closed, by `close` or by the end of the process whatever its cause,
the kernel takes it away.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Sequence
from typing import Any

from pcaptools.errors import DeviceError
from pcaptools.net import netlink

# <linux/netfilter.h>, <linux/netfilter/nf_tables.h>
_NFPROTO_INET, _OWNER, _DROP, _ACCEPT = 1, 0x2, 0, 1
_META_NFPROTO, _META_L4PROTO = 15, 16
_NETWORK, _TRANSPORT, _REGISTER = 1, 2, 1
_EQUAL, _NOT_EQUAL, _AT_MOST, _AT_LEAST = 0, 1, 3, 5
_ICMP, _TCP, _UDP, _ICMP6, _RST = 1, 6, 17, 58, 4
_PORT_UNREACHABLE, _PORT_UNREACHABLE6 = b"\x03\x03", b"\x01\x04"  # type and code

Ports = tuple[int, int]


class Silence:
    """The rule, in force from here to `close`.

    source: our address, packed; target: the host's, None for any. local, remote: first and last port, of each range of
    ours and of the host's; remote None: any. udp: it is about datagrams. Raises DeviceError where it cannot be set: no
    permission, no nftables.
    """

    def __init__(
        self,
        source: bytes,
        target: bytes | None,
        local: Sequence[Ports],
        remote: Sequence[Ports] | None = None,
        *,
        udp: bool = False,
    ) -> None:
        self.table = f"pcapliveplay-{os.getpid()}-{os.urandom(2).hex()}"
        what = "ICMP port unreachable" if udp else "TCP resets"
        self.rule = f"drops {what} {_words(source, target, local, remote)}"
        if sys.platform != "linux":
            raise DeviceError("firewall: nftables exists on Linux only: use --source-ip or --socket")

        try:
            self._socket: Any = netlink.nftables(_NFPROTO_INET)
        except OSError as error:
            raise DeviceError(f"firewall: {error.strerror}: use --source-ip or --socket") from None
        try:
            matches = _unreachable if udp else _resets
            self._set([matches(source, target, near, far) for near in local for far in (remote or (None,))])
        except (netlink.refusal(), OSError) as error:
            self._socket.close()
            reason = os.strerror(error.args[0]) if isinstance(error.args[0], int) else str(error)
            hint = "run it with sudo, or use --source-ip or --socket"
            raise DeviceError(f"firewall: nftables refuses the rule: {reason}: {hint}") from None

    def close(self) -> None:
        """Take the rule away. Nothing happens a second time."""
        if self._socket:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Silence:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _set(self, rules: list[list[Any]]) -> None:
        # Named arguments of pyroute2 called "flags" are those of the message: the table's pass through `kwarg`.
        self._socket.table("create", kwarg={"name": self.table, "flags": _OWNER})
        hook = {"hook": "output", "type": "filter", "policy": _ACCEPT, "priority": 0}
        self._socket.chain("add", table=self.table, name="answers", **hook)
        for rule in rules:
            self._socket.rule("add", table=self.table, chain="answers", expressions=[rule + netlink.verdict(_DROP)])


def _resets(source: bytes, target: bytes | None, near: Ports, far: Ports | None) -> list[Any]:
    """TCP segments with RST."""
    rule = _between(_TCP, source, target) + _within(0, near) + (_within(2, far) if far else [])
    rule += _field(_TRANSPORT, 13, 1)
    rule.append(_mask(bytes([_RST])))
    return [*rule, *_compare(_NOT_EQUAL, b"\0")]


def _unreachable(source: bytes, target: bytes | None, near: Ports, far: Ports | None) -> list[Any]:
    """ICMP errors "port unreachable" (RFC 792, RFC 4443) about datagrams of the host's, which they quote."""
    six = len(source) == 16
    error, protocol, quoted = (_PORT_UNREACHABLE6, 8 + 6, 8 + 40) if six else (_PORT_UNREACHABLE, 8 + 9, 8 + 20)
    rule = _between(_ICMP6 if six else _ICMP, source, target)
    rule += _field(_TRANSPORT, 0, 2) + _compare(_EQUAL, error)
    rule += _field(_TRANSPORT, protocol, 1) + _compare(_EQUAL, bytes([_UDP]))
    return rule + _within(quoted + 2, near) + (_within(quoted, far) if far else [])


def _between(protocol: int, source: bytes, target: bytes | None) -> list[Any]:
    six = len(source) == 16
    rule = _meta(_META_NFPROTO, bytes([10 if six else 2])) + _meta(_META_L4PROTO, bytes([protocol]))
    rule += _field(_NETWORK, 8 if six else 12, 16 if six else 4) + _compare(_EQUAL, source)
    if target is not None:
        rule += _field(_NETWORK, 24 if six else 16, 16 if six else 4) + _compare(_EQUAL, target)
    return rule


def _within(offset: int, ports: Ports) -> list[Any]:
    """A port of the TCP header is in a range, or is the only one."""
    low, high = (struct.pack("!H", port) for port in ports)
    if low == high:
        return _field(_TRANSPORT, offset, 2) + _compare(_EQUAL, low)
    return _field(_TRANSPORT, offset, 2) + _compare(_AT_LEAST, low) + _compare(_AT_MOST, high)


def _data(value: bytes) -> Any:
    return {"attrs": [("NFTA_DATA_VALUE", value)]}


def _meta(key: int, value: bytes) -> list[Any]:
    return [netlink.expression("meta", key=key, dreg=_REGISTER), *_compare(_EQUAL, value)]


def _field(base: int, offset: int, length: int) -> list[Any]:
    return [netlink.expression("payload", dreg=_REGISTER, base=base, offset=offset, len=length)]


def _compare(operation: int, value: bytes) -> list[Any]:
    return [netlink.expression("cmp", sreg=_REGISTER, op=operation, data=_data(value))]


def _mask(mask: bytes) -> Any:
    zero = _data(bytes(len(mask)))
    return netlink.expression("bitwise", sreg=_REGISTER, dreg=_REGISTER, len=len(mask), mask=_data(mask), xor=zero)


def _words(source: bytes, target: bytes | None, local: Sequence[Ports], remote: Sequence[Ports] | None) -> str:
    """The rule as a person reads it."""
    from ipaddress import ip_address

    host = str(ip_address(target)) if target else "any host"
    towards = f"{host} port {_ports(remote)}" if remote else host
    return f"from {ip_address(source)} port {_ports(local)} to {towards}"


def _ports(ranges: Sequence[Ports]) -> str:
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
