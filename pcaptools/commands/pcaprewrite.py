"""pcaprewrite: edit packets of a capture.

Usage:
  pcaprewrite [options] [--] [<capture>...]

Reads captures (pcap or pcapng, plain or compressed; standard input when none is named), edits them and writes one
capture. Without options the output is the input, byte for byte. Checksums always follow an edit: a right one stays
right, a wrong one stays wrong.

Options:
  -S, --srcipmap=MAP     Map source addresses: CIDR:CIDR[,CIDR:CIDR...], the first that fits; IPv6 in brackets.
  -D, --dstipmap=MAP     Map destination addresses.
  --enet-smac=MAC        Set the source MAC address.
  --enet-dmac=MAC        Set the destination MAC address.
  -C, --fixcsum          Recompute the checksums of IPv4, TCP, UDP, UDP-Lite, ICMP, ICMPv6, IGMP, SCTP and OSPFv3.
  -f, --filter=BPF       Keep only the packets that match a libpcap filter expression.
  -w, --write=FILE       Write to FILE instead of standard output; .gz .zst .lz4 .xz .bz2 compress.
  -F, --format=FORMAT    Write pcap, nspcap or pcapng; the input's format when not given.
  -q, --quiet            No warnings.
  -v, --verbose          Say at the end how many packets came in, went out and why not.
  --version              Say which version this is.
  -h, --help             Show this text.
"""

from __future__ import annotations

from pcaptools import cli

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pcaptools.core.batch import Batch
    from pcaptools.core.pipeline import Account, Transform
    from pcaptools.engines.rewrite import Rewrite, Rule


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    return cli.run(__doc__, _edit, argv)


def _edit(command: cli.Command) -> int:
    from pcaptools.core import pipeline
    from pcaptools.engines.convert import converter
    from pcaptools.files.inputs import captures, sound
    from pcaptools.files.output import Output
    from pcaptools.files.writer import Writer

    args = command.args
    paths = args["<capture>"]
    account = command.account()
    wanted = command.format()
    rewrite = _rewrite(command)
    transforms: list[Transform] = command.filter(account)
    if rewrite:
        transforms.append(rewrite)
    command.refuse_terminal(paths)

    inputs = captures(paths, account)
    first = next(inputs)

    def batches() -> Iterator[Batch]:
        yield from sound(first, account)
        for capture in inputs:
            yield from sound(capture, account)

    transforms += converter(wanted, first.format, len(paths) > 1, account)
    with Writer(Output(args["--write"])) as sink:
        pipeline.run(batches(), transforms, sink, account)
    if rewrite:
        _tell(command, rewrite, account)
    return command.close(account)


def _rewrite(command: cli.Command) -> Rewrite | None:
    """The edits that the options ask for."""
    options = ("--srcipmap", "--dstipmap", "--enet-smac", "--enet-dmac", "--fixcsum")
    if not any(command.args[option] for option in options):
        return None
    from pcaptools.engines.rewrite import Rewrite, parse_mac, parse_map

    return Rewrite(
        source_map=_warned(command, "--srcipmap", command.value("--srcipmap", parse_map)),
        destination_map=_warned(command, "--dstipmap", command.value("--dstipmap", parse_map)),
        source_mac=command.value("--enet-smac", parse_mac),
        destination_mac=command.value("--enet-dmac", parse_mac),
        fix_checksums=command.args["--fixcsum"],
    )


def _warned(command: cli.Command, option: str, rules: list[Rule] | None) -> list[Rule]:
    from pcaptools.engines.rewrite import narrowing

    for rule in narrowing(rules or []):
        command.warn(f"{option}: {rule}, which is narrower: different hosts become one")
    return rules or []


def _tell(command: cli.Command, rewrite: Rewrite, account: Account) -> None:
    """What could not be edited, and with -v what was."""
    counts, sums = rewrite.counts, rewrite.sums
    if counts.get("malformed"):
        account.problem(f"addresses of {counts['malformed']} packets not mapped: no IP header can look like theirs")
    if counts.get("no_ethernet"):
        account.problem(f"MAC addresses of {counts['no_ethernet']} packets not set: they have no Ethernet header")
    malformed = sums["header"]["malformed"] + sums["transport"]["malformed"]
    if malformed:
        account.problem(f"{malformed} checksums not recomputed: the lengths in their headers contradict each other")
    if not command.verbose:
        return
    if counts:
        command.say(
            f"edited {counts['edited']}; addresses matched: {counts['matched'][0]} source, {counts['matched'][1]} "
            f"destination; not captured: {counts['cut']} packets"
        )
    if command.args["--fixcsum"]:
        for kind, title in (("header", "IP header"), ("transport", "transport")):
            found = sums[kind]
            command.say(
                f"{title} checksums: {found['wrong']} recomputed, {found['right']} were right; not all of what they cover "
                f"was there: {found['fragment']} in fragments, {found['snapped']} cut by the snap length"
            )
