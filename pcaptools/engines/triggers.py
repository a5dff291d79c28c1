"""What makes a session worth showing: thresholds that the user sets, and the words for what they found."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator
from typing import Any

from pcaptools.core.times import seconds
from pcaptools.engines.sessions import BIT, FIN, RST, RST_KINDS, STARTS, SYN, End, Segment, Session

MS = 1_000_000
"""ns."""

RETRANSMIT = 1000
"""ms: miruo's default."""

_AGAIN = BIT["retransmission"] | BIT["syn_retransmission"] | BIT["fin_retransmission"]
_AFTER_FIN = BIT["rst_after_fin"]
_MIDDLE = STARTS.index("middle")

_Triggers = namedtuple(
    "_Triggers",
    "retransmit syn rst long_connect long_delay fragment zero_window no_reply incomplete slow_handshake rtt everything",
    defaults=(RETRANSMIT * MS, True, 1, 0, 0, True, True, True, False, 0, 0, False),
)


Reason = namedtuple("Reason", "kind words")
"""Why a session is shown, in words with numbers and without."""


class Triggers(_Triggers):
    """Times in ns, 0: off. rst: 0 none, 1 those that do not follow a FIN, 2 all.

    retransmit: a segment sent again after so long at least. syn: a SYN sent again. long_connect: the session lasts
    longer. long_delay: a pause is longer. fragment: an IP packet in fragments. zero_window: a receiver that takes
    nothing more. no_reply: one end says nothing. incomplete: not seen from SYN to FIN or RST. slow_handshake, rtt: took
    so long at least. everything: all sessions.
    """

    __slots__ = ()

    @classmethod
    def of(cls, value: Callable[[str, Callable[[str], Any]], Any]) -> Triggers:
        """From the command line. value: the parsed value of an option, None when it was not given."""
        given = {}
        for option, parse in _OPTIONS.items():
            found = value(f"--{option}", parse)
            if found is not None:
                given[option.replace("-", "_")] = found
        return cls(**given)

    def chosen(self) -> dict[str, Any]:
        """The arguments of `Tracker.choose`."""
        names = [name for name in ("fragment", "zero_window") if getattr(self, name)]
        if self.syn:
            names.append("syn_retransmission")
        return {
            "bits": sum(BIT[name] for name in names),
            "incomplete": self.incomplete,
            "no_reply": self.no_reply,
            "connect_ns": self.long_connect,
            "delay_ns": self.long_delay,
            "retransmit_ns": self.retransmit,
            "handshake_ns": self.slow_handshake,
            "rtt_ns": self.rtt,
            "rst": self.rst,
            "everything": self.everything,
        }

    def reasons(self, session: Session) -> list[Reason]:
        """Why a session is shown, the worst first; empty where nothing was found."""
        found = ((kind, finder(self, session)) for kind, finder in _FINDERS)
        return [Reason(kind or one, one) for kind, words in found if words for one in words]

    def marks(self, segment: Segment) -> bool:
        """Whether this segment is what a trigger is about."""
        bits = segment.bits
        return bool(
            (self.retransmit and bits & _AGAIN and segment.gap >= self.retransmit)
            or (self.syn and bits & BIT["syn_retransmission"])
            or (segment.flags & RST and self.rst > (1 if bits & _AFTER_FIN else 0))
            or (self.long_delay and segment.delta > self.long_delay)
            or (self.fragment and bits & BIT["fragment"])
            or (self.zero_window and bits & BIT["zero_window"])
            or (self.rtt and segment.rtt >= self.rtt)
        )

    def is_late(self, segment: Segment) -> bool:
        """Whether a segment came after a long pause."""
        return bool(self.long_delay and segment.delta > self.long_delay)


def is_milestone(segment: Segment) -> bool:
    """Whether a segment opens, closes or resets its session."""
    return bool(segment.flags & (SYN | FIN | RST))


Words = list[str]


def _both(session: Session) -> Iterator[tuple[str, End]]:
    return zip(("client", "server"), session.ends, strict=True)


def _count(session: Session, name: str) -> int:
    return int(sum(end.counts.get(name, 0) for end in session.ends))


def _times(count: int, one: str, many: str | None = None) -> str:
    return one if count == 1 else f"{count} {many or one + 's'}"


def _is_silent(triggers: Triggers, session: Session) -> bool:
    return bool(triggers.no_reply and not (session.ends[0].packets and session.ends[1].packets))


def _unanswered(triggers: Triggers, session: Session) -> Words:
    if not _is_silent(triggers, session) or session.start == _MIDDLE:
        return []
    what = "SYN" if session.start == STARTS.index("syn") else "SYN ACK"
    return [f"no reply to {_times(session.ends[session.sender].syns, f'the {what}', f'{what}s')}"]


def _one_sided(triggers: Triggers, session: Session) -> Words:
    return ["one direction only"] if _is_silent(triggers, session) and session.start == _MIDDLE else []


def _reset(triggers: Triggers, session: Session) -> Words:
    if session.rst_by is None or not session.rst_packet:
        return []
    kind = RST_KINDS[session.rst_kind]
    if triggers.rst < (2 if kind == "after-fin" else 1):
        return []
    who = ("client", "server")[session.rst_by]
    how = {"refused": "refused", "after-fin": "reset after FIN", "after-data": "reset after data"}.get(kind, "reset")
    return [f"{how} by the {who}"]


def _sent_again(triggers: Triggers, session: Session) -> Words:
    """SYNs; then all the rest, if there is any."""
    gap = seconds(session.gap_max)
    is_long = triggers.retransmit and session.gap_max >= triggers.retransmit
    syns, again = _count(session, "syn_retransmission"), session.retransmitted
    found = [f"{_times(syns, 'SYN')} sent again"] if triggers.syn and syns else []
    if is_long and again > (syns if found else 0):
        found.append(_times(again, "retransmission"))
    if is_long and found:
        found[-1] += f" {'after' if again == 1 else 'up to'} {gap} s"
    return found


def _stopped(triggers: Triggers, session: Session) -> Words:
    if not triggers.zero_window:
        return []
    counts = ((who, end.counts.get("zero_window", 0)) for who, end in _both(session))
    return [f"{_times(count, 'zero window')} of the {who}" for who, count in counts if count]


def _fragments(triggers: Triggers, session: Session) -> Words:
    count = _count(session, "fragment") if triggers.fragment else 0
    return [f"{_times(count, 'segment')} in fragments"] if count else []


def _handshake(triggers: Triggers, session: Session) -> Words:
    took = session.handshake
    if not triggers.slow_handshake or took is None or took < triggers.slow_handshake:
        return []
    return [f"handshake took {seconds(took)} s"]


def _slow(triggers: Triggers, session: Session) -> Words:
    if not triggers.rtt:
        return []
    slow = ((who, end.rtt_max or 0) for who, end in _both(session))
    return [f"RTT of the {who} up to {seconds(rtt)} s" for who, rtt in slow if rtt >= triggers.rtt]


def _pause(triggers: Triggers, session: Session) -> Words:
    if not triggers.long_delay or session.delta_max <= triggers.long_delay:
        return []
    return [f"pause of {seconds(session.delta_max)} s"]


def _long(triggers: Triggers, session: Session) -> Words:
    if not triggers.long_connect or session.duration <= triggers.long_connect:
        return []
    return [f"lasts {seconds(session.duration)} s"]


def _part(triggers: Triggers, session: Session) -> Words:
    if not triggers.incomplete or session.is_complete:
        return []
    begun = [] if session.start == STARTS.index("syn") else ["begin not seen"]
    return begun + ([] if session.close_reason in ("fin", "rst") else ["end not seen"])


_FINDERS: tuple[tuple[str, Callable[[Triggers, Session], Words]], ...] = (
    ("no reply", _unanswered),
    ("", _one_sided),
    ("", _reset),
    ("retransmissions", _sent_again),
    ("zero window", _stopped),
    ("fragments", _fragments),
    ("slow handshake", _handshake),
    ("high RTT", _slow),
    ("pause", _pause),
    ("long", _long),
    ("", _part),
)
"""What finds reasons, the worst first, and the kind of these; "": the words are the kind."""


def _milliseconds(text: str) -> int:
    """Whole or broken milliseconds as ns. Raises ValueError."""
    number, _, fraction = text.partition(".")
    digits = number + fraction.ljust(6, "0")
    if not number or len(fraction) > 6 or not digits.isascii() or not digits.isdigit():
        raise ValueError(f"'{text}' is not a number of milliseconds")
    return int(digits)


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"'{text}' is not 0 or 1")
    return text == "1"


def _rst(text: str) -> int:
    if text not in ("0", "1", "2"):
        raise ValueError(f"'{text}' is not 0, 1 or 2")
    return int(text)


_OPTIONS: dict[str, Callable[[str], Any]] = {
    "retransmit": _milliseconds,
    "syn": _switch,
    "rst": _rst,
    "long-connect": _milliseconds,
    "long-delay": _milliseconds,
    "fragment": _switch,
    "zero-window": _switch,
    "no-reply": _switch,
    "incomplete": _switch,
    "slow-handshake": _milliseconds,
    "rtt": _milliseconds,
}

TRIGGERS = tuple(_OPTIONS)
"""Names of the options."""
