from collections.abc import Sequence

from pcaptools.core._core import NativeBatch

def spare(batch: NativeBatch) -> int:
    """Packets marked for removal pass unedited instead; returns how many."""

class Choice:
    """Packets by number (ranges, from 1), time (ns, begin <= time < until) and every so many of them (0: all)."""

    def __init__(self, ranges: Sequence[tuple[int, int]], begin: int, until: int, sample: int) -> None: ...
    def drop_others(self, batch: NativeBatch) -> int:
        """Mark the others for removal; returns how many."""

class Duplicates:
    """What was there within so many packets and ns before; 0: no such limit."""

    def __init__(self, packets: int, time: int) -> None: ...
    def drop(self, batch: NativeBatch) -> int:
        """Mark duplicates for removal; returns how many. Raises MemoryError."""
    forgotten: int
    """Packets of a window in time that did not fit into memory, and were not compared with."""

class Retime:
    """Other times, in ns; scale: (numerator, denominator)."""

    def __init__(
        self,
        *,
        shift: int = 0,
        scale: tuple[int, int] | None = None,
        start: int | None = None,
        monotonic: bool = False,
        least_gap: int = 0,
    ) -> None: ...
    def apply(self, batch: NativeBatch) -> None: ...
    counts: dict[str, int]

class Window:
    """Holds records back to sort them, `most` bytes of them at most."""

    def __init__(self, most: int) -> None: ...
    def hold(self, batch: NativeBatch, held: NativeBatch, out: NativeBatch) -> None:
        """Append the records of `batch` to `held`, and its other bytes to `out`. Raises MemoryError."""
    def release(self, held: NativeBatch, until: int, out: NativeBatch, rest: NativeBatch) -> None:
        """Append the records of `held` up to a time, and what there is no room for, to `out`, in order, the others to
        `rest`. Raises MemoryError."""
    def restart(self) -> None:
        """What comes now may be earlier."""
    late: int
    """Records that came out behind a later one."""
    early: int
    """Records that came out before their time, for want of room."""
