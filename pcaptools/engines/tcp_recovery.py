"""How much of what TCP says may be on its way, and what is sent again before the timer: RFC 5681 and 6675, simplified.

Offsets are those of engines/tcp.py.
"""

from __future__ import annotations

from bisect import insort

DUPLICATES = 3  # acknowledgements of the same byte that mean a loss
FIRST_WINDOW = 10  # segments (RFC 6928)


class Recovery:
    """window: bytes that may be on their way. until: the end of a loss that is being repaired, -1 for none."""

    def __init__(self) -> None:
        self.window = self._threshold = 1 << 30
        self.until = -1
        self._hole = 0
        self._duplicates = 0
        self._sacked: list[tuple[int, int]] = []

    def begin(self, mss: int) -> None:
        """The connection is open."""
        self.window = FIRST_WINDOW * mss

    def sacked(self, start: int, stop: int) -> None:
        """A range has arrived, though not all before it."""
        if (start, stop) not in self._sacked:
            insort(self._sacked, (start, stop))

    def acknowledged(self, ack: int, size: int, mss: int) -> bool:
        """`size` new bytes before an offset have arrived. True: a loss is still being repaired, see `hole`."""
        self._duplicates = 0
        if self._sacked:
            self._sacked = [block for block in self._sacked if block[1] > ack]
        if ack < self.until:
            self._hole = max(self._hole, ack)
            return True
        self.until = -1
        slow = self.window < self._threshold
        self.window += min(size, 2 * mss) if slow else max(1, mss * mss // self.window)
        return False

    def duplicate(self, una: int, top: int, mss: int) -> bool:
        """The same byte is acknowledged again. True: that means a loss, see `hole`."""
        self._duplicates += 1
        if self.until < 0 and self._duplicates == DUPLICATES:
            self.window = self._threshold = self._half(una, top, mss)
            self.until, self._hole = top, una
        return self.until >= 0

    def expired(self, una: int, top: int, mss: int) -> None:
        """Nothing was acknowledged in time: begin again with one segment."""
        self._threshold = self._half(una, top, mss)
        self.window, self.until, self._duplicates = mss, -1, 0
        self._sacked.clear()

    @staticmethod
    def _half(una: int, top: int, mss: int) -> int:
        return max((top - una) // 2, 2 * mss)

    def hole(self, una: int) -> int | None:
        """Where the next segment begins that the peer does not have; without SACK only the first one is known."""
        for start, stop in self._sacked:
            if start <= self._hole < stop:
                self._hole = stop
        known = self._sacked[-1][0] if self._sacked else una + 1
        return self._hole if self._hole < min(known, self.until) else None

    def filled(self, end: int) -> None:
        """What is missing up to an offset has been sent again."""
        self._hole = end
