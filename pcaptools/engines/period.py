"""Packets of a period of time."""

from __future__ import annotations

from collections.abc import Iterable

from pcaptools.core._merge import drop_outside
from pcaptools.core.batch import Batch
from pcaptools.core.pipeline import Account, Transform

EARLIEST, LATEST = -(1 << 63), (1 << 63) - 1
"""The times that a record can have, in ns: 1677 to 2262."""


class Period(Transform):
    """Keep the packets from `first` on and before `last`, in ns since the epoch."""

    def __init__(self, first: int | None, last: int | None, account: Account) -> None:
        self._first = EARLIEST if first is None else min(first, LATEST)
        self._last = LATEST if last is None else min(max(last, EARLIEST), LATEST)
        self._account = account

    def feed(self, batch: Batch) -> Iterable[Batch]:
        batch.forget_section_length()
        dropped = drop_outside(batch, self._first, self._last)
        if dropped:
            self._account.drop("outside the period", dropped)
            batch.compact()
        yield batch
