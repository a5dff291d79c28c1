"""A conversation between two hosts, as a capture at the client shows it.

TCP (RFC 9293): both hosts and the wire between them are simulated event by event; time is an integer in ns, and the
same seed gives the same packets. A host sends what slow start and congestion avoidance (RFC 5681), the receiver's
window and its application allow; it repeats a segment after three duplicate acknowledgements (RFC 6582, without
selective repetition) or a timeout (RFC 6298). The wire loses packets and lets others overtake.

    application   turns of bytes: the client's, the server's, ...; a host sends its turn when it has the one before
    Host          one end: what is sent and acknowledged, what has come (conversation_host.py)
    Conversation  the wire, the clock and the capture: iterate it
"""

from __future__ import annotations

import heapq
import random
from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import count

from pcaptools.engines.conversation_host import MS, OPTIONS, Carried, Host, Segment, Settings, Turn

BIT = 1
"""ns that a bit takes on the wire: 1 Gbit/s."""

LEAST_MSS = 48
MOST_LOSS = Fraction(1, 2)

RETRY = 1000 * MS
"""How long a client waits for an answer over UDP before it asks again."""

Datagram = namedtuple("Datagram", "side payload")

_Link = namedtuple("_Link", "delay loss reorder overtake")
"""Of the wire: ns from end to end, shares of packets, ns that an overtaken packet comes later."""


def parse_mtu(text: str) -> int:
    """Bytes of the largest IP packet: 576 to 65535. Raises ValueError."""
    if not (text.isascii() and text.isdigit()) or not 576 <= int(text) <= 65535:
        raise ValueError(f"'{text}' is not between 576 and 65535")
    return int(text)


def parse_options(text: str) -> tuple[str, ...]:
    """`mss,sack,wscale,timestamps` or fewer of them, or `none`. Raises ValueError."""
    names = [] if text == "none" else text.split(",")
    for name in names:
        if name not in OPTIONS:
            raise ValueError(f"'{name}' is not {', '.join(OPTIONS)} or none")
    return tuple(name for name in OPTIONS if name in names)


def check_mss(mss: int, room: int) -> int:
    """The maximum segment size, where the link takes `room` bytes of it. Raises ValueError."""
    if not LEAST_MSS <= mss <= room:
        raise ValueError(f"--mss: {mss} is not between {LEAST_MSS} and {room}, which is what the link takes (--mtu)")
    return mss


def check_loss(loss: Fraction) -> Fraction:
    """A share of lost packets that a conversation survives. Raises ValueError."""
    if loss > MOST_LOSS:
        raise ValueError(f"--loss: more than {int(MOST_LOSS * 100)} percent end a conversation")
    return loss


def check_window(window: int, options: Sequence[str]) -> int:
    """A receive window that can be announced with these options (RFC 7323: at most 2^30). Raises ValueError."""
    most = 1 << 30 if "wscale" in options else 65535
    if not 0 < window <= most:
        raise ValueError(
            f"--window: {window} is not between 1 and {most}" + ("" if most > 65535 else " without wscale")
        )
    return window


class Conversation:
    """A TCP connection; iterate it for (ns after the start, Segment) in the order of a capture at the client."""

    def __init__(self, turns: Sequence[Turn], settings: Settings) -> None:
        self._random = random.Random(settings.seed)
        self._link = _Link(settings.rtt // 2, settings.loss, settings.reorder, max(settings.rtt // 4, 20_000))
        self._now = 0
        self._events: list[tuple[int, int, Callable[[], Segment | None]]] = []
        self._order = count()
        self._free = [0, 0]
        isns = [self._random.getrandbits(32) for _ in range(2)]
        turns = [turn for turn in turns if turn.data]
        self._hosts = [
            Host(side, turns, settings, isns[side], self._put, self._wake, lambda: self._now) for side in (0, 1)
        ]

    def __iter__(self) -> Iterator[tuple[int, Segment]]:
        self._hosts[0].open()
        while self._events:
            self._now, _, happen = heapq.heappop(self._events)
            segment = happen()
            if segment is not None:
                yield self._now, segment

    def _at(self, time: int, happen: Callable[[], Segment | None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), happen))

    def _wake(self, wait: int, happen: Callable[[], None]) -> None:
        self._at(self._now + wait, happen)

    def _chance(self, share: Fraction) -> bool:
        return bool(share) and self._random.getrandbits(32) < share * (1 << 32)

    def _put(self, host: Host, segment: Segment, carried: Carried) -> None:
        """A segment leaves a host when the ones before it are out."""
        size = 54 + len(segment.payload) + len(segment.options)
        leaves = max(self._now, self._free[host.side]) + size * 8 * BIT
        self._free[host.side] = leaves
        lost = self._chance(self._link.loss)
        late = self._link.overtake if segment.payload and self._chance(self._link.reorder) else 0
        arrives = leaves + self._link.delay + late
        other = self._hosts[1 - host.side]

        def arrive() -> Segment | None:
            other.receive(host, carried)
            return segment if host.side == 1 else None

        if host.side == 0:
            self._at(leaves, lambda: segment)
        if not lost:
            self._at(arrives, arrive)


def datagrams(turns: Sequence[Turn], settings: Settings) -> Iterator[tuple[int, Datagram]]:
    """The same over UDP: each turn is a datagram. A client that got no answer for RETRY ns asks again."""
    chance = random.Random(settings.seed)
    now, at = 0, 0
    while at < len(turns):
        asks = turns[at].side == 0
        answers = at + 1 < len(turns) and turns[at + 1].side == 1 if asks else True
        answer = turns[at + asks] if answers else None
        while True:
            if asks and turns[at].data:
                yield now, Datagram(0, turns[at].data)
            if answer is None or not answer.data:
                break
            if not any(chance.getrandbits(32) < settings.loss * (1 << 32) for _ in range(2)):
                now += settings.rtt
                yield now, Datagram(1, answer.data)
                break
            now += RETRY
        now += max(settings.rtt // 8, 50_000)
        at += asks + answers
