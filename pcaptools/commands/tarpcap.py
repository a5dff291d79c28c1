"""tarpcap: captures straight out of tar archives.

Usage:
  tarpcap t [options] [--] [<archive>...]
  tarpcap x [options] [--] [<archive>...]
  tarpcap m [options] [--] [<archive>...]
  tarpcap c [options] [--] [<archive>...]

As with tar, f, v and a letter of compression may follow: tarpcap xf dump.tgz, tarpcap cf new.tgz a.pcap b.pcap.

t lists the captures in tar archives; x writes all of them, in archive order, as one capture to standard output, or
with --separate as they are to files; m writes them and plain captures as one, merged by time; c makes an archive of
files, or of a capture on standard input. Archives (tar, zip) and their members may be plain or compressed (gzip, zstd,
lz4, xz, bzip2, by content). Nothing is unpacked anywhere. An argument with * ? or [ that is no file chooses members.

Options:
  -C, --directory=DIR    The directory for --separate, which it implies.
  --separate             x: write each capture as it is to its own file below DIR, or here.
  --flat                 x: to files without the directories of their names; equal names get numbers.
  --compress=KIND        x: compress these files: gz or zst.
  --dry-run              x: print what would be written, and touch nothing.
  --file-regexp=RE       Only members whose name matches a regular expression.
  --exclude=GLOBS        No members that match one of these patterns, separated by commas.
  --recursive            Look into archives in archives, one level deep.
  --max-ratio=N          What expands more than so many times is damage; 0: nothing is [default: 1000].
  --from=TIME            x, m: only packets from then on (2026-11-21T08:00:00Z, or seconds since the epoch).
  --to=TIME              x, m: only packets before then.
  --index=FILE           m: keep what the first pass over compressed archives found, and use it again.
  --window=SECONDS       m: read once, forward, and sort packets that come at most so much too late.
  --spool=DIR            m: copy captures that cannot be read side by side to a nameless file in DIR.
  --interface-per-member  x, m: with --format=pcapng, one interface for each member, of its name.
  --by=RULE              c: cut the packets into members, by time:SECONDS or size:BYTES.
  -f, --filter=BPF       x, m: keep only the packets that match a libpcap filter expression.
  -w, --write=FILE       Write to FILE instead of standard output; .gz .tgz .zst .lz4 .xz .bz2 compress.
  -F, --format=FORMAT    Write pcap, nspcap or pcapng; nspcap when not given.
  --json                 t: one JSON object a line.
  -q, --quiet            No warnings.
  -v, --verbose          t: format, link type, packets, first and last time, size. Else: the balance at the end.
  --version              Say which version this is.
  -h, --help             Show this text.
"""

from __future__ import annotations

from pcaptools import cli
from pcaptools.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator
    from typing import Any

    from pcaptools.core.batch import Batch
    from pcaptools.core.pipeline import Account, Transform
    from pcaptools.engines.join import Reorder
    from pcaptools.files.entries import Archives
    from pcaptools.files.members import Members

ALWAYS = {"--quiet", "--verbose", "--file-regexp", "--exclude", "--recursive", "--max-ratio"}
PACKETS = {"--from", "--to", "--filter", "--write", "--format", "--interface-per-member"}
FILES = {"--separate", "--directory", "--flat", "--compress", "--dry-run"}
USED = {
    "t": ALWAYS | {"--json"},
    "x": ALWAYS | PACKETS | FILES,
    "m": ALWAYS | PACKETS | {"--index", "--window", "--spool"},
    "c": {"--quiet", "--verbose", "--write", "--format", "--by"},
}
"""The options that go with each letter."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    import sys

    return cli.run(__doc__, _tarpcap, _bundled(sys.argv[1:] if argv is None else argv))


def _bundled(argv: list[str]) -> list[str]:
    """Tar's bundled letters: f is what we do anyway, or names what c writes, v is --verbose, compression is seen."""
    if not argv or argv[0][:1] not in USED or argv[0][1:].strip("fvzjJ"):
        return argv
    letter, others, rest = argv[0][0], argv[0][1:], argv[1:]
    if letter == "c" and "f" in others and rest and not rest[0].startswith("--"):
        rest = [f"--write={rest[0]}", *rest[1:]]
    return [letter, *(["--verbose"] if "v" in others else []), *rest]


def _tarpcap(command: cli.Command) -> int:
    args = command.args
    letter = next(letter for letter in USED if args[letter])
    for option, value in args.items():
        unset = value in (None, False) or (option == "--max-ratio" and value == "1000")
        if option.startswith("--") and option != "--" and not unset and option not in USED[letter]:
            raise UsageError(f"{option} does not go with {letter}")
    return {"t": _list, "x": _extract, "m": _merge, "c": _create}[letter](command)


def _inputs(command: cli.Command) -> tuple[list[str], Callable[[str], bool]]:
    """The archives, and which of their members are wanted."""
    import os

    from pcaptools.files.names import Choice, is_glob

    args = command.args
    patterns = [word for word in args["<archive>"] if is_glob(word) and not os.path.exists(word)]
    paths = [word for word in args["<archive>"] if word not in patterns]
    command.refuse_terminal(paths)
    excluded = (args["--exclude"] or "").split(",") if args["--exclude"] else []
    choice = command.value("--file-regexp", lambda text: Choice(patterns, text, excluded))
    return paths, choice or Choice(patterns, None, excluded)


def _archives(command: cli.Command, account: Account) -> Archives:
    from pcaptools.files.entries import Archives

    paths, wanted = _inputs(command)
    ratio = command.value("--max-ratio", cli.whole) or 0
    return Archives(paths, account.problem, wanted, recursive=command.args["--recursive"], max_ratio=ratio)


def _skipped(command: cli.Command, skipped: int) -> None:
    if command.verbose and skipped:
        command.say(f"{skipped} members are not captures")


def _list(command: cli.Command) -> int:
    """t: print the captures, one a line."""
    from pcaptools.files.listing import describe

    account = command.account()
    archives = _archives(command, account)
    for entry in archives.entries():
        described = describe(archives, entry, account, full=command.verbose)
        if described is None:
            continue
        if command.args["--json"]:
            import json

            print(json.dumps(described))
            continue
        fields = ("format", "linktypes", "packets", "first", "last", "size") if command.verbose else ()
        values = [",".join(value) if isinstance(value := described[field], list) else value for field in fields]
        print(*("-" if value in (None, "") else value for value in values), cli.printable(entry.name), sep="\t")
    _skipped(command, archives.skipped)
    archives.check()
    return account.status


def _extract(command: cli.Command) -> int:
    """x: as one capture, or as files."""
    account = command.account()
    args = command.args
    if any(args[option] for option in FILES - {"--dry-run"}):
        return _separate(command, account)
    archives = _archives(command, account)
    if args["--dry-run"]:
        for entry in archives.entries():
            if archives.open(entry):
                print(cli.printable(entry.name))
        archives.check()
        return account.status
    current: list[str] = []

    def batches() -> Iterator[Batch]:
        from pcaptools.files.inputs import sound

        for entry in archives.entries():
            capture = archives.open(entry)
            if capture:
                current.append(entry.name)
                yield from sound(capture, account)

    def check() -> None:
        _skipped(command, archives.skipped)
        archives.check()

    return _write(command, account, batches(), lambda k: ((len(current), k), current[-1]), check)


def _separate(command: cli.Command, account: Account) -> int:
    """x --separate: each capture to its own file."""
    from pcaptools.files.extract import KINDS, Extraction

    args = command.args
    useless = [option for option in sorted(PACKETS) if args[option] not in (None, False)]
    if useless:
        raise UsageError(f"--separate writes the captures as they are: {useless[0]} does not go with it")
    if args["--compress"] not in (None, *KINDS):
        raise UsageError(f"--compress: '{args['--compress']}' is neither gz nor zst")
    archives = _archives(command, account)
    dry = args["--dry-run"]
    told = (lambda path: print(cli.printable(path))) if dry else (lambda path: None)
    extraction = Extraction(
        args["--directory"] or ".", archives, flat=args["--flat"], compress=args["--compress"], dry=dry, told=told
    )
    extraction.run()
    if command.verbose:
        command.say(f"{extraction.extracted} of {archives.captures} captures extracted")
    _skipped(command, archives.skipped)
    archives.check()
    return account.status


def _write(
    command: cli.Command, account: Account, batches: Iterator[Batch], naming: Callable[[int], tuple[Hashable, str]],
    check: Callable[[], None], reorder: list[Reorder] | tuple[()] = (),
) -> int:  # fmt: skip
    """Write what comes as one capture."""
    from pcaptools.core import pipeline
    from pcaptools.files.output import Output
    from pcaptools.files.writer import Writer

    transforms = [*_chosen(command, account), *_converted(command, account, naming), *reorder]
    with Writer(Output(command.args["--write"])) as sink:
        pipeline.run(command.watched(batches), transforms, sink, account)
        check()
    return command.close(account)


def _chosen(command: cli.Command, account: Account) -> list[Transform]:
    """The packets that are wanted."""
    transforms = command.filter(account)
    if command.args["--from"] is None and command.args["--to"] is None:
        return transforms
    from pcaptools.core.times import parse_time
    from pcaptools.engines.period import Period

    first, last = command.value("--from", parse_time), command.value("--to", parse_time)
    if first is not None and last is not None and first >= last:
        raise UsageError("--from is not before --to: nothing lies between them")
    return [Period(first, last, account), *transforms]


def _converted(
    command: cli.Command, account: Account, naming: Callable[[int], tuple[Hashable, str]]
) -> list[Transform]:
    """To the one format of the output."""
    from pcaptools.engines.convert import ToPcap
    from pcaptools.engines.join import ToInterfaces

    wanted = command.format() or "nspcap"
    per_member = command.args["--interface-per-member"]
    if per_member and wanted != "pcapng":
        raise UsageError("--interface-per-member needs --format=pcapng: other formats have one interface")
    if wanted == "pcapng":
        return [ToInterfaces(naming if per_member else None)]
    return [ToPcap(account, nanoseconds=wanted == "nspcap")]


def _merge(command: cli.Command) -> int:
    """m: captures and members on one timeline."""
    from pcaptools.files.index import Kept
    from pcaptools.files.members import Members

    args = command.args
    account = command.account()
    paths, wanted = _inputs(command)
    together = [option for option in ("--window", "--spool", "--index") if args[option] is not None]
    if "--window" in together and len(together) > 1:
        raise UsageError(f"--window reads forward once: {together[1]} does not go with it")
    kept = Kept(args["--index"], args["--recursive"]) if args["--index"] is not None else None
    ratio = command.value("--max-ratio", cli.whole) or 0
    with Members(
        paths, account.problem, wanted,
        recursive=args["--recursive"], max_ratio=ratio, spool=args["--spool"], kept=kept,
    ) as members:  # fmt: skip
        return _in_turn(command, account, members) if args["--window"] else _side_by_side(command, account, members)


def _side_by_side(command: cli.Command, account: Account, members: Members) -> int:
    from pcaptools.engines.merge import Merge, Source

    found = members.all()
    merge = Merge([Source(due.first, due.open) for due in found])

    def naming(k: int) -> tuple[Hashable, str]:
        return k, found[merge.source_of(k)].name

    return _write(command, account, iter(merge), naming, members.check)


def _in_turn(command: cli.Command, account: Account, members: Members) -> int:
    """m --window."""
    from pcaptools.core.times import parse_span
    from pcaptools.engines.join import Reorder

    reorder = Reorder(command.value("--window", parse_span) or 0)
    current: list[str] = []

    def batches() -> Iterator[Batch]:
        for name, found in members.serial():
            current.append(name)
            yield from found

    def check() -> None:
        members.check()
        if reorder.late:
            account.problem(
                f"{reorder.late} packets are out of order: they came later than the window of "
                f"{command.args['--window']} s allows; give a longer one"
            )

    return _write(command, account, batches(), lambda k: ((len(current), k), current[-1]), check, [reorder])


def _create(command: cli.Command) -> int:
    """c: an archive."""
    from pcaptools.errors import InputError
    from pcaptools.files.create import Tar, add_files
    from pcaptools.files.output import Output

    args = command.args
    account = command.account()
    paths = args["<archive>"]
    cut = args["--by"] is not None or not paths or "-" in paths
    if not cut and args["--format"] is not None:
        raise UsageError("--format: files are stored as they are; it goes with --by")
    command.refuse_terminal(paths)
    with Output(args["--write"]) as output:
        tar = Tar(output)
        if cut:
            _cut(command, account, paths, tar)
        else:
            add_files(tar, paths, account.problem)
        if not tar.members:
            raise InputError("nothing to put into the archive")
        tar.finish()
    return command.close(account) if cut else account.status


def _cut(command: cli.Command, account: Account, paths: list[str], tar: Any) -> None:
    """c --by: the packets of all captures as members."""
    from pcaptools.core import pipeline
    from pcaptools.engines.convert import ToPcap
    from pcaptools.engines.parts import MOST, Parts, Rule, parse_rule
    from pcaptools.files.inputs import captures, sound

    parts = Parts(command.value("--by", parse_rule) or Rule(0, MOST))
    wanted = command.format()
    if wanted == "pcapng":
        raise UsageError("--format: what is cut into members is pcap or nspcap")
    inputs = captures(paths, account)
    first = next(inputs)

    def batches() -> Iterator[Batch]:
        yield from sound(first, account)
        for capture in inputs:
            yield from sound(capture, account)

    def add(found: Iterator[bytearray]) -> None:
        for part in found:
            tar.add(f"{tar.members + 1:06}.pcap", len(part), iter([part]))

    nanoseconds = wanted == "nspcap" if wanted else first.format != "pcap" or len(paths) > 1
    pipeline.run(batches(), [ToPcap(account, nanoseconds=nanoseconds)], lambda batch: add(parts.feed(batch)), account)
    add(parts.finish())
