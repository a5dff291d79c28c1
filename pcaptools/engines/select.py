"""Choosing packets."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pcaptools.core._core import Program
from pcaptools.core.batch import Batch
from pcaptools.core.pipeline import Account, Transform


class Filter(Transform):
    """Keep the packets that a BPF expression matches.

    compile: gives the program for a link type, as bytes (files/bpf.py); called once per link type.
    """

    def __init__(self, compile: Callable[[int], bytes], account: Account) -> None:
        self._compile = compile
        self._account = account
        self._programs: dict[int, Program] = {}

    def feed(self, batch: Batch) -> Iterable[Batch]:
        batch.forget_section_length()
        for linktype in dict.fromkeys(batch.linktypes):
            if linktype not in self._programs:
                self._programs[linktype] = Program(linktype, self._compile(linktype))
        dropped = sum(program.drop_others(batch) for program in self._programs.values())
        if dropped:
            self._account.drop("filtered", dropped)
            batch.compact()
        yield batch
