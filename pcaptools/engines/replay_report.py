"""What a replay says of itself: the live line, and the report, in tcpreplay's form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pcaptools.core.pipeline import Account
from pcaptools.core.times import SECOND
from pcaptools.engines.replay import UNFIT, Player
from pcaptools.engines.replay_options import Options

QUANTILES = {"median": 0.5, "p99": 0.99, "max": 1.0}

FLOWS = ("flows", "flow_packets", "non_flow_packets")

LIVE = SECOND // 2
"""ns between two states of the live line."""


class Telling:
    """Says how it goes, when it is time. Times in ns by the output's clock.

    say: a line of its own; show: the live line, None where there is none; every: ns between two lines, 0: none; the
    first one comes that long after `now`.
    """

    def __init__(
        self,
        state: Callable[[], str],
        say: Callable[[str], object],
        show: Callable[[str], object] | None,
        every: int,
        now: int,
    ) -> None:
        self._state, self._say, self._show, self._every = state, say, show, every
        self._next_shown, self._next_said = now, now + every

    def tick(self, now: int) -> None:
        """Say what is due."""
        if self._show and now >= self._next_shown:
            self._next_shown = now + LIVE
            self._show(self._state())
        if self._every and now >= self._next_said:
            self._next_said += self._every
            self._say(self._state())


def state(sender: Any, player: Player, timed: bool) -> str:
    """The state of a replay as one line."""
    where = "" if player.position is None else _utc(player.position)
    late = sender.lateness(1.0) if timed else None
    return live_line(sender.sent, sender.sent_bytes, player.elapsed(), where, late)


def _utc(moment: int) -> str:
    import datetime

    return datetime.datetime.fromtimestamp(moment // SECOND, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def book(output: Any, player: Player, account: Account, refusal: Callable[[int], str]) -> None:
    """Account for what was sent and what was not. refusal: an errno in words."""
    sender = output.sender
    account.packets_out = sender.sent
    for reason, packets in player.unfit.items():
        account.fail(UNFIT[reason], packets)
    for number, packets in sender.failed.items():
        account.fail(f"refused by the kernel: {refusal(number)}", packets)
    if player.unfit["linktype"]:
        account.notice("pcaprewrite --dlt=enet in front gives packets another link layer, --to-host raw IP packets")
    account.fail("late", sender.skipped)
    account.drop("not reached", account.missing)
    if getattr(sender, "unheard", 0):
        account.problem(f"{output.name}: {sender.unheard} datagrams were refused: nobody listens there")


def figures(
    output: Any, player: Player, account: Account, options: Options, flows: Any, files: list[tuple[str, int]]
) -> dict[str, Any]:
    """The report as data. flows: a FlowSet, or None; files: packets of each."""
    sender = output.sender
    timed = bool(options.schedule and sender.timed)
    return {
        "device": output.name,
        "packets": sender.sent,
        "bytes": sender.sent_bytes,
        "duration_ns": player.elapsed(),
        "flows": dict(zip(FLOWS, flows.counts, strict=True)) if flows else None,
        "not_sent": account.failed,
        "left_out": account.dropped,
        "cut_by_snap_length": sender.cut,
        "cut_to_mtu": output.cut_to_mtu,
        "retried": sender.retried,
        "late": sender.delayed,
        "late_after_ns": options.tolerance,
        "schedule_error_ns": {name: sender.lateness(q) for name, q in QUANTILES.items()} if timed else None,
        "interfaces": output.interfaces(),
        "files": [{"file": name, "packets": packets} for name, packets in files],
    }


def live_line(sent: int, sent_bytes: int, elapsed: int, position: str, late: int | None) -> str:
    """Packets, rate, position in the capture, lateness; times in ns."""
    rate = 1e9 / elapsed if elapsed else 0.0
    parts = [f"{sent} packets", f"{sent * rate:.0f} pps", f"{sent_bytes * rate * 8e-6:.2f} Mbps"]
    if position:
        parts.append(f"at {position}")
    if late is not None:
        parts.append(f"late by {late / 1e6:.3f} ms at most")
    return ", ".join(parts)


def lines(report: dict[str, Any]) -> list[str]:
    """The report as text. Its first lines are those of tcpreplay, which scripts parse."""
    duration = report["duration_ns"] / 1e9
    rate = 1 / duration if duration else 0.0
    packets, size = report["packets"], report["bytes"]
    said = [
        f"Actual: {packets} packets ({size} bytes) sent in {duration:.2f} seconds",
        f"Rated: {size * rate:.1f} Bps, {size * rate * 8e-6:.2f} Mbps, {packets * rate:.2f} pps",
    ]
    if report["flows"] is not None:
        flows = report["flows"]
        said.append(
            f"Flows: {flows['flows']} flows, {flows['flows'] * rate:.2f} fps, {flows['flow_packets']} unique flow "
            f"packets, {flows['non_flow_packets']} unique non-flow packets"
        )
    for device in report["interfaces"]:
        said += _device(device)
    return [*said, *_shortfalls(report), *_errors(report)]


def _device(device: dict[str, Any]) -> list[str]:
    rows = (
        ("Successful packets:", "packets"),
        ("Failed packets:", "failed"),
        ("Truncated packets:", "truncated"),
        ("Retried packets (ENOBUFS):", "retried_enobufs"),
        ("Retried packets (EAGAIN):", "retried_eagain"),
    )
    said = [f"Statistics for network device: {device['device']}"]
    return said + [f"\t{title:<26} {device[name]}" for title, name in rows]


def _shortfalls(report: dict[str, Any]) -> list[str]:
    said = [f"Not sent: {packets} packets {reason}" for reason, packets in report["not_sent"].items()]
    if report["cut_by_snap_length"]:
        said.append(f"Cut by the snap length: {report['cut_by_snap_length']} packets, sent as captured")
    if report["cut_to_mtu"]:
        said.append(f"Cut to the MTU: {report['cut_to_mtu']} packets")
    return said + [f"File: {file['packets']} packets of {file['file']}" for file in report["files"]]


def _errors(report: dict[str, Any]) -> list[str]:
    error = report["schedule_error_ns"]
    if not error:
        return []
    median, most, largest = (error[name] / 1000 for name in QUANTILES)
    said = [f"Schedule error: median {median:.1f} us, p99 {most:.1f} us, max {largest:.1f} us"]
    if report["late"]:
        said.append(f"Late: {report['late']} packets, by more than {report['late_after_ns'] / 1e6:g} ms")
    return said
