"""pcapgen: make captures.

Usage:
  pcapgen conversation [options] [--request=FILE]... [--response=FILE]...
  pcapgen mix [options]
  pcapgen syn-flood [options]
  pcapgen hex [options] [--] [<file>]
  pcapgen from [options] [--] [<file>]

Makes a TCP connection or a UDP conversation from its payloads, a mix of traffic, a SYN flood, packets from a hex
dump, or traffic of the shape that a manifest of pcapsplit-flows tells. All checksums are right; the same options
and seed give the same packets.

Options:
  -w, --write=FILE       Write to FILE instead of standard output; .gz .zst .lz4 .xz .bz2 compress.
  -F, --format=FORMAT    Write pcap, nspcap or pcapng; pcap when not given.
  -l, --linktype=TYPE    Link type, by name or number; EN10MB (Ethernet) when not given.
  --start=TIME           Time of the first packet: seconds since 1970, or a date and time; 1700000000 when not given.
  --seed=N               What random numbers begin with; 1 when not given.
  --enet-smac=MAC        The client's MAC address; 02:00:00:00:00:01 when not given.
  --enet-dmac=MAC        The server's MAC address; 02:00:00:00:00:02 when not given.
  --vlan=ID              Tag every frame so (conversation and syn-flood).
  --pad                  Pad frames to 60 bytes, as Ethernet does.
  -q, --quiet            No warnings.
  -v, --verbose          Say at the end how many packets were made.
  --version              Say which version this is.
  -h, --help             Show this text.

Options of conversation:
  --client=ADDRESS       The client: ADDRESS or ADDRESS:PORT; IPv6 with a port in brackets. Required.
  --server=ADDRESS       The server, as ADDRESS:PORT. Required.
  --request=FILE         What the client says. Repeatable: the first request, the first response, the second request ...
  --response=FILE        What the server answers.
  --proto=NAME           tcp or udp; tcp when not given.
  --mtu=BYTES            Largest IP packet of the link; 1500 when not given.
  --mss=BYTES            Maximum segment size; what the MTU allows when not given.
  --rtt=MS               Round trip time in ms; 20 when not given.
  --window=BYTES         Receive window of both; 65535 when not given.
  --tcp-options=LIST     Of mss, sack, wscale, timestamps; or none. mss,sack,wscale when not given.

Options of conversation and mix:
  --loss=PERCENT         So many packets are lost; in a mix, so many data segments are sent again (1 when not given).
  --reorder=PERCENT      So many data segments come late; in a mix, behind the next one (0.5 when not given).

Options of mix and syn-flood:
  -n, --packets=N        How many packets; 1000000 in a mix, and one per source in a flood when not given.

Options of mix:
  --flows=N              How many flows; a 20th of the packets when not given.
  --duration=SECONDS     From the first packet to the last; 600 when not given.
  --ipv6-share=PERCENT   So many flows are IPv6; 20 when not given.
  --vlan-share=PERCENT   So many flows have a VLAN tag; 5 when not given, where the link type has tags.
  --truth=FILE           Write to FILE, as JSON, what the mix holds.

Options of syn-flood:
  --src=RANGE            Source addresses: a network, FIRST-LAST, or one address. Required.
  --dst=ADDRESS          Destination address. Required.
  --dport=PORT           Destination port; 80 when not given.
  --sport=PORT           First source port; 1024 when not given.
  --pps=RATE             Packets a second; 100000 when not given.

Options of hex:
  -o, --offsets=BASE     Offsets are hex, oct, dec, or none: there are none; hex when not given.
  -t, --time=FORMAT      A time in front of each packet: of strptime(3) and %f, %s (seconds since 1970), or ISO. UTC.
  -D, --direction        I or O in front of each packet: inbound or outbound.
  -a, --ascii            Text that looks like the bytes may follow them after a single blank.
  -e, --ethertype=TYPE   Put a link layer header with this type (hexadecimal) in front.
  -i, --ip-proto=N       Put an IP header with this protocol in front.
  -4, --ipv4=PAIR        SOURCE,DESTINATION of inbound packets; 10.1.1.1,10.2.2.2 when not given.
  -6, --ipv6=PAIR        The same, IPv6.
  -u, --udp=PAIR         Put IP and UDP headers with ports SOURCE,DESTINATION in front.
  -T, --tcp=PAIR         The same, TCP.
  -s, --sctp=LIST        The same, SCTP: SOURCE,DESTINATION,TAG.
  -S, --sctp-data=LIST   The same, with a DATA chunk: SOURCE,DESTINATION,PAYLOAD-PROTOCOL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from pcaptools import cli
from pcaptools.errors import InputError, UsageError

if TYPE_CHECKING:
    from pcaptools.core._generate import Mix
    from pcaptools.core.batch import Batch
    from pcaptools.engines.conversation import Settings, Turn
    from pcaptools.engines.craft import Dummy, End
    from pcaptools.engines.generate import Layout
    from pcaptools.engines.hexdump import Dumped

SUBCOMMANDS = ("conversation", "mix", "syn-flood", "hex", "from")

DIGITS = {"-4": "--ipv4", "-6": "--ipv6"}
"""Short options that docopt takes for numbers."""

LINK_MTU = 1500
CLIENT_PORT = 50100
SOURCES = 1 << 20
"""Source addresses that a flood takes all of without being told how many packets."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    import sys

    given = sys.argv[1:] if argv is None else argv
    return cli.run(__doc__, _generate, [DIGITS.get(word, word) for word in given])


def _generate(command: cli.Command) -> int:
    kind = next(name for name in SUBCOMMANDS if command.args[name])
    _refuse_foreign(command, kind)
    run = {"conversation": _conversation, "mix": _mix, "syn-flood": _flood, "hex": _hex, "from": _from}
    return run[kind](command)


def _refuse_foreign(command: cli.Command, kind: str) -> None:
    """Raises UsageError for an option of another subcommand."""
    for section in __doc__.split("\nOptions of ")[1:]:
        title, *lines = section.splitlines()
        if kind in title.rstrip(":").split(" and "):
            continue
        for line in lines:
            name = next((word.split("=")[0] for word in line.split() if word.startswith("--")), None)
            if name and command.args.get(name):
                raise UsageError(f"{name} does not go with {kind}, only with {title.rstrip(':')}")
    if command.args["--vlan"] is not None and kind in ("mix", "hex", "from"):
        raise UsageError(f"--vlan does not go with {kind}")


def _refuse(message: object) -> NoReturn:
    raise UsageError(str(message))


def _value(command: cli.Command, option: str, parse: Callable[[str], Any], default: Any = None) -> Any:
    """The value of an option, or a default."""
    value = command.value(option, parse)
    return default if value is None else value


def _required(command: cli.Command, option: str, parse: Callable[[str], Any]) -> Any:
    return _value(command, option, parse) if command.args[option] is not None else _refuse(f"{option} is missing")


def _layout(command: cli.Command, linktype: int | None = None) -> Layout:
    """What the general options say. linktype: known already."""
    from pcaptools.engines import generate, linklayer
    from pcaptools.engines.rewrite import parse_mac

    if linktype is None:
        linktype = _value(command, "--linktype", linklayer.parse, linklayer.ETHERNET)
    vlan = command.value("--vlan", generate.parse_vlan)
    if vlan is not None and not linklayer.carries_vlan(linktype):
        _refuse("--vlan: frames of this link type carry no VLAN tag")
    if command.args["--pad"] and linktype != linklayer.ETHERNET:
        _refuse("--pad: only Ethernet pads its frames")
    return generate.Layout(
        linktype=linktype,
        nanoseconds=(command.format() or "pcap") != "pcap",
        start=_value(command, "--start", generate.parse_start, generate.START),
        seed=_value(command, "--seed", generate.parse_seed, 1),
        source=_value(command, "--enet-smac", parse_mac, linklayer.CLIENT_MAC),
        target=_value(command, "--enet-dmac", parse_mac, linklayer.SERVER_MAC),
        vlan=vlan,
        least=linklayer.ETHERNET_LEAST if command.args["--pad"] else 0,
    )


def _write(command: cli.Command, batches: Iterable[Batch], linktype: int, account: Any = None) -> int:
    """Write the batches as one capture; returns the exit status."""
    from pcaptools.core import pipeline
    from pcaptools.engines.convert import converter
    from pcaptools.engines.generate import capture
    from pcaptools.files.output import Output
    from pcaptools.files.writer import Writer

    account = account or command.account()
    form = command.format() or "pcap"
    transforms = converter(form, form if form != "pcapng" else "nspcap", False, account)
    with Writer(Output(command.args["--write"])) as sink:
        pipeline.run(capture(batches, linktype, form), transforms, sink, account)
    return command.close(account)


# syn-flood


def _flood(command: cli.Command) -> int:
    from pcaptools.engines import generate
    from pcaptools.engines.generate import parse_port as port
    from pcaptools.engines.pace import parse_speed

    layout = _layout(command)
    source = _required(command, "--src", generate.parse_range)
    target = _required(command, "--dst", generate.parse_address)
    packets = command.value("--packets", generate.parse_count)
    if packets is None:
        packets = (
            source.size if source.size <= SOURCES else _refuse(f"{source.size} sources: say how many packets (-n)")
        )
    try:
        dport, sport = _value(command, "--dport", port, 80), _value(command, "--sport", port, 1024)
        pps = _value(command, "--pps", parse_speed, 100_000)
        flood = generate.flood(layout, source, target, dport, sport, packets, pps)
    except ValueError as error:
        _refuse(error)
    return _write(command, generate.filled(flood), layout.linktype)


# mix


def _mix(command: cli.Command) -> int:
    from contextlib import ExitStack

    from pcaptools.engines import generate
    from pcaptools.files.output import Output

    layout = _layout(command)
    duration = _value(command, "--duration", generate.parse_seconds, 600 * generate.SECOND)
    mix = _mix_generator(command, layout, duration)
    target = command.args["--truth"]
    if target == "-" and command.args["--write"] in (None, "-"):
        _refuse("--truth: standard output is where the capture goes")
    with ExitStack() as stack:
        truth = stack.enter_context(Output(target)) if target is not None else None
        status = _write(command, generate.filled(mix), layout.linktype)
        if truth:
            import json

            truth.write(json.dumps(generate.truth(mix, layout, duration), indent=2).encode() + b"\n")
    return status


def _mix_generator(command: cli.Command, layout: Layout, duration: int) -> Mix:
    from fractions import Fraction

    from pcaptools.engines import generate, linklayer

    packets = _value(command, "--packets", generate.parse_count, 1_000_000)
    flows = _value(command, "--flows", generate.parse_count, max(packets // 20, 1))
    ipv6 = Fraction(1, 5) if linklayer.carries_ip(layout.linktype, 4) else Fraction(1)
    if not linklayer.carries_ip(layout.linktype, 6):
        ipv6 = Fraction(0)
    vlan = Fraction(1, 20) if linklayer.carries_vlan(layout.linktype) else Fraction(0)
    try:
        return generate.mix(
            layout, flows, packets, duration,
            vlan_share=_value(command, "--vlan-share", generate.parse_percent, vlan),
            ipv6_share=_value(command, "--ipv6-share", generate.parse_percent, ipv6),
            loss=_value(command, "--loss", generate.parse_percent, Fraction(1, 100)),
            reorder=_value(command, "--reorder", generate.parse_percent, Fraction(1, 200)),
        )  # fmt: skip
    except ValueError as error:
        _refuse(error)


# conversation


def _conversation(command: cli.Command) -> int:
    from pcaptools.engines import conversation, craft, generate

    layout = _layout(command)
    client = _required(command, "--client", lambda text: craft.parse_end(text, CLIENT_PORT))
    server = _required(command, "--server", craft.parse_end)
    _check_ends(layout, client, server)
    proto = command.args["--proto"] or "tcp"
    if proto not in ("tcp", "udp"):
        _refuse(f"--proto: '{proto}' is not tcp or udp")
    settings = _settings(command, client.address.version, proto)
    turns = _turns(command)
    if proto == "udp":
        _check_datagrams(command, turns, client.address.version)
        said: Iterable[Any] = conversation.datagrams(turns, settings)
    else:
        said = conversation.Conversation(turns, settings)
    return _write(command, generate.framed(craft.frames(said, client, server, layout), layout), layout.linktype)


def _check_ends(layout: Layout, client: End, server: End) -> None:
    from pcaptools.engines.generate import check_version

    if client.address.version != server.address.version:
        _refuse(f"the client is IPv{client.address.version}, the server is IPv{server.address.version}")
    if client == server:
        _refuse("client and server are the same")
    try:
        check_version(layout, client.address.version)
    except ValueError as error:
        _refuse(error)


def _turns(command: cli.Command) -> list[Turn]:
    """The contents of the files in the order in which they are said."""
    from itertools import zip_longest

    from pcaptools.engines.conversation import Turn

    requests, responses = command.args["--request"], command.args["--response"]
    if [*requests, *responses].count("-") > 1:
        _refuse("standard input can be read only once")
    turns = []
    for pair in zip_longest(requests, responses):
        turns += [Turn(side, _read(path)) for side, path in enumerate(pair) if path is not None]
    return [turn for turn in turns if turn.data]


def _read(path: str) -> bytes:
    from pcaptools.files.streams import name_of, open_raw

    raw = open_raw(path)
    try:
        return raw.readall()
    except OSError as error:
        raise InputError(f"{name_of(path)}: {error.strerror or error}") from None
    finally:
        raw.close()


def _settings(command: cli.Command, version: int, proto: str) -> Settings:
    from pcaptools.engines import conversation, generate
    from pcaptools.engines.conversation import Settings

    if proto == "udp":
        for option in ("--mss", "--window", "--tcp-options", "--reorder"):
            if command.args[option] is not None:
                _refuse(f"{option} does not go with --proto udp")
    mtu = _value(command, "--mtu", conversation.parse_mtu, LINK_MTU)
    room = mtu - (40 if version == 4 else 60)
    options = _value(command, "--tcp-options", conversation.parse_options, conversation.OPTIONS[:3])
    try:
        return Settings(
            mss=conversation.check_mss(_value(command, "--mss", cli.whole, room), room),
            rtt=_value(command, "--rtt", generate.parse_milliseconds, 20 * conversation.MS),
            loss=conversation.check_loss(_value(command, "--loss", generate.parse_percent, 0)),
            reorder=_value(command, "--reorder", generate.parse_percent, 0),
            window=conversation.check_window(_value(command, "--window", cli.whole, 65535), options),
            options=options,
            seed=_value(command, "--seed", generate.parse_seed, 1),
        )
    except ValueError as error:
        _refuse(error)


def _check_datagrams(command: cli.Command, turns: list[Turn], version: int) -> None:
    from pcaptools.engines import conversation

    most = _value(command, "--mtu", conversation.parse_mtu, LINK_MTU) - (28 if version == 4 else 48)
    if not turns:
        _refuse("--proto udp needs a --request or --response that is not empty")
    largest = max(len(turn.data) for turn in turns)
    if largest > most:
        _refuse(f"{largest} bytes do not fit a datagram: the link takes {most} (--mtu)")


# hex


def _hex(command: cli.Command) -> int:
    from pcaptools.engines import generate, hexdump, linklayer

    file = command.args["<file>"]
    command.refuse_terminal([file] if file else [])
    dummy_options = ("--ethertype", "--ip-proto", "--udp", "--tcp", "--sctp", "--sctp-data")
    asked = [option for option in dummy_options if command.args[option] is not None]
    parse = linklayer.parse if asked else linklayer.parse_any
    layout = _layout(command, _value(command, "--linktype", parse, linklayer.ETHERNET))
    dummy = _dummy(command, layout, asked)
    account = command.account()
    base = _value(command, "--offsets", hexdump.parse_base, 16)
    reader = hexdump.Reader(
        _lines(file), base=base, clock=command.value("--time", lambda text: hexdump.Clock(text, layout.start)),
        directions=command.args["--direction"], ascii=command.args["--ascii"], problem=account.problem,
    )  # fmt: skip
    packets = iter(reader)
    first = next(packets, None)
    if first is None:
        raise InputError(f"{file or 'standard input'}: no packet in it: a line such as '0000 61 62 63' begins one")

    def frames() -> Iterator[tuple[int, bytes]]:
        for number, packet in enumerate(hexdump.timed(_chained(first, packets), layout.start), 1):
            try:
                yield packet.time, dummy.wrap(packet.data, int(packet.outgoing is True))
            except ValueError as error:
                account.problem(f"packet {number} left out: {error}")

    status = _write(command, generate.framed(frames(), layout), layout.linktype, account)
    if reader.untimed:
        command.warn(f"{reader.untimed} packets without a time: each a microsecond after the one before")
    return status


def _chained(first: Dumped, rest: Iterator[Dumped]) -> Iterator[Dumped]:
    yield first
    yield from rest


def _from(command: cli.Command) -> int:
    from pcaptools.engines import generate, shape

    file = command.args["<file>"]
    command.refuse_terminal([file] if file else [])
    layout = _layout(command)
    try:
        return _write(
            command, generate.framed(shape.shaped(shape.parse(_lines(file)), layout), layout), layout.linktype
        )
    except ValueError as error:
        raise InputError(f"{file or 'standard input'}: {error}") from None


def _lines(path: str | None) -> Iterator[str]:
    """The lines of a file or of standard input, whatever bytes they hold."""
    import io

    from pcaptools.files.streams import name_of, open_raw

    try:
        with io.TextIOWrapper(io.BufferedReader(open_raw(path)), "latin-1") as text:
            yield from text
    except OSError as error:
        raise InputError(f"{name_of(path)}: {error.strerror or error}") from None


def _dummy(command: cli.Command, layout: Layout, asked: list[str]) -> Dummy:
    """The headers that the options ask for."""
    from pcaptools.engines import craft

    names = {"--ip-proto": "proto", "--udp": "udp", "--tcp": "tcp", "--sctp": "sctp", "--sctp-data": "data"}
    if len(asked) > 1 and asked != ["--ethertype"]:
        _refuse(f"{' and '.join(asked)} contradict each other")
    if command.args["--ipv4"] is not None and command.args["--ipv6"] is not None:
        _refuse("-4 and -6 contradict each other")
    pair = command.args["--ipv4"] or command.args["--ipv6"]
    if pair is not None and (not asked or asked == ["--ethertype"]):
        _refuse("addresses need a protocol: -i, -u, -T, -s or -S")
    try:
        return craft.dummy(
            layout,
            names.get(asked[0], "ethertype") if asked else None,
            command.args[asked[0]] if asked else "",
            (6 if command.args["--ipv6"] else 4, pair),
        )
    except ValueError as error:
        raise UsageError(f"{asked[0] if asked else '--linktype'}: {error}") from None
