"""pcapinfo: what is in a capture, or in ten thousand of them.

Usage:
  pcapinfo [options] [--] [<capture>...]

Prints what capinfos prints, in its words: all that is known of each capture (standard input when none is named), or
what the letters select. Hashes are computed only with -H or -A.

Options:
  -t, --file-type        File type.
  -E, --encapsulation    Encapsulation.
  -I, --interfaces       Interfaces.
  -F, --additional       Time precision, and what the capture says of hardware, system and application.
  -H, --hashes           SHA-256, RIPEMD-160 and SHA-1 of the file.
  -k, --comment          Comments of the capture.
  -p, --packet-comments  Comments of packets.
  -n, --name-count       Number of resolved addresses.
  -D, --secret-count     Number of decryption secrets.
  -c, --packet-count     Number of packets.
  -s, --file-size        Size of the file.
  -d, --data-size        Length of all packets on the wire.
  -l, --packet-limit     Packet size limit.
  -u, --duration         Duration.
  -a, --start-time       Time of the earliest packet.
  -e, --end-time         Time of the latest packet.
  -o, --time-order       Whether packets are in order of time.
  -S, --epoch-seconds    Times as seconds since 1970.
  -y, --byte-rate        Bytes per second.
  -i, --bit-rate         Bits per second.
  -z, --packet-size      Average packet size.
  -x, --packet-rate      Packets per second.
  -A, --all              Everything, hashes too.
  -K, --no-comment       No comments of the capture.
  -L, --long             Long report (default).
  -T, --table            Table: one line for each capture.
  -M, --machine          Plain numbers and names in the long report.
  -R, --header           Table with a header line (default).
  -r, --no-header        Table without it.
  -B, --tab              Cells separated by tabs (default).
  -m, --comma            Cells separated by commas.
  -b, --space            Cells separated by spaces.
  -N, --no-quotes        Cells without quotes (default).
  -q, --single-quotes    Cells in single quotes.
  -Q, --double-quotes    Cells in double quotes.
  -C, --stop-on-error    Stop at the first capture that cannot be read.
  --json                 One JSON object for each capture, with everything that is known.
  --protocols            Hierarchy of protocols with packets and bytes.
  --conversations        Conversations, the largest.
  --endpoints            Endpoints, the largest.
  --top=N                How many of them; 10 when not given.
  --sort=KEY             By bytes (default), packets or time.
  --histogram            Packets and bits per second over time, drawn in the terminal.
  --plot=FILE            The same as a picture, .svg or .png.
  -f, --filter=BPF       Count only the packets that match a libpcap filter expression.
  --recursive            Look for captures below the directories that are named.
  --file-suffix=SUFFIX   Only files whose name ends so.
  --file-regexp=RE       Only files whose path matches.
  --workers=N            Processes that read captures for --dump-json; as many as processors when not given.
  --dump-json=FILE       Write a map of all captures, which pcapreplay and GopherCap read.
  --quiet                No warnings.
  --verbose              Say at the end what was read and what not.
  -v, --version          Say which version this is.
  -h, --help             Show this text.
"""

from __future__ import annotations

import sys

from pcaptools import __version__, cli
from pcaptools.errors import DamagedError, InputError, NotACaptureError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pcaptools.core.batch import Batch
    from pcaptools.core.blocks import Blocks
    from pcaptools.core.pipeline import Account
    from pcaptools.engines.report import Report
    from pcaptools.engines.summary import Summary
    from pcaptools.files.inspect import Inspected

TABLES = ("protocols", "conversations", "endpoints")

NAMES = {
    line[3]: line.split()[1] for line in (__doc__ or "").splitlines() if line.startswith("  -") and line[4:5] == ","
}
"""Long option by letter."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    words = sys.argv[1:] if argv is None else argv
    return cli.run(__doc__, lambda command: _pcapinfo(command, words), argv)


def _pcapinfo(command: cli.Command, words: list[str]) -> int:
    args = command.args
    if args["--version"]:
        _print([f"pcapinfo (pcaptools) {__version__}"])
        return 0
    account = command.account()
    paths = args["<capture>"]
    mapping = args["--dump-json"] is not None
    if not args["--recursive"] and not mapping:
        if args["--file-suffix"] or args["--file-regexp"]:
            raise UsageError("--file-suffix and --file-regexp go with --recursive or --dump-json")
        command.refuse_terminal(paths)
        return _Captures(command, words, account).report(paths or ["-"])
    from pcaptools.files.dataset import processors, walk, write_map

    if not paths:
        raise UsageError("name the captures, or with --recursive the directories that hold them")
    chosen = bool(args["--file-suffix"] or args["--file-regexp"])
    paths = walk(paths, args["--recursive"], args["--file-suffix"], args["--file-regexp"], account.problem)
    if not mapping:
        return _Captures(command, words, account).report(paths, skip=not chosen)
    if args["--filter"] is not None or args["--json"]:
        raise UsageError("--dump-json maps whole captures: neither --filter nor --json goes with it")
    workers = command.value("--workers", cli.whole) or processors()
    write_map(paths, args["--dump-json"], workers, chosen, account.problem, _progress(command))
    return account.status


class _Captures:
    """The captures of one run and how they are reported."""

    def __init__(self, command: cli.Command, words: list[str], account: Account) -> None:
        from pcaptools.engines import report

        self.command = command
        self.account = account
        self.args = args = command.args
        self.words = words
        self.tables = [name for name in TABLES if args[f"--{name}"]]
        top = command.value("--top", cli.whole)
        self.top = 10 if top is None else top
        self.by = command.value("--sort", _measure) or "bytes"
        self.transforms = command.filter(account)
        self.over_time = args["--histogram"] or args["--plot"] is not None
        self.selection = report.chosen(words, args, NAMES, () if self.tables or self.over_time else report.DEFAULT)
        if args["--plot"] is not None:
            from pcaptools.files.plot import check

            check(args["--plot"])

    def report(self, paths: list[str], skip: bool = False) -> int:
        """Report them all, without what is no capture when `skip`; returns the exit status.

        Raises the InputError of the last one when none can be read."""
        if self.args["--plot"] is not None and len(paths) > 1:
            raise UsageError("--plot draws one capture")
        show = self._printer()
        error: InputError | None = None
        readable = skipped = 0
        for path in paths:
            try:
                summary = self._summary(path)
            except InputError as unreadable:
                if skip and isinstance(unreadable, NotACaptureError):
                    skipped += 1
                    continue
                if error:
                    self.account.problem(str(error))
                error = unreadable
            else:
                show(summary)
                readable += 1
            if self.args["--stop-on-error"] and (error or self.account.problems):
                break
        if not readable:
            raise error or InputError("no capture found")
        if error:
            self.account.problem(str(error))
        if skipped and self.command.verbose:
            self.command.say(f"{skipped} files are not captures")
        return self.command.close(self.account)

    def _summary(self, path: str) -> Summary:
        """Read one capture in one pass. Raises InputError."""
        from pcaptools.core._info import Figures
        from pcaptools.core.blocks import Blocks
        from pcaptools.engines.summary import Damage, Summary
        from pcaptools.files.inspect import inspect

        with inspect(path, "H" in self.selection) as inspected:
            blocks = Blocks()
            capture = inspected.capture
            if capture.format != "pcapng":
                blocks.describe_pcap(*capture.interfaces[0][:2], capture.format == "nspcap")
            summary = Summary(path, capture.format, capture.compression, Figures(), blocks)
            takers = self._takers(summary)
            try:
                for batch in self._batches(inspected, blocks):
                    for take in takers:
                        take(batch)
            except DamagedError as damage:
                self.account.problem(str(damage))
                summary.damage = Damage(damage.offset, str(damage).removeprefix(f"{capture.name}: "))
            inspected.finish()
            summary.size, summary.hashes = inspected.size, inspected.digests
        if summary.series:
            summary.series.end()
        if self.args["--plot"] is not None:
            from pcaptools.engines.histogram import KINDS
            from pcaptools.files.plot import SLICES, plot

            plot(self.args["--plot"], path, summary.series.merged(SLICES), KINDS)
        return summary

    def _batches(self, inspected: Inspected, blocks: Blocks) -> Iterator[Batch]:
        from pcaptools.core.pipeline import counted, through

        def described() -> Iterator[Batch]:
            for batch in inspected.batches():
                if batch.pcapng:
                    blocks.feed(batch)
                yield batch

        for batch in through(counted(self.command.watched(described()), self.account), self.transforms):
            self.account.packets_out += batch.n
            yield batch

    def _takers(self, summary: Summary) -> list[Callable[[Batch], None]]:
        """Who counts each batch."""
        takers: list[Callable[[Batch], None]] = [summary.figures.add]
        if "p" in self.selection or self.args["--json"]:
            takers.insert(0, summary.add_comments)
        if self.args["--json"]:
            takers.append(summary.figures.add_detail)
        if self.tables:
            from pcaptools.engines.talkers import ProtocolTable, TalkerTable

            for name in self.tables:
                summary.tables[name] = ProtocolTable() if name == "protocols" else TalkerTable(name, self.by, self.top)
                takers.append(summary.tables[name].feed)
        if self.over_time:
            from pcaptools.engines.histogram import Series

            summary.series = Series()
            takers.append(summary.series.feed)
        return takers

    def _printer(self) -> Callable[[Summary], None]:
        """What prints a capture."""
        if self.args["--json"]:
            return _print_json
        import time

        from pcaptools.engines.report import Report, last_letter

        def last(letters: str) -> str:
            return last_letter(self.words, letters, NAMES)

        report = Report(
            self.selection, machine=self.args["--machine"], seconds=self.args["--epoch-seconds"], clock=time.localtime
        )
        if last("LT") == "T":
            separator = {"m": ",", "b": " "}.get(last("Bmb"), "\t")
            quote = {"q": "'", "Q": '"'}.get(last("NqQ"), "")
            if last("Rr") != "r":
                _print([report.header(separator, quote)])
            return lambda summary: _print([report.row(summary, separator, quote)])
        return self._long_printer(report)

    def _long_printer(self, report: Report) -> Callable[[Summary], None]:
        between: list[str] = []

        def show(summary: Summary) -> None:
            lines = [*between, *report.long(summary), *summary.table_lines()]
            if self.args["--histogram"]:
                from pcaptools.engines.histogram import draw

                lines += draw(summary.series)
            _print(lines)
            between[:] = [""]

        return show


def _print_json(summary: Summary) -> None:
    import json

    _print([json.dumps(summary.record())])


def _print(lines: Iterable[str]) -> None:
    """To standard output; file names and comments keep bytes that are no UTF-8."""
    sys.stdout.buffer.write("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
    sys.stdout.buffer.flush()


def _progress(command: cli.Command) -> Callable[[int, int], None]:
    """Shows how far it is, on a terminal only."""
    if command.quiet or not sys.stderr.isatty():
        return lambda done, total: None

    def show(done: int, total: int) -> None:
        print(
            f"\r{command.name}: {done} of {total} files", end="\n" if done == total else "", file=sys.stderr, flush=True
        )

    return show


def _measure(text: str) -> str:
    if text not in ("bytes", "packets", "time"):
        raise ValueError(f"'{text}' is not bytes, packets or time")
    return text
