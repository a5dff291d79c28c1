"""What is known of every flow: as lines of JSON, as CSV, and as a table for people."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from pcaptools.core._flows import FlowTable
from pcaptools.engines.flows import RELATIONS, By, Row, ends, flag_letters, key_text, protocol_name, vlan

FIELDS = (
    "flow", "name", "key", "proto", "client", "client_port", "server", "server_port", "vlan", "first", "last",
    "packets_out", "packets_in", "bytes_out", "bytes_in", "flags_out", "flags_in", "started", "ended", "relation",
    "cause",
)  # fmt: skip
"""`out` is from the client to the server; times are in seconds with nine digits, cause is the number of a flow."""

_PIECE = 1 << 16
_LINES = 256


def seconds(ns: int) -> str:
    """ns since the epoch as seconds with nine digits."""
    sign = "-" if ns < 0 else ""
    return f"{sign}{abs(ns) // 1_000_000_000}.{abs(ns) % 1_000_000_000:09d}"


class Manifest:
    """Describes the flows of a table. names: of each group's file; left_out: groups that are not described."""

    def __init__(self, table: FlowTable, by: By, names: Mapping[int, str], left_out: Collection[int]) -> None:
        self._table = table
        self._by = by
        self._names = names
        self._left_out = left_out
        self._numbers: dict[int, int] = {}

    def _number(self) -> list[int]:
        """The rows in order of first packets. Where flows have causes, what number each has is remembered."""
        order = self._table.order()
        self._numbers = {row: number for number, row in enumerate(order, 1)} if self._table.tells else {}
        return order

    def rows(self) -> Iterator[tuple[int, Row]]:
        """The flows that have a file, with their numbers, in order of first packets."""
        for number, row in enumerate(self._number(), 1):
            if self._table.group(row) not in self._left_out:
                yield number, Row._make(self._table.row(row))

    def fields(self, number: int, row: Row) -> dict[str, object]:
        """One flow, by FIELDS."""
        client, client_port, server, server_port = ends(row)
        cause = None if row.cause is None else self._numbers[self._table.resolved(row.cause)]
        return dict(
            zip(
                FIELDS,
                (
                    number, self._names.get(row.group, ""), key_text(row, self._by), row.proto, client, client_port,
                    server, server_port, vlan(row), seconds(row.first), seconds(row.last),
                    row.packets_out, row.packets_in, row.bytes_out, row.bytes_in,
                    flag_letters(row.flags_out), flag_letters(row.flags_in),
                    row.how_started, row.how_ended, RELATIONS[row.relation], cause,
                ),
                strict=True,
            )
        )  # fmt: skip

    def json(self) -> Iterator[bytes]:
        """One object a line, in large pieces."""
        import json

        held: list[str] = []
        for number, row in self.rows():
            held.append(json.dumps(self.fields(number, row)))
            if len(held) == _LINES:
                yield "\n".join([*held, ""]).encode()
                held.clear()
        yield "\n".join([*held, ""]).encode() if held else b""

    def csv(self) -> Iterator[bytes]:
        """A header and one line a flow."""
        import csv
        import io

        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(FIELDS)
        for number, row in self.rows():
            writer.writerow(self.fields(number, row).values())
            if text.tell() > _PIECE:
                yield text.getvalue().encode()
                text.seek(0)
                text.truncate()
        yield text.getvalue().encode()

    def lines(self) -> Iterator[str]:
        """A table for people: number, packets, bytes, seconds, how it began and ended, key, what caused it."""
        table = self._table
        protocols = [protocol_name(number).encode() for number in range(256)]
        left_out = bytearray(max(self._left_out, default=-1) + 1)
        for group in self._left_out:
            left_out[group] = 1
        if table.tells:
            self._number()
        number, row = 0, None
        yield "flow\tpackets\tbytes\tseconds\tstate\tkey\n"
        while True:
            before = number
            text, number, row = table.text(number, _PIECE, left_out, protocols)
            yield text
            if row is not None:
                yield self._line(number, Row._make(table.row(row)))
            elif number == before:
                return

    def _line(self, number: int, row: Row) -> str:
        duration = row.last - row.first
        state = "-".join(filter(None, (row.how_started, row.how_ended)))
        key = key_text(row, self._by)
        if row.cause is not None:
            key += f" ({RELATIONS[row.relation]} of {self._numbers[self._table.resolved(row.cause)]})"
        return (
            f"{number}\t{row.packets}\t{row.bytes_out + row.bytes_in}\t"
            f"{duration // 1_000_000_000}.{duration // 1000 % 1_000_000:06d}\t{state}\t{key}\n"
        )
