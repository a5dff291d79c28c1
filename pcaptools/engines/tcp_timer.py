"""The retransmission timer of TCP: RFC 6298. Times are ns."""

from __future__ import annotations

MS = 1_000_000
FIRST_RTO, LEAST_RTO, MOST_RTO = 1000 * MS, 200 * MS, 60_000 * MS


class Timer:
    """due: when to send again what is not acknowledged; None: nothing is on its way. rtt: the first one measured."""

    def __init__(self) -> None:
        self.due: int | None = None
        self.rtt = 0
        self._rto, self._smooth, self._variance = FIRST_RTO, 0, 0
        self._timed: tuple[int, int] | None = None

    def start(self, now: int) -> None:
        """From now on."""
        self.due = now + self._rto

    def stop(self) -> None:
        """Nothing is on its way."""
        self.due = None

    def sent(self, end: int, now: int) -> None:
        """Bytes up to an offset went out for the first time: one segment at a time is timed (section 3)."""
        if self._timed is None:
            self._timed = end, now

    def sent_again(self) -> None:
        """What is acknowledged next tells no round trip any more (Karn)."""
        self._timed = None

    def acknowledged(self, ack: int, now: int) -> None:
        """Everything before an offset has arrived: measure, and take the doubling back."""
        if self._timed and ack >= self._timed[0]:
            self._measure(max(now - self._timed[1], 1))
            self._timed = None
        wanted = self._smooth + max(4 * self._variance, MS) if self._smooth else FIRST_RTO
        self._rto = min(max(wanted, LEAST_RTO), MOST_RTO)

    def _measure(self, rtt: int) -> None:
        self.rtt = self.rtt or rtt
        if not self._smooth:
            self._smooth, self._variance = rtt, rtt // 2
            return
        self._variance += (abs(self._smooth - rtt) - self._variance) // 4
        self._smooth += (rtt - self._smooth) // 8

    def expired(self, now: int) -> None:
        """Wait twice as long the next time."""
        self._rto = min(self._rto * 2, MOST_RTO)
        self._timed = None
        self.start(now)
