"""Sessions as text, in the layout of miruo: a line for the session, a line for each segment that matters.

::

    0025             1.369 |    10.1.195.93:46624 == 198.51.77.219:80     | Total 21 segments, 2412 bytes ...
    0025:0000 22:13:25.795 |          SYN_SENT >----S-> SYN_RECEIVED      | E30C5142/00000000   74 - #1 <mss=1460>
    0025:****              |                                              |                        (17 segments)
    0025:0018 22:13:27.136 |        FIN_WAIT_1 >-A---F> CLOSE_WAIT        | E30C52FC/E4820457   66 - #31 <timestamp ...>

The client is on the left, and what a segment says of an end is its state after that segment. `Layout(narrow=True)` fits
80 columns.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from pcaptools.core.times import Clock, seconds
from pcaptools.engines import sessions
from pcaptools.engines.sessions import BIT, FIN, RST, STATES, SYN, Segment, Session
from pcaptools.engines.tcp_options import options_text
from pcaptools.engines.triggers import Reason, Triggers, is_milestone

LINES = 40
"""Segments of a session that are shown at most, unless told otherwise."""

NARROW = 80

RED, GREEN, YELLOW, BLUE, CYAN, DIM = 31, 32, 33, 34, 36, 2
"""ANSI colours: of what is wrong; of the segment that is sent again; of the head and the handshake; of a clean end; of
names and messages; of what is left out."""

_LETTERS = tuple(zip((sessions.URG, sessions.ACK, sessions.PSH, RST, SYN, FIN), "UAPRSF", strict=True))

# (bits, words, short words): the first that fits says what is remarkable about a segment; the others follow it.
_WORDS = (
    ("spurious_retransmission", "spurious retransmission", "spurious"),
    ("fast_retransmission", "fast retransmission", "fast retr."),
    ("retransmission", "retransmission", "retransmitted"),
    ("syn_retransmission", "SYN again", "SYN again"),
    ("fin_retransmission", "FIN again", "FIN again"),
    ("out_of_order", "out of order", "out of order"),
    ("lost_segment", "previous segment not seen", "hole before"),
    ("ack_lost_segment", "acknowledges a segment not seen", "ACK of unseen"),
    ("zero_window_probe_ack", "answer to a zero window probe", "probe answer"),
    ("zero_window_probe", "zero window probe", "probe"),
    ("zero_window", "zero window", "zero window"),
    ("window_update", "window update", "window opens"),
    ("window_full", "window full", "window full"),
    ("keep_alive_ack", "keep-alive ACK", "keep-alive ACK"),
    ("keep_alive", "keep-alive", "keep-alive"),
    ("rst_refused", "refused", "refused"),
    ("rst_ignored", "RST outside of the window", "RST ignored"),
    ("rst_with_data", "RST with data", "RST with data"),
    ("rst_after_fin", "RST after FIN", "RST after FIN"),
    ("partial_overlap", "overlaps", "overlaps"),
    ("dsack", "DSACK", "DSACK"),
    ("fragment", "in fragments", "fragment"),
    ("reused_ports", "ports used again", "ports reused"),
    ("fast_open", "fast open", "fast open"),
    ("after_close", "after the close", "after close"),
    ("ecn_ce", "congestion mark", "ECN CE"),
    ("bad_options", "bad options", "bad options"),
    ("no_flags", "no flags", "no flags"),
    ("snapped", "cut by the snap length", "cut"),
    ("unchecked_length", "length not in the IP header", "no length"),
)
_AGAIN = BIT["retransmission"]
_FAST_OR_SPURIOUS = BIT["fast_retransmission"] | BIT["spurious_retransmission"]
_TABLE = tuple((BIT[name], words, short) for name, words, short in _WORDS)
_ECN = ((sessions.ECE, "ECE"), (sessions.CWR, "CWR"))


def flags_text(flags: int) -> str:
    """`-A---F`."""
    return "".join([letter if flags & bit else "-" for bit, letter in _LETTERS])


class Layout:
    """How sessions are written.

    context: segments shown around each that a trigger marks. lines: of a session at most, 0: no limit. everything: all
    segments. relative: times since the session's first segment. narrow: 80 columns. colour: ANSI.
    """

    def __init__(
        self,
        clock: Clock,
        triggers: Triggers,
        *,
        context: int = 0,
        lines: int = LINES,
        relative: bool = False,
        narrow: bool = False,
        colour: bool = False,
    ) -> None:
        self.clock, self.triggers = clock, triggers
        self.context, self.lines = context, lines
        self.relative, self.narrow, self.colour = relative, narrow, colour
        width = clock.width
        if narrow:
            self._blank = f"{'****':>{width}}|{'':34}|"
        else:
            self._blank = f"{'****':<{width + 6}}|{'':46}|{'':23}"

    def paint(self, text: str, colour: int) -> str:
        """Text in a colour, where there are any."""
        return f"\033[{colour}m{text}\033[0m" if self.colour and colour and text else text

    def head(self, session: Session, names: Sequence[str], why: Sequence[Reason]) -> Iterator[str]:
        """The lines that say which session this is and why it is shown. names: what else is known of it."""
        reasons = [reason.words for reason in why]
        took = seconds(session.duration, self.clock.digits)
        still = ["open"] if session.close_reason == "open" else []
        if self.narrow:
            yield from self._narrow_head(session, took)
            for text in wrapped([f"session {session.id}", *still, *reasons, *names], NARROW - 6):
                yield self.paint(f"  !! {text}" if reasons else f"     {text}", RED if reasons else CYAN)
            return
        line = f"{session.id:04} {took:>{self.clock.width + 4}} |"
        line += f"{session.client_text:>21} == {session.server_text:<21}| "
        line += ", ".join([f"Total {session.packets} segments", f"{session.bytes} bytes", *still])
        line += f", {self.clock.date(session.first)}" if self.relative else ""
        alarm = self.paint(f" !! {', '.join(reasons)}", RED) if reasons else ""
        yield self.paint(line, YELLOW) + alarm + self.paint(f" -- {', '.join(names)}" if names else "", CYAN)

    def _narrow_head(self, session: Session, took: str) -> Iterator[str]:
        client, server, total = session.client_text, session.server_text, f"{session.packets}seg({session.bytes})"
        if len(client) + len(server) > 44:  # IPv6
            yield self.paint(f"{took:>{self.clock.width}}|{client} ==", YELLOW)
            took, client = "", ""
            yield self.paint(f"{took:>{self.clock.width}}|{server:<46}|{total}", YELLOW)
        else:
            yield self.paint(f"{took:>{self.clock.width}}|{client:>21} == {server:<21}|{total}", YELLOW)

    def body(self, session: Session, rows: Sequence[Segment], more: Sequence[tuple[int, str]] = ()) -> Iterator[str]:
        """The lines of those segments that matter, and of what is left out between them.

        rows: the session's segments, as far as they were kept: the last ones. more: (packet, text) of what the segments
        carried, in order; each is written below the segment of that packet, or where it would be.
        """
        shown = self._chosen(session, rows)
        before = session.rows_dropped
        number_of = {segment.packet: before + k for k, segment in enumerate(rows)}
        originals = {segment.original for k in shown if (segment := rows[k]).bits & _AGAIN}
        texts = iter([*more, (1 << 62, "")])
        packet, text = next(texts)
        next_number = 0
        for k in [*shown, len(rows)]:
            until = rows[k].packet if k < len(rows) else 1 << 61
            while packet < until:
                yield self._message(session, text)
                packet, text = next(texts)
            if before + k > next_number:
                yield self._gap(session, before + k - next_number, rows[max(next_number - before, 0) : k])
            if k < len(rows):
                yield self._line(session, rows[k], before + k, number_of, rows[k].packet in originals)
            next_number = before + k + 1

    def _chosen(self, session: Session, rows: Sequence[Segment]) -> list[int]:
        """Which of the rows are shown, as indices in order."""
        triggers = self.triggers
        if triggers.everything:
            return list(range(len(rows)))
        packets = [segment.packet for segment in rows]
        marked = [k for k, segment in enumerate(rows) if triggers.marks(segment)]
        stones = [k for k, segment in enumerate(rows) if is_milestone(segment)]
        opening = [k for k in range(min(3, len(rows))) if session.start and not session.rows_dropped]
        if self.lines:
            stones = _ends(stones, max(self.lines // 4, 2))
            marked = _ends(marked, self.lines)
        shown = {*stones, *opening}
        for k in marked:
            shown.update(range(max(k - self.context, 0), min(k + self.context + 1, len(rows))))
            if triggers.is_late(rows[k]) and k:
                shown.add(k - 1)
            original = rows[k].original
            at = bisect_left(packets, original) if original else len(rows)
            if at < len(rows) and packets[at] == original:
                shown.add(at)
        return _without_holes_of_one(sorted(shown), len(rows))

    def _gap(self, session: Session, count: int, rows: Sequence[Segment]) -> str:
        """Segments that are not shown; rows: those of them that were kept."""
        words = [f"{count} segment{'s' if count > 1 else ''}"]
        words += [f"{count - len(rows)} forgotten"] if count > len(rows) else []
        again = sum(1 for segment in rows if segment.bits & _AGAIN)
        words += [f"{again} sent again"] if again else []
        sid = "" if self.narrow else f"{session.id:04}:"
        return self.paint(f"{sid}{self._blank}({', '.join(words)})", DIM)

    def _message(self, session: Session, text: str) -> str:
        lead = "" if self.narrow else f"{session.id:04}:"
        room = NARROW - 4 - len(lead) if self.narrow else 0
        text = text if not room or len(text) <= room else text[: room - 1] + ">"
        return self.paint(f"{lead}{'':4}{text}", CYAN)

    def _line(self, session: Session, segment: Segment, number: int, numbers: dict[int, int], is_original: bool) -> str:
        flags = flags_text(segment.flags)
        states = STATES[segment.client_state], STATES[segment.server_state]
        arrow = ">" if segment.direction == 0 else "<"
        time = seconds(segment.time - session.first, self.clock.digits) if self.relative else self.clock(segment.time)
        colour = self._colour(segment, number, is_original)
        width = self.clock.width
        sequence = f"{segment.seq:08X}/{segment.ack:08X}"
        if self.narrow:
            line = f"{time:>{width}}|{states[0]:>12} {arrow}{flags}{arrow} {states[1]:<12}|{sequence}"
            note = self.short_note(segment)
            return self.paint(f"{line} {note}" if note else line, colour)
        fragment = "F" if segment.bits & BIT["fragment"] else "-"
        line = f"{session.id:04}:{number:04} {time:>{width}} |{states[0]:>18} {arrow}{flags}{arrow} {states[1]:<18}| "
        line += f"{sequence} {segment.wire:4} {fragment} #{segment.packet}"
        return self.paint(line + self._tail(segment, numbers), colour)

    def _tail(self, segment: Segment, numbers: dict[int, int]) -> str:
        note = self.note(segment, numbers)
        options = options_text(segment.options[: segment.options_length])
        return (f" {note}" if note else "") + (f" <{options}>" if options else "")

    def note(self, segment: Segment, numbers: dict[int, int]) -> str:
        """What is remarkable about a segment, in words."""
        bits = segment.bits
        if bits & _FAST_OR_SPURIOUS:
            bits &= ~_AGAIN
        words = [words for bit, words, _ in _TABLE if bits & bit]
        if segment.bits & _AGAIN and segment.gap:
            of = f" of {numbers[segment.original]:04}" if segment.original in numbers else ""
            words[0] += f"{of} after {seconds(segment.gap)} s"
        if segment.dup_ack:
            words.append(f"duplicate ACK {segment.dup_ack}")
        if self.triggers.is_late(segment):
            words.append(f"after a pause of {seconds(segment.delta)} s")
        if self.triggers.rtt and segment.rtt >= self.triggers.rtt:
            words.append(f"RTT {seconds(segment.rtt)} s")
        words += [name for bit, name in _ECN if segment.flags & bit]
        return ", ".join(words)

    def short_note(self, segment: Segment) -> str:
        """The same in at most 14 characters."""
        bits = segment.bits
        if bits & _AGAIN and segment.gap:
            return f"again {seconds(segment.gap)}"[:14]
        if self.triggers.is_late(segment):
            return f"after {seconds(segment.delta)}"[:14]
        if segment.dup_ack:
            return f"dup ACK {segment.dup_ack}"[:14]
        return next(
            (short for bit, _, short in _TABLE if bits & bit), f"{segment.payload} B" if segment.payload else ""
        )

    def _colour(self, segment: Segment, number: int, is_original: bool) -> int:
        if self.triggers.marks(segment) or segment.flags & RST:
            return RED
        if is_original:
            return GREEN
        if segment.flags & SYN or number < 3:
            return YELLOW
        return BLUE if segment.flags & FIN else 0

    def live(self, segment: Segment, client: str, server: str, start: int) -> str:
        """A segment on its own, as it comes. start: of the capture, for relative times."""
        time = seconds(segment.time - start, self.clock.digits) if self.relative else self.clock(segment.time)
        arrow = ">" if segment.direction == 0 else "<"
        talk = f"{client:>21} {arrow}{flags_text(segment.flags)}{arrow} {server:<21}"
        colour = self._colour(segment, 3, False)
        if self.narrow:
            note = self.short_note(segment)
            return self.paint(f"{time:>{self.clock.width}} {talk} {note}".rstrip(), colour)
        states = f"{STATES[segment.client_state]}/{STATES[segment.server_state]}"
        line = f"{segment.session:04}:{segment.packet:04} {time:>{self.clock.width}} {talk} {states} "
        line += f"{segment.seq:08X}/{segment.ack:08X} {segment.wire} {'F' if segment.bits & BIT['fragment'] else '-'}"
        return self.paint(line + self._tail(segment, {}), colour)


def _ends(numbers: list[int], most: int) -> list[int]:
    """The first and the last of them, `most` in all."""
    return numbers if len(numbers) <= most else [*numbers[: most - most // 4], *numbers[-(most // 4) :]]


def _without_holes_of_one(numbers: list[int], count: int) -> list[int]:
    """With those, of `count` in all, that would be left out alone: to say so takes a line, too."""
    filled: list[int] = []
    for number in [*numbers, count]:
        if number - (filled[-1] if filled else -1) == 2:
            filled.append(number - 1)
        filled.append(number)
    return filled[:-1]


def wrapped(words: Sequence[str], width: int) -> Iterator[str]:
    """Words with commas between them, as lines."""
    line = ""
    for word in words:
        if line and len(line) + len(word) + 2 > width:
            yield line + ","
            line = ""
        line += f", {word}" if line else word
    if line:
        yield line
