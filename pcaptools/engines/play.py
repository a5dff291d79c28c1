"""Many flows at once over one network device: frames and time in, frames out. The whole of a live replay but for the
device itself::

    roster (what to start when) -> Player -> Conversation or Exchange, one per flow -> frames
"""

from __future__ import annotations

import random
from collections import namedtuple
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any

from pcaptools.core.wire import (
    ACK,
    ICMP,
    ICMP6,
    IP_HEADER,
    RST,
    SYN,
    TCP,
    TCP_HEADER,
    UDP,
    UDP_HEADER,
    Packet,
    Path,
    Segment,
    packet,
    read_segment,
    sound,
)
from pcaptools.engines.dialogue import Event, Rules
from pcaptools.engines.exchange import Exchange
from pcaptools.engines.expect import Conversation
from pcaptools.engines.neighbour import answer
from pcaptools.engines.ports import Ports
from pcaptools.engines.roster import Job, Roster
from pcaptools.engines.script import Part, Script
from pcaptools.engines.tcp import Connection
from pcaptools.engines.tcp_states import SYN_SENT

Place = namedtuple("Place", "address target link mac vlan mtu answers")
"""Where we are: our packed address, the host's (None: anyone), the link header of what we send (None: taken from what
arrives), our MAC, 802.1Q tag or None, MTU, and whether we answer for the address ourselves."""

_UNREACHABLE = {ICMP: (3,), ICMP6: (1,)}
_TOO_BIG = {ICMP: (3, 4), ICMP6: (2, 0)}
_FIREWALL = "prohibited by a firewall"
_REASONS = {
    ICMP: {0: "network", 1: "host", 2: "protocol", 3: "port", 9: _FIREWALL, 10: _FIREWALL, 13: _FIREWALL},
    ICMP6: {0: "no route", 1: _FIREWALL, 3: "address", 4: "port", 5: _FIREWALL, 6: "no route"},
}

Flow = tuple[int, int]


class _Play:
    """One flow under way."""

    __slots__ = ("due", "job", "key", "path", "play", "touched")

    def __init__(self, key: tuple, job: Job, play: Any, path: Path) -> None:
        self.key, self.job, self.play, self.path = key, job, play, path
        self.due: int | None = None
        self.touched = False


class Player:
    """Plays what the roster has, as `role`.

    Call `step(now)` when `next_deadline()` has come or frames were handed to `receive`; send `frames()`. on_event, when
    not None, hears of every event of a flow; on_result of every result.
    """

    def __init__(
        self,
        roster: Roster,
        place: Place,
        rules: Rules,
        *,
        role: str = "client",
        ports: Ports | None = None,
        dst_port: int | None = None,
        tcp_retries: int = 8,
        seed: int | None = None,
        scripts: Sequence[Script] = (),
        on_event: Callable[[Job, Event], None] | None = None,
        on_result: Callable[[dict], None] | None = None,
    ) -> None:
        self.roster, self.place, self.rules = roster, place, rules
        self.damaged = 0
        """Frames with wrong checksums or headers."""
        self._role, self._ports, self._dst_port = role, ports, dst_port
        self._scripts = scripts
        self._tcp_retries = tcp_retries
        self._random = random.Random(seed)
        self._header = 14 if place.link is None else max(len(place.link) - 4 * (place.vlan is not None), 0)
        self._flows: dict[tuple, _Play] = {}
        self._ends: dict[tuple, int] = {}
        self._touched: list[_Play] = []
        self._timers: list[tuple[int, int, _Play]] = []
        self._count = 0
        self._frames: list[bytes] = []
        self._more: int | None = None  # when more may begin, because some plays ended as soon as they began
        self._on_event, self._on_result = on_event, on_result

    def frames(self) -> list[bytes]:
        """What goes out now; checksums still to be computed."""
        frames, self._frames = self._frames, []
        return frames

    @property
    def finished(self) -> bool:
        """Whether every play has ended."""
        return self.roster.finished

    def next_deadline(self) -> int | None:
        """When `step` wants to be called even if nothing arrives."""
        while self._timers and (self._timers[0][2].due != self._timers[0][0] or self._timers[0][2].play.done):
            heappop(self._timers)
        times = [self._timers[0][0]] if self._timers else []
        start = self.roster.next_deadline() if self._role == "client" else None
        return min((time for time in (*times, start, self._more) if time is not None), default=None)

    def step(self, now: int) -> None:
        """Start what may begin, tell time to those who wait for it, and collect what they say."""
        if self._role == "client":
            self._start(now)
        while self._timers and self._timers[0][0] <= now:
            due, _, flow = heappop(self._timers)
            if flow.due != due or flow.play.done:
                continue
            flow.due = None
            wanted = flow.play.next_deadline()
            if wanted is not None and wanted > now:  # it has been put off since
                self._set_timer(flow, wanted)
                continue
            flow.play.timeout(now)
            self._touch(flow)
        touched, self._more = self._speak_all(now), None
        if touched and self._role == "client" and self.roster.waiting:
            self._start(now)
            over = any(flow.play.done for flow in self._speak_all(now))  # as datagrams that nobody answers
            self._more = now if over and self.roster.waiting else None

    def _speak_all(self, now: int) -> list[_Play]:
        """Collect what those say to whom something happened, and return them."""
        touched, self._touched = self._touched, []
        for flow in touched:
            flow.touched = False
            self._speak(flow, now)
        return touched

    def abort(self) -> None:
        """Reset what is under way."""
        for flow in self._flows.values():
            if flow.job is not None and isinstance(flow.play, Conversation):
                flow.play.connection.abort()
                self._frames += [flow.path.tcp(segment) for segment in flow.play.connection.segments_to_send(0)]

    # --- starting

    def _start(self, now: int) -> None:
        assert self._ports
        while True:
            job = self.roster.start(now)
            if job is None:
                return
            script = job.script
            dport = self._dst_port or script.server[1]
            port = self._ports.take(script, lambda port, dport=dport: self._busy(port, dport))  # type: ignore[misc]
            if port is None:
                self.roster.give_back(job)
                return
            key = (self.place.target, dport, port)
            assert self.place.link is not None
            path = Path(self.place.link, self.place.address, self.place.target, port, dport)
            flow = _Play(key, job, self._play(script.part("client"), script.protocol, key), path)
            self._flows[key] = flow
            flow.play.started(now)
            self._touch(flow)

    def _busy(self, port: int, dport: int) -> bool:
        flow = self._flows.get((self.place.target, dport, port))
        return flow is not None and not flow.play.done

    def _play(self, part: Part, protocol: int, key: tuple, passive: bool = False) -> Any:
        if protocol == UDP:
            return Exchange(part, self.rules, passive=passive)
        largest = self.place.mtu - IP_HEADER[4 if len(self.place.address) == 4 else 6] - TCP_HEADER
        offer = part.offer._replace(mss=min(part.offer.mss, largest))
        isn = self._random.getrandbits(32)
        old = self._flows.get(key)
        if old and protocol == TCP:  # a port used again: beyond what the host may remember (RFC 6056, RFC 9293 3.4.1)
            isn = old.play.connection.iss + old.play.connection.top + (1 << 17) + self._random.getrandbits(16)
        # Timestamps are those of the clock: by them a host that remembers a port from a run before takes this for a new
        # connection (RFC 6191).
        connection = Connection(isn, offer, retries=self._tcp_retries)
        conversation = Conversation(part, self.rules, connection, passive=passive)
        conversation.telling = self._on_event is not None
        return conversation

    # --- what arrives

    def receive(self, frame: bytes, checked: bool, now: int) -> None:
        """Take in a frame. checked: its checksums need no look."""
        found = packet(frame, self._header)
        if found is None or found.target != self.place.address:
            self._answer(frame)
            return
        if found.protocol in (ICMP, ICMP6):
            self._icmp(frame, found, now)
            self._answer(frame)
        elif found.protocol in (TCP, UDP):
            if not checked and not sound(frame, found):
                self.damaged += 1
            else:
                self._transport(frame, found, now)

    def _answer(self, frame: bytes) -> None:
        if self.place.answers:
            reply = answer(frame, self._header, self.place.address, self.place.mac, self.place.vlan)
            if reply:
                self._frames.append(reply)

    def _transport(self, frame: bytes, found: Packet, now: int) -> None:
        at = found.transport
        if found.end < at + UDP_HEADER:
            return
        sport, dport = frame[at] << 8 | frame[at + 1], frame[at + 2] << 8 | frame[at + 3]
        key = (found.source, sport, dport)
        flow = self._flows.get(key)
        if found.protocol == UDP:
            if flow is None or flow.play.done:
                flow = self._accept(key, found, frame, None, now) or flow
            if flow:
                flow.play.receive(frame[at + UDP_HEADER : found.end], now)
                self._touch(flow)
            return
        segment = read_segment(frame, at, found.end)
        if segment is None:
            self.damaged += 1
            return
        anew = segment.flags & (SYN | ACK | RST) == SYN
        if self._role == "server" and (flow is None or (anew and flow.play.done)):
            flow = self._accept(key, found, frame, segment, now)
        if flow:
            flow.play.receive(segment, now)
            self._touch(flow)

    def _accept(self, key: tuple, found: Packet, frame: bytes, segment: Segment | None, now: int) -> _Play | None:
        """A client that comes: it gets the next script of its port."""
        if self._role != "server" or not self.roster.waiting or (segment and not segment.flags & SYN):
            return None
        ports = {self._dst_port or script.server[1] for script in self._scripts}
        if key[2] not in ports:
            return None
        job = self.roster.take(None if self._dst_port else key[2])
        link = frame[6:12] + frame[:6] + frame[12 : self._header] if self._header else b""
        if self.place.vlan is not None:
            link = link[:12] + b"\x81\0" + self.place.vlan.to_bytes(2, "big") + link[12:]
        play = self._play(job.script.part("server"), found.protocol, key, passive=True)
        play.choose = lambda data: self._choose(job, data)
        flow = self._flows[key] = _Play(key, job, play, Path(link, found.target, found.source, key[2], key[1]))
        play.started(now)
        return flow

    def _choose(self, job: Job, data: bytes) -> Part:
        """The script whose client began like this; the next in order where none did."""

        def alike(script: Script) -> int:
            wanted = script.part("server").theirs[: len(data)]
            return next((k for k, (a, b) in enumerate(zip(wanted, data, strict=False)) if a != b), len(wanted))

        there = [one for one in self._scripts if self._dst_port or one.server[1] == job.script.server[1]]
        best = max(there, key=lambda script: (alike(script), script is job.script))
        job.script = best
        return best.part("server")

    def _icmp(self, frame: bytes, found: Packet, now: int) -> None:
        """Errors that quote a packet of ours (RFC 792, RFC 4443)."""
        at = found.transport
        if found.end < at + 8 + 28 or not self.place.target:
            return
        kind, code, quoted = frame[at], frame[at + 1], at + 8
        size = (frame[quoted] & 15) * 4 if found.version == 4 else 40
        ports = frame[quoted + size : quoted + size + 4]
        flow = self._flows.get((self.place.target, int.from_bytes(ports[2:], "big"), int.from_bytes(ports[:2], "big")))
        if flow is None or flow.play.done or len(ports) < 4:
            return
        mtu = int.from_bytes(frame[at + 4 : at + 8], "big") & (0xFFFF if found.version == 4 else 0xFFFFFFFF)
        if (kind, code) == _TOO_BIG[found.protocol]:
            if isinstance(flow.play, Conversation):
                flow.play.connection.shrink(mtu - IP_HEADER[found.version] - TCP_HEADER - 12)
        elif kind in _UNREACHABLE[found.protocol]:
            starting = not isinstance(flow.play, Conversation) or flow.play.connection.state == SYN_SENT
            if starting:
                reason = _REASONS[found.protocol].get(code, f"code {code}")
                flow.play.dialogue.fail("unreachable", f"unreachable: ICMP says: {reason} (type {kind}, code {code})")
        self._touch(flow)

    # --- what is said

    def _touch(self, flow: _Play) -> None:
        if not flow.touched:
            flow.touched = True
            self._touched.append(flow)

    def _speak(self, flow: _Play, now: int) -> None:
        play = flow.play
        was_done = flow.job is None
        if isinstance(play, Conversation):
            path = flow.path
            for segment in play.segments_to_send(now):
                self._frames.append(path.tcp(segment))
        else:
            self._frames += [flow.path.udp(data) for data in play.datagrams_to_send()]
        if was_done:
            return
        if self._on_event:
            for event in play.events():
                self._on_event(flow.job, event)
        if play.done:
            self._finish(flow)
            return
        due = play.next_deadline()
        if due is not None and (flow.due is None or due < flow.due):
            self._set_timer(flow, due)

    def _set_timer(self, flow: _Play, due: int) -> None:
        flow.due = due
        self._count += 1
        heappush(self._timers, (due, self._count, flow))

    def _finish(self, flow: _Play) -> None:
        """Book the outcome. The flow stays, to answer what the host repeats."""
        if self._role == "server" and not flow.play.dialogue.started:  # whoever knocked has not come in
            self.roster.give_back(flow.job)
            flow.job = None  # type: ignore[assignment]
            return
        script = flow.job.script
        client = script.client if self._role == "client" else (flow.key[0], flow.key[1])
        port = flow.key[2] if self._role == "client" else flow.key[1]
        result = self.roster.end(flow.job, flow.play, port=port, client=client)
        flow.job = None  # type: ignore[assignment]
        if result and self._on_result:
            self._on_result(result)
