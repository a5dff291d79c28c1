"""Plots. The only importer of matplotlib, which is the extra `plot`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from pcaptools.errors import OutputError, UsageError

SUFFIXES = (".svg", ".png")

SLICES = 400
"""More than so many are not told apart in a picture of this size."""


def check(path: str, option: str = "--plot") -> None:
    """Say before the work what would fail after it. Raises UsageError."""
    if os.path.splitext(path)[1].lower() not in SUFFIXES:
        raise UsageError(f"{option}: '{path}' ends neither in .svg nor in .png")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError(f"{option} needs matplotlib: install it with pip install 'pcaptools[plot]'") from None


def plot(path: str, title: str, series: Any, kinds: tuple[str, ...]) -> None:
    """Draw packets/s and bits/s over time, stacked by protocol, bursts as a line above. Raises OutputError.

    `series` has start and width (ns), slices, bursts, rates(what) and burst_rates(what).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7), layout="constrained")
    figure.suptitle(title)
    above, below = figure.subplots(2, 1, sharex=True)
    edges = [number * series.width / 1e9 for number in range(len(series.slices) + 1)]
    for axes, what in ((above, "packets"), (below, "bits")):
        _panel(axes, edges, what, series, kinds)
    if series.slices:
        above.legend(loc="upper right", fontsize="small")
    below.set_xlabel("seconds")
    _save(figure, path)


def _save(figure: Any, path: str) -> None:
    try:
        figure.savefig(path)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from None


def _panel(axes: Any, edges: list[float], what: str, series: Any, kinds: tuple[str, ...]) -> None:
    base = [0.0] * len(series.slices)
    rates = series.rates(what)
    for number, kind in enumerate(kinds):
        top = [low + slice_rates[number] for low, slice_rates in zip(base, rates, strict=True)]
        if top != base:
            axes.stairs(top, edges, baseline=base, fill=True, label=kind, color=f"C{number}")
        base = top
    if series.bursts:
        label = f"highest {series.burst // 1_000_000} ms"
        axes.stairs(series.burst_rates(what), edges, color="black", linewidth=0.6, label=label)
    axes.set_ylabel(f"{what}/s")
    axes.set_ylim(bottom=0)
    axes.margins(x=0)


# ---- sessions

MOST_LINES = 20_000
"""More lines than so many are drawn as pixels, in an SVG too."""

_COLOURS = {"data": "black", "retransmission": "red", "out of order": "darkorange", "keep-alive or probe": "hotpink"}
_MARKS = {"SYN": ("o", "black"), "FIN": ("s", "black"), "RST": ("X", "red"), "zero window": ("v", "magenta")}


def plot_sequence(path: str, title: str, graphs: Sequence[Any], names: Sequence[str]) -> None:
    """Draw a session over time as tcptrace does: sequence numbers of segments, acknowledgements, window, SACK blocks,
    retransmissions in red; a panel for each of `graphs` (engines/sequence.py). names: of both directions. Raises
    OutputError."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 2 + 5 * max(len(graphs), 1)), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(max(len(graphs), 1), 1, sharex=True, squeeze=False)[:, 0]
    for axes, graph in zip(panels, graphs, strict=False):
        _sequence(axes, graph)
        axes.set_title(names[graph.direction], fontsize="medium", loc="left")
    panels[-1].set_xlabel("seconds")
    _save(figure, path)


def _sequence(axes: Any, graph: Any) -> None:
    for what, steps, colour in (("window", graph.window, "goldenrod"), ("ACK", graph.acks, "green")):
        if steps:
            axes.step(*zip(*steps, strict=True), where="post", color=colour, linewidth=0.8, label=what)
    for kind, lines in (*graph.segments.items(), ("SACK", graph.sacks)):
        if lines:
            times, lows, highs = zip(*lines, strict=True)
            drawn = axes.vlines(times, lows, highs, color=_COLOURS.get(kind, "purple"), linewidth=1.2, label=kind)
            drawn.set_rasterized(len(lines) > MOST_LINES)
            shape = "_" if kind in ("data", "SACK") else "x"
            axes.plot(
                times, highs, shape, markersize=4, color=_COLOURS.get(kind, "purple"), rasterized=len(lines) > 999
            )
    for mark, points in graph.marks.items():
        shape, colour = _MARKS[mark]
        axes.plot(*zip(*points, strict=True), shape, color=colour, markersize=4, fillstyle="none", label=mark)
    axes.set_ylabel("sequence number")
    axes.ticklabel_format(axis="y", style="plain", useOffset=False)
    axes.grid(alpha=0.3)
    _legend(axes)


def plot_rtt(path: str, title: str, graphs: Sequence[Any], names: Sequence[str]) -> None:
    """Draw the round trip times of both directions over time. Raises OutputError."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots()
    for graph, shape in zip(graphs, "ox", strict=False):
        if graph.rtts:
            times, delays = zip(*graph.rtts, strict=True)
            label = names[graph.direction]
            axes.plot(times, delays, shape, markersize=3, label=label, rasterized=len(times) > MOST_LINES)
    axes.set_ylabel("round trip time, ms")
    axes.set_xlabel("seconds")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    _legend(axes)
    _save(figure, path)


def _legend(axes: Any) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", fontsize="small")
