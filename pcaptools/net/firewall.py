"""Keeping this machine's own TCP quiet about connections that it does not know: a rule of nftables, for a while.

The kernel answers what arrives for our connections by resets, since it has no socket for them. One rule drops them on
their way out. Its table belongs to the netlink socket that made it (NFT_TABLE_F_OWNER of <linux/nf_tables.h>, Linux
5.12): when that is closed, by `close` or by the end of the process whatever its cause, the kernel takes it away.
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
_TCP, _RST = 6, 4

Ports = tuple[int, int]


class Silence:
    """The rule, in force from here to `close`.

    source: our address, packed; target: the host's, None for any. local: first and last port of ours, of each range.
    Raises DeviceError where it cannot be set: no permission, no nftables.
    """

    def __init__(self, source: bytes, target: bytes | None, local: Sequence[Ports]) -> None:
        self.table = f"pcapliveplay-{os.getpid()}-{os.urandom(2).hex()}"
        self.rule = _words(source, target, local)
        if sys.platform != "linux":
            raise DeviceError("firewall: nftables exists on Linux only: use --source-ip or --socket")

        try:
            self._socket: Any = netlink.nftables(_NFPROTO_INET)
        except OSError as error:
            raise DeviceError(f"firewall: {error.strerror}: use --source-ip or --socket") from None
        try:
            self._set([_matches(source, target, ports) for ports in local])
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
        self._socket.chain("add", table=self.table, name="resets", **hook)
        for rule in rules:
            self._socket.rule("add", table=self.table, chain="resets", expressions=[rule])


def _matches(source: bytes, target: bytes | None, local: Ports) -> list[Any]:
    six = len(source) == 16
    rule = _meta(_META_NFPROTO, bytes([10 if six else 2])) + _meta(_META_L4PROTO, bytes([_TCP]))
    rule += _field(_NETWORK, 8 if six else 12, 16 if six else 4) + _compare(_EQUAL, source)
    if target is not None:
        rule += _field(_NETWORK, 24 if six else 16, 16 if six else 4) + _compare(_EQUAL, target)
    low, high = (struct.pack("!H", port) for port in local)
    rule += _field(_TRANSPORT, 0, 2) + _compare(_AT_LEAST, low) + _compare(_AT_MOST, high)
    rule += _field(_TRANSPORT, 13, 1)
    rule.append(_mask(bytes([_RST])))
    return [*rule, *_compare(_NOT_EQUAL, b"\0"), *netlink.verdict(_DROP)]


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


def _words(source: bytes, target: bytes | None, local: Sequence[Ports]) -> str:
    """The rule as a person reads it."""
    from ipaddress import ip_address

    ports = ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in local)
    return f"drops TCP resets from {ip_address(source)} port {ports} to {ip_address(target) if target else 'any host'}"
