"""Option names of tcpreplay, tcpprep and GopherCap, in pcapreplay's words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation

_VALUE: dict[str, Callable[[str], list[str]]] = {
    # tcpreplay
    "--maxsleep": lambda text: [f"--max-gap={_thousandths(text, 3)}"],
    "--loopdelay-ms": lambda text: [f"--loop-delay={_thousandths(text, 3)}"],
    "--loopdelay-ns": lambda text: [f"--loop-delay={_thousandths(text, 9)}"],
    "--timer": lambda text: {"nano": ["--no-spin"], "gtod": []}.get(text, [f"--timer={text}"]),
    "--xdp-batch-size": lambda text: [],
    "--flow-expiry": lambda text: [],
    # tcpprep
    "--auto": lambda text: [f"--split={text}"],
    "--cidr": lambda text: [f"--split=cidr:{text}"],
    "--regex": lambda text: [f"--split=regex:{text}"],
    "--mac": lambda text: [f"--split=mac:{text}"],
    # GopherCap
    "--out-interface": lambda text: [f"--intf1={text}"],
    "--out-bpf": lambda text: [f"--filter={text}"],
    "--time-from": lambda text: [f"--from={text}"],
    "--time-to": lambda text: [f"--to={text}"],
    "--time-scale-duration": lambda text: [f"--scale-to={text}"],
    "--loop-count": lambda text: [f"--loop={text}"],
    "--dump-json": lambda text: [f"--dataset={text}"],
}

_FLAG: dict[str, list[str]] = {
    "--preload-pcap": ["--preload"],
    "--pktlen": ["--cut=pad"],
    "--suppress-warnings": [],
    "-W": [],
    "--port": ["--split=port"],
    "-2": ["--dualfile"],
    "-H": ["--help"],
    "-V": ["--version"],
    "--loop-infinite": ["--loop=0"],
    "--time-scale-enabled": [],
    "--wait-disable": ["--topspeed"],
    "--xdp": ["--backend=xdp"],
}

_SHORT = {"-T": "--timer"}


def _thousandths(text: str, digits: int) -> str:
    """A number divided by a power of ten, exactly; what is no number stays, to be refused under its name."""
    try:
        return format(Decimal(text).scaleb(-digits), "f")
    except InvalidOperation:
        return text


def translated(argv: list[str]) -> list[str]:
    """The same arguments in pcapreplay's names; what is not known here stays as it is."""
    words = iter(argv)
    return [word for group in iter(lambda: _next(words), None) for word in group]


def preset(text: str, usage: str, argv: list[str]) -> list[str]:
    """The options in the text of a --load-opts file, section [TCPREPLAY], that the translated arguments do not give.

    usage: the usage text, which names what there is. Raises ValueError for what there is not.
    """
    from pcaptools.engines.options import parse_presets, spelled

    lines = parse_presets(text, ("TCPREPLAY", "PCAPREPLAY"))
    words = translated([_as_word(*line) for line in lines])
    known = [(word.lstrip("-").partition("=")[0], word.partition("=")[2] or None) for word in words]
    return spelled(known, usage, argv)


def _as_word(name: str, value: str | None) -> str:
    if len(name) == 1:
        return f"-{name}" if value is None else f"-{name}{value}"
    return f"--{name}" if value is None else f"--{name}={value}"


def _next(words: Iterator[str]) -> list[str] | None:
    """The translation of the next option or argument; None at the end."""
    word = next(words, None)
    if word is None:
        return None
    if word == "--":
        return [word, *words]
    if word in _FLAG:
        return list(_FLAG[word])
    name, equals, value = word.partition("=")
    if word[:2] in _SHORT:
        name, equals, value = _SHORT[word[:2]], word[2:], word[2:]
    if name not in _VALUE:
        return [word]
    if not equals:
        following = next(words, None)
        if following is None:
            return [word]
        value = following
    return list(_VALUE[name](value))
