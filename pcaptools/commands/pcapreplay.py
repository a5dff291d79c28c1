"""pcapreplay: send captures to a network device on their own clock.

Usage:
  pcapreplay [options] [--] [<capture>...]

Sends the packets of captures (pcap or pcapng, plain or compressed; standard input when none is named), each at its
recorded time after the first one. Several captures are merged by time. Every packet has one absolute due time: a late
one is sent at once and delays no other. At the end the command says what was sent, what was not, and how exactly.

Options:
  -i, --intf1=DEVICE     Send to this device. Required.
  -x, --multiplier=X     So many times the recorded speed [default: 1].
  -p, --pps=RATE         So many packets a second instead.
  -M, --mbps=RATE        So many million bits of frames a second instead.
  -t, --topspeed         As fast as the device takes them.
  -l, --loop=N           Play all of it N times, each time where the last one ended; 0 is for ever [default: 1].
  -L, --limit=N          Stop after N packets.
  -f, --filter=BPF       Send only the packets that match a libpcap filter expression.
  --no-qdisc-bypass      Send through the device's queueing discipline, where captures on this machine see it.
  --backend=NAME         packet (the default on Linux) or pypcap (elsewhere).
  -Z, --user=NAME        Become this user once the device is open.
  --json                 Print the report as one JSON object.
  -q, --quiet            No report and no warnings.
  -v, --verbose          Say at the end how many packets came in, went out and why not.
  --version              Say which version this is.
  -h, --help             Show this text.
"""

from __future__ import annotations

from pcaptools import cli
from pcaptools.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import ExitStack

    from pcaptools.core._core import Schedule
    from pcaptools.core.batch import Batch
    from pcaptools.core.pipeline import Account, Transform
    from pcaptools.engines.merge import Slice
    from pcaptools.net.inject import Injector

READ_AHEAD = 3
"""Batches of a capture that are read before they are due."""

UNFIT = {
    "linktype": "of a link type that the device does not carry",
    "empty": "without a byte",
    "short": "shorter than a link header",
    "long": "beyond the MTU",
}


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    return cli.run(__doc__, _replay, argv)


def _replay(command: cli.Command) -> int:
    from pcaptools.net.inject import DEFAULT_BACKEND, open_device

    args = command.args
    schedule = _schedule(command)
    loops = command.value("--loop", cli.whole)
    if loops != 1 and (not args["<capture>"] or "-" in args["<capture>"]):
        raise UsageError("--loop: standard input can be read only once: name a file")
    account = command.account()
    transforms = command.filter(account)
    if args["--intf1"] is None:
        raise UsageError("-i DEVICE is missing: which device shall send?")
    command.refuse_terminal(args["<capture>"])
    backend = args["--backend"] or DEFAULT_BACKEND
    with open_device(args["--intf1"], qdisc_bypass=not args["--no-qdisc-bypass"], backend=backend) as injector:
        notes = [_become(args["--user"]) if args["--user"] is not None else "", injector.warning]
        for note in filter(None, notes):
            command.warn(note)
        replay = _Replay(command, injector, schedule, account, transforms)
        try:
            replay.run(loops)
        finally:
            replay.report()
    return command.close(account)


# Imported on the way, when root may have been given up: to whom the modules may not be readable.
LATER = (
    "contextlib", "json", "threading", "pcaptools.core.pipeline", "pcaptools.engines.merge", "pcaptools.files.inputs",
    "isal.isal_zlib", "zstandard", "lz4.frame", "lzma", "bz2",
)  # fmt: skip


def _become(user: str) -> str:
    """Give root up; returns what the user should know of it."""
    from importlib import import_module

    from pcaptools.net.privileges import drop_root

    for module in LATER:
        import_module(module)
    return drop_root(user)


def _schedule(command: cli.Command) -> Schedule | None:
    """The pace that was asked for; None: no waiting."""
    from pcaptools.engines import pace

    paces = {"--pps": pace.packets_per_second, "--mbps": pace.megabits_per_second, "--topspeed": None}
    asked = [option for option in paces if command.args[option]]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(asked)} contradict each other")
    if command.args["--topspeed"]:
        return None
    option = asked[0] if asked else "--multiplier"
    speed = command.value(option, pace.parse_speed)
    return (paces[option] if asked else pace.recorded)(speed)  # type: ignore[misc, arg-type]


class _Replay:
    """One run: the packets of the captures, at their times, into the injector."""

    def __init__(
        self,
        command: cli.Command,
        injector: Injector,
        schedule: Schedule | None,
        account: Account,
        transforms: list[Transform],
    ) -> None:
        self.command = command
        self.injector = injector
        self.schedule = schedule
        self.account = account
        self.transforms = transforms
        self.left = command.value("--limit", cli.whole)
        self.unfit = dict.fromkeys(UNFIT, 0)
        self.start = 0
        self._duration = 0
        self._due = bytearray()

    def run(self, loops: int | None) -> None:
        """Play everything `loops` times; None or 0: until interrupted or at the limit."""
        played = 0
        while not loops or played < loops:
            before = self.account.packets_in
            if not self._play() or self.account.packets_in == before:
                return
            played += 1
            if self.schedule:
                self.schedule.rewind()

    def _play(self) -> bool:
        """Play everything once. False when the limit was reached."""
        from contextlib import ExitStack

        with ExitStack() as stack:
            for batch, start, stop in self._slices(stack):
                if self.left is not None:
                    stop = min(stop, start + self.left)
                    self.left -= stop - start
                self._send(batch, start, stop)
                if self.left == 0:
                    return False
        return True

    def _slices(self, stack: ExitStack) -> Iterator[Slice]:
        """The packets of all captures in order of time."""
        from pcaptools.core.pipeline import counted, through
        from pcaptools.engines.merge import merge
        from pcaptools.files.inputs import captures, sound

        paths = self.command.args["<capture>"]
        sources: list[Iterable[Batch]] = []
        for capture in captures(paths, self.account, close=False):
            stack.callback(capture.close)
            ahead = READ_AHEAD if len(paths) <= 1 else 0
            batches = counted(sound(capture, self.account, ahead), self.account)
            sources.append(through(batches, self.transforms))
        return merge(sources)

    def _send(self, batch: Batch, start: int, stop: int) -> None:
        for reason, packets in self.injector.mark_unfit(batch, start, stop).items():
            self.unfit[reason] += packets
        due = self._due_times(batch, start, stop)
        if not self.start:
            self.start = self.injector.now()
        while start < stop:
            start = self.injector.send(batch, start, stop, due, self.start)

    def _due_times(self, batch: Batch, start: int, stop: int) -> bytearray | None:
        if not self.schedule:
            return None
        if len(self._due) < batch.n * 8:
            self._due = bytearray(batch.n * 8)
        self.schedule.due(batch, start, stop, self._due)
        return self._due

    def report(self) -> None:
        """Book what was sent, and say it."""
        import os

        self._duration = self.injector.now() - self.start if self.start else 0
        sender = self.injector.sender
        self.account.packets_out = sender.sent
        for reason, packets in self.unfit.items():
            self.account.fail(UNFIT[reason], packets)
        for number, packets in sender.failed.items():
            self.account.fail(f"refused by the kernel: {os.strerror(number)}", packets)
        self.account.drop("not reached", self.account.missing)
        if self.command.args["--json"]:
            self._print_json()
        elif not self.command.quiet:
            self._print_text()

    def _print_text(self) -> None:
        sender, seconds = self.injector.sender, self._duration / 1e9
        rate = 1 / seconds if seconds else 0.0
        print(f"Actual: {sender.sent} packets ({sender.sent_bytes} bytes) sent in {seconds:.2f} seconds")
        print(
            f"Rated: {sender.sent_bytes * rate:.1f} Bps, {sender.sent_bytes * rate * 8e-6:.2f} Mbps, "
            f"{sender.sent * rate:.2f} pps"
        )
        for reason, packets in self.account.failed.items():
            print(f"Not sent: {packets} packets {reason}")
        if sender.cut:
            print(f"Cut by the snap length: {sender.cut} packets, sent as captured")
        if self.schedule and sender.sent:
            median, most, largest = (sender.lateness(quantile) / 1000 for quantile in (0.5, 0.99, 1.0))
            print(f"Schedule error: median {median:.1f} us, p99 {most:.1f} us, max {largest:.1f} us")

    def _print_json(self) -> None:
        import json

        sender = self.injector.sender
        timed = bool(self.schedule and sender.sent)
        error = {name: sender.lateness(value) for name, value in (("median", 0.5), ("p99", 0.99), ("max", 1.0))}
        report = {
            "device": self.injector.name,
            "packets": sender.sent,
            "bytes": sender.sent_bytes,
            "duration_ns": self._duration,
            "not_sent": self.account.failed,
            "cut_by_snap_length": sender.cut,
            "retried": sender.retried,
            "schedule_error_ns": error if timed else None,
        }
        print(json.dumps(report))
