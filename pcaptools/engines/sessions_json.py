"""A session as JSON. Names end in what the number counts where it is not packets or segments: `_ns`, `_bytes`."""

from __future__ import annotations

from typing import Any

from pcaptools.engines.contents import Contents
from pcaptools.engines.flows import address
from pcaptools.engines.hellos import cipher_name, version_name
from pcaptools.engines.questions import status_name, type_name
from pcaptools.engines.sessions import RST_KINDS, STARTS, End, Session, bit_names
from pcaptools.engines.sessions_report import hellos_of
from pcaptools.engines.summary import rfc3339

SECOND = 1_000_000_000

SIDES = ("client", "server")

_AS_THEY_ARE = (
    "packets", "data_packets", "acks", "pure_acks", "pushes", "syns", "fins", "rsts", "isn", "mss", "window_scale",
    "sack_permitted", "timestamps", "ecn", "fast_open", "initial_window_packets", "sack_blocks_max", "dup_ack_max",
    "ttl_min", "ttl_max",
)  # fmt: skip
_BYTES = {
    "bytes": "wire_bytes",
    "payload": "payload_bytes",
    "unique": "unique_bytes",
    "repeated": "repeated_bytes",
    "missing": "missing_bytes",
    "snapped_bytes": "snapped_bytes",
    "stream_length": "stream_bytes",
    "segment_min": "segment_min_bytes",
    "segment_max": "segment_max_bytes",
    "window_min": "window_min_bytes",
    "window_max": "window_max_bytes",
    "initial_window_bytes": "initial_window_bytes",
}


def session_figures(session: Session, reasons: list[str], contents: Contents | None = None) -> dict[str, Any]:
    """Everything about a session. reasons: why it would be shown."""
    found: dict[str, Any] = {
        "session": session.id,
        "client": {"address": address(session.client), "port": session.client_port},
        "server": {"address": address(session.server), "port": session.server_port},
        "client_is_guessed": bool(session.guessed),
        "begin": rfc3339(session.first),
        "begin_ns": session.first,
        "end_ns": session.last,
        "duration_ns": session.duration,
        "first_packet": session.first_packet,
        "last_packet": session.last_packet,
        "start": STARTS[session.start],
        "close_reason": session.close_reason,
        "closed_by": None if session.ended_by is None else SIDES[session.ended_by],
        "complete": session.is_complete,
        "states": dict(zip(SIDES, session.states, strict=True)),
        "simultaneous_open": bool(session.simultaneous & 1),
        "simultaneous_close": bool(session.simultaneous & 2),
        "handshake_ns": session.handshake,
        "syn_ns": session.syn_time,
        "rst": _rst(session),
        "packets": session.packets,
        "bytes": session.bytes,
        "retransmissions": session.retransmitted,
        "retransmission_gap_max_ns": session.gap_max,
        "pause_max_ns": session.delta_max,
        "reasons": reasons,
        "sent": {side: _end(end) for side, end in zip(SIDES, session.ends, strict=True)},
        "anomalies": [
            {"packet": packet, "time_ns": time, "from": SIDES[way], "what": bit_names(bits)}
            for packet, time, bits, way in session.notes
        ],
        "anomalies_not_listed": session.notes_dropped,
    }
    return {**found, **contents_figures(contents)}


def _rst(session: Session) -> dict[str, Any] | None:
    if not session.rst_packet:
        return None
    return {
        "packet": session.rst_packet,
        "time_ns": session.rst_time,
        "from": SIDES[session.rst_by or 0],
        "kind": RST_KINDS[session.rst_kind],
    }


def _end(end: End) -> dict[str, Any]:
    found = {name: getattr(end, name) for name in _AS_THEY_ARE}
    found |= {new: getattr(end, name) for name, new in _BYTES.items()}
    again = end.counts.get("retransmission", 0)
    span = (end.last_data or 0) - (end.first_data or 0)
    found["retransmission_rate"] = round(again / end.data_packets, 6) if end.data_packets else 0.0
    found["throughput_bytes_per_s"] = end.unique * SECOND // span if span > 0 else None
    found["rtt"] = _rtt(end)
    found["pause_max_ns"] = end.idle_max
    found["analysis"] = end.counts
    return found


def _rtt(end: End) -> dict[str, int] | None:
    if not end.rtt_samples:
        return None
    return {
        "samples": end.rtt_samples,
        "min_ns": end.rtt_min,
        "median_ns": end.rtt_median,
        "p95_ns": end.rtt_p95,
        "max_ns": end.rtt_max,
    }


def contents_figures(contents: Contents | None) -> dict[str, Any]:
    """What was found in a session's streams; nothing where nothing was."""
    found: dict[str, Any] = {}
    if contents is None:
        return found
    client, server = hellos_of(contents)
    if client or server:
        found["tls"] = {
            "server_name": client.server_name if client else None,
            "versions_offered": [version_name(number) for number in client.versions] if client else [],
            "alpn_offered": client.alpn if client else [],
            "version": version_name(server.version) if server else None,
            "cipher": cipher_name(server.cipher) if server else None,
            "alpn": server.alpn[0] if server and server.alpn else None,
        }
    if contents.questions:
        found["dns"] = [
            {
                "name": one.name,
                "type": type_name(one.type),
                "response": one.response,
                "status": status_name(one.status) if one.response else None,
                "answers": one.answers,
                "packet": one.packet,
            }
            for one in contents.questions
        ]
    if contents.is_http:
        found["http"] = [exchange.figures() for exchange in contents.exchanges]
        found["http_not_listed"] = contents.exchanges_dropped
    return found
