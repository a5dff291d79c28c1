"""The arguments of a live replay, checked and put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pcaptools.engines import rules as words
from pcaptools.engines.dialogue import ANY, EXACT, LENGTH, Rules
from pcaptools.engines.script import Script
from pcaptools.errors import UsageError

RETRIES = 3


class Plan:
    """The arguments, checked."""

    def __init__(self, args: dict[str, Any], value: Callable[..., Any]) -> None:
        """args: by usage name; value: the value of an option, parsed. Raises UsageError."""
        self._args, self._value = args, value
        self.role = value("--role", words.one_of("client", "server")) or "client"
        self.socket = bool(args["--socket"])
        self.udp = value("--proto", words.one_of("tcp", "udp")) == "udp"
        self.interface, self.capture, rest = self._places()
        self.target = _said("<dst-ip>", words.parse_address, rest.get("dst-ip"))
        self.mac = _said("<dst-mac>", words.parse_mac, rest.get("dst-mac", "auto"))
        self.port = _said("<src-port>", words.parse_source_port, rest.get("src-port", "random"))
        self.flow = value("--flow", words.parse_count)
        self.synthesize = bool(args["--synthesize-handshake"])
        self.dst_port = value("--dst-port", words.parse_port)
        self.source = value("--source-ip", words.parse_address)
        self.vlan = value("--vlan", words.parse_vlan)
        self.tcp_retries = value("--tcp-retries", words.parse_whole) or 0
        self.tries = value("--retries", words.parse_count) or (1 if self.role == "server" else RETRIES)
        self.concurrency = value("--concurrency", words.parse_count) or 1
        self.rate = value("--rate", words.parse_rate) or 0
        self.repeat = value("--repeat", words.parse_count) or 1
        self.seed = value("--seed", words.parse_whole)
        self.user, self.write = args["--user"], args["--write"]
        self.backend = value("--backend", words.one_of("packet", "pypcap"))
        self.rules = self._rules()
        self._check()

    def _places(self) -> tuple[str, str, dict[str, str]]:
        given = self._args["<argument>"]
        names = [] if self.socket else ["interface"]
        names.append("capture")
        least = len(names)
        if self.role == "client":
            least += 1
            names += ["dst-ip", "src-port"] if self.socket else ["dst-ip", "dst-mac", "src-port"]
        if not least <= len(given) <= len(names):
            wanted = " ".join(f"<{name}>" for name in names[:least])
            raise UsageError(f"expected are: {wanted}\nTry 'pcapliveplay --help'.")
        found = dict(zip(names, given, strict=False))
        return found.get("interface", ""), found["capture"], found

    def _rules(self) -> Rules:
        regex = self._value("--expect-regex", words.parse_regex)
        ignored = self._value("--ignore-range", words.parse_ranges) or ()
        expect = self._value("--expect", words.parse_expect) or (EXACT if ignored else ANY if regex else LENGTH)
        return Rules(
            expect=expect,
            regexes=(regex,) if regex else (),
            ignored=ignored,
            strict=bool(self._args["--strict"]),
            on_mismatch=self._value("--on-mismatch", words.parse_on_mismatch),
            recorded_pace=self._value("--pace", words.one_of("recorded", "fast")) == "recorded",
            timeout=self._value("--timeout", words.parse_seconds),
            datagram_retries=self.tries,
        )

    def _check(self) -> None:
        if self.socket:
            over_interface = {
                "--source-ip": self.source, "--vlan": self.vlan, "-w": self.write, "--backend": self.backend,
            }  # fmt: skip
            for option, given in over_interface.items():
                if given is not None:
                    raise UsageError(f"{option} needs an interface: it does not go with --socket")
            if self.rules.strict:
                raise UsageError("--strict: with --socket the kernel sees to segments, and nobody else sees them")
        if self.socket and self.udp and self.role == "server":
            raise UsageError("--socket --proto udp plays the client only")
        if self.source and self.target and len(self.source) != len(self.target):
            raise UsageError("--source-ip and <dst-ip> are of different IP versions")
        if self.user is not None and (self.port == "recorded" or (self.role == "server" and not self.dst_port)):
            raise UsageError("-Z: the ports must be known before the capture is read: give <src-port>, --dst-port")


def choose(plan: Plan, scripts: list[Script]) -> tuple[list[Script], list[Script]]:
    """What of the flows found is played, and what is refused, by its `problem`. Raises UsageError: no such flow."""
    if plan.flow is not None:
        if plan.flow > len(scripts):
            raise UsageError(f"--flow: there are {len(scripts)} flows")
        scripts = [scripts[plan.flow - 1]]
    for script in scripts:
        if not script.problem and script.shakeless and not plan.synthesize:
            script.problem = "no SYN in the capture: --synthesize-handshake plays it all the same"
    return [one for one in scripts if not one.problem], [one for one in scripts if one.problem]


def _said(name: str, parse: Any, text: str | None) -> Any:
    try:
        return None if text is None else parse(text)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None
