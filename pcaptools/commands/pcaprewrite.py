"""pcaprewrite: edit packets of a capture.

Usage:
  pcaprewrite [options] [--pnat MAP ...] [--portmap MAP ...] [--enet-subsmac MACS ...] [--user-dlink HEX ...] [--] [<capture>...]

Reads captures (pcap or pcapng, plain or compressed; standard input when none is named), edits them and writes one
capture. Without options the output is the input, byte for byte. Checksums always follow an edit: a right one stays
right, a wrong one stays wrong. All options of tcprewrite that edit are there under its names, unless said otherwise.

Options:
  -i, --infile=FILE      Read this capture.
  -o, --outfile=FILE     Write to FILE, as --write.
  -S, --srcipmap=MAP     Map source addresses: CIDR:CIDR[,CIDR:CIDR...], the first that fits; IPv6 in brackets.
  -D, --dstipmap=MAP     Map destination addresses.
  -N, --pnat=MAP         Map both; given twice, the first is for the clients' side, the second for the servers'.
  -e, --endpoints=PAIR   IP1:IP2: everything becomes traffic between two hosts.
  --ipmap=MAP            Map source and destination addresses alike.
  --map=FILE             The same, from FILE with lines FROM,TO; the longest prefix wins.
  -s, --seed=N           Randomise addresses as tcprewrite does: different hosts may become one.
  -b, --skipbroadcast    Multicast addresses stay under --pnat, --endpoints and --seed.
  --anonymize=KEY        Replace all addresses, one to one, by key: KEY[:prefix-preserving] or KEY:random.
  --anonymize-mac=MODE   With --anonymize, MAC addresses: full, vendor (the vendor's part stays), keep.
  --anonymize-payload=M  Payloads: zero, random, or drop (cut off, as by a snap length).
  --keep-metadata        With --anonymize, comments, names and secrets of a pcapng stay.
  --dns-map              Addresses in DNS answers follow the maps.
  --report-leaks         Count the packets whose payload holds an address that was changed.
  --outer                Edit the outermost IP layer. This is the default, but with --anonymize.
  --inner                Edit the innermost IP layer.
  --all-layers           Edit every IP layer and every Ethernet header of a tunnel.
  -r, --portmap=MAP      Map ports of TCP and UDP: FROM:TO[,FROM:TO...]; FROM is a port, A-B or A+B+C.
  --tcp-sequence=N       Shift all TCP sequence numbers by a number derived from N.
  --ttl=TTL              Set the TTL or hop limit to N, or change it by +N or -N.
  --tos=N                Set the TOS byte of IPv4.
  --tclass=N             Set the traffic class of IPv6.
  --flowlabel=N          Set the flow label of IPv6.
  -C, --fixcsum          Recompute the checksums of IPv4, TCP, UDP, UDP-Lite, ICMP, ICMPv6, IGMP, SCTP and OSPFv3.
  --fixhdrlen            Set the length fields of IP to what the frame has.
  -m, --mtu=N            The MTU of --mtu-trunc; 1500 when not given.
  --mtu-trunc            Cut packets to the MTU.
  -F, --fixlen=MODE      Packets that a snap length cut: pad with zeros, trunc (adjust lengths), del (leave out).
  -E, --efcs             Take 4 bytes of frame check sequence from the end.
  --snaplen=N            Keep at most N bytes of each packet.
  --chop=BYTES           Cut N bytes from the start, -N from the end; OFFSET:N from behind an offset; both by a comma.
  --chop-length          --chop changes the length on the wire too.
  --dlt=TYPE             Output link type: enet, raw, null, loop, linuxsll, linuxsll2, hdlc, ppp, pppserial or user.
  --enet-dmac=MAC        Set the destination MAC address; MAC,MAC: of packets from the client and from the server.
  --enet-smac=MAC        Set the source MAC address, likewise.
  --enet-subsmac=MACS    OLD,NEW: replace a MAC address wherever it stands in an Ethernet header.
  --enet-mac-seed=N      Randomise MAC addresses as tcprewrite does.
  --enet-mac-seed-keep-bytes=N  The first N bytes stay.
  --skipl2broadcast      Broadcast and multicast addresses stay under --enet-smac and --enet-dmac.
  --enet-vlan=MODE       add or del the outermost VLAN tag.
  --enet-vlan-tag=N      Its VLAN.
  --enet-vlan-cfi=N      Its CFI or DEI bit.
  --enet-vlan-pri=N      Its priority.
  --enet-vlan-proto=NAME  802.1q or 802.1ad.
  --vlan-push=VLANS      Add tags, the last one becomes the outermost: ID[.PRIORITY[.DEI]][,...]; 802.1ad:ID...
  --vlan-pop=N           Take N tags away, or all.
  --vlan-translate=MAP   OLD:NEW[,A-B:NEW...]: other VLANs, at any depth.
  --decap                Take tunnels, labels and PPPoE away: the innermost packet remains.
  --hdlc-control=N       Control byte of --dlt=hdlc.
  --hdlc-address=N       Address byte of --dlt=hdlc.
  --user-dlt=N           Link type of --dlt=user.
  --user-dlink=HEX       Link header of --dlt=user, as 0f,00,08,00; a second one is for packets from the client.
  --fuzz-seed=N          Damage the payload of some packets.
  --fuzz-factor=N        About one packet in N; 8 when not given.
  --shift=TIME           Add to all times: seconds, or with a unit: 1.5, -20ms, 100ns.
  --scale=X              Multiply the time between packets.
  --start=TIME           The first packet gets this time: a date such as 2026-11-21T08:00:00Z, or seconds since 1970.
  --monotonic            No packet is earlier than the one before it.
  --min-gap=TIME         At least so much time between two packets.
  --reorder=TIME         Sort packets by time that are at most so late.
  -f, --filter=BPF       Keep only the packets that match a libpcap filter expression.
  --packets=LIST         Keep only these packets: 1-10,20,30-
  --from=TIME            Keep only packets from this time on.
  --to=TIME              Keep only packets before this time.
  --sample=N             Keep every Nth of these.
  --dedup                Leave out packets that are there twice.
  --dedup-window=W       Within so many packets, or seconds as 0.5s; 1000 packets when not given.
  --edit-only            What is not kept by these passes unedited instead.
  --skip-soft-errors     Leave out packets that cannot be edited.
  --comment=TEXT         Add a comment to the capture (pcapng).
  --strip-comments       Drop all comments.
  --discard-secrets      Drop decryption secrets.
  -c, --cachefile=FILE   Take directions from a cache of tcpprep.
  --load-opts=FILE       Read more options from FILE: lines of NAME VALUE.
  --compat=TOOL          Do as tcprewrite does, mistakes included: all other arguments are tcprewrite's.
  --dry-run              Write no capture.
  --report               Print what was done, by rule.
  --json                 Print it as one JSON object.
  -w, --write=FILE       Write to FILE instead of standard output; .gz .zst .lz4 .xz .bz2 compress.
  --format=FORMAT        Write pcap, nspcap or pcapng; the input's format when not given.
  -q, --quiet            No warnings.
  -v, --verbose          Say at the end how many packets came in, went out and why not.
  --version              Say which version this is.
  -h, --help             Show this text.
"""  # noqa: E501

from __future__ import annotations

import sys

from pcaptools import cli
from pcaptools.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar

    from pcaptools.core._edits import Table
    from pcaptools.core.batch import Batch
    from pcaptools.core.pipeline import Account, Transform
    from pcaptools.engines.edited import Edited

    Value = TypeVar("Value")


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    for at, word in enumerate(argv):
        if word == "--compat" or word.startswith("--compat="):
            return cli.run(*_compatible(argv, at))
    return cli.run(__doc__, _edit, argv, _presets(__doc__))


# ---- as tcprewrite does ----


def _compatible(argv: list[str], at: int) -> tuple[str, Callable, list[str], Callable]:
    from pcaptools.engines.compat import USAGE

    tool = argv[at].partition("=")[2] or "".join(argv[at + 1 : at + 2])
    rest = argv[:at] + argv[at + (1 if "=" in argv[at] else 2) :]

    def prepared(argv: list[str]) -> list[str]:
        if tool != "tcprewrite":
            raise UsageError(f"--compat: '{tool}' is not tcprewrite")
        return _presets(USAGE)(argv)

    return USAGE, _as_tcprewrite, rest, prepared


def _as_tcprewrite(command: cli.Command) -> int:
    from pcaptools.core import pipeline
    from pcaptools.engines.compat import Compat
    from pcaptools.files.capture import open_capture
    from pcaptools.files.inputs import sound
    from pcaptools.files.output import Output
    from pcaptools.files.writer import Writer

    args = command.args
    for option in ("--infile", "--outfile"):
        if args[option] is None:
            raise UsageError(f"{option} is missing")
    account = command.account()
    transform = _valued(lambda: Compat(args, _cache(args), account))
    capture = open_capture(args["--infile"])
    transform.nanoseconds = capture.format != "pcap"
    with Writer(Output(args["--outfile"])) as sink:
        pipeline.run(sound(capture, account), [transform], sink, account)
    return command.close(account)


# ---- our way ----


def _edit(command: cli.Command) -> int:
    from pcaptools.core import pipeline
    from pcaptools.engines.convert import converter
    from pcaptools.files.inputs import captures, sound
    from pcaptools.files.output import Output
    from pcaptools.files.writer import Writer

    args = command.args
    paths = args["<capture>"] + ([args["--infile"]] if args["--infile"] is not None else [])
    if args["--outfile"] is not None and args["--write"] is not None:
        raise UsageError("--outfile and --write contradict each other")
    account = command.account()
    wanted = command.format()
    transforms, told = _transforms(command, account)
    command.refuse_terminal(paths)

    inputs = captures(paths, account)
    first = next(inputs)

    def batches() -> Iterator[Batch]:
        yield from sound(first, account)
        for capture in inputs:
            yield from sound(capture, account)

    transforms += converter(wanted, first.format, len(paths) > 1, account)
    transforms += _comment(command, wanted or ("nspcap" if len(paths) > 1 else first.format))
    if args["--dry-run"]:
        pipeline.run(command.watched(batches()), transforms, lambda batch: None, account)
    else:
        with Writer(Output(args["--write"] or args["--outfile"])) as sink:
            pipeline.run(command.watched(batches()), transforms, sink, account)
    if told:
        told.tell(command.say, account, verbose=command.verbose)
        if args["--report"] or args["--json"]:
            free = args["--dry-run"] or (args["--write"] or args["--outfile"]) not in (None, "-")
            print(told.report(account, json=args["--json"]), file=sys.stdout if free else sys.stderr)
    return command.close(account)


def _transforms(command: cli.Command, account: Account) -> tuple[list[Transform], Edited | None]:
    """What the options ask for, in the order in which it applies, and who tells of it."""
    given_any = (
        value not in (None, False, [])
        for name, value in command.args.items()
        if name[:2] == "--" and name not in _PLAIN
    )
    if not any(given_any):
        return (command.filter(account), None)
    from pcaptools.engines import edits
    from pcaptools.engines.edited import Edited

    args = command.args
    given = _valued(lambda: edits.checked(args))
    for text in edits.warnings(given, verbose=command.verbose):
        command.warn(text)
    table = _table(command)
    cache = _cache(args)
    transforms: list[Transform] = []
    if cache is not None or edits.two_sided(given, args):
        transforms.append(edits.Direct(account, cache))
    transforms += _choosers(command, given, account)
    transforms += edits.retiming(given, args, account)
    watch = edits.Watch() if args["--report"] or args["--json"] else None
    job = edits.job(given, args, table)
    shape = edits.reshape(given, args, account)
    rewrite = edits.rewrite(job, args["--fixcsum"], shape)
    transforms += [part for part in (watch, edits.metadata(given, args, job), shape, rewrite) if part]
    if job:
        transforms.append(edits.Sweep(account, job))
    return transforms, Edited(given, job, shape, rewrite, watch, args)


_PLAIN = {"--filter", "--write", "--outfile", "--infile", "--format", "--quiet", "--verbose", "--load-opts"}


def _choosers(command: cli.Command, given: dict[str, Any], account: Account) -> list[Transform]:
    from pcaptools.engines.choose import ALWAYS, Choose, Deduplicate, Spare

    args = command.args
    spare = args["--edit-only"]
    book = None if spare else account
    chosen: list[Transform] = command.filter(book)
    if any(name in given for name in ("--packets", "--from", "--to")):
        period = given.get("--from", ALWAYS[0]), given.get("--to", ALWAYS[1])
        chosen.insert(0, Choose(book, numbers=given.get("--packets", []), period=period))
    if "--sample" in given:
        chosen.append(Choose(book, numbers=[], sample=given["--sample"]))
    if args["--dedup"]:
        chosen.append(Deduplicate(book, given.get("--dedup-window", (1000, 0))))
    return [*chosen, Spare()] if spare else chosen


def _comment(command: cli.Command, form: str) -> list[Transform]:
    if command.args["--comment"] is None:
        return []
    if form != "pcapng":
        raise UsageError("--comment: only pcapng has comments: add --format pcapng")
    from pcaptools.engines.metadata import Metadata

    return [Metadata(comment=command.args["--comment"])]


def _table(command: cli.Command) -> Table | None:
    path = command.args["--map"]
    if path is None:
        return None
    from pcaptools.core._edits import Table

    try:
        table = Table(_read(path))
    except ValueError as error:
        raise UsageError(f"--map: {path}: {error}") from None
    if table.overlaps and command.verbose:
        command.warn(f"--map: {path}: {table.overlaps} lines name a network again: the first one counts")
    return table


def _cache(args: dict[str, Any]) -> bytes | None:
    path = args["--cachefile"]
    if path is None:
        return None
    from pcaptools.engines.options import parse_cache

    try:
        return parse_cache(_read(path))[0]
    except ValueError as error:
        raise UsageError(f"--cachefile: {path}: {error}") from None


def _presets(usage: str) -> Callable[[list[str]], list[str]]:
    """What puts the options of a --load-opts file in front of the arguments, which win."""

    def prepared(argv: list[str]) -> list[str]:
        for at, word in enumerate(argv):
            if word == "--":
                break
            if word == "--load-opts" or word.startswith("--load-opts="):
                path = word.partition("=")[2] or "".join(argv[at + 1 : at + 2])
                rest = argv[:at] + argv[at + (1 if "=" in word else 2) :]
                return _loaded(path, usage, rest) + rest
        return argv

    return prepared


def _loaded(path: str, usage: str, argv: list[str]) -> list[str]:
    from pcaptools.engines.options import parse_presets, spelled

    lines = parse_presets(_read(path).decode(errors="surrogateescape"))
    return _valued(lambda: spelled(lines, usage, argv))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None


def _valued(make: Callable[[], Value]) -> Value:
    """What `make` returns; a ValueError becomes a UsageError."""
    try:
        return make()
    except ValueError as error:
        raise UsageError(str(error)) from None
