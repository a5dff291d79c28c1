"""pcapsplit-flows: one capture in, one capture per flow out.

Usage:
  pcapsplit-flows [options] [--] [<capture>...]

Writes the packets of every flow to a file of its own, IN_flow-1.pcap, IN_flow-2.pcap, ... in order of first packets,
beside the input; packets without a flow to IN_other.pcap. Every packet goes to exactly one file. Reads pcap or pcapng,
plain or compressed, standard input when none is named; several captures are read as one.

Options:
  --by=WHAT              What makes a file: connection (when not given), hosts, client, server, server-port,
                         client-port, source, destination, vlan, link, interface, protocol, count:N, size:BYTES,
                         time:SECONDS, files:N (flows spread over N files), filter:BPF (match and rest).
  --inner                Look at the innermost IP layer of tunnels instead of the outermost.
  --ignore-vlan          Packets of different VLANs may be of one flow.
  --timeout=SECONDS      Idle time that ends a flow, 300 when not given, 0 for none; not that of an open connection.
  --tcp-timeout=SECONDS  Idle time that ends an open TCP connection; none when not given.
  --icmp-errors=WHERE    follow (when not given) the flow that they quote, or make their own.
  --related=LIST         One file for a flow and what it caused: dns, sip, ftp, http, or several of them.
  --drop-other           Count the packets without a flow, and do not write them.
  -f, --filter=BPF       Take only the packets that match a libpcap filter expression.
  --min-packets=N        Write only files of so many packets at least.
  --complete             Write only TCP connections from SYN to FIN or RST.
  --top=N                Write only the N files with the most packets.
  -d, --directory=DIR    Write to DIR, made when missing.
  --name=TEMPLATE        Name files by {n} {proto} {src} {sport} {dst} {dport} {client} {server} {vlan} {start} {input}.
  --force                Replace files that exist.
  -F, --format=FORMAT    Write pcap, nspcap or pcapng; the input's format when not given.
  --compress=KIND        Compress files: gz or zst.
  --manifest=FILE        Describe every flow in FILE: lines of JSON, or CSV where its name ends with .csv.
  -l, --list             Print a table of the flows and write no captures.
  --tar                  Write the captures as one tar archive to standard output, and no files.
  --exec=CMD             Run CMD by the shell on every finished file; {} in it is the file's name.
  --memory=MIB           Hold so much of a pipe in memory, 256 when not given.
  -q, --quiet            No warnings.
  -v, --verbose          Say at the end how many packets came in, went out and why not, and how many files there are.
  --version              Say which version this is.
  -h, --help             Show this text.
"""

from __future__ import annotations

from pcaptools import cli
from pcaptools.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import ExitStack

    from pcaptools.core.batch import Batch
    from pcaptools.engines.flows import Marker
    from pcaptools.engines.splitting import Splitter, Store, Writer
    from pcaptools.files.capture import Capture

MEMORY = 256
"""MiB of a pipe that are held."""

SUFFIXES = {None: None, "gz": "gzip", "zst": "zstd"}


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    return cli.run(__doc__, _split, argv)


def _split(command: cli.Command) -> int:
    from contextlib import ExitStack

    run = _Run(command)
    command.refuse_terminal(command.args["<capture>"])
    with ExitStack() as stack:
        run.split(stack)
    return command.close(run.account)


class _Run:
    """What was asked for, and the parts that do it."""

    def __init__(self, command: cli.Command) -> None:
        from pcaptools.engines import flows, naming

        args = command.args
        self.command = command
        self.account = command.account()
        self.paths: list[str] = args["<capture>"]
        self.by = command.value("--by", flows.parse_by) or flows.parse_by("connection")
        least, top = command.value("--min-packets", cli.whole) or 0, command.value("--top", cli.whole)
        self.choice = flows.Choice(least, args["--complete"], top)
        self.related = command.value("--related", flows.parse_related) or 0
        self.template = command.value("--name", naming.parse_template)
        timeout = command.value("--timeout", flows.parse_timeout)
        self.timeout = flows.TIMEOUT if timeout is None else timeout
        self.open_timeout = command.value("--tcp-timeout", flows.parse_timeout) or 0
        self.own_errors = command.value("--icmp-errors", cli.one_of("follow", "own")) == "own"
        self.compression = SUFFIXES[command.value("--compress", cli.one_of("gz", "zst"))]
        self.memory = (command.value("--memory", _megabytes) or MEMORY) << 20
        self.format = command.format()
        self.manifest: str | None = command.args["--manifest"]
        self.where: Callable[[], float] | None = None
        self._check(args)

    def _check(self, args: cli.Args) -> None:
        """Raises UsageError for what does not go together."""
        for one, others in (("--tar", ("--exec", "--list", "--force")), ("--list", ("--exec", "--compress"))):
            for option in others:
                if args[one] and args[option]:
                    raise UsageError(f"{option} does not go with {one}")
        if self.related and self.by.name != "connection":
            raise UsageError(f"--related does not go with --by {self.by.name}")
        if args["--tar"] and self.manifest == "-":
            raise UsageError("--tar and --manifest=- both write to standard output")

    def split(self, stack: ExitStack) -> None:
        """Do it, up to what leaving the stack does."""
        args = self.command.args
        batches, capture, store = self._input(stack)
        splitter = self._splitter(stack, capture, store)
        for batch in self.command.watched(batches, self.where):
            splitter.feed(batch)
        splitter.finish()
        self._describe(splitter)
        if self.command.verbose and not args["--list"]:
            self.command.say(f"{len(splitter.names)} {'file' if len(splitter.names) == 1 else 'files'}")
        if self.command.verbose and splitter.table.other_blocks:
            self.command.say(f"{splitter.table.other_blocks} blocks that are no packets are in none of them")

    def _input(self, stack: ExitStack) -> tuple[Iterable[Batch], Capture, Store]:
        """The batches, the first capture, and what keeps the bytes."""
        from pcaptools.core.pipeline import counted, through
        from pcaptools.engines.convert import converter
        from pcaptools.files import store
        from pcaptools.files.capture import Capture
        from pcaptools.files.inputs import captures, sound
        from pcaptools.files.streams import name_of, open_raw

        inputs: Iterator[Capture]
        start = None
        raw = None
        if len(self.paths) > 1:
            inputs = captures(self.paths, self.account)
        else:
            path = self.paths[0] if self.paths else None
            raw = stack.enter_context(open_raw(path))
            start = store.plain_start(raw)
            inputs = iter((Capture(raw, name_of(path)),))
        first = next(inputs)

        def batches() -> Iterator[Batch]:
            yield from sound(first, self.account, ahead=2)
            for capture in inputs:
                yield from sound(capture, self.account, ahead=2)

        transforms = self.command.filter(self.account) if self.by.expression else []
        transforms += converter(self.format, first.format, len(self.paths) > 1, self.account)
        source = through(counted(batches(), self.account), transforms)
        self.where = store.position(raw) if raw is not None and self.command.progress else None
        if self.command.args["--list"]:
            return source, first, store.Store()
        if raw is not None and start is not None and not transforms:
            return source, first, store.Mapped(raw, start)
        return source, first, store.Held(self.memory, self._directory() or "." if self._waits() else None)

    def _waits(self) -> bool:
        """Whether nothing may be written before the end of the input."""
        return bool(self.related or self.command.args["--tar"] or self.choice != type(self.choice)())

    def _directory(self) -> str:
        """Where files go: beside the input, unless said otherwise."""
        given: str | None = self.command.args["--directory"]
        if given is not None:
            return given
        directory, slash, _ = self.paths[0].rpartition("/") if self.paths else ("", "", "")
        return "" if self.command.args["--tar"] else directory or slash

    def _splitter(self, stack: ExitStack, capture: Capture, store: Store) -> Splitter:
        import os

        from pcaptools.core._flows import FlowTable
        from pcaptools.engines.naming import Names
        from pcaptools.engines.splitting import Splitter

        args = self.command.args
        pcapng = (self.format or ("nspcap" if len(self.paths) > 1 else capture.format)) == "pcapng"
        table = FlowTable(
            by=self.by.by, grouping=self.by.grouping, limit=self.by.limit, files=self.by.files, inner=args["--inner"],
            ignore_vlan=args["--ignore-vlan"], own_icmp_errors=self.own_errors, timeout=self.timeout,
            open_timeout=self.open_timeout, tells=self.related, keep=not args["--list"], pcapng=pcapng,
            seed=int.from_bytes(os.urandom(8), "little"),
        )  # fmt: skip
        suffix = (".pcapng" if pcapng else ".pcap") + (f".{args['--compress']}" if self.compression else "")
        base = self.paths[0].rpartition("/")[2] if self.paths and self.paths[0] != "-" else "stdin"
        naming = Names(base, suffix, self.by, self.template)
        splitter = Splitter(
            table, store, None, naming, self.account, choice=self.choice, drop_other=args["--drop-other"],
            marker=self._marker(), related=bool(self.related),
        )  # fmt: skip
        splitter.writer = self._writer(stack, splitter)
        return splitter

    def _marker(self) -> Marker | None:
        expression = self.by.expression or self.command.args["--filter"]
        if not expression:
            return None
        from pcaptools.engines.flows import Marker
        from pcaptools.files.bpf import compile_filter

        return Marker(expression, compile_filter, strict=not self.by.expression)

    def _writer(self, stack: ExitStack, splitter: Splitter) -> Writer | None:
        args = self.command.args
        if args["--list"]:
            return None
        if args["--tar"]:
            from pcaptools.files.tarball import Tar

            return stack.enter_context(Tar(self.compression, self._directory(), splitter.last_second))
        from pcaptools.files.many import Directory

        done = None
        if args["--exec"] is not None:
            from pcaptools.files.execute import Commands

            done = stack.enter_context(Commands(args["--exec"], self.account.problem))
        progress = self.command.progress
        return Directory(
            self._directory(), compression=self.compression, force=args["--force"], keep=self.paths, done=done,
            told=progress.show if progress else None,
        )  # fmt: skip

    def _describe(self, splitter: Splitter) -> None:
        """Print the list, and write the manifest."""
        listed = self.command.args["--list"]
        if not listed and self.manifest is None:
            return
        from pcaptools.engines.manifest import Manifest
        from pcaptools.files.output import Output

        if listed and self.manifest is not None:
            splitter.name_all()
        written = getattr(splitter.writer, "written", splitter.names)
        manifest = Manifest(splitter.table, self.by, written, splitter.left_out)
        if listed:
            import sys

            sys.stdout.writelines(manifest.lines())
        if self.manifest is not None:
            with Output(self.manifest) as output:
                for piece in manifest.csv() if ".csv" in self.manifest.rpartition("/")[2] else manifest.json():
                    output.write(piece)


def _megabytes(text: str) -> int:
    size = cli.whole(text)
    if not 0 < size < 1 << 20:
        raise ValueError(f"'{text}' is not a number of MiB from 1 to {(1 << 20) - 1}")
    return size
