"""From one capture format to another, and from several captures to one."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from pcaptools.core import linktype as link
from pcaptools.core.batch import Batch
from pcaptools.core.pipeline import Account, Transform

SNAPLEN = 262144
"""Snap length of the captures that are made here: the largest that readers accept, bytes."""


def pcap_header(linktype: int, *, nanoseconds: bool) -> bytes:
    """The file header of a classic pcap in this machine's byte order (draft-ietf-opsawg-pcap section 4)."""
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    return struct.pack("=IHHiIII", magic, 2, 4, 0, 0, SNAPLEN, linktype)


def section_header() -> bytes:
    """A section header block of unknown section length (draft-ietf-opsawg-pcapng section 4.1)."""
    return struct.pack("=IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)


def interface_block(linktype: int) -> bytes:
    """An interface description block with ns timestamps and no snap length (section 4.2; if_tsresol is option 9)."""
    return struct.pack("=IIHHIHHB3xHHI", 1, 32, linktype, 0, 0, 9, 1, 9, 0, 0, 32)


def _only(data: bytes) -> Batch:
    """A batch of file format bytes without a record."""
    batch = Batch(len(data))
    batch.append(data)
    batch.skip(len(data))
    return batch


class ToPcap(Transform):
    """Whatever comes, of however many captures, as one classic pcap with the first one's link type.

    Packets of another link type are counted as failed; `finish()` reports them.
    """

    def __init__(self, account: Account, *, nanoseconds: bool) -> None:
        self._account = account
        self._nanoseconds = nanoseconds
        self._linktype: int | None = None
        self._fallback: int | None = None  # of a capture without packets
        self._others: dict[int, int] = {}
        self._inexact = self._outside = 0

    def feed(self, batch: Batch) -> Iterable[Batch]:
        linktypes = batch.linktypes
        if self._fallback is None:
            self._fallback = linktypes[0] if linktypes else link.ETHERNET
        if not batch.n:
            return
        if self._linktype is None:
            self._linktype = batch.linktype(0)
            yield self._header(self._linktype)
        if any(linktype != self._linktype for linktype in linktypes):
            self._count_others(batch)
            batch.drop_other_linktypes(self._linktype)
        inexact, outside = batch.to_pcap(self._nanoseconds)
        self._inexact += inexact
        self._outside += outside
        yield batch

    def finish(self) -> Iterable[Batch]:
        if self._linktype is None and self._fallback is not None:
            yield self._header(self._fallback)
        if self._inexact:
            self._account.notice(f"{self._inexact} timestamps lost digits: --format nspcap or pcapng keeps them")
        _say_outside(self._outside, "1970 to 2106", self._account)
        for linktype, packets in self._others.items():
            self._account.fail(f"of {link.name(linktype)}", packets)
            assert self._linktype is not None
            self._account.problem(
                f"{packets} packets of {link.name(linktype)} were not written: the output has "
                f"{link.name(self._linktype)}; --format pcapng keeps them all"
            )

    def _header(self, linktype: int) -> Batch:
        return _only(pcap_header(linktype, nanoseconds=self._nanoseconds))

    def _count_others(self, batch: Batch) -> None:
        for k in range(batch.n):
            linktype = batch.linktype(k)
            if linktype != self._linktype:
                self._others[linktype] = self._others.get(linktype, 0) + 1


def _say_outside(packets: int, years: str, account: Account) -> None:
    if packets:
        account.problem(f"{packets} packets have a time that the output cannot hold, which is for {years}: moved there")


class ToPcapng(Transform):
    """Whatever comes as one pcapng section with one interface per distinct link type, in order of appearance."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._outside = 0
        self._numbers: dict[int, int] = {}
        self._out = Batch()
        self._started = False

    def feed(self, batch: Batch) -> Iterable[Batch]:
        out = self._out
        out.clear()
        linktypes = batch.linktypes
        if not self._started:
            self._started = True
            out.append(section_header())
        for linktype in linktypes:
            if linktype not in self._numbers:
                self._numbers[linktype] = len(self._numbers)
                out.append(interface_block(linktype))
        out.skip(out.filled)
        self._outside += batch.to_pcapng(out, [self._numbers[linktype] for linktype in linktypes])
        if out.used:
            yield out

    def finish(self) -> Iterable[Batch]:
        _say_outside(self._outside, "1970 and later", self._account)
        return ()


def converter(wanted: str | None, found: str, several: bool, account: Account) -> list[Transform]:
    """The transform to the wanted format, or none where the bytes can stay as they are.

    wanted, found: `pcap`, `nspcap` or `pcapng`; wanted None keeps the format of a single capture and makes several
    one nanosecond pcap.
    """
    if wanted is None:
        wanted = "nspcap" if several else found
    if wanted == found and not several:
        return []
    if wanted == "pcapng":
        return [ToPcapng(account)]
    return [ToPcap(account, nanoseconds=wanted == "nspcap")]
