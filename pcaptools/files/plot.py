"""Plots. The only importer of matplotlib, which is the extra `plot`."""

from __future__ import annotations

import os
from typing import Any

from pcaptools.errors import OutputError, UsageError

SUFFIXES = (".svg", ".png")

SLICES = 400
"""More than so many are not told apart in a picture of this size."""


def check(path: str) -> None:
    """Say before the work what would fail after it. Raises UsageError."""
    if os.path.splitext(path)[1].lower() not in SUFFIXES:
        raise UsageError(f"--plot: '{path}' ends neither in .svg nor in .png")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError("--plot needs matplotlib: install it with pip install 'pcaptools[plot]'") from None


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
