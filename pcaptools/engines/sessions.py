"""TCP sessions: the state of both ends, what was odd about every segment, and the figures of a session.

The work is native (core/csrc/session.h, analysis.h, through `Tracker`); here are names for what it tells. States are
those of RFC 9293 section 3.3.2; analysis bits that Wireshark has too carry the name of its `tcp.analysis` field and
mean the same. Directions are 0, from the client, and 1, from the server. Times are ns since the epoch.
"""

from __future__ import annotations

import struct
from collections import namedtuple
from collections.abc import Iterator
from typing import Any

from pcaptools.core._sessions import ROW_FORMAT, ROW_SIZE, Tracker
from pcaptools.engines.flows import address, end_text

__all__ = ["BITS", "ROW", "ROW_SIZE", "STATES", "End", "Segment", "Session", "Tracker", "bit_names", "segments"]

CLIENT, SERVER = 0, 1
"""Directions, and ends."""

STATES = (
    "-", "CLOSED", "LISTEN", "SYN_SENT", "SYN_RECEIVED", "ESTABLISHED", "FIN_WAIT_1", "FIN_WAIT_2", "CLOSE_WAIT",
    "CLOSING", "LAST_ACK", "TIME_WAIT",
)  # fmt: skip
"""Names of enum pt_tcp_state, by number; what is seen is taken as having arrived."""

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, AE = (1 << k for k in range(9))
"""`Segment.flags`; AE is the bit that was NS (RFC 9768)."""

BITS = (
    "retransmission", "fast_retransmission", "spurious_retransmission", "out_of_order", "lost_segment",
    "ack_lost_segment", "duplicate_ack", "keep_alive", "keep_alive_ack", "zero_window", "zero_window_probe",
    "zero_window_probe_ack", "window_update", "window_full", "reused_ports",
    # Those that Wireshark does not have:
    "syn_retransmission", "fin_retransmission", "timeout_retransmission", "partial_overlap", "filled_gap", "sack",
    "dsack", "ecn_ce", "ecn_ece", "ecn_cwr", "snapped", "fragment", "rst_refused", "rst_after_fin", "rst_after_data",
    "rst_with_data", "rst_ignored", "fast_open", "bad_options", "after_close", "urgent", "no_flags", "unchecked_length",
)  # fmt: skip
"""Name of each bit of `Segment.bits`, `Session.bits` and a note, from the least one; also the keys of `End.counts`.

fast_retransmission, spurious_retransmission: such a segment has the bit retransmission too, as in tshark's fields.
syn_retransmission, fin_retransmission: beside `retransmission` or whatever else it is, the SYN or FIN was sent before.
timeout_retransmission: a retransmission (none of the fast or spurious ones) that came when a retransmission timer may
  have run off: 200 ms or more after the segment that it repeats, without duplicate ACKs.
partial_overlap: some of its bytes were seen before, some were not. filled_gap: brings bytes that were missing.
sack, dsack: carries such a block (RFC 2018, RFC 2883). ecn_ce: congestion mark in the IP header; ecn_ece, ecn_cwr: the
  TCP flags, outside of the handshake. snapped: payload cut by the snap length. fragment: its IP packet is in fragments.
rst_refused: answers a SYN. rst_after_fin: its sender or its peer had sent FIN. rst_after_data: payload had gone either
  way. rst_with_data: carries payload. rst_ignored: outside of the receiver's window (RFC 9293 section 3.5.3), states
  stay. fast_open: payload in a SYN, or the option of RFC 7413. after_close: comes when both ends are closed.
no_flags: neither ACK, SYN, RST nor FIN. unchecked_length: the IP length is zero or contradicts the frame.
"""

BIT = {name: 1 << k for k, name in enumerate(BITS)}
"""The value of each bit, by name."""

WIRESHARK = (1 << 15) - 1
"""The bits that are Wireshark's."""

RETRANSMITTED = BIT["retransmission"]
"""Sent again, in whatever way; a keep-alive is not."""

NOTED = sum(
    BIT[name]
    for name in (
        "retransmission", "fast_retransmission", "spurious_retransmission", "out_of_order", "lost_segment",
        "ack_lost_segment", "duplicate_ack", "keep_alive", "zero_window", "zero_window_probe", "window_full",
        "reused_ports", "syn_retransmission", "fin_retransmission", "timeout_retransmission", "partial_overlap",
        "dsack", "ecn_ce", "rst_refused", "rst_after_fin", "rst_after_data", "rst_with_data", "rst_ignored",
        "bad_options", "after_close", "no_flags",
    )
)  # fmt: skip
"""Bits that make a segment an anomaly, listed in `Session.notes`."""

STARTS = ("middle", "syn", "syn-ack")
"""How a session begins, by `Session.start`: with its SYN, with the answer to it, or without either."""

REASONS = ("open", "fin", "rst", "idle", "reused", "evicted")
"""Why a session ended, by `Session.reason`. fin: both FINs acknowledged. rst: reset. idle: no packet for so long.
reused: its addresses and ports began another session before it was closed. evicted: dropped at the limit of sessions.
open: the capture ended. A session that was closed has reason fin or rst whatever made it leave the table."""

RST_KINDS = ("", "refused", "after-fin", "after-data", "plain")
"""By `Session.rst_kind`: the first RST that took effect. plain: of an open session that had carried no payload."""

Segment = namedtuple(
    "Segment",
    "packet time delta gap rtt original bits session slot seq ack rel_seq rel_ack window wire payload captured at "
    "dup_ack flags raw_window direction client_state server_state options_length options",
)
"""One segment: a row of struct pt_segment.

packet: number of its packet, from 1. time: ns. delta: ns since the session's segment before it, 0 for the first. gap:
of a retransmission, ns since the segment that it repeats, as far as known, else since the segment with the highest
sequence number; 0 else. rtt: ns from the newest segment that this one acknowledges exactly, which was sent once; -1:
none. original: packet of the segment that it repeats, 0: none or unknown. session, slot: whose it is. seq, ack,
rel_seq, rel_ack: sequence numbers raw and from the initial one (the first seen minus one without a SYN); ack is 0
without ACK.
window: bytes, scaled as far as the scale is known. wire: bytes of the frame on the wire. payload, captured: bytes of
payload on the wire, and captured, SYN and FIN not counted. at: offset of the payload in the batch's buffer. dup_ack: of
a duplicate ACK, the how many-th. flags: FIN ... AE. direction: 0 from the client. client_state, server_state: after
this segment, for STATES. options: 40 bytes, of which options_length are the TCP options as sent.
"""

ROW = struct.Struct(ROW_FORMAT)
"""Of one row; `Segment._make(ROW.unpack_from(rows, k * ROW_SIZE))`."""

End = namedtuple(
    "End",
    "packets bytes payload data_packets unique repeated missing snapped_bytes acks pure_acks pushes pushed_urgent "
    "syns fins rsts isn mss window_scale sack_permitted timestamps ecn fast_open segment_max segment_min window_max "
    "window_min window_sum initial_window_bytes initial_window_packets sack_blocks_max dup_ack_max stream_length "
    "first last first_data last_data idle_max rtt_samples rtt_min rtt_median rtt_p95 rtt_max rtt_sum ttl_min ttl_max "
    "options_bad counts",
)
"""What one end sent.

packets, bytes (of frames on the wire), payload (bytes, repeated ones included), data_packets (those with payload).
unique: bytes of payload seen at least once; repeated: bytes seen before; missing: bytes in gaps that were never filled;
snapped_bytes: payload bytes not captured. acks: with the flag ACK; pure_acks: of these without payload, SYN, FIN, RST.
pushes: with PSH; pushed_urgent: with URG. isn: initial sequence number, None unless SYN was seen. mss, window_scale:
of the SYN, None without. sack_permitted, timestamps: bool. ecn: bool, its SYN offered or accepted ECN. fast_open: bool.
segment_max, segment_min: payload bytes of the largest and smallest segment that has any. window_*: bytes, scaled; SYN
and RST are not counted unless there is nothing else; the sum is over `packets - syns - rsts`. initial_window_*: payload
sent before the first ACK of payload came back. sack_blocks_max: most SACK blocks in one segment. dup_ack_max: longest
run of duplicate ACKs. stream_length: bytes from SYN to FIN, None unless both were seen. first, last, first_data,
last_data: times, None: none. idle_max: ns, longest pause between segments of this end. rtt_*: ns, of this end's
segments that were acknowledged; median and p95 within 3 % when there are more than 64 samples; None without. ttl_min,
ttl_max: TTL or hop limit. options_bad: segments with TCP options that cannot be. counts: how many segments had each
bit, by name, those of 0 left out.
"""

_Session = namedtuple(
    "_Session",
    "id slot version client client_port server server_port first last first_packet last_packet start reason ended_by "
    "client_state server_state handshake syn_time bits rst_packet rst_time rst_by rst_kind delta_max gap_max "
    "simultaneous guessed sender notes notes_dropped rows rows_dropped ends",
)


class Session(_Session):
    """One TCP session.

    id: from 0, in order of first packets, as tcp.stream counts. slot: place in the table. client, server: 4 or 16
    bytes. first, last: times; first_packet, last_packet: numbers. start: for STARTS; reason: for REASONS; ended_by: the
    end that sent the first FIN or the RST, None: neither. client_state, server_state: for STATES. handshake: ns from
    the first SYN to the client's ACK of the answer, None: not seen; syn_time: ns from the last SYN to the answer.
    bits: all that occurred. rst_packet, rst_time, rst_by, rst_kind: the first RST that took effect, None and 0
    without. delta_max: ns, the longest pause; gap_max: ns, the largest gap of a retransmission. simultaneous: bits,
    1 both opened at once, 2 both closed at once. guessed: who is the client is a guess (no SYN was seen). sender: the
    end that sent the first packet. notes: (packet, time, bits, direction) of the first anomalies; notes_dropped: how
    many more. rows, rows_dropped: segments kept, and those that went at the limit. ends: two of `End`.
    """

    __slots__ = ()

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> Session:
        """From what the tracker hands out."""
        *fields, ends = row
        return cls._make([*fields, tuple(_end(end) for end in ends)])

    @property
    def packets(self) -> int:
        return self.ends[0].packets + self.ends[1].packets

    @property
    def bytes(self) -> int:
        """Of frames on the wire."""
        return self.ends[0].bytes + self.ends[1].bytes

    @property
    def duration(self) -> int:
        """ns, from the first packet to the last."""
        return self.last - self.first

    @property
    def close_reason(self) -> str:
        return REASONS[self.reason]

    @property
    def states(self) -> tuple[str, str]:
        return STATES[self.client_state], STATES[self.server_state]

    @property
    def is_complete(self) -> bool:
        """Seen from the SYN to a close."""
        return self.start == STARTS.index("syn") and self.close_reason in ("fin", "rst")

    @property
    def retransmitted(self) -> int:
        """Segments sent again, of both ends; a keep-alive is none."""
        return sum(end.counts.get("retransmission", 0) for end in self.ends)

    @property
    def client_text(self) -> str:
        """`10.0.0.1:40000` or `[2001:db8::1]:40000`."""
        return end_text(address(self.client), self.client_port)

    @property
    def server_text(self) -> str:
        return end_text(address(self.server), self.server_port)


def _end(row: tuple[Any, ...]) -> End:
    *fields, counts = row
    return End._make([*fields, {name: n for name, n in zip(BITS, counts, strict=True) if n}])


def segments(rows: memoryview) -> Iterator[Segment]:
    """The rows, as tuples with names."""
    return map(Segment._make, ROW.iter_unpack(rows))


def bit_names(bits: int) -> list[str]:
    """The names of the bits that are set."""
    return [name for k, name in enumerate(BITS) if bits >> k & 1]
