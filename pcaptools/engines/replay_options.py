"""What the arguments of pcapreplay mean; whatever can be wrong with them is found here, before anything is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pcaptools.core.times import parse_time
from pcaptools.engines import pace
from pcaptools.engines.options import number
from pcaptools.engines.replay_choice import complement, parse_chance, parse_jitter, parse_numbers
from pcaptools.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pcaptools.core._replay import Schedule
    from pcaptools.engines.split import Splitter

TARGETS = ("--intf1", "--write", "--tap", "--udp", "--write-cache")

Value = Callable[[str, Callable[[str], Any]], Any]
"""The parsed value of an option by its name, None when it was not given. Raises UsageError."""


def word(*words: str) -> Callable[[str], str]:
    """A parser for one of a few words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"'{text}' is not {' or '.join(words)}")
        return text

    return parse


class Options:
    """The parsed arguments of one replay: times in ns, chances in 2^-32.

    loops: 0 for ever. unique: other addresses every so many loops, 0: never. period: from and to, None when open.
    numbers: ranges of packets of each capture, or None. scale: the schedule's length, which waits for a survey.
    schedule: None for no waiting.
    """

    def __init__(self, args: Mapping[str, Any], value: Value) -> None:
        """Raises UsageError."""
        _refuse_contradictions(args)
        self.loops = value("--loop", number)
        self.delay = value("--loop-delay", pace.parse_duration) or 0
        self.unique = max(value("--unique-ip-loops", number) or 1, 1) if args["--unique-ip"] else 0
        self.period: tuple[int | None, int | None] = value("--from", parse_time), value("--to", parse_time)
        if None not in self.period and self.period[0] >= self.period[1]:  # type: ignore[operator]
            raise UsageError("--from and --to: the period ends before it begins")
        include, exclude = value("--include", parse_numbers), value("--exclude", parse_numbers)
        self.numbers = include or (complement(exclude) if exclude else None)
        self.limit = value("--limit", number)
        self.duration = value("--duration", pace.parse_duration)
        self.window = value("--reorder", pace.parse_duration)
        self.cut = value("--cut", word("send", "pad", "skip"))
        self.largest = value("--skip-mtu", number)
        self.chances = tuple(value(name, parse_chance) or 0 for name in ("--loss", "--dup", "--reorder-rate"))
        self.seed = value("--seed", number)
        self.jitter = value("--jitter", lambda text: parse_jitter(text, pace.parse_duration))
        self.skip_late = value("--late", word("send", "skip")) == "skip"
        self.tolerance = value("--late-after", pace.parse_duration)
        self.threads = value("--threads", number) or 1
        self.stats = value("--stats", pace.parse_duration) or 0
        self.scale = value("--scale-to", pace.parse_duration)
        self._bounds: dict[str, Any] = {"most": value("--max-gap", pace.parse_duration) or 0, "limit": self.duration}
        self.schedule = None if self.scale is not None else self._paced(args, value)

    def _paced(self, args: Mapping[str, Any], value: Value) -> Schedule | None:
        """The pace that was asked for; None: no waiting."""
        if args["--topspeed"] or args["--oneatatime"]:
            return None
        if args["--pps"] is not None:
            group = max(value("--pps-multi", number) or 1, 1)
            return pace.packets_per_second(value("--pps", pace.parse_speed), **self._bounds, group=group)
        if args["--mbps"] is not None:
            rate = value("--mbps", pace.parse_rate)
            return pace.megabits_per_second(rate, **self._bounds) if rate else None
        return pace.recorded(value("--multiplier", pace.parse_speed), **self._bounds)

    def fit(self, span: int) -> None:
        """What is to be played spans so many ns: now the schedule for `scale` can be made."""
        self.schedule = pace.scaled(span, self.scale, **self._bounds)


def _refuse_contradictions(args: Mapping[str, Any]) -> None:
    targets = [name for name in TARGETS if args[name] is not None]
    if not targets:
        raise UsageError("-i DEVICE is missing: which device shall send?")
    groups: tuple[Iterable[str], ...] = (
        targets,
        ("--pps", "--mbps", "--topspeed", "--scale-to"),
        ("--include", "--exclude"),
        ("--split-include", "--split-exclude"),
    )
    for group in groups:
        given = [name for name in group if args[name]]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} contradict each other")
    sided = args["--split"] or args["--cachefile"] or args["--dualfile"]
    if args["--intf2"] is not None and (not sided or args["--intf1"] is None):
        raise UsageError("--intf2 needs -i, and one of --split, --cachefile and --dualfile to tell the sides")
    if args["--write-cache"] is not None and args["--split"] is None:
        raise UsageError("--write-cache: --split MODE is missing")


def splitter(
    args: Mapping[str, Any], value: Value, services: Iterable[str] | None, compile: Callable[[str, int], bytes]
) -> Splitter | None:
    """Who tells the sides, None without --split. services: the lines of the file that --services names.

    Raises UsageError.
    """
    if args["--split"] is None:
        return None
    from pcaptools.engines.split import Plan, Splitter, check_plan, parse_mode, parse_rule, parse_services

    mode, what = value("--split", parse_mode)
    plan = Plan(
        mode,
        what,
        reverse=args["--reverse"],
        nonip=args["--nonip"],
        compat=value("--compat", word("tcpprep")) is not None,
        ratio=float(value("--ratio", pace.parse_speed)),
        shortest=value("--maxmask", number),
        longest=value("--minmask", number),
    )
    if services is not None:
        plan = plan._replace(ports=parse_services(services))
    check_plan(plan)
    include = value("--split-include", lambda text: parse_rule(text, False))
    exclude = value("--split-exclude", lambda text: parse_rule(text, True))
    return Splitter(plan, include or exclude, compile)
