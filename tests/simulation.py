"""Two ends and a wire between them, in memory, with a clock that jumps: for tests of the expectation engine."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Sequence
from typing import Any

from pcaptools.core.wire import ACK, FIN, PSH, RST, SYN, Path, Segment, ethernet
from pcaptools.engines.dialogue import Rules
from pcaptools.engines.expect import Conversation
from pcaptools.engines.script import Script, _Flow
from pcaptools.engines.tcp import Connection, Offer

MS = 1_000_000

SYN_OPTIONS = {"wscale": 7, "sack_ok": True, "stamps": (1, 0)}

Line = tuple[str, bytes]
"""Who says what: "C" or "S", and bytes."""


def recorded(
    lines: Sequence[Line],
    *,
    size: int = 1000,
    ends: str = "CS",
    gap: int = 2 * MS,
    mss: int = 1460,
    half: bool = False,
    **options: Any,
) -> Iterator[tuple[int, str, Segment]]:
    """(ns, who, segment) of a connection. ends: who sends its FIN first; "c" or "s": a reset. half: whoever has said
    its last closes at once, while the other goes on. options: of both SYNs."""
    at = {"C": 1000, "S": 0xFFFFFF00}
    time = 10**18
    for flags, who in ((SYN, "C"), (SYN | ACK, "S")):
        yield time, who, Segment(at[who], 1001, flags, 65000, mss=mss, **{**SYN_OPTIONS, **options})
        at[who] += 1
    for number, (who, data) in enumerate(lines):
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            time += gap
            flags = ACK | (PSH if start + size >= len(data) else 0)
            last = half and start + size >= len(data) and who not in (speaker for speaker, _ in lines[number + 1 :])
            yield time, who, _segment(at, who, flags | (FIN if last else 0), piece)
            at[who] += len(piece) + last
            ends = ends.replace(who, "") if last else ends
    for letter in ends:
        who = letter.upper()
        time += gap
        yield time, who, _segment(at, who, (FIN if letter == who else RST) | ACK)
        at[who] += 1


def _segment(at: dict[str, int], who: str, flags: int, data: bytes = b"") -> Segment:
    other = "S" if who == "C" else "C"
    return Segment(at[who] & 0xFFFFFFFF, at[other] & 0xFFFFFFFF, flags, 65000, data)


def recording(lines: Sequence[Line], **options: Any) -> Script:
    """A script of a connection as it would have been captured; options are those of `recorded`."""
    flow = _Flow(1, "made", 6, (b"\x0a\0\0\1", 40000), (b"\x0a\0\0\2", 80))
    for time, who, segment in recorded(lines, **options):
        flow.tcp(segment, who == "S", len(segment.payload), time)
    script = Script(flow)
    assert not script.problem, script.problem
    return script


def frames(lines: Sequence[Line], *, cport: int = 40000, sport: int = 80, **options: Any) -> list[tuple]:
    """The same as packets for `captures.pcap` (nanoseconds)."""
    client, server = b"\x0a\0\0\1", b"\x0a\0\0\2"
    link = ethernet(b"\2\0\0\0\0\2", b"\2\0\0\0\0\1", 0x0800)
    paths = {"C": Path(link, client, server, cport, sport), "S": Path(link, server, client, sport, cport)}
    found = []
    for time, who, segment in recorded(lines, **options):
        frame = paths[who].tcp(segment)
        found.append((*divmod(time, 10**9), frame, len(frame)))
    return found


RULES = Rules()


class Wire:
    """Carries segments between ends 0 and 1. loss, copies: shares of segments; delay, jitter: ns (jitter reorders)."""

    def __init__(self, seed: int, *, loss: float = 0, copies: float = 0, delay: int = 5 * MS, jitter: int = 0) -> None:
        self.random = random.Random(seed)
        self.loss, self.copies, self.delay, self.jitter = loss, copies, delay, jitter
        self.flying: list[tuple[int, int, int, Segment]] = []
        self.carried = self.lost = 0

    def put(self, now: int, target: int, segment: Segment) -> None:
        for _ in range(2 if self.random.random() < self.copies else 1):
            self.carried += 1
            if self.random.random() < self.loss:
                self.lost += 1
                continue
            arrival = now + self.delay + (self.random.randrange(self.jitter) if self.jitter else 0)
            heapq.heappush(self.flying, (arrival, self.carried, target, segment))


def ends(
    script: Script,
    rules: Rules = RULES,
    seed: int = 1,
    *,
    server: Script | None = None,
    server_rules: Rules | None = None,
    offer: Offer | None = None,
    retries: int = 16,
) -> tuple[Conversation, Conversation]:
    """Both sides of a script, each an engine of its own; the server may play another one, by other rules. offer: what
    both SYNs say, if not what the script's do."""
    source = random.Random(seed)
    parts = script.part("client"), (server or script).part("server")
    isn = [source.choice((0xFFFFFFF0, source.getrandbits(32))) for _ in parts]
    near = Connection(isn[0], offer or parts[0].offer, retries=retries, first_stamp=2**32 - 5)
    far = Connection(isn[1], offer or parts[1].offer, retries=retries)
    return (
        Conversation(parts[0], rules, near),
        Conversation(parts[1], server_rules or rules, far, passive=True),
    )


def run(pair: Sequence[Conversation], wire: Wire, *, limit: int = 3600 * 1000 * MS, steps: int = 100_000) -> int:
    """Let both play until both are done; returns the time that took, ns."""
    now = start = 1_000_000 * MS
    for end in pair:
        end.started(now)
    due: list[int | None] = [None, None]
    touched = {0, 1}
    for _ in range(steps):
        for k in touched:
            for segment in pair[k].segments_to_send(now):
                wire.put(now, 1 - k, segment)
            due[k] = pair[k].next_deadline()
        touched.clear()
        if pair[0].done and pair[1].done:
            return now - start
        times = [time for time in due if time is not None]
        times += [wire.flying[0][0]] if wire.flying else []
        if not times or now - start > limit:
            break
        now = max(now, min(times))
        while wire.flying and wire.flying[0][0] <= now:
            _, _, target, segment = heapq.heappop(wire.flying)
            pair[target].receive(segment, now)
            touched.add(target)
        for k, deadline in enumerate(due):
            if deadline is not None and deadline <= now:
                pair[k].timeout(now)
                touched.add(k)
    raise AssertionError(f"not done after {(now - start) / 1e9:.3f} s: " + "; ".join(
        f"{end.connection.state} una {end.connection.una} nxt {end.connection.nxt} heard {end.connection.heard} "
        f"turn {end.dialogue.turn} sent {end.dialogue._sent} {end.dialogue.outcome}" for end in pair
    ))  # fmt: skip
