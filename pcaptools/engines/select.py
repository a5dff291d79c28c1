"""Choosing packets."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pcaptools.core._core import Program
from pcaptools.core.batch import Batch
from pcaptools.core.pipeline import Account, Transform


class Filter(Transform):
    """Keep the packets that a BPF expression matches.

    compile: gives the program for a link type in a capture of this or the other (True) byte order, as bytes
    (files/bpf.py); called once for each. Without an account packets are marked only.
    """

    def __init__(self, compile: Callable[[int, bool], bytes], account: Account | None) -> None:
        self._compile = compile
        self._account = account
        self._programs: dict[tuple[int, bool], Program] = {}

    def feed(self, batch: Batch) -> Iterable[Batch]:
        batch.forget_section_length()
        dropped = sum(self._program(linktype, batch.swapped).drop_others(batch) for linktype in set(batch.linktypes))
        if dropped and self._account:
            self._account.drop("filtered", dropped)
            batch.compact()
        yield batch

    def _program(self, linktype: int, swapped: bool) -> Program:
        if (linktype, swapped) not in self._programs:
            self._programs[linktype, swapped] = Program(linktype, self._compile(linktype, swapped))
        return self._programs[linktype, swapped]
