"""The report of one capture in capinfos's words: long, as a table row, with numbers for people or for machines.

`selection` is the set of the letters that select figures (capinfos's); `clock` turns seconds since the epoch into local
time, as time.localtime does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pcaptools.core._info import packet_limit
from pcaptools.core.blocks import Interface, Section
from pcaptools.engines.encapsulation import encapsulation
from pcaptools.engines.summary import NS, Summary

LETTERS = "tEIFHkpDcsdlnuaeoyizx"
"""What can be selected."""

DEFAULT = frozenset(LETTERS) - {"H", "p"}
"""What is shown when nothing is selected: all but hashes, which cost ten times the rest, and packet comments."""

_PRECISIONS = {
    0: "seconds", 1: "deciseconds", 2: "centiseconds", 3: "milliseconds", 6: "microseconds", 9: "nanoseconds",
    -1: "per-packet", -2: "UNKNOWN",
}  # fmt: skip

_HASHES = ("sha256", "ripemd160", "sha1")

# Letter and titles of the table's columns; those of the sections repeat in files that have several.
_COLUMNS = (
    ("t", ("File type",)),
    ("E", ("File encapsulation",)),
    ("F", ("File time precision",)),
    ("l", ("Packet size limit", "Packet size limit min (inferred)", "Packet size limit max (inferred)")),
    ("c", ("Number of packets",)),
    ("s", ("File size (bytes)",)),
    ("d", ("Data size (bytes)",)),
    ("u", ("Capture duration (seconds)",)),
    ("a", ("Start time",)),
    ("e", ("End time",)),
    ("y", ("Data byte rate (bytes/sec)",)),
    ("i", ("Data bit rate (bits/sec)",)),
    ("z", ("Average packet size (bytes)",)),
    ("x", ("Average packet rate (packets/sec)",)),
    ("H", ("SHA256", "RIPEMD160", "SHA1")),
    ("o", ("Strict time order",)),
    ("F", ("Capture hardware", "Capture oper-sys", "Capture application")),
    ("k", ("Capture comment",)),
)


class Report:
    """How captures are reported. machine: plain numbers. seconds: times as seconds since the epoch."""

    def __init__(self, selection: Iterable[str], *, machine: bool, seconds: bool, clock: Callable[[int], Any]) -> None:
        self.selection = frozenset(selection)
        self.machine = machine
        self.seconds = seconds
        self.clock = clock

    # ---- long

    def long(self, summary: Summary) -> Iterator[str]:
        """The lines of the long report."""
        yield f"File name:           {plain(summary.name)}"
        shown = self.selection
        for letters, lines in (
            ("tE", self._storage), ("F", self._precision), ("*", self._limits), ("csd", self._sizes),
            ("uaeyizx", self._rates), ("H", self._hashes), ("o", self._order), ("FkI", self._sections),
            ("p", self._packet_comments), ("nD", self._metadata),
        ):  # fmt: skip
            if letters == "*" or shown & set(letters):
                yield from lines(summary)

    def _storage(self, summary: Summary) -> Iterator[str]:
        kind = summary.encapsulation
        if "t" in self.selection:
            yield f"File type:           {summary.file_type.short if self.machine else summary.file_type.title}"
        if "E" in self.selection:
            yield f"File encapsulation:  {kind.short if self.machine else kind.title}"
            if kind.number == -1:
                yield "Encapsulation in use by packets (# of pkts):"
                for used, packets in summary.packets_by_encapsulation:
                    yield f"                     {used.title} ({packets})"

    def _precision(self, summary: Summary) -> Iterator[str]:
        precision = _file_precision(summary)
        yield f"File timestamp precision:  {_PRECISIONS[precision]} ({precision})"

    def _limits(self, summary: Summary) -> Iterator[str]:
        if "l" in self.selection:
            limit = _limit(summary)
            yield f"Packet size limit:   file hdr: {f'{limit} bytes' if limit else '(not set)'}"
        figures = summary.figures
        if figures.cut and figures.most_cut:
            least, most = figures.least_cut, figures.most_cut
            spread = f"{least} bytes" if least == most else f"{least} bytes - {most} bytes (range)"
            yield f"Packet size limit:   inferred: {spread}"

    def _sizes(self, summary: Summary) -> Iterator[str]:
        figures = summary.figures
        if "c" in self.selection:
            yield f"Number of packets:   {self._number(figures.packets, '', '')}"
        if "s" in self.selection:
            yield f"File size:           {self._number(summary.size, ' bytes', 'B')}"
        if "d" in self.selection:
            yield f"Data size:           {self._number(figures.bytes, ' bytes', 'B')}"

    def _rates(self, summary: Summary) -> Iterator[str]:
        figures = summary.figures
        average = figures.bytes / figures.packets if figures.packets else 0.0
        lines = {
            "u": ("Capture duration:   ", _duration(summary), True),
            "a": ("First packet time:  ", self._time(summary, "first"), True),
            "e": ("Last packet time:   ", self._time(summary, "last"), True),
            "y": ("Data byte rate:     ", self._rate(summary, figures.bytes, "bytes", "Bps"), True),
            "i": ("Data bit rate:      ", self._rate(summary, figures.bytes * 8, "bits", "bps"), True),
            "z": ("Average packet size:", f"{average:.2f} bytes", False),
            "x": ("Average packet rate:", self._rate(summary, figures.packets, "packets", "packets/s"), True),
        }
        for letter, (title, value, needs_time) in lines.items():
            if letter in self.selection and not (needs_time and figures.untimed):
                yield f"{title} {value}"

    def _hashes(self, summary: Summary) -> Iterator[str]:
        for name in _HASHES:
            yield f"{name.upper() + ':':<20} {(summary.hashes or {}).get(name) or '<unknown>'}"

    def _order(self, summary: Summary) -> Iterator[str]:
        yield f"Strict time order:   {_order(summary)}"

    def _sections(self, summary: Summary) -> Iterator[str]:
        sections = summary.blocks.sections
        shares = summary.shares
        first = 0
        for number, section in enumerate(sections):
            if len(sections) > 1:
                yield f"Section {number}:"
                yield ""
            yield from self._section(section)
            behind = first + len(section.interfaces)
            if "I" in self.selection and shares:
                yield f"Number of interfaces in file: {len(shares)}"
                for k in range(first, behind):
                    yield f"Interface #{k} info:"
                    yield from self._interface(summary, *shares[k])
            first = behind

    def _section(self, section: Section) -> Iterator[str]:
        if "F" in self.selection:
            for title, value in zip(("hardware", "oper-sys", "application"), _strings(section), strict=True):
                if value:
                    yield f"{f'Capture {title}:':<20} {plain(value)}"
        if "k" in self.selection:
            for comment in section.comments:
                yield f"Capture comment:     {plain(comment)}"

    def _interface(self, summary: Summary, interface: Interface, share: tuple[int, int]) -> Iterator[str]:
        kind = encapsulation(interface.linktype)
        precision = summary.precision(interface)
        ticks = min(interface.ticks, (1 << 64) - 1)
        facts = (
            ("Name", plain(interface.name), interface.name),
            ("Description", plain(interface.description), interface.description),
            ("Encapsulation", f"{kind.title} ({kind.number} - {kind.short})", True),
            ("Hardware", plain(interface.hardware), interface.hardware),
            ("Speed", interface.speed, interface.speed),
            ("Capture length", _capture_length(summary, interface), True),
            ("FCS length", interface.fcs, interface.fcs),
            ("Time precision", f"{_PRECISIONS[precision]} ({precision})", True),
            ("Time ticks per second", ticks, True),
            ("Time resolution", f"0x{interface.resolution or 0:02x}", interface.resolution is not None),
            ("Timestamp offset", interface.offset, interface.offset is not None),
            ("Filter string", plain(interface.filter), interface.filter),
            ("BPF filter length", interface.instructions, interface.instructions is not None),
            ("Operating system", plain(interface.os), interface.os),
            *(("Comment", plain(comment), True) for comment in interface.comments),
            ("Number of stat entries", interface.statistics, True),
            ("Number of packets", share[0], True),
        )
        for title, value, known in facts:
            if known:
                yield f"                     {title} = {value}"

    def _packet_comments(self, summary: Summary) -> Iterator[str]:
        for number, comment in summary.packet_comments:
            yield f"Packet {number} Comment:    {plain(comment)}"

    def _metadata(self, summary: Summary) -> Iterator[str]:
        blocks = summary.blocks
        if "n" in self.selection:
            for version in (4, 6):
                if blocks.names[version]:
                    yield f"Number of resolved IPv{version} addresses in file: {blocks.names[version]}"
        if "D" in self.selection and blocks.secrets:
            yield f"Number of decryption secrets in file: {blocks.secrets}"

    # ---- table

    def header(self, separator: str, quote: str) -> str:
        """The titles of the columns."""
        titles = [title for letter, titles in _COLUMNS if letter in self.selection for title in titles]
        return _delimited(["File name", *titles], separator, quote)

    def row(self, summary: Summary, separator: str, quote: str) -> str:
        """The line of one capture."""
        return _delimited(self._cells(summary), separator, quote)

    def _cells(self, summary: Summary) -> list[str]:
        figures = summary.figures
        shown = self.selection
        limits = [str(n) if figures.cut and figures.most_cut else "n/a" for n in (figures.least_cut, figures.most_cut)]
        average = figures.bytes / figures.packets if figures.packets else 0.0
        rates = {"y": figures.bytes, "i": figures.bytes * 8, "z": None, "x": figures.packets}
        cells = {
            "t": [summary.file_type.short.partition(" ")[0]],
            "E": [summary.encapsulation.short],
            "F": [_PRECISIONS[_file_precision(summary)]],
            "l": [str(_limit(summary) or "(not set)"), *limits],
            "c": [str(figures.packets)],
            "s": [str(summary.size)],
            "d": [str(figures.bytes)],
            "u": ["n/a" if figures.untimed else _duration(summary).split(" ")[0]],
            "a": ["n/a" if figures.untimed else self._time(summary, "first")],
            "e": ["n/a" if figures.untimed else self._time(summary, "last")],
            **{
                letter: [f"{average:.2f}" if amount is None else _table_rate(summary, amount)]
                for letter, amount in rates.items()
            },
            "H": [(summary.hashes or {}).get(name) or "<unknown>" for name in _HASHES],
            "o": [_order(summary)],
        }
        found = [plain(summary.name), *(cell for letter in cells if letter in shown for cell in cells[letter])]
        for section in summary.blocks.sections:
            if "F" in shown:
                found += map(plain, _strings(section))
            if "k" in shown:
                found += map(plain, section.comments or [""])
        return found

    # ---- values

    def _number(self, value: int, small: str, large: str) -> str:
        return f"{value}{small}" if self.machine else _short(value, small, large)

    def _rate(self, summary: Summary, amount: int, unit: str, large: str) -> str:
        if self.machine:
            return f"{summary.per_second(amount):.2f} {unit}/sec" if summary.duration else "n/a"
        value = amount * NS // summary.duration if summary.duration else 0
        return _short(value, f" {unit}/s", large)

    def _time(self, summary: Summary, which: str) -> str:
        """The time of the earliest or latest packet, in its own precision."""
        if not summary.figures.timed:
            return "n/a"
        ns = getattr(summary.figures, which)
        precision = _packet_precision(summary, which)
        if self.seconds:
            return _seconds(ns, precision)
        seconds, fraction = divmod(ns, NS)
        try:
            local = self.clock(seconds)
        except (OverflowError, ValueError, OSError):  # no calendar of the system reaches that far
            return _seconds(ns, precision)
        day = f"{local.tm_year:04}-{local.tm_mon:02}-{local.tm_mday:02}"
        return f"{day} {local.tm_hour:02}:{local.tm_min:02}:{local.tm_sec:02}{_fraction(fraction, precision)}"


def last_letter(words: Iterable[str], letters: str, names: dict[str, str]) -> str:
    """The last of these letters among the words of a command line, none: empty. Later ones win, as with capinfos.

    names: the long option of each letter. -f takes a value, which may follow in the same word.
    """
    last = ""
    for word in words:
        if word == "--":
            break
        if word.startswith("--"):
            last = next((letter for letter in letters if names[letter].startswith(word)), last)
        elif word.startswith("-"):
            last = next((letter for letter in reversed(word[1:].partition("f")[0]) if letter in letters), last)
    return last


def chosen(words: Iterable[str], args: dict[str, Any], names: dict[str, str], default: Iterable[str]) -> set[str]:
    """The letters in force: those that were given, all with -A, and `default` with none."""
    given = {letter for letter in LETTERS if args[names[letter]]}
    selection = set(LETTERS) if args["--all"] else given or set(default)
    if last_letter(words, "KkA", names) == "K":
        selection.discard("k")
    return selection


def plain(text: str) -> str:
    """Text on one line that does nothing to a terminal: line ends become spaces, other control characters escapes."""
    if text.isprintable():
        return text
    for end in ("\r\n", "\n", "\r"):
        text = text.replace(end, " ")
    return "".join(c if c == "\t" or not _is_control(c) else f"\\x{ord(c):02x}" for c in text)


def _is_control(character: str) -> bool:
    return ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0


def _delimited(cells: Iterable[str], separator: str, quote: str) -> str:
    """A line of the table; a quote inside a quoted cell is doubled."""
    return separator.join(f"{quote}{cell.replace(quote, quote * 2) if quote else cell}{quote}" for cell in cells)


def _file_precision(summary: Summary) -> int:
    found = summary.precisions
    return -2 if not found else -1 if len(found) > 1 else next(iter(found))


def _packet_precision(summary: Summary, which: str) -> int:
    return summary.precision(summary.blocks.interfaces[getattr(summary.figures, f"{which}_interface")])


def _limit(summary: Summary) -> int:
    """The snap length of a pcap's header; a pcapng has one for each interface."""
    return 0 if summary.format == "pcapng" else summary.blocks.interfaces[0].snaplen


def _capture_length(summary: Summary, interface: Interface) -> int:
    """A pcap without a snap length has the largest that its link type allows."""
    if interface.snaplen or summary.format == "pcapng":
        return interface.snaplen
    return packet_limit(interface.linktype)


def _order(summary: Summary) -> str:
    return {True: "True", False: "False", None: "Unknown"}[summary.in_order]


def _strings(section: Section) -> tuple[str, str, str]:
    return section.hardware, section.os, section.application


def _duration(summary: Summary) -> str:
    if not summary.figures.timed:
        return "n/a"
    precision = max(_packet_precision(summary, which) for which in ("first", "last"))
    return f"{_seconds(summary.duration, precision)} second{'' if summary.duration == NS else 's'}"


def _seconds(ns: int, precision: int) -> str:
    whole, fraction = divmod(abs(ns), NS)
    return f"{'-' if ns < 0 else ''}{whole}{_fraction(fraction, precision)}"


def _fraction(ns: int, precision: int) -> str:
    return f".{ns:09}"[: precision + 1] if precision else ""


def _table_rate(summary: Summary, amount: int) -> str:
    return "n/a" if summary.figures.untimed else f"{summary.per_second(amount):.2f}"


def _short(value: int, small: str, large: str) -> str:
    """A number of at most five digits with a prefix; digits that do not fit are cut off, as capinfos does."""
    for power, prefix in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value // 10**power >= 10:
            return f"{value // 10**power} {prefix}{large}"
    return f"{value}{small}"
