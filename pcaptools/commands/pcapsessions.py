"""pcapsessions: TCP sessions you can read, live or from a capture.

Usage:
  pcapsessions [options] [--] [<capture>...]
  pcapsessions [options] --file=FILE [--] [<expression>...]
  pcapsessions [options] --interface=DEVICE [--] [<expression>...]

Shows the sessions in which something went wrong, and of these the segments that matter: the opening, the close, and
what a trigger marks. Reads captures, plain or compressed, standard input when none is named, or a network device.

Options:
  -i, --interface=DEVICE  Capture from a device, or from all with "any", what matches the expression.
  -f, --file=FILE         Read FILE, and of it what matches the expression.
  --filter=BPF            Take only the packets that match a libpcap filter expression.
  -r, --retransmit=MS     Trigger: a segment sent again after so long or more; 1000 when not given, 0 for none.
  -S, --syn=N             Trigger: a SYN sent again; 1 (default) or 0.
  -R, --rst=N             Trigger: 1 resets that do not follow a FIN (default), 2 all, 0 none.
  -T, --long-connect=MS   Trigger: a session that lasts longer.
  -t, --long-delay=MS     Trigger: a pause that is longer.
  -F, --fragment=N        Trigger: segments in IP fragments; 1 (default) or 0.
  --zero-window=N         Trigger: a receiver that takes nothing more; 1 (default) or 0.
  --no-reply=N            Trigger: sessions in which one side says nothing; 1 (default) or 0.
  --incomplete=N          Trigger: sessions not seen from SYN to FIN or RST; 1 or 0 (default).
  --slow-handshake=MS     Trigger: a handshake that took so long or more.
  --rtt=MS                Trigger: a round trip that took so long or more.
  --all                   Show every session, every segment, and none that are alike left out.
  --live                  Print every segment as it comes.
  -v, --view-data=N       Show N segments before and after each that a trigger marks.
  --lines=N               Segments of a session shown at most; 40 when not given, 0 for no limit.
  --similar=N             Sessions shown that went wrong alike; 10 when not given, 0 for no limit.
  -q, --narrow            Fit 80 columns.
  -C, --color=N           Colours: 1 or 0; when not given, on a terminal.
  --date                  Times with the date.
  --relative              Times since the session began.
  --zone=ZONE             Time zone: local (default), UTC, +01:00, or a name such as Europe/Berlin.
  --precision=UNIT        Times to the s, ms (default), us or ns.
  --json                  One JSON object for each session, as a line.
  --summary               The figures of each session as a table, as tcptrace -l has them.
  -s, --stat-interval=S   Print the statistics every S seconds of the capture.
  -m, --dpi-mode=MODE     What to look for in streams: names (of TLS and DNS; default), tcp (nothing), or http, also
                          with the header fields to show, http:REQUEST,..:RESPONSE,.. and % for all.
  --extract=DIR           Write the bytes of each direction to a file in DIR.
  --follow=N              Print the dialogue of session N.
  --hex                   Print it in hexadecimal.
  --overlap=POLICY        Of bytes sent twice, differently, take the first (default) or the last.
  --plot=WHAT             N FILE: draw session N over time to FILE, .svg or .png.
  --plot-rtt=WHAT         N FILE: draw its round trip times.
  -L, --limit-session=N   Sessions remembered at a time; 100000 when not given, 0 for no limit.
  -l, --limit-segment=N   Segments remembered at a time; 200000 when not given, 0 for no limit.
  --idle=S                Seconds without a packet that end a session; 900 of a device, none of a capture.
  --checksum              Ignore segments with a wrong checksum.
  -w, --write=FILE        Write what is captured from a device to FILE, too.
  --duration=S            Capture for so many seconds.
  --snaplen=BYTES         Capture so much of each packet; 262144 when not given.
  --buffer=MIB            Size of the ring that the kernel captures into; 64 when not given.
  --no-promiscuous        Capture only what is for this machine.
  --backend=NAME          How to capture: packet (default on Linux) or pypcap.
  -Z, --user=NAME         Become this user once the device is open.
  --quiet                 No warnings, no statistics.
  --verbose               Say at the end how many packets came in and what they were.
  --version               Say which version this is.
  -h, --help              Show this text.
"""

from __future__ import annotations

import sys

from pcaptools import cli
from pcaptools.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import ExitStack

    from pcaptools.core.batch import Batch
    from pcaptools.core.pipeline import Account
    from pcaptools.engines.contents import Taker
    from pcaptools.engines.monitor import Monitor
    from pcaptools.engines.sessions import Segment, Session
    from pcaptools.files.output import Output
    from pcaptools.files.stream_files import StreamFiles
    from pcaptools.net.ring import Source

TICK = 1000
"""ms after which a device on which nothing passes is looked at again."""

SWITCHES = ("--syn", "--fragment", "--zero-window", "--no-reply", "--incomplete", "--color")
"""Options that stand for 1 when no number follows."""

MOST = 262144
"""Bytes of a packet that are captured."""

BUFFER = 64 << 20
"""Bytes of the ring."""

LATER = (
    "datetime", "ipaddress", "json", "textwrap", "pcaptools.engines.contents", "pcaptools.engines.http",
    "pcaptools.engines.monitor", "pcaptools.engines.sequence", "pcaptools.engines.sessions_json",
    "pcaptools.engines.sessions_summary",
)  # fmt: skip
"""Modules that are imported when they are first needed."""

LAST = 0.012
"""s after which the kernel hands over what it has, at the end."""

DRAIN = 16
"""Batches that are still taken out of the ring after the end."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    return cli.run(__doc__, _pcapsessions, argv, prepare)


def prepare(words: list[str]) -> list[str]:
    """Arguments as docopt can read them: `--syn` alone means 1, `-qq` is -q, and `--plot N FILE` has two values."""
    found: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*found, word, *rest]
        if word in SWITCHES and (not rest or rest[0] not in ("0", "1")):
            word += "=1"
        elif word in ("--plot", "--plot-rtt") and len(rest) > 1 and rest[0].isdigit():
            word += f"={rest.pop(0)} {rest.pop(0)}"
        found.append("-q" if word == "-qq" else word)
    return found


def _pcapsessions(command: cli.Command) -> int:
    from contextlib import ExitStack

    with ExitStack() as stack:
        return _Run(command).run(stack)


class _Stop(Exception):
    """A signal wants an end, while nothing is being done."""


class _Run:
    """One run: where packets come from, what watches them, and when to stop."""

    def __init__(self, command: cli.Command) -> None:
        from pcaptools.engines.sessions_plan import Plan

        args = command.args
        self.command = command
        self.account = command.account()
        self.device: str | None = args["--interface"]
        self.paths: list[str] = [args["--file"]] if args["--file"] is not None else args["<capture>"]
        self.expression: str | None = " ".join(args["<expression>"]) or args["--filter"]
        self._check(args)
        self.plan = Plan(args, command.value, sys.stdout.isatty(), self._kind())
        self.ring: Source | None = None
        self._waiting = self._asked = False
        self._signal = 0
        self.files: StreamFiles | None = None
        self.names: dict[int, tuple[str, str]] = {}

    def _kind(self) -> int:
        """Where packets come from, as a plan says it."""
        import os

        from pcaptools.engines.sessions_plan import DEVICE, FILE, PIPE

        if self.device is not None:
            return DEVICE
        return FILE if self.paths and all(map(os.path.isfile, self.paths)) else PIPE

    def _check(self, args: cli.Args) -> None:
        """Raises UsageError for what does not go together."""
        live = ("--write", "--snaplen", "--buffer", "--no-promiscuous", "--backend", "--user", "--duration")
        for option in live if self.device is None else ():
            if args[option]:
                raise UsageError(f"{option} goes with --interface")
        if args["<expression>"] and args["--filter"] is not None:
            raise UsageError("--filter does not go with an expression: say it once")

    def run(self, stack: ExitStack) -> int:
        """Do it all; returns the exit status."""
        self._check_plots()
        if self.device is None:
            self.command.refuse_terminal(self.paths)
        batches = self._captured(*self._open(stack)) if self.device is not None else self._read()
        self.monitor = self._make_monitor(stack)
        self._catch_signals(stack)
        for batch in batches:
            self._watch(batch)
            if self._signal:
                break
        self.monitor.finish()
        self._tell_of_losses()
        if self.plan.tells and not self.command.quiet:
            self._statistics()
        self.monitor.balance(self.account)
        status = self.command.close(self.account)
        return 128 + self._signal if self._signal else status

    def _make_monitor(self, stack: ExitStack) -> Monitor:
        import os

        from pcaptools.engines.monitor import Monitor

        seed = int.from_bytes(os.urandom(8), "little")
        takers = self._extract(stack)
        closed = self._close if takers or self.plan.plots else None
        return Monitor(self.plan, print, seed=seed, takers=takers, closed=closed)

    def _watch(self, batch: Batch) -> None:
        from time import time_ns

        if batch.n:
            self.account.packets_in += batch.n
            self.monitor.feed(batch)
        elif self.ring:
            self.monitor.expire(time_ns())
        if self.monitor.is_due and not self.command.quiet:
            self._statistics()
        if self._asked:
            self._report()
        sys.stdout.flush()

    # --- files

    def _extract(self, stack: ExitStack) -> Callable[[Session], list[Taker]] | None:
        """What writes the bytes of sessions to files, where that is wanted."""
        directory = self.command.args["--extract"]
        if directory is None:
            return None
        from pcaptools.engines.contents import stream_names
        from pcaptools.files.stream_files import StreamFiles

        files = StreamFiles(directory, self.plan.layout.clock.date)

        def leave(kind: object, *_: object) -> None:
            if kind:
                files.abandon()

        stack.push(leave)
        self.files = files

        def takers(session: Session) -> list[Taker]:
            names = self.names[session.id] = stream_names(session)
            return [lambda way, piece: files.take(names[way], *piece)]

        return takers

    def _check_plots(self) -> None:
        """Say now what would fail in the end."""
        for option, _, path in self.plan.plots:
            from pcaptools.files import plot

            plot.check(path, option)

    def _close(self, session: Session, rows: Sequence[Segment]) -> None:
        """Do what is to be done with a session that is over, besides telling."""
        for name in self.names.pop(session.id, ()):
            if self.files:
                self.files.close(name, session=session.id)
        for option, number, path in self.plan.plots:
            if number == session.id:
                self._plot(option, path, session, rows)

    def _plot(self, option: str, path: str, session: Session, rows: Sequence[Segment]) -> None:
        from pcaptools.engines.sequence import graphs, shown
        from pcaptools.files import plot

        client, server = session.client_text, session.server_text
        title = f"session {session.id}, {client} == {server}, {self.plan.layout.clock.date(session.first)}"
        names = f"{client} > {server}", f"{server} > {client}"
        if session.rows_dropped:
            self.command.warn(f"{path}: the first {session.rows_dropped} segments are not in it: see --limit-segment")
        found = graphs(rows)
        if option == "--plot":
            plot.plot_sequence(path, title, shown(found), names)
        else:
            plot.plot_rtt(path, title, found, names)

    # --- packets

    def _read(self) -> Iterator[Batch]:
        from pcaptools.engines.sessions_plan import FILE
        from pcaptools.files.inputs import captures, sound

        ahead = 0 if self.plan.silent and self.plan.source == FILE else 2  # what was just read is still in the cache
        for capture in captures(self.paths, self.account):
            batches = self._filtered(sound(capture, self.account, ahead=ahead), None)
            while (batch := self._wait_for(batches)) is not None:
                yield batch

    def _wait_for(self, batches: Iterator[Batch]) -> Batch | None:
        self._waiting = True
        try:
            return next(batches, None)
        except _Stop:
            return None
        finally:
            self._waiting = False

    def _filtered(self, batches: Iterable[Batch], account: Account | None) -> Iterator[Batch]:
        """What matches; without an account what does not is marked only, so that packets keep their numbers."""
        from pcaptools.core.pipeline import through

        if self.expression is None:
            return iter(batches)
        from pcaptools.engines.select import Filter
        from pcaptools.files.bpf import compile_filter

        expression = self.expression
        return iter(
            through(batches, [Filter(lambda link, swapped: compile_filter(expression, link, swapped), account)])
        )

    def _open(self, stack: ExitStack) -> tuple[Source, Output | None]:
        """Open the device and the record, and give root up."""
        from pcaptools.core.times import parse_span
        from pcaptools.files.bpf import compile_filter
        from pcaptools.net.ring import open_live

        args, value = self.command.args, self.command.value
        self._duration = value("--duration", parse_span)
        ring = open_live(
            args["--interface"],
            self.expression,
            compile_filter,
            backend=value("--backend", _backend) or "",
            snaplen=value("--snaplen", _size) or MOST,
            size=value("--buffer", _mib) or BUFFER,
            promiscuous=not args["--no-promiscuous"],
        )
        self.ring = ring
        stack.enter_context(ring)
        record = self._record(stack, ring) if args["--write"] is not None else None
        if args["--user"] is not None:
            self._become(args["--user"])
        return ring, record

    def _become(self, user: str) -> None:
        """Give root up, once all is loaded that its files may be needed for."""
        from importlib import import_module

        from pcaptools.net.privileges import drop_root

        for module in LATER:
            import_module(module)
        if self.plan.seek and self.plan.seek.http:
            import_module("httptools")
        note = drop_root(user)
        if note:
            self.command.warn(note)

    def _record(self, stack: ExitStack, ring: Source) -> Output:
        from pcaptools.engines.convert import pcap_header
        from pcaptools.files.output import Output

        output = Output(self.command.args["--write"])
        stack.callback(output.commit)  # also when interrupted: what was recorded is there
        output.write(pcap_header(ring.linktype, nanoseconds=True))
        return output

    def _captured(self, ring: Source, record: Output | None) -> Iterator[Batch]:
        """What arrives until a signal or the time says stop; empty batches when nothing does."""
        from time import monotonic_ns, sleep

        from pcaptools.core.batch import Batch

        batch = Batch()
        until = monotonic_ns() + self._duration if self._duration is not None else None
        left = TICK
        while not self._signal and left > 0:
            if not ring.receive(batch):
                self._idle(ring, left)
                ring.receive(batch)
            yield from self._recorded(ring, batch, record)
            if until is not None:
                left = min(-(-(until - monotonic_ns()) // 1_000_000), TICK)
        sleep(LAST)
        for _ in range(DRAIN):
            if not ring.receive(batch):
                break
            yield from self._recorded(ring, batch, record)

    def _idle(self, ring: Source, milliseconds: int) -> None:
        self._waiting = True
        try:
            ring.wait(milliseconds)
        except _Stop:
            pass
        finally:
            self._waiting = False

    def _recorded(self, ring: Source, batch: Batch, record: Output | None) -> Iterator[Batch]:
        for matching in self._filtered((batch,), self.account) if ring.unfiltered else (batch,):
            if record and matching.n:
                record.write(matching.view())
            yield matching

    # --- signals

    def _catch_signals(self, stack: ExitStack) -> None:
        """INT, TERM: come to an end and tell all; a second time: at once. USR1: tell what is open."""
        import signal

        def stop(number: int, _: object) -> None:
            if self._signal:
                raise KeyboardInterrupt
            self._signal = number
            if self._waiting:
                raise _Stop

        def ask(_number: int, _: object) -> None:
            self._asked = True
            if self._waiting:
                self._waiting = False
                self._report()
                self._waiting = True

        for number, handler in ((signal.SIGINT, stop), (signal.SIGTERM, stop), (signal.SIGUSR1, ask)):
            stack.callback(signal.signal, number, signal.signal(number, handler))

    # --- telling

    def _report(self) -> None:
        """Tell of sessions that are open now, and of the figures."""
        self._asked = False
        self.monitor.tell_open()
        self._statistics()
        sys.stdout.flush()

    def _statistics(self) -> None:
        sys.stdout.flush()
        print(*self.monitor.statistics(), sep="\n", file=sys.stderr, flush=True)

    def _tell_of_losses(self) -> None:
        if self.ring is None:
            return
        lost, again = self.ring.lost, self.ring.again
        if lost:
            self.command.warn(
                f"{self.device}: the kernel had no room for {lost} packets, which now look as if the network had lost "
                "them: make --buffer larger, or capture less"
            )
        if again:
            self.account.packets_in += again
            self.account.drop("seen at another device", again)


def _size(text: str) -> int:
    size = cli.whole(text)
    if not 0 < size <= MOST:
        raise ValueError(f"'{text}' is not a number of bytes from 1 to {MOST}")
    return size


def _mib(text: str) -> int:
    size = cli.whole(text)
    if not 0 < size < 4096:
        raise ValueError(f"'{text}' is not a number of MiB from 1 to 4095")
    return size << 20


def _backend(text: str) -> str:
    if text not in ("packet", "pypcap"):
        raise ValueError(f"'{text}' is not packet or pypcap")
    return text
