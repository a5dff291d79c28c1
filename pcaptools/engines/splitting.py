"""One capture becomes many: index the packets, choose the files, and hand them to a writer.

    batches --feed--> flow table          where is which packet, and whose is it
                      store               the bytes themselves, kept by whoever can
                      writer              makes the files, in order of their first packets

When all bytes can be read again, everything is written at the end, each file once. A store that is full before
the end (a pipe's) is emptied into the files, which get more later; only a flow that still waits for its
datagram's first fragment holds its packets back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pcaptools.core._flows import FlowTable
from pcaptools.core.batch import Batch
from pcaptools.core.pipeline import Account
from pcaptools.engines.flows import EVERYTHING, OTHER, PATIENCE, Choice, Marker, Numbers, Row, unwanted
from pcaptools.engines.naming import Names, name_groups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from pcaptools.engines.relations import Relations
else:
    Protocol = object


class Store(Protocol):
    """The bytes of the stream (files/store.py)."""

    @property
    def full(self) -> bool: ...
    def add(self, data: memoryview) -> None: ...
    def hold(self, table: FlowTable) -> None: ...
    def release(self, table: FlowTable) -> None: ...
    def drop(self, until: int) -> None: ...


class Writer(Protocol):
    """What makes the files (files/many.py, files/tarball.py)."""

    def write(
        self, table: FlowTable, store: Any, groups: Sequence[int], names: Mapping[int, str], last: bool
    ) -> None: ...


class Splitter:
    """Feed it batches, then finish. names: of each group's file, once it is known; left_out: groups that were not
    chosen, and how many packets they have."""

    def __init__(
        self, table: FlowTable, store: Store, writer: Writer | None, naming: Names, account: Account, *,
        choice: Choice = EVERYTHING, drop_other: bool = False, marker: Marker | None = None, related: bool = False,
    ) -> None:  # fmt: skip
        """writer: None when nothing is to be written."""
        self.table = table
        self.names: dict[int, str] = {}
        self.left_out: dict[int, int] = {}
        self.numbers = Numbers(table)
        self._store = store
        self.writer = writer
        self._naming = naming
        self._account = account
        self._choice = choice
        self._drop_other = drop_other
        self._marker = marker
        self._relations = _relations(table) if related else None

    def feed(self, batch: Batch) -> None:
        """Take the next batch of the stream."""
        if self._marker:
            self._marker(batch)
        self.table.index(batch)
        if self._relations:
            self._relations.feed(batch)
        self._store.add(batch.view())
        if self._store.full:
            self._write_settled()

    def finish(self) -> None:
        """No more batches come: write what is left."""
        table = self.table
        self._account.drop("filtered", table.filtered)
        table.assign(True)
        if self._choice != EVERYTHING:
            self.left_out = unwanted(table, self._choice)
        self._account.drop("not chosen", sum(self.left_out.values()))
        if self.writer:
            self.numbers.update(True)
            self._write(table.places, self.left_out, last=True)
        else:
            self._account.drop("only listed", table.packets - sum(self.left_out.values()))

    def name_all(self) -> None:
        """Name the files that would be written."""
        self.numbers.update(True)
        packets, _ = self.table.packets_per_group()
        self._name([group for group, count in enumerate(packets) if count and group not in self.left_out])

    def row(self, group: int) -> Row:
        """The first flow of a group."""
        return Row._make(self.table.row(self.table.resolved(self.numbers.row[group])))

    def last_second(self, group: int) -> int:
        """When the first flow of a group ended, s since the epoch."""
        if group == OTHER:
            last: int = Row._make(self.table.row(OTHER)).last
        else:
            last = self.row(group).last
        return last // 1_000_000_000

    def _write_settled(self) -> None:
        table = self.table
        table.forget_datagrams(PATIENCE)
        n = table.settled()
        if n < table.places // 2:
            table.forget_datagrams(-1)
            n = table.settled()
        table.assign(False)
        self.numbers.update(n == table.places)
        self._write(n, {}, last=False)
        _, until = table.span(n)
        self._store.drop(until)
        table.discard(n)

    def _write(self, n: int, left_out: Mapping[int, int], *, last: bool) -> None:
        table = self.table
        groups = [group for group in table.sort(n) if group not in left_out]
        other = groups[:1] if groups[:1] == [OTHER] else []
        del groups[: len(other)]
        groups.sort(key=self.numbers.of.__getitem__)
        if not self._drop_other:
            groups += other
        elif other:
            self._account.drop("without a flow", table.count(OTHER))
        names = self._name(groups)
        assert self.writer
        self._store.hold(table)
        try:
            self.writer.write(table, self._store, groups, names, last)
        finally:
            self._store.release(table)
        self._account.packets_out += sum(map(table.count, groups))

    def _name(self, groups: Sequence[int]) -> dict[int, str]:
        new = [group for group in groups if group not in self.names]
        names = name_groups(self._naming, new, self.numbers.of, self.row)
        self.names.update(names)
        return names


def _relations(table: FlowTable) -> Relations:
    from pcaptools.engines.relations import Relations

    return Relations(table)
