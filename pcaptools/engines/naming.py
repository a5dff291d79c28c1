"""Names of the files that a capture is split into."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from pcaptools.engines.flows import OTHER, By, Row, ends, is_part, vlan

FIELDS = ("n", "proto", "src", "sport", "dst", "dport", "client", "server", "vlan", "start", "input")

_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]")


class Names:
    """Gives every file its name, none twice.

    base: what names begin with, without a directory; suffix: `.pcap`, `.pcapng.gz` ...; template: None for the default,
    `BASE_flow-N`. Raises ValueError for a template that cannot be.
    """

    def __init__(self, base: str, suffix: str, by: By, template: str | None) -> None:
        self._base = base
        self._suffix = suffix
        self._by = by
        self._template = template
        self._used: dict[str, int] = {}
        if template is not None:
            self.needs_rows = any(field != "n" for field in _fields(template))
        else:
            self.needs_rows = by.name == "filter"

    def numbered(self, numbers: Iterable[int]) -> list[str]:
        """Names of files by their number alone, for which no row is needed."""
        if self._template is None:
            front = f"{self._base}_{'part' if is_part(self._by) else 'flow'}-"
            return [f"{front}{n}{self._suffix}" for n in numbers]
        return [self._unique(self._template.format(n=n)) for n in numbers]

    def of(self, number: int, row: Row) -> str:
        """The name of one file. row: its first flow."""
        if self._template is None:
            return f"{self._base}_{'rest' if row.number else 'match'}{self._suffix}"
        return self._unique(self._template.format(**self._values(number, row)))

    def other(self) -> str:
        """The name of the file of the packets without a flow."""
        return self._unique(f"{self._base}_other")

    def _values(self, number: int, row: Row) -> dict[str, object]:
        from datetime import datetime, timezone

        client, client_port, server, server_port = ends(row)
        source, target = (client, client_port), (server, server_port)
        if not row.client_first:
            source, target = target, source
        start = datetime.fromtimestamp(row.first // 1_000_000_000, timezone.utc)
        values = {
            "proto": row.proto, "src": source[0], "sport": source[1], "dst": target[0], "dport": target[1],
            "client": client, "server": server, "vlan": vlan(row), "start": start.strftime("%Y%m%dT%H%M%SZ"),
            "input": self._base,
        }  # fmt: skip
        return {"n": number, **{field: safe(value) for field, value in values.items()}}

    def _unique(self, name: str) -> str:
        stem = name.removesuffix(self._suffix)
        met = self._used.get(stem, 0) + 1
        self._used[stem] = met
        if met == 1:
            return stem + self._suffix
        while (other := f"{stem}-{met}") in self._used:
            met += 1
        self._used[stem] = met
        self._used[other] = 1
        return other + self._suffix


def safe(value: object) -> str:
    """A value as part of a name: letters, digits and `._+-`; `none` where there is none."""
    text = "" if value is None else _UNSAFE.sub("-", str(value))
    return text if text.strip(".") else "none"


def parse_template(text: str) -> str:
    """The value of --name. Raises ValueError."""
    _fields(text)
    if not text or text.endswith("/") or "\0" in text:
        raise ValueError(f"'{text}' is not the name of a file")
    return text


def _fields(template: str) -> list[str]:
    """The fields of a template. Raises ValueError."""
    import string

    fields = []
    try:
        for _, field, specification, conversion in string.Formatter().parse(template):
            if field is None:
                continue
            fields.append(field)
            if field not in FIELDS or conversion:
                raise ValueError(f"'{{{field}}}' is not one of {', '.join(f'{{{name}}}' for name in FIELDS)}")
            format(1 if field == "n" else "x", specification or "")
    except ValueError as error:
        raise ValueError(f"'{template}': {error}") from None
    return fields


def name_groups(names: Names, groups: list[int], numbers: dict[int, int], row: Callable[[int], Row]) -> dict[int, str]:
    """The names of new files by group; row gives the first flow of one."""
    flows = [group for group in groups if group != OTHER]
    if names.needs_rows:
        found = {group: names.of(numbers[group], row(group)) for group in flows}
    else:
        found = dict(zip(flows, names.numbered([numbers[group] for group in flows]), strict=True))
    if len(flows) != len(groups):
        found[OTHER] = names.other()
    return found
