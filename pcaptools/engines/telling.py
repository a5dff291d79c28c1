"""Live replays in words: a line per packet, a table of flows, JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pcaptools.engines.dialogue import Event
from pcaptools.engines.script import Script

_WORDS = {
    "sent": "Sending Local Packet ...............",
    "resent": "Resending Local Packet .............",
    "received": "Received Remote Packet .............",
    "met": "Remote Packet Expectation met ......",
    "mismatch": "Remote Packet Expectation not met ..",
}

Result = dict[str, Any]


def event_line(event: Event) -> str:
    """One event, as tcpliveplay words it; the number is that of the packet in the recorded flow."""
    number = f" [{event.packet}]" if event.packet else ""
    return f"{_WORDS[event.kind]}{number}{' ' + event.text if event.text else ''}"


def summary(results: Sequence[Result], total: int) -> list[str]:
    """What all flows came to."""
    ok = sum(result["result"] == "ok" for result in results)

    def add(key: str) -> int:
        return sum(result[key] for result in results)

    return [
        f"Flows: {total} scheduled, {ok} replayed, {len(results) - ok} failed, {total - len(results)} not finished",
        f"Packets: {add('packets_scheduled')} with data scheduled, {add('packets_sent')} sent, "
        f"{add('packets_received')} received, {add('retransmissions')} retransmitted",
        f"Bytes: {add('bytes_sent')} sent, {add('bytes_received')} received",
    ]


def table(results: Sequence[Result]) -> list[str]:
    """A row per recorded flow: plays, how many succeeded, and the first cause of failure."""
    groups: dict[int, list[Result]] = {}
    for result in results:
        groups.setdefault(result["flow"], []).append(result)
    rows = [("flow", "plays", "ok", "failed", "turns", "rtt ms", "retrans", "sent", "received", "first failure")]
    for number, plays in sorted(groups.items()):
        failed = [play for play in plays if play["result"] != "ok"]
        trips = sorted(play["rtt_ns"] for play in plays if play["rtt_ns"])
        rows.append(
            (
                str(number),
                str(len(plays)),
                str(len(plays) - len(failed)),
                str(len(failed)),
                str(plays[0]["turns"]),
                f"{trips[len(trips) // 2] / 1e6:.2f}" if trips else "-",
                str(sum(play["retransmissions"] for play in plays)),
                str(sum(play["bytes_sent"] for play in plays)),
                str(sum(play["bytes_received"] for play in plays)),
                failed[0]["text"] if failed else "",
            )
        )
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]) - 1)]
    return ["  ".join([*map(str.rjust, row, widths), row[-1]]).rstrip() for row in rows]


def failure(result: Result) -> str:
    """A failed play in one line."""
    tries = f" (try {result['tries']})" if result["tries"] > 1 else ""
    return f"{result['capture']}: flow {result['flow']}: {result['text'] or result['cause']}{tries}"


def document(results: Sequence[Result], total: int, refused: Iterable[Script], facts: dict[str, Any]) -> dict[str, Any]:
    """All of it for --json."""
    unplayed = [{"flow": script.number, "capture": script.source, "problem": script.problem} for script in refused]
    flows = [
        {**result, "client": None, "port": result["port"]} if result.get("client") is None else {
            **result, "client": _end(*result["client"])
        }
        for result in results
    ]  # fmt: skip
    ok = sum(result["result"] == "ok" for result in results)
    return {**facts, "scheduled": total, "replayed": ok, "refused": unplayed, "flows": flows}


def _end(address: bytes, port: int) -> dict[str, Any]:
    from ipaddress import ip_address

    return {"address": str(ip_address(address)), "port": port}
