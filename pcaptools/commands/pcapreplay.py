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
  --stats=SECONDS        Say how it goes so often.
  --flows                Count flows at top speed too.
  --no-flow-stats        Do not count flows.
  -P, --pid              Print the process number first.
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

import sys

from pcaptools import cli
from pcaptools.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from pcaptools.core._replay import Schedule
    from pcaptools.core.batch import Batch
    from pcaptools.core.pipeline import Account, Transform
    from pcaptools.engines.split import Splitter
    from pcaptools.files.sources import Input

READ_AHEAD = 3
"""Batches that are read before they are due."""

SWITCH = 0.0002
"""s: the thread that sends waits so long at most for the one that reads to let go of the interpreter."""

FLOWS = ("flows", "flow_packets", "non_flow_packets")

LIVE = 500_000_000  # ns between two states of the live line


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    given = sys.argv[1:] if argv is None else argv
    if not {"-h", "--help", "--version"} & set(given):
        from pcaptools.engines.aliases import translated

        given = translated(given)
    return cli.run(__doc__, _replay, given)


def _replay(command: cli.Command) -> int:
    args = command.args
    account = command.account()
    command.filter(account)
    targets = [name for name in ("--intf1", "--write", "--tap", "--udp", "--write-cache") if args[name] is not None]
    if len(targets) > 1:
        raise UsageError(f"{' and '.join(targets)} contradict each other")
    if not targets:
        raise UsageError("-i DEVICE is missing: which device shall send?")
    replay = _Replay(command, account)
    if args["--write-cache"] is not None:
        return replay.write_cache(args["--write-cache"])
    with _open(command) as output:
        notes = [_become(args["--user"]) if args["--user"] is not None else "", output.warning]
        if args["--realtime"]:
            from pcaptools.net.priority import prefer

            notes += prefer()
        for note in filter(None, notes):
            command.warn(note)
        try:
            replay.run(output)
        finally:
            replay.report()
    return command.close(account)


# Imported on the way, when root may have been given up: to whom the modules may not be readable.
LATER = (
    "contextlib", "json", "threading", "ipaddress", "pcaptools.core.pipeline", "pcaptools.engines.merge",
    "pcaptools.engines.replay", "pcaptools.engines.replay_choice", "pcaptools.engines.split",
    "pcaptools.engines.replay_report", "pcaptools.engines.convert", "pcaptools.files.sources", "isal.isal_zlib",
    "zstandard", "lz4.frame", "lzma", "bz2", "resource", "datetime",
)  # fmt: skip


def _become(user: str) -> str:
    """Give root up; returns what the user should know of it."""
    from importlib import import_module

    from pcaptools.net.privileges import drop_root

    for module in LATER:
        import_module(module)
    return drop_root(user)


def _word(*words: str) -> Callable[[str], str]:
    """A parser for one of a few words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"'{text}' is not {' or '.join(words)}")
        return text

    return parse


def _open(command: cli.Command) -> Any:
    """Where the packets go. Raises UsageError, DeviceError, OutputError."""
    from pcaptools.engines.pace import parse_duration

    args = command.args
    skip = command.value("--late", _word("send", "skip")) == "skip"
    tolerance = command.value("--late-after", parse_duration) or 0
    if args["--write"] is not None:
        from pcaptools.files.recording import Recording

        return Recording(args["--write"])
    from pcaptools.net.inject import DEFAULT_BACKEND, Manner, open_devices

    manner = Manner(not args["--no-spin"], skip, tolerance, args["--mtu-trunc"])
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
    names = [args["--intf1"], *([args["--intf2"]] if args["--intf2"] is not None else [])]
    threads = command.value("--threads", cli.whole) or 1
    if threads > 1 and len(names) > 1:
        raise UsageError("--threads and --intf2 contradict each other")
    return open_devices(
        names,
        qdisc_bypass=not args["--no-qdisc-bypass"],
        backend=args["--backend"] or DEFAULT_BACKEND,
        manner=manner,
        threads=threads,
        neighbour=neighbour,
    )


class _Replay:
    """One run: the packets of the captures, at their times, into an output."""

    def __init__(self, command: cli.Command, account: Account) -> None:
        """Everything that can be wrong with the options is found here."""
        from pcaptools.core.times import parse_time
        from pcaptools.engines.pace import parse_duration
        from pcaptools.engines.replay_choice import complement, parse_chance, parse_jitter, parse_numbers

        args = command.args
        self.command, self.args, self.account = command, args, account
        self.loops = command.value("--loop", cli.whole)
        self.period = command.value("--from", parse_time), command.value("--to", parse_time)
        self.delay = command.value("--loop-delay", parse_duration) or 0
        self.unique = max(command.value("--unique-ip-loops", cli.whole) or 1, 1) if args["--unique-ip"] else 0
        self.cut = command.value("--cut", _word("send", "pad", "skip"))
        self.window = command.value("--reorder", parse_duration)
        self.tolerance = command.value("--late-after", parse_duration)
        self.stats = command.value("--stats", parse_duration) or 0
        include, exclude = (command.value(name, parse_numbers) for name in ("--include", "--exclude"))
        if include and exclude:
            raise UsageError("--include and --exclude contradict each other")
        self.numbers = include or (complement(exclude) if exclude else None)
        self.chances: Any = [command.value(name, parse_chance) or 0 for name in ("--loss", "--dup", "--reorder-rate")]
        self.seed = command.value("--seed", cli.whole) or 0
        jitter = command.value("--jitter", lambda text: parse_jitter(text, parse_duration))
        self.jitter: Any = (self.seed, *jitter) if jitter else None
        self.splitter, self.surveys = _splitter(command, account)
        sided = self.splitter or args["--cachefile"] is not None or args["--dualfile"]
        if args["--intf2"] is not None and (not sided or args["--intf1"] is None):
            raise UsageError("--intf2 needs -i, and one of --split, --cachefile and --dualfile to tell the sides")
        self.bounds: dict[str, Any] = {
            "most": command.value("--max-gap", parse_duration) or 0,
            "limit": command.value("--duration", parse_duration),
        }
        self.scale = command.value("--scale-to", parse_duration)
        self.schedule = None if args["--scale-to"] is not None else _schedule(command, self.bounds)
        self.player: Any = None
        self.output: Any = None
        self.reader: Any = None
        self.merge: Any = None
        self.flows: Any = None
        self.kept: list[Batch] = []
        self.files: dict[int, int] = {}
        self.next_live = self.next_stats = self.last_tick = 0

    # ---- what is played

    def find(self) -> None:
        """Find the captures, and when each begins."""
        from pcaptools.files.sources import Reader, from_dataset, named

        args, paths = self.args, list(self.args["<capture>"])
        inputs: list[Input] = []
        if args["--dataset"] is not None:
            inputs = from_dataset(args["--dataset"])
        if paths or args["--dataset"] is None:
            inputs += named(self._walk(paths))
        wanted = _matching(args["--file-regexp"]) if args["--dataset"] is not None else None
        inputs = [one for one in inputs if self._overlaps(one) and (not wanted or wanted(one.path or ""))]
        if not inputs:
            raise UsageError("there is no capture to play")
        self.command.refuse_terminal([one.path or "-" for one in inputs])
        again = self.loops != 1 or self.scale is not None or self.surveys
        if again and not args["--preload"] and any(one.path is None for one in inputs):
            which = "--loop" if self.loops != 1 else "--scale-to" if self.scale is not None else "--split"
            raise UsageError(f"{which}: standard input can be read only once: name a file")
        if args["--cachefile"] is not None and len(inputs) > 1:
            raise UsageError("--cachefile: is of one capture, and several are named")
        if args["--dualfile"] and len(inputs) != 2:
            raise UsageError("--dualfile: needs two captures")
        self.reader = Reader(inputs, self.account)
        if not args["--sequence"]:
            self.reader.look()

    def _walk(self, paths: list[str]) -> list[str]:
        args = self.args
        if not args["--recursive"] and args["--file-suffix"] is None and args["--file-regexp"] is None:
            return paths
        from pcaptools.files.dataset import walk

        found = walk(paths, args["--recursive"], args["--file-suffix"], args["--file-regexp"], self.account.problem)
        if not found:
            raise UsageError("no file matches")
        return found

    def _overlaps(self, one: Input) -> bool:
        """Whether packets of it may be within --from and --to, as far as a map tells."""
        begin, end = self.period
        late = end is not None and one.last is not None and one.first is not None and one.first >= end
        return not (late or (begin is not None and one.last is not None and one.last < begin))

    def _stages(self, number: int, account: Account) -> list[Transform]:
        """The transforms of one capture."""
        from pcaptools.engines.replay_choice import Drop, Numbers

        stages: list[Transform] = []
        if self.args["--cachefile"] is not None:
            from pcaptools.engines.split import Cached, unsent

            stages += [Cached(self.cache, self.args["--cachefile"]), unsent(account)]
        if self.args["--dualfile"]:
            from pcaptools.engines.split import Side

            stages.append(Side(number))
        if self.numbers:
            stages.append(Numbers(self.numbers, account))
        stages += self.command.filter(account)
        if self.period != (None, None):
            from pcaptools.core._replay import drop_outside

            begin, end = (1 << 62 if bound is None else bound for bound in self.period)
            first = -begin if self.period[0] is None else begin
            stages.append(Drop(lambda batch: drop_outside(batch, first, end), "outside of the period", account))
        return stages

    def _joint(self) -> list[Transform]:
        """The transforms behind the merge."""
        from pcaptools.core import _replay
        from pcaptools.engines.replay_choice import Drop, Impair, Pad, Reorder

        account = self.account
        stages: list[Transform] = []
        if self.splitter:
            from pcaptools.engines.split import unsent

            stages += [self.splitter, unsent(account)]
        most = self.command.value("--skip-mtu", cli.whole)
        if most:
            stages.append(Drop(lambda batch: _replay.drop_longer(batch, most), f"of more than {most} bytes", account))
        if self.cut == "skip":
            stages.append(Drop(_replay.drop_cut, "cut by the snap length", account))
        if self.cut == "pad":
            stages.append(Pad())
        if self.window is not None:
            stages.append(Reorder(self.window))
        if any(self.chances):
            stages.append(Impair(self.seed, self.chances, account))
        return stages

    def _source(self, account: Account) -> Iterable[Batch]:
        """All packets once, merged."""
        from pcaptools.core.pipeline import counted, through
        from pcaptools.engines.merge import Merge, Source

        def opener(number: int, one: Input) -> Callable[[], Iterable[Batch]]:
            stages = self._stages
            return lambda: through(counted(self.reader.batches(one), account), stages(number, account))

        inputs = self.reader.inputs
        if len(inputs) == 1:
            return opener(0, inputs[0])()
        sources = [Source(one.first, opener(k, one), not one.regular) for k, one in enumerate(inputs)]
        self.merge = Merge(sources, sequence=self.args["--sequence"])
        return self.merge

    def _survey(self, look: Callable[[Batch], None]) -> None:
        """Show all packets to `look`, without booking anything."""
        from pcaptools.core.pipeline import Account

        for batch in self._source(Account(lambda message: None, lambda message: None)):
            look(batch)

    def _once(self) -> Any:
        """All packets once, as they are to be sent; read ahead by another thread."""
        from pcaptools.core.pipeline import through
        from pcaptools.files.sources import ahead

        deal = getattr(self.output.sender, "deal", None)
        if deal:
            self.output.sender.dealt = True
        works = [work for work in (deal, self.flows and self.flows.add) if work]

        def ready(batch: Batch) -> None:
            for work in works:
                work(batch)

        return ahead(through(self._source(self.account), self._joint()), READ_AHEAD, ready if works else None)

    def _preload(self) -> None:
        from pcaptools.core._replay import copy_records
        from pcaptools.core.batch import Batch
        from pcaptools.files.memory import available

        most = available() // 2
        for batch in self._once():
            most -= batch.used
            if most < 0:
                raise UsageError("--preload: the captures do not fit into half of the memory that is free")
            self.kept.append(Batch(batch.used or 1))
            copy_records(batch, self.kept[-1])

    def _from_memory(self) -> Any:
        from pcaptools.core._replay import copy_records
        from pcaptools.core.batch import Batch

        scratch = Batch()
        for batch in self.kept:
            self.account.packets_in += batch.n if self.played else 0
            copy_records(batch, scratch)
            yield scratch

    # ---- playing

    played = 0

    def run(self, output: Any) -> None:
        """Play everything as often as was asked for."""
        from pcaptools.engines.replay import Player

        args, command = self.args, self.command
        self.output = output
        if args["--write"] is not None:
            from pcaptools.core.linktype import ETHERNET
            from pcaptools.engines.convert import ToPcap, pcap_header

            header = pcap_header(ETHERNET, nanoseconds=True)
            output.begin(ToPcap(self.account, nanoseconds=True), header)
        if args["--cachefile"] is not None:
            with open(args["--cachefile"], "rb") as file:
                self.cache = file.read()
        self.find()
        self._prepare()
        if args["--pid"]:
            import os

            print(f"PID: {os.getpid()}", flush=True)
        sys.setswitchinterval(SWITCH)
        several = len(self.reader.inputs) > 1
        jitter = None
        if self.jitter:
            from pcaptools.core._replay import Jitter

            jitter = Jitter(*self.jitter)
        self.player = Player(
            output,
            self.schedule,
            tick=self._tick,
            warn=command.warn,
            limit=command.value("--limit", cli.whole),
            duration=self.bounds["limit"],
            ask=self._ask if args["--oneatatime"] else None,
            jitter=jitter,
            prepare=self._shift if self.unique else None,
            counts={} if several else None,
        )
        self._set_signals()
        self._loop(several)

    def _loop(self, several: bool) -> None:
        from contextlib import closing

        while not self.loops or self.played < self.loops:
            before = self.account.packets_in
            with closing(self._from_memory() if self.kept else self._once()) as batches:
                whole = self.player.play(batches)
            if several:
                self._book_files()
            self.played += 1
            if not whole or (self.account.packets_in == before and not self.kept):
                return
            self.player.rewind(self.delay)

    def _prepare(self) -> None:
        """What has to be known of all packets before the first one is sent."""
        from pcaptools.engines.pace import scaled

        args = self.args
        if self.surveys and self.splitter:
            self._survey(self.splitter.survey)
            self.splitter.decide()
        if self.scale is not None:
            times: list[int] = []
            self._survey(lambda batch: times.extend([*batch.time_range(), *_ends(times)]))
            span = max(times) - min(times) if times else 0
            self.schedule = scaled(span, self.scale, **self.bounds)
        if args["--flows"] or (self.schedule and not args["--no-flow-stats"] and not self.command.quiet):
            from pcaptools.core._replay import FlowSet

            self.flows = FlowSet()
        if args["--preload"]:
            self._preload()

    def _shift(self, batch: Batch) -> None:
        from pcaptools.core._replay import shift_addresses

        if self.played >= self.unique:
            self.account.drop("without an address to shift", shift_addresses(batch, self.played // self.unique))

    def _book_files(self) -> None:
        for interface, packets in self.player.counts.items():
            source = self.merge.source_of(interface)
            self.files[source] = self.files.get(source, 0) + packets
        self.player.counts.clear()

    def _ask(self, number: int) -> int:
        with open("/dev/tty") if any(one.path is None for one in self.reader.inputs) else _stdin() as terminal:
            print(f"packet {number}: how many to send? [1] ", end="", file=sys.stderr, flush=True)
            answer = terminal.readline()
        if not answer:
            raise KeyboardInterrupt
        return int(answer) if answer.strip().isdigit() and int(answer) else 1

    # ---- telling

    def _set_signals(self) -> None:
        import signal

        signal.signal(signal.SIGUSR1, lambda *_: self._say_state())
        signal.signal(signal.SIGCONT, lambda *_: self._resume())
        self.live = not self.command.quiet and sys.stderr is not None and sys.stderr.isatty()
        self.next_stats = self.output.now() + self.stats
        self.settled = not self.args["--realtime"]

    def _resume(self) -> None:
        """The process was stopped: the rest of the schedule moves by that time."""
        stopped = self.output.now() - max(self.last_tick, self.player.start)
        if self.last_tick and stopped > 50_000_000:
            self.player.pause(stopped)

    def _tick(self) -> None:
        now = self.last_tick = self.output.now()
        for note in self.output.notes if getattr(self.output, "notes", None) else ():
            self.account.problem(note)
            self.output.notes = []
        if not self.settled:
            from pcaptools.net.priority import settle

            self.settled = True
            settle()
        if self.live and now >= self.next_live:
            self.next_live = now + LIVE
            print(f"\r{self._state()}\033[K", end="", file=sys.stderr, flush=True)
        if self.stats and now >= self.next_stats:
            self.next_stats += self.stats
            self._say_state()

    def _say_state(self) -> None:
        self.command.say(self._state())

    def _state(self) -> str:
        import datetime

        from pcaptools.engines.replay_report import live_line

        sender, position = self.output.sender, self.player.position
        where = ""
        if position is not None:
            moment = datetime.datetime.fromtimestamp(position // 10**9, datetime.timezone.utc)
            where = moment.strftime("%Y-%m-%d %H:%M:%S UTC")
        late = sender.lateness(1.0) if self.schedule else None
        return live_line(sender.sent, sender.sent_bytes, self.player.elapsed(), where, late)

    def report(self) -> None:
        """Book what was sent, and say it."""
        import os

        from pcaptools.engines.replay import UNFIT
        from pcaptools.engines.replay_report import lines

        if self.player is None:
            return
        if self.live:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        sender, account = self.output.sender, self.account
        if self.player.counts:
            self._book_files()
        account.packets_out = sender.sent
        for reason, packets in self.player.unfit.items():
            account.fail(UNFIT[reason], packets)
        for number, packets in sender.failed.items():
            account.fail(f"refused by the kernel: {os.strerror(number)}", packets)
        account.fail("late", sender.skipped)
        account.drop("not reached", account.missing)
        if getattr(sender, "unheard", 0):
            account.problem(f"{self.output.name}: {sender.unheard} datagrams were refused: nobody listens there")
        report = self._figures()
        if self.args["--json"]:
            import json

            print(json.dumps(report))
        elif not self.command.quiet:
            print("\n".join(lines(report)))

    def _figures(self) -> dict[str, Any]:
        from pcaptools.engines.replay_report import QUANTILES

        sender, output = self.output.sender, self.output
        timed = bool(self.schedule and sender.timed)
        flows = dict(zip(FLOWS, self.flows.counts, strict=True)) if self.flows else None
        inputs = self.reader.inputs
        return {
            "device": output.name,
            "packets": sender.sent,
            "bytes": sender.sent_bytes,
            "duration_ns": self.player.elapsed(),
            "flows": flows,
            "not_sent": self.account.failed,
            "left_out": self.account.dropped,
            "cut_by_snap_length": sender.cut,
            "cut_to_mtu": output.cut_to_mtu,
            "retried": sender.retried,
            "late": sender.delayed,
            "late_after_ns": self.tolerance,
            "schedule_error_ns": {name: sender.lateness(q) for name, q in QUANTILES.items()} if timed else None,
            "interfaces": output.interfaces(),
            "files": [{"file": inputs[k].name, "packets": packets} for k, packets in sorted(self.files.items())],
        }

    # ---- tcpprep's work

    def write_cache(self, path: str) -> int:
        """Write the sides of all packets to a cache file."""
        from pcaptools.core.pipeline import through
        from pcaptools.engines.split import CacheWriter
        from pcaptools.files.output import Output

        if not self.splitter:
            raise UsageError("--write-cache: --split MODE is missing")
        comment = self.args["--comment"]
        cache = CacheWriter(f"\n{comment}" if comment else "")
        self.find()
        if self.surveys:
            self._survey(self.splitter.survey)
            self.splitter.decide()
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


def _stdin() -> Any:
    from contextlib import nullcontext

    return nullcontext(sys.stdin)


def _ends(times: list[int]) -> list[int]:
    """The least and the largest of times, which it empties."""
    ends = [min(times), max(times)] if times else []
    times.clear()
    return ends


def _matching(regexp: str | None) -> Callable[[str], object] | None:
    import re

    try:
        return re.compile(regexp).search if regexp else None
    except re.error as error:
        raise UsageError(f"--file-regexp: {error}") from None


def _splitter(command: cli.Command, account: Account) -> tuple[Splitter | None, bool]:
    """Who tells the sides, and whether it must see all packets first."""
    if command.args["--split"] is None:
        return None, False
    from pcaptools.engines.split import SURVEYS, Plan, Splitter, check_plan, parse_mode, parse_rule, parse_services
    from pcaptools.files.bpf import compile_filter

    args = command.args
    mode, value = command.value("--split", parse_mode) or ("", "")
    plan = Plan(
        mode,
        value,
        reverse=args["--reverse"],
        nonip=args["--nonip"],
        compat=command.value("--compat", _word("tcpprep")) is not None,
        ratio=command.value("--ratio", float) or 0.0,
        shortest=command.value("--maxmask", cli.whole) or 0,
        longest=command.value("--minmask", cli.whole) or 0,
    )
    if args["--services"] is not None:
        with open(args["--services"], errors="replace") as file:
            plan = plan._replace(ports=parse_services(file))
    check_plan(plan)
    include = command.value("--split-include", lambda text: parse_rule(text, False))
    exclude = command.value("--split-exclude", lambda text: parse_rule(text, True))
    if include and exclude:
        raise UsageError("--split-include and --split-exclude contradict each other")
    return Splitter(plan, include or exclude, compile_filter), mode in SURVEYS


def _schedule(command: cli.Command, bounds: dict[str, Any]) -> Schedule | None:
    """The pace that was asked for; None: no waiting."""
    from pcaptools.engines import pace

    paces = {"--pps": pace.packets_per_second, "--mbps": pace.megabits_per_second, "--topspeed": None}
    asked = [option for option in paces if command.args[option]]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(asked)} contradict each other")
    if command.args["--topspeed"] or command.args["--oneatatime"]:
        return None
    option = asked[0] if asked else "--multiplier"
    speed = command.value(option, pace.parse_speed)
    if option == "--pps":
        bounds = {**bounds, "group": max(command.value("--pps-multi", cli.whole) or 1, 1)}
    return (paces[option] if asked else pace.recorded)(speed, **bounds)  # type: ignore[misc, arg-type]
