"""pcapreplay: send captures to a network device on their own clock.

Usage:
  pcapreplay [options] [--] [<capture>...]

Sends the packets of captures (pcap or pcapng, plain or compressed; standard input when none is named), each at its
recorded time after the first one. Several captures are merged by time. Every packet has one absolute due time: a late
one is sent at once and delays no other. At the end the command says what was sent, what was not, and how exactly.
Option names of tcpreplay, tcpprep and GopherCap are understood too: see the manual page.

Where to:
  -i, --intf1=DEVICE     Send to this device.
  -I, --intf2=DEVICE     Send packets of the secondary side to this one: see "Two sides".
  -w, --write=FILE       Write what would be sent, with the times, instead of sending.
  --tap=NAME             Make a TAP device and let this machine receive from it; tun:NAME for raw IP.
  --tap-address=LIST     Addresses of that device, such as 192.0.2.1/24.
  --udp=TARGET           Send the payload of UDP packets to HOST:PORT through ordinary sockets.
  --to-host=HOST         Give raw IP packets an Ethernet header for this host or MAC address.

What:
  --dataset=FILE         Play the captures that a map lists (pcapinfo --dump-json, gopherCap map).
  -R, --recursive        Look for captures in directories.
  --file-suffix=TEXT     Take only files whose name ends so.
  --file-regexp=RE       Take only files whose path matches.
  --sequence             Play captures one after the other instead of merging them.
  -2, --dualfile         Two captures: the second one is the secondary side.
  -f, --filter=BPF       Send only the packets that match a libpcap filter expression.
  --from=TIME            Leave out packets before this time.
  --to=TIME              Leave out packets from this time on.
  --include=LIST         Send only these packets of each capture: 7,20-23,174-.
  --exclude=LIST         Do not send these packets of each capture.
  --reorder=TIME         Sort by time within a window.
  -L, --limit=N          Stop after N packets.
  --duration=TIME        Stop after this time.
  -l, --loop=N           Play all of it N times, each time where the last one ended; 0 is for ever [default: 1].
  --loop-delay=TIME      Wait between loops.
  --unique-ip            Send from and to other addresses in each loop, checksums right.
  --unique-ip-loops=N    Other addresses only every N loops [default: 1].
  -K, --preload          Read everything into memory first.
  --cut=HOW              Packets cut by the snap length: send, pad or skip [default: send].
  --mtu-trunc            Cut packets beyond the MTU instead of leaving them out.
  --skip-mtu=BYTES       Leave out packets of more bytes, without an error.

Pace:
  -x, --multiplier=X     So many times the recorded speed [default: 1].
  --scale-to=TIME        Fit everything into this time.
  -p, --pps=RATE         So many packets a second instead.
  --pps-multi=N          N packets at a time, with --pps [default: 1].
  -M, --mbps=RATE        So many million bits of frames a second instead.
  -t, --topspeed         As fast as the device takes them.
  -o, --oneatatime       Ask before each packet.
  --max-gap=TIME         Wait no longer than this between two packets.
  --late=HOW             Late packets: send or skip [default: send].
  --late-after=TIME      A packet is late beyond this [default: 0.001].
  --no-spin              Sleep only: less exact, no busy processor.
  --realtime             Real-time priority, locked memory, one processor.
  --threads=N            Send by N threads, flows dealt among them [default: 1].

Two sides:
  -c, --cachefile=FILE   Sides as a cache file of tcpprep says.
  --split=MODE           router, bridge, client, server, first, port, flow, cidr:LIST, regex:RE or mac:LIST.
  --reverse              Swap the sides.
  --split-include=RULE   Send only packets that fit: S:, D:, B: or E:LIST, P:NUMBERS, F:FILTER.
  --split-exclude=RULE   Do not send packets that fit.
  --nonip                What is not IP is secondary.
  --ratio=X              A server sends X times as much as one as a client does [default: 2].
  --minmask=BITS         Longest prefix that router tries [default: 30].
  --maxmask=BITS         Shortest prefix that router tries [default: 8].
  --services=FILE        Server ports, as in /etc/services.
  --write-cache=FILE     Write the sides to a cache file of tcpprep, send nothing.
  --comment=TEXT         A comment in it.
  --compat=TOOL          Do all this as tcpprep does.

Faults on purpose:
  --loss=SHARE           Leave out packets: 0.01 or 1%.
  --dup=SHARE            Send packets twice.
  --reorder-rate=SHARE   Send packets behind their successors.
  --jitter=DIST          Delay packets: 5ms, uniform:1ms-5ms, normal:5ms,1ms or exponential:2ms.
  --seed=N               Other faults for another number [default: 1].

Else:
  --load-opts=FILE       Read more options from FILE: lines of NAME VALUE.
  --stats=SECONDS        Say how it goes so often.
  --flows                Count flows at top speed too.
  --no-flow-stats        Do not count flows.
  -P, --pid              Print the process number first.
  --no-qdisc-bypass      Send through the device's queueing discipline, where captures on this machine see it.
  --backend=NAME         packet (the default on Linux), xdp (AF_XDP; also --xdp) or pypcap (elsewhere).
  -Z, --user=NAME        Become this user once the device is open.
  --json                 Print the report as one JSON object.
  -q, --quiet            No report and no warnings.
  -v, --verbose          Say at the end how many packets came in, went out and why not.
  --version              Say which version this is.
  -h, --help             Show this text.
"""

from __future__ import annotations

import sys

from pcaptools import cli
from pcaptools.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from contextlib import AbstractContextManager
    from typing import Any

    from pcaptools.core.batch import Batch
    from pcaptools.core.pipeline import Account, Transform
    from pcaptools.engines.replay_options import Options
    from pcaptools.files.sources import Input

READ_AHEAD = 3
"""Batches that are read before they are due."""

SLICE = 20_000_000
"""ns between two looks at what there is to say."""

SWITCH = 0.0002
"""s: the thread that sends waits so long at most for the one that reads to let go of the interpreter."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    given = sys.argv[1:] if argv is None else argv
    if not {"-h", "--help", "--version"} & set(given):
        from pcaptools.engines.aliases import translated

        given = translated(given)
    return cli.run(__doc__, _replay, given, _with_presets)


def _with_presets(argv: list[str]) -> list[str]:
    """The same arguments, and in front of them those of the file that --load-opts names."""
    if not any(word.startswith("--load-opts") for word in argv):
        return argv
    from pcaptools.engines.aliases import preset
    from pcaptools.files.presets import taken

    text, rest = taken(argv)
    try:
        return preset(text or "", __doc__, rest) + rest
    except ValueError as error:
        raise UsageError(f"--load-opts: {error}") from None


def _replay(command: cli.Command) -> int:
    from pcaptools.engines.replay_options import Options

    args = command.args
    account = command.account()
    command.filter(account)
    options = Options(args, command.value)
    replay = _Replay(command, options, account)
    if args["--write-cache"] is not None:
        return replay.write_cache(args["--write-cache"])
    with _open(command, options, account) as output:
        for note in filter(None, [output.warning, *_prepared(args, output)]):
            command.warn(note)
        try:
            replay.run(output)
        finally:
            if replay.played or (replay.player and replay.player.done):
                replay.report()
    return command.close(account)


# Imported on the way, when root may have been given up: to whom the modules may not be readable.
LATER = (
    "contextlib", "datetime", "ipaddress", "json", "resource", "threading", "bz2", "isal.isal_zlib", "lz4.frame",
    "lzma", "zstandard", "pcaptools.core.pipeline", "pcaptools.engines.choose", "pcaptools.engines.convert",
    "pcaptools.engines.join", "pcaptools.engines.merge", "pcaptools.engines.period", "pcaptools.engines.replay",
    "pcaptools.engines.replay_report", "pcaptools.engines.replay_stages", "pcaptools.engines.split",
    "pcaptools.files.memory", "pcaptools.files.playlist", "pcaptools.net.priority", "pcaptools.net.stops",
)  # fmt: skip


def _prepared(args: dict[str, Any], output: Any) -> Iterator[str]:
    """Priority, and root given up; what the user should know of it."""
    if args["--realtime"]:
        from pcaptools.net.priority import prefer

        yield from prefer(getattr(output.sender, "threads", ()), leaves_root=args["--user"] is not None)
    if args["--user"] is not None:
        from importlib import import_module

        from pcaptools.net.privileges import drop_root

        for module in LATER:
            import_module(module)
        yield drop_root(args["--user"])


def _open(command: cli.Command, options: Options, account: Account) -> AbstractContextManager[Any]:
    """Where the packets go. Raises UsageError, DeviceError, OutputError."""
    args = command.args
    if args["--write"] is not None:
        return _recording(args["--write"], account)
    from pcaptools.net.inject import DEFAULT_BACKEND, Manner, open_devices

    manner = Manner(not args["--no-spin"], options.skip_late, options.tolerance, args["--mtu-trunc"])
    if args["--udp"] is not None:
        from pcaptools.net.udp import Datagrams

        return Datagrams(args["--udp"], manner)
    if args["--tap"] is not None:
        from pcaptools.net.tap import Tap, parse_addresses

        name = args["--tap"].removeprefix("tun:")
        addresses = command.value("--tap-address", parse_addresses) or []
        return Tap(name, addresses, ip=name != args["--tap"], manner=manner)
    neighbour = None
    if args["--to-host"] is not None:
        from pcaptools.net.nexthop import hardware_address

        neighbour = hardware_address(args["--to-host"], args["--intf1"])
    return open_devices(
        [args["--intf1"], *([args["--intf2"]] if args["--intf2"] is not None else [])],
        qdisc_bypass=not args["--no-qdisc-bypass"],
        backend=args["--backend"] or DEFAULT_BACKEND,
        manner=manner,
        threads=options.threads,
        neighbour=neighbour,
    )


def _recording(path: str, account: Account) -> AbstractContextManager[Any]:
    from pcaptools.core.linktype import ETHERNET
    from pcaptools.engines.convert import ToPcap, pcap_header
    from pcaptools.files.recording import Recording

    return Recording(path, ToPcap(account, nanoseconds=True), pcap_header(ETHERNET, nanoseconds=True))


class _Replay:
    """One run: the packets of the captures, at their times, into an output."""

    def __init__(self, command: cli.Command, options: Options, account: Account) -> None:
        from pcaptools.engines.replay_options import splitter
        from pcaptools.files.bpf import compile_filter

        self.command, self.args, self.options, self.account = command, command.args, options, account
        services = None
        if self.args["--services"] is not None:
            with open(self.args["--services"], errors="replace") as file:
                services = file.readlines()
        self.splitter: Any = splitter(self.args, command.value, services, compile_filter)
        self.player: Any = None
        self.reader: Any = None
        self.merge: Any = None
        self.flows: Any = None
        self.memory: Any = None
        self.files: dict[int, int] = {}
        self.played = 0

    # ---- what is played

    def find(self) -> None:
        """Find the captures, and when each begins."""
        from pcaptools.files.playlist import Wanted, find
        from pcaptools.files.sources import Reader

        args = self.args
        where = args["<capture>"], args["--dataset"], args["--recursive"], args["--file-suffix"], args["--file-regexp"]
        inputs = find(Wanted(*where, self.options.period), self.account.problem)
        self.command.refuse_terminal([one.path or "-" for one in inputs])
        again = {"--loop": self.options.loops != 1, "--scale-to": self.options.scale, "--split": self._surveys()}
        which = next((option for option, asked in again.items() if asked), None)
        if which and not args["--preload"] and any(one.path is None for one in inputs):
            raise UsageError(f"{which}: standard input can be read only once: name a file")
        if args["--cachefile"] is not None and len(inputs) > 1:
            raise UsageError("--cachefile: is of one capture, and several are named")
        if args["--dualfile"] and len(inputs) != 2:
            raise UsageError("--dualfile: needs two captures")
        self.reader = Reader(inputs, self.account)
        if not args["--sequence"]:
            self.reader.look()

    def _surveys(self) -> bool:
        return self.splitter is not None and self.splitter.surveys

    def _source(self, account: Account) -> Iterable[Batch]:
        """All packets once, merged."""
        from pcaptools.core.pipeline import counted, through
        from pcaptools.engines.merge import Merge, Source
        from pcaptools.engines.replay_stages import of_one

        def opener(number: int, one: Input) -> Callable[[], Iterable[Batch]]:
            def opened() -> Iterable[Batch]:
                stages = of_one(self.options, account, self.command.filter(account), self._sides(number))
                return through(counted(self.reader.batches(one), account), stages)

            return opened

        inputs = self.reader.inputs
        if len(inputs) == 1:
            return opener(0, inputs[0])()
        sources = [Source(one.first, opener(k, one), not one.regular) for k, one in enumerate(inputs)]
        self.merge = Merge(sources, sequence=self.args["--sequence"])
        return self.merge

    def _sides(self, number: int) -> Transform | None:
        """Who tells the sides of one capture, where that is not the splitter."""
        path = self.args["--cachefile"]
        if path is None and not self.args["--dualfile"]:
            return None
        from pcaptools.engines.split import Cached, Side

        if path is None:
            return Side(number)
        with open(path, "rb") as file:
            return Cached(file.read(), path)

    def _decide(self) -> None:
        """Let the splitter see everything first, where it has to."""
        if self._surveys():
            self._survey(self.splitter.survey)
            self.splitter.decide()

    def _survey(self, look: Callable[[Batch], object]) -> None:
        """Show all packets to `look`, without booking anything."""
        from pcaptools.core.pipeline import Account

        for batch in self._source(Account(lambda message: None, lambda message: None)):
            look(batch)

    def _once(self) -> Generator[Batch, None, None]:
        """All packets once, as they are to be sent; read ahead by another thread."""
        from pcaptools.core.pipeline import through
        from pcaptools.engines.replay_stages import of_all
        from pcaptools.files.sources import ahead

        deal = getattr(self.output.sender, "deal", None)
        if deal:
            self.output.sender.dealt = True
        count = self.flows.add if self.flows else None
        early = count if getattr(self.output, "narrows", False) or self.args["--preload"] else None
        works = [work for work in (deal, early) if work]

        def ready(batch: Batch) -> None:
            for work in works:
                work(batch)

        source = through(self._source(self.account), of_all(self.options, self.account, self.splitter))
        return ahead(source, READ_AHEAD, ready=ready if works else None, done=None if early else count)

    def _again(self) -> Generator[Batch, None, None]:
        """All packets once, out of memory."""
        for batch in self.memory.batches():
            self.account.packets_in += batch.n if self.played else 0
            yield batch

    def _prepare(self) -> None:
        """What has to be known of all packets before the first one is sent."""
        from pcaptools.engines.replay_stages import Memory, Span

        args = self.args
        self._decide()
        if self.options.scale is not None:
            span = Span()
            self._survey(span)
            self.options.fit(span.last - span.first)
        if args["--flows"] or (self.options.schedule and not args["--no-flow-stats"] and not self.command.quiet):
            from pcaptools.core._sides import FlowSet

            self.flows = FlowSet()
        if args["--preload"]:
            from pcaptools.files.memory import available

            self.memory = Memory(self._once(), available() // 2)

    # ---- playing

    def run(self, output: Any) -> None:
        """Play everything as often as was asked for."""
        from pcaptools.core._replay import Jitter
        from pcaptools.engines.replay import Player

        options = self.options
        self.output = output
        self.find()
        self._prepare()
        if self.args["--pid"]:
            import os

            print(f"PID: {os.getpid()}", flush=True)
        sys.setswitchinterval(SWITCH)
        self.player = Player(
            output,
            options.schedule,
            tick=self._tick,
            warn=self.command.warn,
            limit=options.limit,
            duration=options.duration,
            ask=self._ask if self.args["--oneatatime"] else None,
            jitter=Jitter(options.seed, *options.jitter) if options.jitter else None,
            prepare=self._shift if options.unique else None,
            counts={} if len(self.reader.inputs) > 1 else None,
        )
        self._listen()
        self._loop()

    def _loop(self) -> None:
        from contextlib import closing

        while not self.options.loops or self.played < self.options.loops:
            before = self.account.packets_in
            with closing(self._again() if self.memory else self._once()) as batches:
                whole = self.player.play(batches)
            self._book_files()
            self.played += 1
            if not whole or (self.account.packets_in == before and not self.memory):
                return
            self.player.rewind(self.options.delay)
            if not self.options.schedule and self.played != self.options.loops:
                self._pause(self.options.delay)

    def _pause(self, lasting: int) -> None:
        """Between loops where nothing is due at a time; lasting: ns."""
        from time import sleep

        end = self.output.now() + lasting
        while self.args["--write"] is None and (left := end - self.output.now()) > 0 and self.player.has_time():
            sleep(min(left, SLICE) / 1e9)
            self._tick()

    def _shift(self, batch: Batch) -> None:
        from pcaptools.core._replay import shift_addresses

        times = self.played // self.options.unique
        if times:
            self.account.drop("without an address to shift", shift_addresses(batch, times))

    def _book_files(self) -> None:
        for interface, packets in (self.player.counts or {}).items():
            source = self.merge.source_of(interface)
            self.files[source] = self.files.get(source, 0) + packets
        if self.player.counts:
            self.player.counts.clear()

    def _ask(self, number: int) -> int:
        from contextlib import nullcontext

        piped = any(one.path is None for one in self.reader.inputs)
        with open("/dev/tty") if piped else nullcontext(sys.stdin) as terminal:
            print(f"packet {number}: how many to send? [1] ", end="", file=sys.stderr, flush=True)
            answer = terminal.readline()
        if not answer:
            raise KeyboardInterrupt
        return int(answer) if answer.strip().isdigit() and int(answer) else 1

    # ---- signals and telling

    def _listen(self) -> None:
        import signal

        from pcaptools.engines.replay_report import Telling
        from pcaptools.net.stops import Stops

        def show(state: str) -> None:
            print(f"\r{state}\033[K", end="", file=sys.stderr, flush=True)

        now = self.output.now
        self.settled = not self.args["--realtime"]
        self.live = not self.command.quiet and sys.stderr is not None and sys.stderr.isatty()
        say, every = self.command.say, self.options.stats
        self.telling = Telling(self._state, say, show if self.live else None, every, now())
        signal.signal(signal.SIGUSR1, lambda *_: say(self._state()))
        Stops(now, lambda: self.player.start, self.output.sender, self.player.pause)

    def _tick(self) -> None:
        for note in getattr(self.output, "notes", ()):
            self.account.problem(note)
        if getattr(self.output, "notes", None):
            self.output.notes = []
        if not self.settled:
            from pcaptools.net.priority import settle

            self.settled = True
            settle()
        self.telling.tick(self.output.now())

    def _state(self) -> str:
        from pcaptools.engines.replay_report import state

        return state(self.output.sender, self.player, self.options.schedule is not None)

    def report(self) -> None:
        """Book what was sent, and say it."""
        import os

        from pcaptools.engines.replay_report import book, figures, lines

        if self.player is None:
            return
        if self.live:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        self._book_files()
        book(self.output, self.player, self.account, os.strerror)
        files = [(self.reader.inputs[k].name, packets) for k, packets in sorted(self.files.items())]
        told = figures(self.output, self.player, self.account, self.options, self.flows, files)
        if self.args["--json"] or self.command.quiet:
            for reason, packets in self.account.failed.items():
                self.command.say(f"{packets} packets not sent: {reason}")
        if self.args["--json"]:
            import json

            print(json.dumps(told))
        elif not self.command.quiet:
            print("\n".join(lines(told)))

    # ---- tcpprep's work

    def write_cache(self, path: str) -> int:
        """Write the sides of all packets to a cache file."""
        from pcaptools.core.pipeline import through
        from pcaptools.engines.split import CacheWriter
        from pcaptools.files.output import Output

        comment = self.args["--comment"]
        cache = CacheWriter(f"\n{comment}" if comment else "")
        self.find()
        self._decide()
        for batch in through(self._source(self.account), [self.splitter]):
            self.account.packets_out += batch.n
            cache(batch)
        with Output(path) as output:
            output.write(cache.bytes())
        if self.splitter.notice:
            self.command.warn(self.splitter.notice)
        if self.command.verbose:
            self.command.say("primary {}, secondary {}, not sent {}".format(*cache.counts()))
        return self.command.close(self.account)
