"""What packets of a replay go through: those of one capture, those of all together, and out of memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pcaptools.core import _replay
from pcaptools.core.batch import Batch
from pcaptools.core.pipeline import Account, Transform
from pcaptools.engines.replay_choice import Drop, Impair, Pad
from pcaptools.engines.replay_options import Options
from pcaptools.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pcaptools.engines.split import Splitter

OPEN = (None, None)


def of_one(
    options: Options, account: Account, filters: list[Transform], sides: Transform | None = None
) -> list[Transform]:
    """The transforms of one capture. sides: who tells its sides already there."""
    stages: list[Transform] = []
    if sides:
        from pcaptools.engines.split import unsent

        stages += [sides, unsent(account)]
    if options.numbers:
        from pcaptools.engines.choose import Choose

        stages.append(Choose(account, numbers=options.numbers))
    stages += filters
    if options.period != OPEN:
        from pcaptools.engines.period import Period

        stages.append(Period(*options.period, account))
    return stages


def of_all(options: Options, account: Account, splitter: Splitter | None) -> list[Transform]:
    """The transforms behind the merge."""
    stages: list[Transform] = []
    if splitter:
        from pcaptools.engines.split import unsent

        stages += [splitter, unsent(account)]
    most = options.largest
    if most:
        stages.append(Drop(lambda batch: _replay.drop_longer(batch, most), f"of more than {most} bytes", account))
    if options.cut == "skip":
        stages.append(Drop(_replay.drop_cut, "cut by the snap length", account))
    if options.cut == "pad":
        stages.append(Pad())
    if options.window is not None:
        from pcaptools.engines.join import Reorder

        stages.append(Reorder(options.window))
    if any(options.chances):
        stages.append(Impair(options.seed, options.chances, account))
    return stages


class Memory:
    """Packets that are kept, to be played again and again. most: bytes."""

    def __init__(self, batches: Iterable[Batch], most: int) -> None:
        """Raises UsageError when they are too many."""
        self._kept: list[Batch] = []
        for batch in batches:
            most -= batch.used
            if most < 0:
                raise UsageError("--preload: the captures do not fit into half of the memory that is free")
            self._kept.append(Batch(batch.used or 1))
            _replay.copy_records(batch, self._kept[-1])

    def batches(self) -> Iterator[Batch]:
        """All of it once; each batch is a copy that may be changed."""
        scratch = Batch()
        for batch in self._kept:
            _replay.copy_records(batch, scratch)
            yield scratch


class Span:
    """From the first to the last time of the batches that it is called with."""

    def __init__(self) -> None:
        self.first = self.last = 0
        self._any = False

    def __call__(self, batch: Batch) -> None:
        times = batch.time_range()
        if not times:
            return
        first, last = times
        self.first = min(first, self.first) if self._any else first
        self.last = max(last, self.last) if self._any else last
        self._any = True
