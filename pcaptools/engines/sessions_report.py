"""What pcapsessions prints of sessions that are over: lines of text, of JSON, and the statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pcaptools.core.times import Clock, seconds
from pcaptools.engines.sessions import BITS, Segment, Session, Tracker
from pcaptools.engines.sessions_text import CYAN, NARROW, Layout
from pcaptools.engines.triggers import Reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pcaptools.engines.contents import Contents
    from pcaptools.engines.hellos import ClientHello, ServerHello
    from pcaptools.engines.http import Exchange

    Carried = Callable[[], Contents | None]
    """Gives what a session carried."""

ALIKE = 10
"""Sessions that are shown of those that look the same, unless told otherwise."""

MOST_KINDS = 4096
MOST_NAMES = 3
MOST_PROTOCOLS = 2
MOST_LINE = 2000

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}


class Alike:
    """Counts sessions that went wrong in the same way with the same server, or from the same client.

    most: of each kind that are shown; 0: all. tracker: that counts the others itself, None: it must not.
    """

    def __init__(self, most: int, tracker: Tracker | None = None) -> None:
        self.most = most
        self._tracker = tracker
        self._hidden = 0
        self._hushed: dict[int, tuple[str, str]] = {}
        self._seen: dict[tuple[str, str], int] = {}

    @property
    def hidden(self) -> int:
        """How many were not shown."""
        return self._hidden + (sum(self._tracker.hushed()) if self._tracker else 0)

    def shows(self, session: Session, reasons: Sequence[Reason]) -> bool:
        """Whether there were not too many of these yet."""
        if not self.most or not reasons:
            return True
        kind = ", ".join(dict.fromkeys(reason.kind for reason in reasons))
        whos = f"with {session.server_text}", f"from {session.client_text.rpartition(':')[0]}"
        for by_client, who in enumerate(whos):
            count = self._seen.get((who, kind), 0) + 1
            if count == 1 and len(self._seen) >= MOST_KINDS:
                continue
            self._seen[who, kind] = count
            if count > self.most:
                self._hidden += 1
                if self._tracker and not (by_client and (whos[0], kind) in self._seen):  # it counts there, too
                    self._hushed[self._tracker.hush(session.slot, bool(by_client))] = who, kind
                return False
        return True

    def lines(self) -> Iterator[str]:
        """How many more there were of each kind."""
        for number, count in enumerate(self._tracker.hushed() if self._tracker else ()):
            if count:
                self._seen[self._hushed[number]] += count
        for (who, kind), count in sorted(self._seen.items(), key=lambda item: -item[1]):
            if count > self.most > 0:
                more = count - self.most
                yield f"and {more} more session{'s' if more > 1 else ''} {who}: {kind} (--similar 0: all)"
        self._seen.clear()


def visible(text: str) -> str:
    """Text of the network with control characters as `\\xNN`: it must not drive a terminal."""
    return text[:MOST_LINE].translate(_CONTROLS)


def names_of(contents: Contents | None) -> list[str]:
    """What the head line says of contents: names of servers, protocols, names that were asked for."""
    if contents is None:
        return []
    words = []
    client, server = hellos_of(contents)
    if server:
        words.append(_tls_words(server.version, client, server.alpn))
    elif client:
        version = max((v for v in client.versions if v <= 0x0304), default=0)
        words.append(_tls_words(version, client, client.alpn[:MOST_PROTOCOLS]))
    asked = list(dict.fromkeys(question.name for question in contents.questions))
    if asked:
        more = f" and {len(asked) - MOST_NAMES} more" if len(asked) > MOST_NAMES else ""
        words.append("DNS " + " ".join(asked[:MOST_NAMES]) + more)
    return [visible(word) for word in words]


def _tls_words(version: int, client: ClientHello | None, protocols: Sequence[str]) -> str:
    from pcaptools.engines.hellos import version_name

    name = client.server_name if client and client.server_name else ""
    return " ".join(filter(None, [version_name(version) if version else "TLS", name, ",".join(protocols)]))


def hellos_of(contents: Contents) -> tuple[ClientHello | None, ServerHello | None]:
    """Those of a client and of a server, whichever end said them: who is the client may be a wrong guess."""
    client = next((one for one in contents.hellos if hasattr(one, "versions")), None)
    return client, next((one for one in contents.hellos if hasattr(one, "version")), None)


def http_lines(exchanges: Sequence[Exchange], milliseconds: Callable[[int], str]) -> Iterator[tuple[int, str]]:
    """(packet, text) of what HTTP messages say, in order of packets."""
    found: list[tuple[int, str]] = []
    for exchange in exchanges:
        for message, arrow in ((exchange.request, ">>>"), (exchange.response, "<<<")):
            if message is None:
                continue
            extra = ""
            if message.status and exchange.first_byte is not None:
                took = milliseconds(exchange.first_byte), milliseconds(exchange.total or 0)
                extra = f" ({took[0]} to the first byte, {took[1]} in all)"
            if message.problem:
                extra += f" [{message.problem}]"
            if message.missing:
                extra += f" [{message.missing} bytes missing]"
            found.append((message.head_packet, visible(f"HTTP {arrow} {message.line}") + extra))
            found += [
                (message.head_packet, visible(f"HTTP {arrow}     {name}: {value}")) for name, value in message.headers
            ]
    found.sort(key=lambda one: one[0])
    yield from found


class Text:
    """Sessions as text. out: takes lines. Sessions without a reason are shown only where `all` are, or with HTTP."""

    def __init__(self, layout: Layout, out: Callable[[str], object], alike: Alike, everything: bool) -> None:
        self._layout, self._out, self._alike, self._everything = layout, out, alike, everything
        self.shown = 0

    @property
    def hidden(self) -> int:
        """Sessions that were not shown because they were alike."""
        return self._alike.hidden

    def session(
        self, session: Session, rows: Callable[[], Sequence[Segment]], contents: Carried, asked: bool = False
    ) -> None:  # fmt: skip
        """Show a session, if it is one to be shown. rows: gives its segments, contents: what it carried. asked: it
        is."""
        reasons = self._layout.triggers.reasons(session)
        if not reasons and not self._everything and not asked:
            found = contents()
            if not found or not found.exchanges:
                return
        if not asked and not self._alike.shows(session, reasons):
            return
        self._show(session, reasons, rows(), contents(), asked)

    def _show(
        self, session: Session, reasons: list[Reason], rows: Sequence[Segment], contents: Contents | None, asked: bool
    ) -> None:  # fmt: skip
        exchanges = contents.exchanges if contents else []
        self.shown += not asked
        for line in self._layout.head(session, names_of(contents), reasons):
            self._out(line)
        messages = list(http_lines(exchanges, lambda ns: f"{ns / 1e6:.3f} ms"))
        for line in self._layout.body(session, rows, messages):
            self._out(line)
        if contents and contents.exchanges_dropped:
            self._out(self._layout.paint(f"and {contents.exchanges_dropped} more HTTP exchanges", CYAN))

    def finish(self) -> None:
        """Say what was left out."""
        width = NARROW - 2 if self._layout.narrow else MOST_LINE
        for line in self._alike.lines():
            import textwrap

            for text in textwrap.wrap(line, width, subsequent_indent="    "):
                self._out(self._layout.paint(text, CYAN))


def statistics(tracker: Tracker, period: tuple[int, int], shown: int | None, alike: int, clock: Clock) -> list[str]:
    """Figures of all sessions so far, as lines. period: of the packets, ns. shown, alike:
    sessions that were shown, None: no sessions are, and not shown because they were alike."""
    totals: dict[str, Any] = tracker.totals
    counts = tracker.counts
    segments = dict(zip(BITS, totals["segments"], strict=True))
    with_bit = dict(zip(BITS, totals["sessions_with"], strict=True))
    begin, end = period
    again = segments["retransmission"]
    share = f" ({100 * again / counts['tcp']:.2f} %)" if counts["tcp"] and again else ""
    lines = [f"--- {clock.date(begin)} + {seconds(end - begin)} s: {counts['packets']} packets, {counts['tcp']} of TCP"]
    ends = (f"{totals[name]} {words}" for name, words in _ENDS if totals[name])
    lines.append(f"sessions {totals['sessions']}: {', '.join(ends) or 'none'}")
    counted = ((with_bit["rst_refused"], "refused"), (totals["one_sided"], "one-sided"), (alike, "like others"))
    odd = [f"{count} {words}" for count, words in counted if count]
    odd += [] if shown is None else [f"{shown or 'none'} shown"]
    lines += ["  of these " + ", ".join(odd)] if odd else []
    marks = ", ".join(f"{segments[name]} {words}" for name, words in _MARKS if segments[name])
    lines.append(f"segments {totals['packets']}: {again} sent again{share}{', ' + marks if marks else ''}")
    if totals["evicted"] or totals["rows_dropped"]:
        lines.append(
            f"limits: {totals['evicted']} sessions, {totals['rows_dropped']} segments forgotten early (-L, -l)"
        )
    return lines


_ENDS = (
    ("fin", "closed"),
    ("rst", "reset"),
    ("open", "open"),
    ("idle", "idle"),
    ("reused", "ports used again"),
    ("evicted", "over the limit"),
)
_MARKS = (
    ("out_of_order", "out of order"),
    ("lost_segment", "after a hole"),
    ("duplicate_ack", "duplicate ACKs"),
    ("zero_window", "zero windows"),
    ("window_full", "window full"),
    ("keep_alive", "keep-alives"),
    ("fragment", "in fragments"),
)
