"""What a run of pcapsessions is to do: the command line, checked and in the engines' terms."""

from __future__ import annotations

from pcaptools.core.times import Clock, parse_precision, parse_span, parse_zone
from pcaptools.engines.seek import Seek
from pcaptools.engines.sessions import Tracker
from pcaptools.engines.sessions_report import ALIKE
from pcaptools.engines.sessions_text import LINES, Layout
from pcaptools.engines.triggers import TRIGGERS, Triggers
from pcaptools.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Value = Callable[[str, Callable[[str], Any]], Any]

SECOND = 1_000_000_000

SESSIONS, SEGMENTS = 100_000, 200_000
"""Remembered at a time, unless told otherwise."""

IDLE, HALF_OPEN, LINGER = 900 * SECOND, 35 * SECOND, 3 * SECOND
"""ns without a packet, at a device: that end an open session; one that is being opened or closed (a SYN is sent again
after 32 s at most, but for the last); after which a closed one is shown."""

LINGER_PIPE = 60 * SECOND
"""The last of these for a capture that is still being made, as far as one can know."""

FILE, PIPE, DEVICE = range(3)
"""Where packets come from. Of files sessions are told of at the end, so that no late packet begins another one; with
HTTP, of which there may be much, as of pipes."""

HEAD = 1
"""Bytes of a stream in which a TLS hello may begin when every session is looked at for names."""

POLICIES = ("first", "last")

MODES = ("json", "summary", "live", "follow")


class Plan:
    """args: of the command line, by usage name. value: the parsed value of an option, None when it was not given.
    terminal: standard output is one. source: where packets come from. Raises UsageError."""

    def __init__(self, args: Mapping[str, Any], value: Value, terminal: bool, source: int) -> None:
        self._args, self._value, self.source = args, value, source
        self.mode = self._mode()
        self.everything = bool(args["--all"])
        named = any(args[f"--{option}"] is not None for option in TRIGGERS)
        self.triggers = Triggers.of(value)._replace(everything=self.everything)
        self.selects = not self.everything and (self.mode == "text" or named)
        """Whether only sessions are told of that a trigger fits."""
        self.silent = self.selects and not any(self.triggers)
        """Whether there is no such session: the statistics are wanted, nothing else."""
        self.layout = self._layout(terminal)
        self.alike = 0 if self.everything else self._number("--similar", ALIKE)
        self.seek = self._seek()
        self.heads = self.seek is not None and self.seek.reach == HEAD and args["--extract"] is None
        """Whether names are looked for in what the tracker keeps of the beginning of sessions."""
        self.interval = value("--stat-interval", parse_span) or 0
        self.follow = value("--follow", _number)
        self.plots = [(option, *found) for option in ("--plot", "--plot-rtt") if (found := value(option, _picture))]
        """(option, session, file)."""
        self.drawn = {session for _, session, _ in self.plots}
        self.numbers = self.drawn | ({self.follow} if self.follow is not None else set())
        """Sessions that must be there."""
        self.chooses = (
            self.selects and not (self.seek and self.seek.http) and not self.numbers and args["--extract"] is None
        )
        """Whether the tracker knows which sessions are told of."""
        self.form = "hex" if args["--hex"] else "text"
        self.tells = self.mode in ("text", "live") or bool(args["--verbose"])
        """Whether the statistics are told at the end."""

    def _mode(self) -> str:
        shown = [mode for mode in MODES if self._args[f"--{mode}"] not in (None, False)]
        if len(shown) > 1:
            raise UsageError(f"--{shown[0]} does not go with --{shown[1]}")
        if shown:
            return shown[0]
        quiet = any(self._args[option] is not None for option in ("--extract", "--plot", "--plot-rtt"))
        return "none" if quiet and not self._args["--all"] else "text"

    def _number(self, option: str, default: int) -> int:
        found = self._value(option, _number)
        return default if found is None else int(found)

    def _layout(self, terminal: bool) -> Layout:
        args, value = self._args, self._value
        digits = value("--precision", parse_precision)
        colour = value("--color", _colour)
        return Layout(
            Clock(3 if digits is None else digits, value("--zone", parse_zone), args["--date"]),
            self.triggers,
            context=self._number("--view-data", 0),
            lines=0 if self.everything else self._number("--lines", LINES),
            relative=args["--relative"],
            narrow=args["--narrow"],
            colour=terminal if colour is None else colour,
        )

    def _seek(self) -> Seek | None:
        """What to look for in streams; None: nothing."""
        mode = self._args["--dpi-mode"]
        wanted = None if mode in (None, "names", "tcp") else self._value("--dpi-mode", _mode)
        policy = self._value("--overlap", _policy) or POLICIES[0]
        names = self.mode in ("text", "json") and mode != "tcp" and (wanted is not None or not self.silent)
        if not names and self.mode != "follow" and self._args["--extract"] is None:
            return None
        if not names:
            return Seek(policy=policy)
        if wanted is not None or mode == "names":
            return Seek(http=wanted, tls=True, dns=True, policy=policy)
        return Seek(tls=True, dns=True, policy=policy, reach=HEAD)  # all sessions pay for it: the first bytes only

    def tracker(self, seed: int) -> Tracker:
        """The session table."""
        idle = self._value("--idle", parse_span)
        live = self.source == DEVICE
        tracker = Tracker(
            sessions=self._number("--limit-session", SESSIONS),
            held=self._number("--limit-segment", SEGMENTS),
            idle_ns=(IDLE if live else 0) if idle is None else idle,
            opening_ns=HALF_OPEN if live else 0,
            closing_ns=HALF_OPEN if live else 0,
            linger_ns=(LINGER_PIPE if self.seek and self.seek.http else 0, LINGER_PIPE, LINGER)[self.source],
            keep=(self.mode == "text" and not (self.silent and not self.seek)) or bool(self.drawn),
            rows=self.seek is not None or self.mode == "live",
            heads=self.heads,
            checksum=self._args["--checksum"],
            seed=seed,
        )
        if self.chooses:
            tracker.choose(**self.triggers.chosen())
        return tracker


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"'{text}' is not a whole number")
    return int(text)


def _picture(text: str) -> tuple[int, str]:
    number, space, path = text.partition(" ")
    if not space or not path:
        raise ValueError(f"'{text}' is not the number of a session and a file")
    return _number(number), path


def _colour(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"'{text}' is not 0 or 1")
    return text == "1"


def _mode(text: str) -> Any:
    from pcaptools.engines.http import parse_mode

    return parse_mode(text)


def _policy(text: str) -> str:
    if text not in POLICIES:
        raise ValueError(f"'{text}' is not {' or '.join(POLICIES)}")
    return text
