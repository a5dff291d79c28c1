"""What a replay says of itself: the live line, and the report, in tcpreplay's form."""

from __future__ import annotations

from typing import Any

QUANTILES = {"median": 0.5, "p99": 0.99, "max": 1.0}


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
