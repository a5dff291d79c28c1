"""What the edits did, as messages and as a report."""

from __future__ import annotations

from collections.abc import Callable
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
                + (f"; {lost} more addresses were not looked for" if lost else "")
            )
        if verbose:
            self._details(say, counts)

    def _problems(self, counts: dict[str, Any], account: Account) -> None:
        if counts.get("malformed"):
            account.problem(f"addresses of {counts['malformed']} packets not mapped: no IP header can look like theirs")
        if counts.get("no_ethernet"):
            account.problem(f"MAC addresses of {counts['no_ethernet']} packets not set: they have no Ethernet header")
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
            found["edits"] = {
                name: list(value) if isinstance(value, tuple) else value for name, value in self._job.counts.items()
            }
            found["rules"] = self._rules()
        if self._shape:
            found["shape"] = self._shape.counts
        if self._watch:
            names = [name.replace(" ", "_") for name in SUMS]
            found["checksums_before"] = {
                "header": dict(zip(names, self._watch.header, strict=True)),
                "transport": dict(zip(names, self._watch.transport, strict=True)),
            }
        return found

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
                matched = sum(hits[slot][number] for slot in chosen)
                found.append({"option": option, "rule": f"{rule.source} -> {rule.target}", "addresses": matched})
        for rule, matched in zip(self._given.get("--portmap", []), self._job.port_counts, strict=True):
            ports = str(rule.first) if rule.first == rule.last else f"{rule.first}-{rule.last}"
            found.append({"option": "--portmap", "rule": f"{ports} -> {rule.to}", "ports": matched})
        return found

    def report(self, account: Account, *, json: bool) -> str:
        """The report as one JSON object, or as lines."""
        facts = self.facts(account)
        if json:
            import json as encoder

            return encoder.dumps(facts)
        lines = [str(account)]
        for rule in facts.get("rules", []):
            lines.append(f"{rule['option']} {rule['rule']}: {rule.get('addresses', rule.get('ports'))} matched")
        for part in ("edits", "shape"):
            lines += [f"{name.replace('_', ' ')}: {value}" for name, value in facts.get(part, {}).items()]
        for kind, counts in facts.get("checksums_before", {}).items():
            lines.append(
                f"{kind} checksums before: " + ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in counts.items())
            )
        return "\n".join(lines)
