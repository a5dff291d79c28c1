"""From a source through transforms to a sink, batch by batch, with every packet accounted for.

A source yields batches. A transform takes one and yields batches: one that edits in place yields the batch that it
was given; one that grows packets, sorts or stops early yields others, later or none. A sink writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pcaptools.core.batch import Batch


class Account:
    """What became of the packets: `in N = out N + dropped N (N reason, ...)`.

    dropped: what the user asked to leave out. failed: what was asked for and could not be done. A `failed` packet, or
    a problem reported by `problem()`, makes the exit status 1.
    """

    def __init__(self, report: Callable[[str], None], notice: Callable[[str], None]) -> None:
        """report: says a problem; notice: says what the user may want to know of a success."""
        self.notice = notice
        self.packets_in = 0
        self.packets_out = 0
        self.dropped: dict[str, int] = {}
        self.failed: dict[str, int] = {}
        self.problems = 0
        self._report = report

    def drop(self, reason: str, packets: int) -> None:
        """`packets` were left out because the user wanted it so."""
        if packets:
            self.dropped[reason] = self.dropped.get(reason, 0) + packets

    def fail(self, reason: str, packets: int) -> None:
        """`packets` were left out although they were wanted."""
        if packets:
            self.failed[reason] = self.failed.get(reason, 0) + packets

    def problem(self, message: str) -> None:
        """Something is wrong with the input or with what was asked of it: say so now; the exit status will be 1."""
        self.problems += 1
        self._report(message)

    @property
    def missing(self) -> int:
        """Packets that came in and are in no other book."""
        return self.packets_in - self.packets_out - sum(self.dropped.values()) - sum(self.failed.values())

    @property
    def status(self) -> int:
        """Exit status: 0 done; 1 done, but not all of it."""
        return 1 if self.problems or self.failed else 0

    def __str__(self) -> str:
        reasons = [f"{count} {reason}" for reason, count in (*self.dropped.items(), *self.failed.items())]
        total = sum(self.dropped.values()) + sum(self.failed.values())
        detail = f" ({', '.join(reasons)})" if reasons else ""
        return f"in {self.packets_in} = out {self.packets_out} + dropped {total}{detail}"


class Transform:
    """Base of all transforms: passes everything on."""

    def feed(self, batch: Batch) -> Iterable[Batch]:
        """Take a batch; yield what is ready."""
        yield batch

    def finish(self) -> Iterable[Batch]:
        """No more batches come: yield what was held back."""
        return ()


def through(source: Iterable[Batch], transforms: Sequence[Transform]) -> Iterable[Batch]:
    """What comes out of the last transform."""
    for transform in transforms:
        source = _through(source, transform)
    return source


def _through(batches: Iterable[Batch], transform: Transform) -> Iterable[Batch]:
    for batch in batches:
        yield from transform.feed(batch)
    yield from transform.finish()


def counted(source: Iterable[Batch], account: Account) -> Iterable[Batch]:
    """The same batches, their packets booked as having come in."""
    for batch in source:
        account.packets_in += batch.n
        yield batch


def run(
    source: Iterable[Batch], transforms: Sequence[Transform], sink: Callable[[Batch], None], account: Account
) -> None:
    """Move every batch of `source` through `transforms` to `sink`. One loop; nothing here works per packet."""
    for batch in through(counted(source, account), transforms):
        account.packets_out += batch.n
        sink(batch)
