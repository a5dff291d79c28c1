"""The sink of batches: written by another thread once there are many, so that writing and the work on them overlap."""

from __future__ import annotations

import math
from types import TracebackType

from pcaptools.core.batch import READ_CAPACITY, Batch
from pcaptools.files.output import Output

BEHIND_FROM = 4 << 20
"""Bytes written before a thread is started: below, starting it costs more than it brings."""

BEHIND = 3
"""Batches that may wait for the thread."""


class Writer:
    """Writes the file format bytes of batches to an output. Use it as a context manager; call it with a batch.

    A pipe is written without a thread: whoever reads it is the other half of the work already, and on a machine whose
    cores are all busy with a pipeline one more thread costs more than it brings.

    What the thread fails at is raised by the next call or at the end. A batch that was handed over may be reused at
    once: its contents were taken out of it, not copied.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._behind_from = math.inf if output.is_pipe else BEHIND_FROM
        self._written = 0
        self._thread: _Thread | None = None

    def __call__(self, batch: Batch) -> None:
        if self._thread:
            self._thread.write(batch)
            return
        self._output.write(batch.view())
        self._written += batch.used
        if self._written >= self._behind_from:
            self._thread = _Thread(self._output)

    def __enter__(self) -> Writer:
        self._output.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._thread and kind is None:
                self._thread.finish()
        except BaseException:
            self._output.abort()
            raise
        self._output.__exit__(kind, error, trace)


class _Thread:
    """Takes batches and writes them in turn."""

    def __init__(self, output: Output) -> None:
        import threading
        from queue import SimpleQueue

        self._free: SimpleQueue[Batch] = SimpleQueue()
        self._filled: SimpleQueue[Batch | None] = SimpleQueue()
        self._output = output
        self._error: BaseException | None = None
        for _ in range(BEHIND):
            self._free.put(Batch(READ_CAPACITY))
        self._runner = threading.Thread(target=self._run, daemon=True)
        self._runner.start()

    def _run(self) -> None:
        while (batch := self._filled.get()) is not None:
            try:
                if not self._error:
                    self._output.write(batch.view())
            except BaseException as error:
                self._error = error
            self._free.put(batch)

    def write(self, batch: Batch) -> None:
        spare = self._free.get()
        if self._error:
            raise self._error
        batch.give_bytes(spare)
        self._filled.put(spare)

    def finish(self) -> None:
        self._filled.put(None)
        self._runner.join()
        if self._error:
            raise self._error
