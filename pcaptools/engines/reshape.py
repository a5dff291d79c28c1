"""Edits that change lengths: another link layer, VLAN tags, tunnels taken away, padding, cutting."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from pcaptools.core import _edits
from pcaptools.core import linktype as link
from pcaptools.core.batch import Batch
from pcaptools.core.pipeline import Account, Transform
from pcaptools.engines.options import between

ALL_TAGS = 1000


def parse_push(text: str) -> list[int]:
    """`ID[.PRIORITY[.DEI]][,...]`, each optionally `802.1ad:...`, as TPID << 16 | TCI; the last is outermost."""
    tags = []
    for entry in text.split(","):
        protocol, colon, rest = entry.rpartition(":")
        proto = (
            {"": 0x8100, "802.1q": 0x8100, "802.1ad": 0x88A8}.get(protocol.lower()) if colon or not protocol else None
        )
        fields = rest.split(".")
        if proto is None or len(fields) > 3:
            raise ValueError(f"'{entry}' is not a VLAN such as 100, 100.5 or 802.1ad:100.5.1")
        tci = between(0, 4095)(fields[0])
        tci |= between(0, 7)(fields[1]) << 13 if len(fields) > 1 else 0
        tci |= between(0, 1)(fields[2]) << 12 if len(fields) > 2 else 0
        tags.append(proto << 16 | tci)
    if len(tags) > 16:
        raise ValueError("at most 16 tags")
    return tags


def parse_pop(text: str) -> int:
    """A number of tags, or `all`."""
    return ALL_TAGS if text == "all" else between(1, ALL_TAGS)(text)


def parse_translate(text: str) -> list[tuple[int, int, int]]:
    """`OLD:NEW[,A-B:NEW...]`; a range moves as a whole. Raises ValueError."""
    rules = []
    for entry in text.split(","):
        old, colon, new = entry.partition(":")
        first, dash, last = old.partition("-")
        if not colon:
            raise ValueError(f"'{entry}' is not OLD:NEW")
        low = between(0, 4095)(first)
        high = between(low, 4095)(last) if dash else low
        rules.append((low, high, between(0, 4095 - (high - low))(new)))
    return rules


def parse_chop(text: str) -> list[tuple[int, int]]:
    """`[OFFSET:]BYTES[,...]` as (offset, bytes) from the start and from the end: negative bytes are cut there."""
    found = [(0, 0), (0, 0)]
    for entry in text.split(","):
        offset, colon, size = entry.rpartition(":")
        negative = size.startswith("-")
        amount = between(1, 262144)(size.removeprefix("-"))
        if found[negative][1]:
            raise ValueError(f"'{text}' cuts twice from the same end")
        found[negative] = (between(0, 262144)(offset) if colon else 0, amount)
    if found[1][0]:
        raise ValueError("an offset counts from the start")
    return found


class Reshape(Transform):
    """Build every batch anew. linktype: that of the output, None where it stays."""

    def __init__(self, account: Account, fields: dict[str, Any], *, relabel: int | None, **parts: Any) -> None:
        self._account = account
        self._relabel = relabel
        self._native = _edits.Shape(fields, **parts)
        self._out = Batch()
        self._started = False

    @property
    def counts(self) -> dict:
        """shaped: packets with another length or link layer; cut, padded, unconvertible, deleted."""
        return self._native.counts

    def feed(self, batch: Batch) -> Iterable[Batch]:
        out = self._out
        out.clear()
        if self._relabel is not None:
            self._name_linktype(batch)
        self._native.apply(batch, out)
        out.forget_section_length()
        out.drop_stale_options()
        yield out

    def _name_linktype(self, batch: Batch) -> None:
        """Write the link type where the file has it."""
        order = (">" if batch.swapped else "<") if struct.pack("=H", 1) == b"\1\0" else ("<" if batch.swapped else ">")
        view = batch.view()
        if not batch.pcapng:
            if not self._started and len(view) >= 24 and (not batch.n or batch.record(0)[1] >= 24):
                view[20:24] = struct.pack(order + "I", self._relabel)
                self._started = True
            return
        from pcaptools.core._info import other_blocks

        for kind, start, _ in other_blocks(batch):
            if kind == 1:
                view[start + 8 : start + 10] = struct.pack(order + "H", self._relabel)

    def finish(self) -> Iterable[Batch]:
        counts = self.counts
        self._account.drop("cut by the capture", counts["deleted"])
        if counts["unconvertible"]:
            name = link.name(self._relabel) if self._relabel is not None else "the new link layer"
            self._account.fail(f"without a form for {name}", counts["unconvertible"])
            self._account.problem(f"{counts['unconvertible']} packets were not written: {name} cannot carry them")
        return ()
