from pcaptools.core._core import NativeBatch

EMPTY: int
"""No source is left."""
FULL: int
"""The output is full: take it and clear it."""
DRY: int
"""The source of the order `dry` has no record left, and is none any more."""
LIMIT: int
"""The next record does not come before the limit."""

class Merger:
    """Sources on one timeline: each a batch at a time, all of one file format, in the order of their own records."""

    late: int
    """Records given out so far behind one with a larger time."""
    dry: int
    def __len__(self) -> int:
        """Sources."""
    def add(self, order: int, batch: NativeBatch) -> None:
        """Add a source, or more of one that ran dry; `order` breaks ties. The batch must stay as it is until then."""
    def move(self, out: NativeBatch, limit: tuple[int, int] | None = None) -> int:
        """Copy records behind those of `out`, earliest first, only such before (time in ns, order) `limit`, until
        something has to be done, which is returned."""

def sort_records(batch: NativeBatch) -> None:
    """Put the records in order of time, stably. Only a `Merger` may use the batch then: its bytes stay as they are."""

def drop_outside(batch: NativeBatch, first: int, last: int) -> int:
    """Mark the records before `first` or not before `last`, ns; returns how many."""
