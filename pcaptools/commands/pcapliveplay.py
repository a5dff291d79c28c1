"""pcapliveplay: replay TCP connections against a live host.

Usage:
  pcapliveplay [options] [--] [<argument>...]

  pcapliveplay <interface> <capture> <dst-ip> [<dst-mac>] [<src-port>]
  pcapliveplay --role server <interface> <capture>
  pcapliveplay --socket <capture> <dst-ip> [<src-port>]
  pcapliveplay --socket --role server <capture>

Opens the connections of a capture (or of all captures in a directory) anew, to a live host: says what the client said,
with new sequence numbers, and checks that the host answers as it did then. Compared are the streams, not the packets.
The MAC address auto (the default) is found out; the source port is random (the default), recorded, or a number.

Options:
  --role=ROLE            client, or server: play the server to a client that connects [default: client].
  --socket               Through the kernel's own TCP: no root, no interface; streams only.
  --proto=NAME           tcp or udp [default: tcp].
  --flow=N               Play only flow N of the capture.
  -f, --filter=BPF       Use only the packets that match a libpcap filter expression.
  --synthesize-handshake  Play flows whose SYN was not captured, too.
  --expect=RULE          exact, length or any: the same bytes, as many bytes, or any answer (default: length).
  --expect-regex=REGEX   Answers must match this; TURN:REGEX that of one turn. Implies any unless --expect says else.
  --ignore-range=RANGES  [TURN:]FROM-TO,...: bytes of answers, from 0, that may differ. Implies exact.
  --strict               The host must cut its stream into segments, and close, as recorded.
  --on-mismatch=WHAT     stop, warn or continue [default: stop].
  --pace=PACE            fast, or recorded: keep the think times of the recording [default: fast].
  --timeout=SECONDS      Give up when nothing new came for so long [default: 30].
  --retries=N            Play a flow up to N times until its answers are as expected (default: 3; as a server 1).
  --tcp-retries=N        Send a segment again up to N times [default: 8].
  --concurrency=N        Play up to N flows at once [default: 1].
  --rate=N               Start at most N flows a second.
  --repeat=N             Play all flows N times [default: 1].
  --seed=N               Choose ports and initial sequence numbers by this.
  --dst-port=PORT        Connect to this port instead of the recorded one; as a server, listen there.
  --source-ip=ADDRESS    Use this free address of the subnet, and answer ARP or ND for it: no firewall is touched.
  --vlan=ID              Tag what is sent, and expect tags (802.1Q).
  --backend=NAME         packet (the default on Linux) or pypcap (elsewhere).
  -w, --write=FILE       Record the live packets (nanosecond pcap).
  -Z, --user=NAME        Become this user once the device is open.
  --json                 Print the report as one JSON object.
  -q, --quiet            No report and no warnings.
  -v, --verbose          A line for each packet.
  --version              Say which version this is.
  -h, --help             Show this text.
"""

from __future__ import annotations

from pcaptools import cli
from pcaptools.errors import DeviceError, InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import ExitStack
    from typing import Any

    from pcaptools.core.pipeline import Account
    from pcaptools.engines.dialogue import Event
    from pcaptools.engines.plan import Plan
    from pcaptools.engines.play import Place, Player
    from pcaptools.engines.roster import Job, Roster
    from pcaptools.engines.script import Script
    from pcaptools.net.device import Device
    from pcaptools.net.line import Line

SECOND = 1_000_000_000
FAILURES_SHOWN = 10
ETHERNET_MTU = 1500

PCAP_HEADER = bytes.fromhex("4d3cb2a1020004000000000000000000") + (262144).to_bytes(4, "little")


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    return cli.run(__doc__, _liveplay, argv)


def _liveplay(command: cli.Command) -> int:
    from contextlib import ExitStack

    from pcaptools.engines.plan import Plan

    plan = Plan(command.args, command.value)
    account = command.account()
    transforms = command.filter(account)
    with ExitStack() as stack:
        replay = _Replay(command, plan, account)
        if plan.user is not None and not plan.socket:
            replay.open(stack)
            _become(command, plan.user)
        replay.read(transforms)
        if plan.user is None and not plan.socket:
            replay.open(stack)
        try:
            replay.run(stack)
        finally:
            replay.report()
    return replay.status


def _become(command: cli.Command, user: str) -> None:
    from importlib import import_module

    from pcaptools.net.privileges import drop_root

    for module in ("files.inputs", "engines.play", "engines.telling", "files.output"):
        import_module(f"pcaptools.{module}")
    note = drop_root(user)
    if note:
        command.warn(note)


class _Replay:
    """One run."""

    def __init__(self, command: cli.Command, plan: Plan, account: Account) -> None:
        import random

        self.command, self.plan, self.account = command, plan, account
        self.scripts: list[Script] = []
        self.refused: list[Script] = []
        self.roster: Roster | None = None
        self.line: Line | None = None
        self.place: Place | None = None
        self.facts: dict[str, Any] = {}
        self.block: range | None = None
        self.random = random.Random(plan.seed)
        self._print = command.args["--json"] is False and not command.quiet

    def read(self, transforms: list) -> None:
        """Find the flows in the captures."""
        from pcaptools.core.pipeline import counted, through
        from pcaptools.core.wire import TCP, UDP
        from pcaptools.engines.plan import choose
        from pcaptools.engines.roster import Roster
        from pcaptools.engines.script import Collector
        from pcaptools.files.inputs import captures, sound

        plan = self.plan
        collector = Collector(UDP if plan.udp else TCP)
        paths = _paths(plan.capture)
        self.command.refuse_terminal(paths)
        for capture in captures(paths, self.account):
            for batch in through(counted(sound(capture, self.account), self.account), transforms):
                collector.feed(batch, capture.name)
            collector.end_of_capture()
        self.scripts, self.refused = choose(plan, collector.scripts())
        for script in self.refused:
            self.account.problem(f"{script.source}: flow {script.number} is not played: {script.problem}")
        if not self.scripts:
            what = "UDP exchange" if plan.udp else "TCP connection"
            raise InputError(f"{plan.capture}: no {what} that can be played")
        self.roster = Roster(
            self.scripts, repeat=plan.repeat, concurrency=plan.concurrency, rate=plan.rate, tries=plan.tries
        )
        if self.command.verbose:
            self.command.say(f"{collector.ignored} packets of other protocols, {collector.damaged} damaged: ignored")

    # --- over an interface

    def open(self, stack: ExitStack) -> None:
        """The device, what is received from it, and the silence of our own kernel."""
        from pcaptools.engines.ports import kernel_filter
        from pcaptools.files.bpf import compile_filter
        from pcaptools.net.device import Device
        from pcaptools.net.line import open_line
        from pcaptools.net.neighbours import towards

        plan, device = self.plan, Device(self.plan.interface)
        way = towards(device, plan.target, plan.source, self.scripts[0].version if self.scripts else 4)
        local = self._local_ports()
        self._quiet(stack, way.source, local)  # first: or the kernel resets clients that come meanwhile
        self.line = stack.enter_context(
            open_line(
                device, lambda: kernel_filter(way.source, plan, local, bool(device.header)), compile_filter,
                vlan=plan.vlan, backend=plan.backend,
            )
        )  # fmt: skip
        if self.line.warning:
            self.command.warn(self.line.warning)
        self.line.record = self._recorder(stack, device)
        if self._print:
            print(f"Own resets: {self.facts['silence']}", flush=True)
        self.place = self._place(device, way)

    def _local_ports(self) -> list[tuple[int, int]]:
        """Our ports, as (first, last): the least that the plan needs."""
        from pcaptools.engines.ports import LAST_DYNAMIC, block, ranges, serving

        plan = self.plan
        if plan.role == "server":
            return serving(plan, self.scripts)
        if plan.port == "recorded":
            return ranges(script.client[1] for script in self.scripts)
        self.block = block(plan.port, self.roster.total if self.roster else LAST_DYNAMIC, self.random)
        return [(self.block[0], self.block[-1])]

    def _recorder(self, stack: ExitStack, device: Device) -> Any:
        if self.plan.write is None:
            return None
        from pcaptools.files.output import Output

        output = Output(self.plan.write)
        stack.callback(output.commit)  # also when interrupted: what was recorded is there
        output.write(PCAP_HEADER + device.linktypes[0].to_bytes(4, "little"))
        return output.write

    def _quiet(self, stack: ExitStack, source: bytes, local: list[tuple[int, int]]) -> None:
        """See to it that our kernel answers nothing, and say how."""
        from ipaddress import ip_address

        plan = self.plan
        if plan.source is not None:
            how = f"{ip_address(source)} is no address of this machine: no firewall is touched"
        else:
            from pcaptools.engines.ports import serving
            from pcaptools.net.firewall import Silence

            remote = serving(plan, self.scripts) if plan.role == "client" else None
            silence = stack.enter_context(Silence(source, plan.target, local, remote, udp=plan.udp))
            how = f"nftables table {silence.table} {silence.rule}"
        self.facts["silence"] = how

    def _place(self, device: Device, way: Any) -> Place:
        from pcaptools.core.wire import IPV4, IPV6, ethernet
        from pcaptools.engines.play import Place

        plan = self.plan
        link = None if plan.target is None else b""
        if device.header and plan.target is not None:
            mac = plan.mac or way.mac or self._ask(way)
            link = ethernet(mac, way.own_mac, IPV4 if len(way.source) == 4 else IPV6, plan.vlan)
        elif not device.header:
            link = b""
        answers = plan.source is not None and bool(device.header)
        return Place(way.source, plan.target, link, way.own_mac, plan.vlan, device.mtu or ETHERNET_MTU, answers)

    def _ask(self, way: Any) -> bytes:
        """The MAC address of the next hop, out of its own mouth."""
        from ipaddress import ip_address

        from pcaptools.engines.neighbour import answered, question

        assert self.line
        asked = question(way.hop, way.source, way.own_mac, self.plan.vlan)
        mac = self.line.ask(asked, lambda frame: answered(frame, 14, way.hop))
        if mac is None:
            how = "ARP" if len(way.hop) == 4 else "neighbour discovery"
            raise DeviceError(f"unreachable: {ip_address(way.hop)} does not answer {how}")
        return mac

    # --- playing

    def run(self, stack: ExitStack) -> None:
        """Play it all."""
        if self.plan.socket:
            self._run_sockets(stack)
        else:
            self._run_line()

    def _run_line(self) -> None:
        from time import monotonic_ns

        from pcaptools.engines.play import Player
        from pcaptools.engines.ports import Ports

        plan = self.plan
        assert self.line and self.place and self.roster
        player = Player(
            self.roster, self.place, plan.rules, role=plan.role, ports=Ports(self.block, self.random),
            dst_port=plan.dst_port, tcp_retries=plan.tcp_retries, seed=self.random.getrandbits(64),
            scripts=self.scripts, on_event=self._on_event(),
        )  # fmt: skip
        try:
            self._loop(player, self.line, monotonic_ns)
        finally:
            player.abort()
            self.line.send(player.frames())

    @staticmethod
    def _loop(player: Player, line: Line, clock: Any) -> None:
        while True:
            now = clock()
            player.step(now)
            line.send(player.frames())
            if player.finished:
                return
            due = player.next_deadline()
            line.wait(SECOND if due is None else max(0, min(due - now, SECOND)))
            now = clock()
            for arrival in line.arrivals():
                player.receive(arrival.frame, arrival.checked, now)

    def _run_sockets(self, stack: ExitStack) -> None:
        from time import monotonic_ns

        from pcaptools.engines.play_streams import StreamPlayer
        from pcaptools.net.kernel import Sockets

        plan, serves = self.plan, self.plan.role == "server"
        assert self.roster
        sockets = Sockets(plan.udp)
        stack.callback(sockets.close)
        if serves:
            for port in sorted({plan.dst_port or script.server[1] for script in self.scripts}):
                sockets.listen(port)
        player: StreamPlayer = StreamPlayer(
            self.roster, sockets, plan.target or b"", plan.rules, udp=plan.udp, dst_port=plan.dst_port,
            source=None if plan.port == "random" else plan.port, scripts=self.scripts if serves else (),
            on_event=self._on_event(),
        )  # fmt: skip
        while not player.finished:
            now = monotonic_ns()
            player.step(now)
            due = player.next_deadline()
            for number, what, more in sockets.happened(SECOND if due is None else max(0, min(due - now, SECOND))):
                player.happened(number, what, more, monotonic_ns())

    # --- telling

    def _on_event(self) -> Any:
        assert self.roster
        if not self._print or not (self.command.verbose or self.roster.total == 1):
            return None
        from pcaptools.engines.telling import event_line

        many = self.roster.total > 1

        def tell(job: Job, event: Event) -> None:
            print(f"{job.number}: {event_line(event)}" if many else event_line(event))

        return tell

    def report(self) -> None:
        """Say what came of it."""
        from pcaptools.engines import telling

        if self.roster is None:
            return
        results, total = self.roster.results, self.roster.total
        failed = [result for result in results if result["result"] != "ok"]
        for result in failed[:FAILURES_SHOWN]:
            self.command.say(telling.failure(result))
        if len(failed) > FAILURES_SHOWN:
            self.command.say(f"{len(failed) - FAILURES_SHOWN} more flows failed")
        for note in {result["note"] for result in results if result["note"]}:
            self.command.warn(note)
        if self.command.args["--json"]:
            import json

            print(json.dumps(telling.document(results, total, self.refused, self.facts)))
        elif self._print:
            lines = telling.table(results) if total > 1 else []
            print(*lines, *telling.summary(results, total), sep="\n")

    @property
    def status(self) -> int:
        """0 all replayed; 1 some were not."""
        results = self.roster.results if self.roster else []
        warned = self.plan.rules.on_mismatch == "warn" and any(result["mismatch"] for result in results)
        return 1 if warned or any(result["result"] != "ok" for result in results) else self.account.status


def _paths(capture: str) -> list[str]:
    """The capture, or all files of a directory in order of their names."""
    import os

    if not os.path.isdir(capture):
        return [capture]
    names = sorted(entry.path for entry in os.scandir(capture) if entry.is_file() and not entry.name.startswith("."))
    if not names:
        raise InputError(f"{capture}: no file in this directory")
    return names
