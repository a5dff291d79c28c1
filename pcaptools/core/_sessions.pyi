"""TCP sessions out of batches, natively: which session a segment is of, the state of both ends, what is odd about it.

A tracker is fed batch by batch. In between, its answers are about the batch fed last:

    tracker.feed(batch)
    tracker.rows()      the batch's segments, where rows are asked for; payload offsets point into batch's buffer
    tracker.ended()     sessions that are over
    ...
    tracker.finish()    sessions that were still open; the last call

Every session is handed out exactly once, by `ended()` or by `finish()`, or, when `choose()` did not choose it, only
counted in `totals`. Order: in which they ended; `finish()` in order of their first packets.

Directions are 0, from the client, and 1, from the server. Times are ns since the epoch, packets are numbered from 1
over everything fed (packets marked PT_DROP included), as tshark numbers frames.

engines/sessions.py has names for all of the numbers and tuples here: use it, not this module.
"""

from collections.abc import Iterator
from typing import Any

from pcaptools.core._core import NativeBatch

ROW_SIZE: int
"""Bytes of one row (struct pt_segment of csrc/session.h); engines.sessions.ROW is its struct.Struct."""

ROW_FORMAT: str
"""For struct: "=" and the fields of engines.sessions.Segment in order."""

NOTED: int
"""The bits that make a segment an anomaly: engines.sessions.NOTED."""

class Tracker:
    """The session table.

    sessions: most sessions kept at a time, 0 no limit. When it is reached, the one idle longest (found by second
      chance: to within one sweep) ends with reason "evicted", a closed one before others.
    segments: most rows kept per session with keep=True, 0 no limit; the oldest go, counted in Session.rows_dropped.
    held: most rows kept over all sessions, 0 no limit; at the limit the sessions of the batch's own rows lose their
      oldest, counted likewise.
    notes: most anomalies kept per session, as (packet, time, bits, direction); more are counted only.
    idle_ns: an open session without a packet for so long (capture time) has ended, "idle"; 0 never.
    opening_ns, closing_ns: the same for sessions half open or half closed; 0: as idle_ns.
    linger_ns: a closed session (FIN of both acknowledged, RST) is handed out so long after its last packet: late
      packets before that are still its own. 0: never before finish() or the reuse of its ports. A packet that comes
      for a session that was handed out begins a new one (start "middle").
    keep: keep the rows of every session, for `kept()`.
    rows: make rows of every batch, for `rows()`.
    heads: keep the first payload of sessions whose streams begin with a TLS handshake, for `heads()`; and of all
      sessions, watch only those of port 53.
    checksum: verify TCP checksums (and the IPv4 header's); a segment with a wrong one is counted and otherwise ignored.
      Default: not looked at.
    With idle_ns, opening_ns, closing_ns and linger_ns 0 the sessions are those of tshark's tcp.stream.

    The innermost IP layer counts (tunnels are seen through); VLAN tags and interfaces are no part of a session's key.
    seed: of the hash.
    """

    def __init__(
        self,
        *,
        sessions: int = 0,
        segments: int = 0,
        held: int = 0,
        notes: int = 100,
        idle_ns: int = 0,
        opening_ns: int = 0,
        closing_ns: int = 0,
        linger_ns: int = 0,
        keep: bool = False,
        rows: bool = False,
        heads: bool = False,
        checksum: bool = False,
        seed: int = 0,
    ) -> None: ...
    def feed(self, batch: NativeBatch) -> None:
        """Take the next batch. Packets marked PT_DROP are counted as filtered. Sessions that `ended()` handed out are
        forgotten now. Raises MemoryError."""
    def expire(self, now: int) -> None:
        """Capture time is now `now` (live, when no packet comes): end what is idle."""
    def choose(
        self,
        *,
        bits: int = 0,
        incomplete: bool = False,
        no_reply: bool = False,
        connect_ns: int = 0,
        delay_ns: int = 0,
        retransmit_ns: int = 0,
        handshake_ns: int = 0,
        rtt_ns: int = 0,
        rst: int = 0,
        everything: bool = False,
    ) -> None:
        """Hand out only sessions of which one of these holds (nothing given: none; never called: all).

        bits: any of these analysis bits occurred.
        incomplete: not seen from the SYN to a close by FIN or RST.
        no_reply: nothing came from one of the ends.
        connect_ns: the first to the last segment took longer.
        delay_ns: there was a pause longer than this between two segments.
        retransmit_ns: a retransmission whose gap is at least this. A gap is that to the last segment with the same
          sequence number that is still unacknowledged, else to the segment with the highest number so far.
        handshake_ns: the handshake (first SYN to the client's first ACK after the SYN with ACK) took at least this.
        rtt_ns: the largest RTT sample of either direction is at least this.
        rst: 1 a RST other than after FINs, 2 any RST.
        everything: all."""
    def rows(self) -> memoryview:
        """The segments of the batch fed last, in order of packets, as n rows of ROW_SIZE bytes; empty unless rows=True.
        Valid until the next `feed()`. Only of sessions that are watched."""
    def watch(self, slot: int, on: bool) -> None:
        """Whether `rows()` has rows of the session in that slot, from the next batch on. All are watched at first.
        Raises IndexError when no session is there."""
    def payload_rows(self, on: bool) -> None:
        """Let `rows()` leave out segments that have neither payload nor SYN, FIN, RST."""
    def ended(self) -> Iterator[tuple[Any, ...]]:
        """Chosen sessions that ended and were not handed out yet, one by one (`engines.sessions.Session.of()` makes
        something of them). Take them before the next `feed()`: it forgets those that were taken."""
    def finish(self) -> Iterator[tuple[Any, ...]]:
        """The same when no more batches come: also those still in the table, in order of their first packets (reason
        "open", or their close)."""
    def opened(self) -> int:
        """Sessions now in the table."""
    def session(self, slot: int) -> tuple[Any, ...]:
        """A session in the table, as it is now. slot: of a row. Raises IndexError when there is none (any more)."""
    def sessions(self) -> Iterator[tuple[Any, ...]]:
        """All sessions in the table as they are now (for a signal, or --stat-interval): nothing is handed out."""
    def kept(self, slot: int) -> memoryview:
        """Rows kept of a session, oldest first; those of ended sessions are there until the next `feed()`. Offsets
        (`at`) of payload are meaningless in it. A copy."""
    def heads(self, slot: int) -> list[tuple[int, int, int, int, int, int, int, int, int, bytes]]:
        """The first segments with payload of a session that begins with TLS: (packet, time, direction, seq, ack,
        rel_seq, rel_ack, flags, payload, bytes captured), in order of packets; of each direction up to the end of the
        record with the hello, 16 KiB of a session and 64 MiB of all at most. Empty unless heads=True. Raises
        IndexError."""
    def hush(self, slot: int, by_client: bool) -> int:
        """From now on, hand out no sessions that are chosen for the same reasons as this one and have the same server
        (address and port) or, by_client, come from the same client: they are counted only. Returns the number under
        which `hushed()` counts them, 0: there are too many kinds. Raises IndexError."""
    def hushed(self) -> list[int]:
        """How many sessions were hushed, by number; the first is 0."""
    counts: dict[str, int]
    """What the packets were: packets = tcp + fragment + not_tcp + malformed + truncated + bad_checksum + filtered.
    tcp: segments, those of sessions; fragment: later fragments of IP packets whose first was not seen; malformed: no
    TCP header can be where one should be; truncated: it was cut by the snap length; filtered: marked PT_DROP."""
    totals: dict[str, Any]
    """Over all sessions that ended, and those still open. Sessions: sessions, complete (from SYN to a close),
    one_sided, chosen (to be handed out), and by reason open, fin, rst, idle, reused, evicted. Sums of the ends:
    packets, bytes, payload, unique, repeated, missing. rows_dropped, notes_dropped: what went at the limits. segments,
    sessions_with: for each bit of engines.sessions.BITS, how many segments and how many sessions had it."""
    latest: int
    """Latest capture time, ns."""
