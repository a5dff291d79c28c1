"""The figures of a session as a table: those of tcptrace -l, a column for each end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pcaptools.core.times import Clock, seconds
from pcaptools.engines.sessions import STARTS, End, Session

_SECOND = 1_000_000_000


def _plain(name: str) -> Callable[[End], Any]:
    return lambda end: getattr(end, name)


def _count(name: str) -> Callable[[End], int]:
    return lambda end: int(end.counts.get(name, 0))


def _span(name: str) -> Callable[[End], str | None]:
    def told(end: End) -> str | None:
        found = getattr(end, name)
        return None if found is None else seconds(found, 6)

    return told


def _yes(name: str) -> Callable[[End], str]:
    return lambda end: "yes" if getattr(end, name) else "no"


def _rate(end: End) -> str:
    again = end.counts.get("retransmission", 0)
    return f"{100 * again / end.data_packets:.2f} %" if end.data_packets else "-"


def _mean(total: str, count: Callable[[End], int]) -> Callable[[End], int | None]:
    def told(end: End) -> int | None:
        of = count(end)
        return getattr(end, total) // of if of > 0 else None

    return told


def _transmit_time(end: End) -> str | None:
    if end.first_data is None or end.last_data is None:
        return None
    return seconds(end.last_data - end.first_data, 6)


def _throughput(end: End) -> int | None:
    if end.first_data is None or end.last_data is None or end.last_data <= end.first_data:
        return None
    return int(end.unique * _SECOND // (end.last_data - end.first_data))


_ROWS: tuple[tuple[str, Callable[[End], Any]], ...] = (
    ("packets", _plain("packets")),
    ("bytes on the wire", _plain("bytes")),
    ("with ACK", _plain("acks")),
    ("pure ACKs", _plain("pure_acks")),
    ("SACK blocks, packets with", _count("sack")),
    ("DSACK, packets with", _count("dsack")),
    ("SACK blocks, most in a packet", _plain("sack_blocks_max")),
    ("duplicate ACKs", _count("duplicate_ack")),
    ("duplicate ACKs, longest run", _plain("dup_ack_max")),
    ("SYN", _plain("syns")),
    ("FIN", _plain("fins")),
    ("RST", _plain("rsts")),
    ("pushed", _plain("pushes")),
    ("urgent", _plain("pushed_urgent")),
    ("data packets", _plain("data_packets")),
    ("data bytes", _plain("payload")),
    ("data bytes, unique", _plain("unique")),
    ("data bytes, sent again", _plain("repeated")),
    ("data bytes, missing", _plain("missing")),
    ("data bytes, cut by snap length", _plain("snapped_bytes")),
    ("stream length, SYN to FIN", _plain("stream_length")),
    ("sent again, packets", _count("retransmission")),
    ("sent again, of data packets", _rate),
    ("sent again, fast", _count("fast_retransmission")),
    ("sent again, spurious", _count("spurious_retransmission")),
    ("sent again, by timeout", _count("timeout_retransmission")),
    ("out of order", _count("out_of_order")),
    ("after a hole", _count("lost_segment")),
    ("zero window probes", _count("zero_window_probe")),
    ("keep-alives", _count("keep_alive")),
    ("initial sequence number", _plain("isn")),
    ("MSS", _plain("mss")),
    ("window scale", _plain("window_scale")),
    ("SACK permitted", _yes("sack_permitted")),
    ("timestamps", _yes("timestamps")),
    ("ECN", _yes("ecn")),
    ("segment, largest", _plain("segment_max")),
    ("segment, smallest", _plain("segment_min")),
    ("segment, average", _mean("payload", lambda end: end.data_packets)),
    ("window, largest", _plain("window_max")),
    ("window, smallest", _plain("window_min")),
    ("window, average", _mean("window_sum", lambda end: end.packets - end.rsts - end.syns)),
    ("zero windows", _count("zero_window")),
    ("initial window, bytes", _plain("initial_window_bytes")),
    ("initial window, packets", _plain("initial_window_packets")),
    ("TTL or hop limit, smallest", _plain("ttl_min")),
    ("TTL or hop limit, largest", _plain("ttl_max")),
    ("data sent within, s", _transmit_time),
    ("longest pause, s", _span("idle_max")),
    ("throughput, bytes/s", _throughput),
    ("RTT samples", _plain("rtt_samples")),
    ("RTT, smallest, s", _span("rtt_min")),
    ("RTT, median, s", _span("rtt_median")),
    ("RTT, 95th percentile, s", _span("rtt_p95")),
    ("RTT, largest, s", _span("rtt_max")),
)


def summary_lines(session: Session, reasons: list[str], clock: Clock) -> Iterator[str]:
    """The table, 76 columns wide. A dash stands for what is not known."""
    yield f"session {session.id}: {session.client_text} == {session.server_text}"
    if reasons:
        yield f"  !! {', '.join(reasons)}"
    begin = {"syn": "", "syn-ack": ", first SYN not seen", "middle": ", opening not seen"}[STARTS[session.start]]
    yield f"  begin {clock.date(session.first)}{begin}"
    yield f"  took {seconds(session.duration, 6)} s, {_close(session)}, states {'/'.join(session.states)}"
    if session.handshake is not None:
        yield f"  handshake {seconds(session.handshake, 6)} s"
    yield f"  {'':30}{'client':>22}{'server':>22}"
    for label, told in _ROWS:
        cells = (told(end) for end in session.ends)
        yield f"  {label:30}" + "".join(f"{'-' if cell is None else cell:>22}" for cell in cells)
    yield ""


def _close(session: Session) -> str:
    words = {
        "open": "still open",
        "fin": "closed",
        "rst": "reset",
        "idle": "idle",
        "reused": "ports used again",
        "evicted": "forgotten at the limit",
    }
    word = words[session.close_reason]
    if session.close_reason in ("fin", "rst") and session.ended_by is not None:
        word += f" by the {('client', 'server')[session.ended_by]}"
    return word
