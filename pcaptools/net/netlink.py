"""Talking to the Linux kernel about addresses, routes, neighbours and nftables: the only importer of pyroute2.

It is imported when it is needed: that takes 90 ms.
"""

from __future__ import annotations

from typing import Any


def network() -> Any:
    """A socket of rtnetlink, as a context manager."""
    from pyroute2 import IPRoute

    return IPRoute()


def nftables(family: int) -> Any:
    """A socket of nftables for a family of <linux/netfilter.h>. What it makes may belong to it."""
    from pyroute2.nftables.main import NFTables

    return NFTables(nfgen_family=family)


def expression(name: str, **attributes: Any) -> Any:
    """One expression of a rule of nftables."""
    from pyroute2.nftables.expressions import genex

    return genex(name, attributes)


def verdict(code: int) -> list[Any]:
    """The end of a rule: NF_DROP (0), NF_ACCEPT (1)."""
    from pyroute2.nftables.expressions import verdict

    return list(verdict(code))


def refusal() -> type[Exception]:
    """What is raised when the kernel says no; `code` is the error number."""
    from pyroute2.netlink.exceptions import NetlinkError

    return NetlinkError
