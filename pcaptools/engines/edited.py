"""What the edits did, as messages and as a report."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from pcaptools.core._edits import Job
from pcaptools.core.batch import SUMS
from pcaptools.core.pipeline import Account
from pcaptools.engines.edits import Watch, rules_of
from pcaptools.engines.reshape import Reshape
from pcaptools.engines.rewrite import Rewrite


class Edited:
    """The edits of one run, after it."""

    def __init__(
        self,
        given: dict[str, Any],
        job: Job | None,
        shape: Reshape | None,
        rewrite: Rewrite | None,
        watch: Watch | None,
        args: dict[str, Any],
    ) -> None:
        self._given = given
        self._job = job
        self._shape = shape
        self._rewrite = rewrite
        self._watch = watch
        self._args = args

    def tell(self, say: Callable[[str], None], account: Account, *, verbose: bool) -> None:
        """What could not be edited; with verbose also what was."""
        counts = self._job.counts if self._job else {}
        if not self._args["--skip-soft-errors"]:
            self._problems(counts, account)
        if self._args["--report-leaks"] and self._job:
            addresses, lost = self._job.leaked_addresses
            say(
                f"payload of {counts['leaking']} packets holds one of {addresses} changed addresses"
                + ("; further ones were not looked for" if lost else "")
            )
        if verbose:
            self._details(say, counts)

    def _problems(self, counts: dict[str, Any], account: Account) -> None:
        if counts.get("malformed"):
            account.problem(f"headers of {counts['malformed']} packets not edited: no IP header can look like theirs")
        if counts.get("no_ethernet"):
            account.problem(f"MAC addresses of {counts['no_ethernet']} packets not set: they have no Ethernet header")
        if counts.get("dns_partial"):
            account.problem(
                f"--dns-map: {counts['dns_partial']} packets hold parts of DNS messages, which stayed as they are"
            )
        if counts.get("dns_names"):
            account.problem(
                f"--dns-map: {counts['dns_names']} reverse names not mapped: the new ones have another length"
            )
        if counts.get("unbalanced"):
            account.problem(
                f"checksums of {counts['unbalanced']} datagrams in fragments did not follow their new payload"
            )
        sums = self._rewrite.sums if self._rewrite else None
        malformed = sums["header"]["malformed"] + sums["transport"]["malformed"] if sums else 0
        if malformed:
            account.problem(f"{malformed} checksums not recomputed: the lengths in their headers contradict each other")

    def _details(self, say: Callable[[str], None], counts: dict[str, Any]) -> None:
        if counts:
            say(
                f"edited {counts['edited']}; addresses matched: {counts['matched'][0]} source, {counts['matched'][1]} "
                f"destination; not captured: {counts['cut']} packets"
            )
        if self._shape:
            shaped = self._shape.counts
            say(f"reshaped {shaped['shaped']} packets: {shaped['padded']} padded, {shaped['cut']} cut")
        if self._args["--fixcsum"] and self._rewrite:
            for kind, title in (("header", "IP header"), ("transport", "transport")):
                found = self._rewrite.sums[kind]
                say(
                    f"{title} checksums: {found['wrong']} recomputed, {found['right']} were right; not all of what "
                    f"they cover was there: {found['fragment']} in fragments, {found['snapped']} cut by the snap length"
                )

    def facts(self, account: Account) -> dict[str, Any]:
        """Everything, for --json."""
        found: dict[str, Any] = {
            "packets": {
                "in": account.packets_in,
                "out": account.packets_out,
                "dropped": account.dropped,
                "failed": account.failed,
            }
        }
        if self._job:
            found["rules"] = self._rules()
            found["addresses"] = self._addresses()
            found["edits"] = {
                name: list(value) if isinstance(value, tuple) else value for name, value in self._job.counts.items()
            }
        if self._shape:
            found["shape"] = self._shape.counts
        if self._watch:
            names = [name.replace(" ", "_") for name in SUMS]
            found["checksums_before"] = {
                "header": dict(zip(names, self._watch.header, strict=True)),
                "transport": dict(zip(names, self._watch.transport, strict=True)),
            }
        return found

    def _addresses(self) -> dict[str, Any]:
        """How many different addresses there were, and which ones nothing mapped."""
        assert self._job and self._job.addresses
        seen, unmapped = self._job.addresses
        texts = [str(ip_address(address)) for address in sorted(unmapped, key=lambda data: (len(data), data))]
        return {"seen": len(seen), "unmapped": len(unmapped), "not_mapped": texts}

    def _rules(self) -> list[dict[str, Any]]:
        assert self._job
        hits = self._job.rule_counts()
        slots = {"--srcipmap": [0], "--dstipmap": [1], "--pnat": [2, 3], "--ipmap": [4]}
        found = []
        maps = len(self._given.get("--pnat", []))
        for option, rules in rules_of(self._given):
            if option == "--pnat":
                chosen = slots["--pnat"] if maps == 1 else [slots["--pnat"].pop(0)]
            else:
                chosen = slots[option]
            in_order = sorted(rules, key=lambda rule: rule.source.version)
            for number, rule in enumerate(in_order):
                addresses, packets = (sum(hits[slot][number][k] for slot in chosen) for k in (0, 1))
                found.append(_rule(option, f"{rule.source} -> {rule.target}", packets, addresses=addresses))
        for slot, rules in zip((2, 3), self._given.get("--endpoints", ()), strict=False):
            [(addresses, packets)] = hits[slot]
            found.append(_rule("--endpoints", f"{rules[0].source} -> {rules[0].target}", packets, addresses=addresses))
        for rule, (ports, packets) in zip(self._given.get("--portmap", []), self._job.port_counts, strict=True):
            source = str(rule.first) if rule.first == rule.last else f"{rule.first}-{rule.last}"
            found.append(_rule("--portmap", f"{source} -> {rule.to}", packets, ports=ports))
        for option, packets in zip(COUNTED, self._job.packets, strict=True):
            if self._args[option] is not None:
                found.append(_rule(option, "" if option in SECRET else self._args[option], packets))
        return found

    def report(self, account: Account, *, json: bool) -> str:
        """The report as one JSON object, or as lines."""
        facts = self.facts(account)
        if json:
            import json as encoder

            return encoder.dumps(facts)
        lines = [str(account)]
        for rule in facts.get("rules", []):
            told = ", ".join(f"{rule[name]} {name}" for name in ("packets", "addresses", "ports") if name in rule)
            lines.append(f"{rule['option']} {rule['rule']}".rstrip() + f": {told}")
        addresses = facts.get("addresses")
        if addresses and addresses["seen"]:
            named = ", ".join(addresses["not_mapped"][:SHOWN]) + (", ..." if addresses["unmapped"] > SHOWN else "")
            lines.append(
                f"addresses seen: {addresses['seen']}, not mapped: {addresses['unmapped']}"
                + (f" ({named})" if named else "")
            )
        for part in ("edits", "shape"):
            happened = {name: n for name, n in facts.get(part, {}).items() if n and name not in TOLD}
            lines += [f"{name.replace('_', ' ')}: {n}" for name, n in happened.items()]
        for kind, counts in facts.get("checksums_before", {}).items():
            lines.append(
                f"{kind} checksums before: " + ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in counts.items())
            )
        return "\n".join(lines)


COUNTED = ("--map", "--seed", "--anonymize", "--ttl", "--tos", "--tclass", "--flowlabel", "--tcp-sequence")
"""In the order of enum pt_counted (core/csrc/rewrite.h)."""

SECRET = ("--seed", "--anonymize")
"""Whose argument does not belong into a report."""

TOLD = ("matched", "seen", "unmapped", "ports", "fields")
"""Counts that the lines for rules and addresses give to a person."""

SHOWN = 10
"""Addresses that are named to a person."""


def _rule(option: str, rule: str, packets: int, **counts: int) -> dict[str, Any]:
    return {"option": option, "rule": rule, "packets": packets, **counts}
