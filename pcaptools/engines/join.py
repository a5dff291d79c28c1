"""Many captures as one: the interfaces of their pcapng, and their order when they can only be read in turn."""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Iterable, Iterator

from pcaptools.core._merge import DRY, FULL, Merger, sort_records
from pcaptools.core.batch import Batch
from pcaptools.core.pipeline import Transform
from pcaptools.engines.convert import section_header

EARLIEST = -(1 << 63)
"""ns."""

LEAST = 16 << 10
"""Bytes that a new buffer has."""

Naming = Callable[[int], tuple[Hashable, str]]
"""What stands for an interface of the batch that comes, by number, and its name."""


class ToInterfaces(Transform):
    """Whatever comes, as one pcapng section. What describes interfaces comes in batches without a record, of its own.

    naming: interfaces become one for each thing that stands for them; without it, one for each link type.
    """

    def __init__(self, naming: Naming | None = None) -> None:
        self._naming = naming
        self._numbers: dict[Hashable, int] = {}
        self._started = False
        self._out = Batch(LEAST)

    def feed(self, batch: Batch) -> Iterable[Batch]:
        linktypes = batch.linktypes
        found = [self._naming(k) if self._naming else (linktype, "") for k, linktype in enumerate(linktypes)]
        described = self._describe(found, linktypes)
        if described:
            yield _only(described)
        self._out.clear()
        batch.to_pcapng(self._out, [self._numbers[key] for key, _ in found])
        if self._out.n:
            yield self._out

    def _describe(self, found: list[tuple[Hashable, str]], linktypes: list[int]) -> bytes:
        """The blocks for interfaces that are new."""
        blocks = b"" if self._started else section_header()
        self._started = True
        for (key, name), linktype in zip(found, linktypes, strict=True):
            if key not in self._numbers:
                self._numbers[key] = len(self._numbers)
                blocks += interface_block(linktype, name)
        return blocks

    def finish(self) -> Iterable[Batch]:
        if not self._started:
            yield _only(section_header())


def interface_block(linktype: int, name: str = "") -> bytes:
    """An interface description block with ns timestamps and no snap length (draft-ietf-opsawg-pcapng section 4.2;
    options if_name 2, if_tsresol 9)."""
    text = name.encode("utf-8", "replace")[:0xFFFF]
    options = struct.pack("=HH", 2, len(text)) + text + bytes(-len(text) % 4) if text else b""
    options += struct.pack("=HHB3xHH", 9, 1, 9, 0, 0)
    length = 20 + len(options)
    return struct.pack("=IIHHI", 1, length, linktype, 0, 0) + options + struct.pack("=I", length)


def _only(data: bytes) -> Batch:
    """A batch of file format bytes without a record."""
    batch = Batch(len(data))
    batch.append(data)
    batch.skip(len(data))
    return batch


class Reorder(Transform):
    """Sorts packets that come at most `window` ns too late; those that are later come out late, and are counted.

    All batches are of one file format; those without a record pass at once. What the window holds is in memory.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._merger = Merger()
        self._held: dict[int, Batch] = {}
        self._gathered = Batch()
        self._order = 0
        self._latest = EARLIEST
        self._out = Batch()

    @property
    def late(self) -> int:
        """Packets that came out behind a later one."""
        return self._merger.late

    def feed(self, batch: Batch) -> Iterator[Batch]:
        if not batch.n:
            yield batch
            return
        copier = Merger()
        copier.add(0, batch)
        while copier.move(self._gathered) == FULL:
            yield from self._hold()

    def finish(self) -> Iterator[Batch]:
        yield from self._hold()
        yield from self._release(None)
        if self._out.n:
            yield self._out

    def _hold(self) -> Iterator[Batch]:
        """Sort in what was gathered; give out what nothing can come in front of any more."""
        held, self._gathered = self._gathered, Batch()
        if not held.n:
            return
        sort_records(held)
        self._latest = max(self._latest, *held.time_range())
        self._held[self._order] = held
        self._merger.add(self._order, held)
        self._order += 1
        yield from self._release((max(self._latest - self._window, EARLIEST), 0))

    def _release(self, limit: tuple[int, int] | None) -> Iterator[Batch]:
        while (verdict := self._merger.move(self._out, limit)) in (DRY, FULL):
            if verdict == DRY:
                del self._held[self._merger.dry]
            else:
                yield self._out
                self._out.clear()
