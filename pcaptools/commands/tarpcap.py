"""tarpcap: captures straight out of tar archives.

Usage:
  tarpcap t [options] [--] [<archive>...]
  tarpcap x [options] [--] [<archive>...]

As with tar, f, v and a letter of compression may follow: tarpcap xf dump.tgz.

t lists the captures in tar archives; x writes all of them, in archive order, as one capture to standard output, or as
they are into a directory. Archives and their members may be plain or compressed (gzip, zstd, lz4, xz, bzip2, by
content); an archive is read once, forward, from a file or from standard input, and nothing is unpacked anywhere.

Options:
  -C, --directory=DIR    With x: write each capture as it is to its own file below DIR.
  -f, --filter=BPF       Keep only the packets that match a libpcap filter expression.
  -w, --write=FILE       Write to FILE instead of standard output; .gz .zst .lz4 .xz .bz2 compress.
  -F, --format=FORMAT    Write pcap, nspcap or pcapng; nspcap when not given.
  -q, --quiet            No warnings.
  -v, --verbose          t: format, link type, packets, first and last time, size. x: the balance at the end.
  --version              Say which version this is.
  -h, --help             Show this text.
"""

from __future__ import annotations

from pcaptools import cli
from pcaptools.errors import DamagedError, InputError, NotACaptureError, OutputError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pcaptools.core.batch import Batch
    from pcaptools.core.pipeline import Account, Transform
    from pcaptools.files.archive import Member, SafeDirectory
    from pcaptools.files.capture import Capture

PIECE = 1 << 20
"""Bytes copied at a time; as many as bzip2 needs to show what it holds."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    import sys

    return cli.run(__doc__, _tarpcap, _bundled(sys.argv[1:] if argv is None else argv))


def _bundled(argv: list[str]) -> list[str]:
    """Tar's bundled letters: f is what we do anyway, v is --verbose, compression is seen by content."""
    if not argv or argv[0][:1] not in ("t", "x") or argv[0][1:].strip("fvzjJ"):
        return argv
    verbose = ["--verbose"] if "v" in argv[0] else []
    return [argv[0][0], *verbose, *argv[1:]]


def _tarpcap(command: cli.Command) -> int:
    args = command.args
    archives = _Archives(command)
    command.refuse_terminal(args["<archive>"])
    useless = [option for option in ("--filter", "--write", "--format") if args[option] is not None]
    if args["t"]:
        if useless or args["--directory"] is not None:
            raise UsageError(f"t only lists: {(useless or ['--directory'])[0]} does not go with it")
        return archives.list()
    if args["--directory"] is not None:
        if useless:
            raise UsageError(f"-C writes the captures as they are: {useless[0]} does not go with it")
        return archives.extract(args["--directory"])
    return archives.join()


class _Archives:
    """The archives of one run and what was found in them."""

    def __init__(self, command: cli.Command) -> None:
        self.command = command
        self.account: Account = command.account()
        self.captures = 0
        self.skipped = 0

    def members(self) -> Iterator[tuple[str, Member]]:
        """The regular files in all archives, with the name that messages call them."""
        from functools import partial

        from pcaptools.files import archive
        from pcaptools.files.streams import decompressed, name_of, open_raw

        for path in self.command.args["<archive>"] or ["-"]:
            name = name_of(path)
            raw = open_raw(path)
            try:
                stream = decompressed(raw, name)
                for member in archive.members(stream, name, partial(self._problem, name)):
                    if member.kind == "file":
                        yield f"{name}: {member.name}", member
                    else:
                        self.skipped += member.kind != "directory"
            except DamagedError as damage:
                self._problem(name, str(damage))
            except OSError as error:
                raise InputError(f"{name}: {error.strerror or error}") from None
            finally:
                raw.close()

    def _problem(self, name: str, message: str) -> None:
        self.account.problem(f"{name}: {message}")

    def _open(self, stream: Any, name: str) -> Capture | None:
        """The capture in a member; None, counted, when it holds something else or cannot be read."""
        from pcaptools.files.capture import Capture

        try:
            capture = Capture(stream, name)
        except NotACaptureError:
            self.skipped += 1
            return None
        except InputError as error:
            self.account.problem(str(error))
            return None
        self.captures += 1
        return capture

    def _end(self) -> int:
        """Exit status, after saying what was skipped. Raises InputError when nothing was found."""
        if self.command.verbose and self.skipped:
            self.command.say(f"{self.skipped} members are not captures")
        if not self.captures:
            raise InputError(f"no capture in {', '.join(self.command.args['<archive>']) or 'the archive'}")
        return self.account.status

    def list(self) -> int:
        """Print the captures, one a line."""
        for name, member in self.members():
            capture = self._open(member, name)
            if capture:
                details = self._describe(capture, member) if self.command.verbose else ""
                print(details + cli.printable(member.name))
        return self._end()

    def _describe(self, capture: Capture, member: Member) -> str:
        from pcaptools.core import linktype
        from pcaptools.files.inputs import sound

        times = [time for batch in sound(capture, self.account) for time in batch.time_range()]
        links = dict.fromkeys(linktype.name(interface[0]) for interface in capture.interfaces)
        first, last = (_time(min(times)), _time(max(times))) if times else ("-", "-")
        fields = (capture.format, ",".join(links) or "-", str(capture.packets), first, last, str(member.size))
        return "".join(field + "\t" for field in fields)

    def extract(self, directory: str) -> int:
        """Write each capture below `directory`."""
        from pcaptools.files.archive import SafeDirectory
        from pcaptools.files.streams import Prefixed, read_head

        extracted = 0
        with SafeDirectory(directory) as target:
            for name, member in self.members():
                try:
                    head = read_head(member, PIECE)
                    if self._open(Prefixed(head, _Nothing()), name):
                        _copy(member, head, target)
                        extracted += 1
                except (DamagedError, OutputError) as error:
                    self.account.problem(f"{name}: {error}")
        if self.command.verbose:
            self.command.say(f"{extracted} of {self.captures} captures extracted")
        return self._end()

    def join(self) -> int:
        """Write all captures as one."""
        from pcaptools.core import pipeline
        from pcaptools.engines.convert import converter
        from pcaptools.files.output import Output
        from pcaptools.files.writer import Writer

        transforms: list[Transform] = self.command.filter(self.account)
        transforms += converter(self.command.format(), "", True, self.account)
        with Writer(Output(self.command.args["--write"])) as sink:
            pipeline.run(self._batches(), transforms, sink, self.account)
            self._end()
        return self.command.close(self.account)

    def _batches(self) -> Iterator[Batch]:
        from pcaptools.files.inputs import sound

        for name, member in self.members():
            capture = self._open(member, name)
            if capture:
                yield from sound(capture, self.account)


class _Nothing:
    """The end of a stream."""

    def readinto(self, buffer: Any) -> int:
        return 0


def _copy(member: Member, head: bytes, target: SafeDirectory) -> None:
    """Write a member's bytes; an unfinished file is removed."""
    from pcaptools.files.streams import read_head

    with target.create(member.name) as file:
        try:
            while head:
                file.write(head)
                head = read_head(member, PIECE)
        except BaseException:
            target.remove(member.name)
            raise


def _time(ns: int) -> str:
    """RFC 3339, in UTC, to the ns."""
    import datetime

    seconds, fraction = divmod(ns, 1_000_000_000)
    whole = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
    return f"{whole.isoformat()}.{fraction:09}Z"
