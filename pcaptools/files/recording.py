"""What a replay would have sent, as a capture: the output of `pcapreplay -w`. Its clock is the schedule."""

from __future__ import annotations

from typing import Any

from pcaptools.core import _replay
from pcaptools.core.batch import Batch
from pcaptools.files.output import Output
from pcaptools.files.writer import Writer


class Recording:
    """Writes batches with the times at which they would have been sent, one after the other.

    The first packet keeps its recorded time; without due times all do. Use it as a context manager: an interruption
    keeps what was written.
    """

    warning = ""
    cut_to_mtu = 0

    def __init__(self, path: str, to_pcap: Any, header: bytes) -> None:
        """to_pcap: the transform that makes one capture of whatever comes (engines/convert.py). header: what a capture
        without a packet begins with."""
        self.name = path
        self.sender = self
        self.sent = self.sent_bytes = self.cut = self.retried = self.timed = self.delayed = self.skipped = 0
        self.failed: dict[int, int] = {}
        self.alive = 0
        self.gap = (0, 0)
        self._output = Output(path)
        self._writer = Writer(self._output)
        self._copy = Batch()
        self._base: int | None = None
        self._last = -(1 << 62)
        self._to_pcap = to_pcap
        self._header = header

    def __enter__(self) -> Recording:
        self._writer.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is None or issubclass(kind, (KeyboardInterrupt, SystemExit)):
            for batch in self._to_pcap.finish():
                self._writer(batch)
            if not self.sent:
                self._output.write(self._header)
            self._writer.__exit__(None, None, None)
        else:
            self._writer.__exit__(kind, error, trace)

    def now(self) -> int:
        """When the last packet would have been sent, after the start, ns; 1 at the start."""
        return max(self._last - self._base, 0) + 1 if self._base is not None else 1

    def mark_unfit(self, batch: Batch, start: int, stop: int) -> dict[str, int]:
        """A file takes everything."""
        return {}

    def send(self, batch: Batch, start: int, stop: int, due: Any, t0: int) -> int:
        """Write the records [start, stop)."""
        if stop > start and self._base is None:
            self._base = batch.time(start)
        if due is not None and self._base is not None:
            self._last = _replay.set_times(batch, start, stop, due, self._base, self._last)
        _replay.drop_range(batch, 0, start)
        _replay.drop_range(batch, stop, batch.n)
        _replay.copy_records(batch, self._copy)
        self.sent += self._copy.n
        self.sent_bytes += self._copy.used - 16 * self._copy.n
        for converted in self._to_pcap.feed(self._copy):
            self._writer(converted)
        return stop

    def lateness(self, quantile: float) -> int:
        """A file is never late."""
        return 0

    def interfaces(self) -> list[dict[str, Any]]:
        """A file is no device."""
        return []
