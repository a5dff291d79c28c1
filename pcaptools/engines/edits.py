"""From pcaprewrite's options to its transforms, in the one order in which they apply:

directions, choosing, time, metadata, link layer and lengths, headers, addresses, payload, checksums.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pcaptools.core import _edits
from pcaptools.core.batch import Batch
from pcaptools.core.pipeline import Account, Transform
from pcaptools.core.times import parse_time
from pcaptools.engines import options
from pcaptools.engines.choose import parse_numbers, parse_window
from pcaptools.engines.metadata import Metadata
from pcaptools.engines.reshape import Reshape, parse_chop, parse_pop, parse_push, parse_translate
from pcaptools.engines.retime import parse_gap, parse_scale, parse_shift
from pcaptools.engines.rewrite import Rewrite, Rule, by_version, narrowing, parse_map

ANONYMITY = {"prefix-preserving": 1, "random": 2}
MAC_ANONYMITY = {"keep": 0, "vendor": 1, "full": 2}
PAYLOADS = {"zero": 1, "random": 2, "drop": 3}
WHICH = {"--outer": 0, "--inner": 1, "--all-layers": 2}


def parse_key(text: str) -> tuple[str, int]:
    """`KEY[:prefix-preserving|:random]` as (key, mode). Raises ValueError."""
    key, colon, mode = text.rpartition(":")
    if not colon or mode not in ANONYMITY:
        key, mode = text, "prefix-preserving"
    if not key:
        raise ValueError("the key is empty")
    return key, ANONYMITY[mode]


PARSERS: dict[str, Any] = {
    "--ipmap": parse_map,
    "--anonymize": parse_key,
    "--anonymize-mac": options.one_of(MAC_ANONYMITY),
    "--anonymize-payload": options.one_of(PAYLOADS),
    "--vlan-push": parse_push,
    "--vlan-pop": parse_pop,
    "--vlan-translate": parse_translate,
    "--chop": parse_chop,
    "--snaplen": options.between(1, 262144),
    "--shift": parse_shift,
    "--scale": parse_scale,
    "--start": parse_time,
    "--min-gap": parse_gap,
    "--reorder": parse_gap,
    "--packets": parse_numbers,
    "--from": parse_time,
    "--to": parse_time,
    "--sample": options.between(1, 1 << 31),
    "--dedup-window": parse_window,
}

_MAPPING = "--srcipmap --dstipmap --pnat --endpoints --ipmap --map --seed --anonymize"

_ALONE = {
    "--dns-map": _MAPPING,
    "--report-leaks": _MAPPING,
    "--enet-vlan-tag": "--enet-vlan",
    "--enet-vlan-cfi": "--enet-vlan",
    "--enet-vlan-pri": "--enet-vlan",
    "--enet-mac-seed-keep-bytes": "--enet-mac-seed",
    "--fuzz-factor": "--fuzz-seed",
    "--dedup-window": "--dedup",
    "--anonymize-mac": "--anonymize",
    "--keep-metadata": "--anonymize",
    "--user-dlt": "--user-dlink",
    "--hdlc-address": "--dlt",
    "--hdlc-control": "--dlt",
    "--edit-only": "--filter --packets --from --to --sample --dedup",
}
"""Options that mean nothing without (one of) another."""

_CONTRADICTIONS = (
    ("--endpoints", "--pnat"),
    ("--outer", "--inner"),
    ("--outer", "--all-layers"),
    ("--inner", "--all-layers"),
    ("--enet-mac-seed", "--enet-smac"),
    ("--enet-mac-seed", "--enet-dmac"),
    ("--enet-mac-seed", "--enet-subsmac"),
    ("--strip-comments", "--comment"),
)


def _or(names: list[str]) -> str:
    return f"one of {', '.join(names)}" if len(names) > 2 else " or ".join(names)


def checked(args: dict[str, Any]) -> dict[str, Any]:
    """The values of all options that were given. ValueError: one is wrong, or they do not go together."""
    given = options.parsed(args, PARSERS)
    for option, other in _ALONE.items():
        if args.get(option) and not any(args.get(name) for name in other.split()):
            raise ValueError(f"{option} means nothing without {_or(other.split())}")
    for first, second in _CONTRADICTIONS:
        if args.get(first) and args.get(second):
            raise ValueError(f"{first} and {second} contradict each other")
    if given.get("--enet-vlan") == 1 and "--enet-vlan-tag" not in given:
        raise ValueError("--enet-vlan=add needs --enet-vlan-tag")
    if given.get("--dlt") == -1 and "--user-dlink" not in given:
        raise ValueError("--dlt=user needs --user-dlink")
    if given.get("--anonymize-payload") == PAYLOADS["random"] and "--anonymize" not in given:
        raise ValueError("--anonymize-payload=random needs a key: --anonymize")
    if "--start" in given and "--shift" in given:
        raise ValueError("--start and --shift contradict each other")
    options.direction_maps(given)
    return given


def rules_of(given: dict[str, Any]) -> list[tuple[str, list[Rule]]]:
    """(option, rules) of every list of rules, in the order in which they apply."""
    lists: list[tuple[str, list[Rule]]] = []
    lists += [(name, given[name]) for name in ("--srcipmap", "--dstipmap") if name in given]
    lists += [("--pnat", rules) for rules in given.get("--pnat", [])]
    return lists + ([("--ipmap", given["--ipmap"])] if "--ipmap" in given else [])


def overlapping(rules: list[Rule]) -> list[tuple[Rule, Rule]]:
    """The rules that overlap an earlier one, each with the first such, which wins."""
    first: dict[int, int] = {}
    spans = [(net.version, int(net.network_address), -int(net.broadcast_address)) for net, _ in rules]
    around: list[int] = []  # networks contain each other or are apart: those that contain the one at hand
    for k in sorted(range(len(rules)), key=lambda k: (spans[k], k)):
        while around and (spans[around[-1]][0], -spans[around[-1]][2]) < spans[k][:2]:
            around.pop()
        for other in around:
            later, earlier = max(k, other), min(k, other)
            first[later] = min(first.get(later, earlier), earlier)
        around.append(k)
    return [(rules[k], rules[first[k]]) for k in sorted(first)]


def overlapping_ports(rules: list[options.PortRule]) -> list[options.PortRule]:
    """The port rules that an earlier one takes ports from."""
    taken = bytearray(1 << 16)
    found = []
    for rule in rules:
        if 1 in taken[rule.first : rule.last + 1]:
            found.append(rule)
        taken[rule.first : rule.last + 1] = b"\1" * (rule.last + 1 - rule.first)
    return found


NAMED = 10
"""Rules that overlap: so many are named."""


def warnings(given: dict[str, Any], *, verbose: bool) -> Iterator[str]:
    """What may not be as the user thinks: maps that make different hosts one; with verbose, rules that overlap."""
    for option, rules in rules_of(given):
        for text in narrowing(rules):
            yield f"{option}: {text}, which is narrower: different hosts become one"
        found = overlapping(rules) if verbose else []
        for rule, earlier in found[:NAMED]:
            yield f"{option}: {rule.source} overlaps {earlier.source}, which comes first"
        if found[NAMED:]:
            yield f"{option}: {len(found) - NAMED} more rules overlap an earlier one"
    for port in overlapping_ports(given.get("--portmap", []))[:NAMED] if verbose else ():
        ports = f"{port.first}-{port.last}" if port.first < port.last else port.first
        yield f"--portmap: {ports}:{port.to} overlaps an earlier rule, which comes first"


def keys(text: str) -> tuple[bytes, bytes]:
    """The keys for addresses and for payloads that a user's key stands for."""
    import hashlib

    digest = hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=32, person=b"pcaprewrite").digest()
    return digest[:16], digest[16:]


def two_sided(given: dict[str, Any], args: dict[str, Any]) -> bool:
    """Whether any edit depends on the direction of packets."""
    pairs = [given[name] for name in ("--enet-smac", "--enet-dmac") if name in given]
    return (
        "--endpoints" in given
        or len(given.get("--pnat", [])) > 1
        or len(given.get("--user-dlink", [])) > 1
        or any(second is not None or first is None for first, second in pairs)
    )


class Direct(Transform):
    """Note for every packet which side sent it: from a cache (one byte a packet), or from its own flow."""

    def __init__(self, account: Account, cache: bytes | None) -> None:
        self._account = account
        self._cache = cache
        self._at = 0
        self._native = None if cache is not None else _edits.Directions()

    def feed(self, batch: Batch) -> Iterable[Batch]:
        if self._native:
            self._native.note(batch)
        else:
            assert self._cache is not None
            part = self._cache[self._at : self._at + batch.n]
            _edits.note_cached(batch, part.ljust(batch.n, bytes([options.NO_SEND])))
            self._at += batch.n
        yield batch

    def finish(self) -> Iterable[Batch]:
        if self._cache is not None and self._at != len(self._cache):
            self._account.problem(
                f"the cache file is of {len(self._cache)} packets, the capture has {self._at}: "
                "packets that it does not know were not edited"
            )
        return ()


def _macs(given: dict[str, Any], args: dict[str, Any]) -> tuple[tuple[bytes | None, bytes | None], ...]:
    """(destination, source), each (client, server). One alone is for both, unless a cache tells the sides apart."""
    pairs = []
    for name in ("--enet-dmac", "--enet-smac"):
        first, second = given.get(name, (None, None))
        one = first is not None and second is None and "," not in (args.get(name) or "") and not args.get("--cachefile")
        pairs.append((first, first if one else second))
    return tuple(pairs)


_SHAPING = (
    "--dlt",
    "--enet-vlan",
    "--user-dlink",
    "--vlan-push",
    "--vlan-pop",
    "--vlan-translate",
    "--fixlen",
    "--snaplen",
    "--chop",
)


def reshape(given: dict[str, Any], args: dict[str, Any], account: Account) -> Reshape | None:
    """The transform for what changes lengths."""
    if not any(name in given for name in _SHAPING) and not (args["--efcs"] or args["--mtu-trunc"] or args["--decap"]):
        return None
    linktype = given.get("--dlt")
    if linktype == -1:
        linktype = given.get("--user-dlt")
    if "--user-dlink" in given:
        linktype = given.get("--user-dlt")
    fields = {
        "out_type": -1 if linktype is None else linktype,
        "hdlc_address": given.get("--hdlc-address", -1),
        "hdlc_control": given.get("--hdlc-control", -1),
        "decap": args["--decap"],
        "efcs": args["--efcs"],
        "vlan": given.get("--enet-vlan", 0),
        "vlan_proto": given.get("--enet-vlan-proto", 0x8100),
        "vlan_tag": given.get("--enet-vlan-tag", -1),
        "vlan_cfi": given.get("--enet-vlan-cfi", -1),
        "vlan_pri": given.get("--enet-vlan-pri", -1),
        "pops": given.get("--vlan-pop", 0),
        "fixlen": given.get("--fixlen", 0),
        "mtu_trunc": args["--mtu-trunc"],
        "mtu": given.get("--mtu", 1500),
        "snaplen": given.get("--snaplen", 0),
        "chop": given.get("--chop", ((0, 0), (0, 0))),
        "chop_wire": args["--chop-length"],
    }
    return Reshape(
        account,
        fields,
        relabel=linktype,
        macs=_macs(given, args),
        links=given.get("--user-dlink", []),
        push=given.get("--vlan-push", []),
        translate=given.get("--vlan-translate", []),
    )


_EDITING = (
    "--srcipmap",
    "--dstipmap",
    "--pnat",
    "--endpoints",
    "--ipmap",
    "--seed",
    "--portmap",
    "--tcp-sequence",
    "--ttl",
    "--tos",
    "--tclass",
    "--flowlabel",
    "--enet-smac",
    "--enet-dmac",
    "--enet-subsmac",
    "--enet-mac-seed",
    "--fuzz-seed",
    "--anonymize",
    "--anonymize-payload",
)


def job(given: dict[str, Any], args: dict[str, Any], table: _edits.Table | None) -> _edits.Job | None:
    """All edits that keep lengths."""
    if not any(name in given for name in _EDITING) and not (table or args["--fixhdrlen"]):
        return None
    anonymizer, payload_key = None, b""
    if "--anonymize" in given:
        text, mode = given["--anonymize"]
        key, payload_key = keys(text)
        anonymizer = _edits.Anonymizer(key, mode, given.get("--anonymize-mac", MAC_ANONYMITY["full"]))
    which = next((number for name, number in WHICH.items() if args[name]), 2 if anonymizer else 0)
    maps = (by_version(given.get("--srcipmap", [])), by_version(given.get("--dstipmap", [])))
    pnat = tuple(by_version(rules) for rules in options.direction_maps(given))
    return _edits.Job(
        maps=maps,
        pnat=pnat,
        both=by_version(given.get("--ipmap", [])),
        table=table,
        anonymizer=anonymizer,
        seed=_edits.seed_mix(given["--seed"])[0] if "--seed" in given else None,
        skip_broadcast=args["--skipbroadcast"],
        which=which,
        ttl=given.get("--ttl", (0, 0)),
        tos=given.get("--tos", -1),
        tclass=given.get("--tclass", -1),
        flowlabel=given.get("--flowlabel", -1),
        ports=given.get("--portmap", []),
        sequence=_edits.seed_mix(given["--tcp-sequence"])[1] if "--tcp-sequence" in given else 0,
        macs=_macs(given, args),
        swaps=given.get("--enet-subsmac", []),
        mac_mask=_edits.seed_mac_mask(given["--enet-mac-seed"]) if "--enet-mac-seed" in given else None,
        mac_keep=given.get("--enet-mac-seed-keep-bytes", 0),
        skip_l2_broadcast=args["--skipl2broadcast"],
        fuzz=_edits.seed_mix(given["--fuzz-seed"])[0] if "--fuzz-seed" in given else None,
        fuzz_factor=given.get("--fuzz-factor", 8),
        payload=given.get("--anonymize-payload", 0),
        payload_key=payload_key,
        dns=args["--dns-map"],
        fix_lengths=args["--fixhdrlen"],
        leaks=args["--report-leaks"],
        note=args["--report"] or args["--json"],
        skip_soft=args["--skip-soft-errors"],
    )


def metadata(given: dict[str, Any], args: dict[str, Any], edits: _edits.Job | None) -> Metadata | None:
    """What happens to the blocks of a pcapng that are no packets."""
    private = "--anonymize" in given and not args["--keep-metadata"]
    if not (private or args["--strip-comments"] or args["--discard-secrets"] or "--anonymize" in given):
        return None
    mapper = None
    if "--anonymize" in given and edits:
        key, mode = given["--anonymize"]
        macs = _edits.Anonymizer(keys(key)[0], mode, given.get("--anonymize-mac", MAC_ANONYMITY["full"]))
        keep_macs = given.get("--anonymize-mac") == MAC_ANONYMITY["keep"]

        def mapper(data: bytes) -> bytes:
            if len(data) == 6:
                return data if keep_macs else macs.address(data)
            return edits.address(data)

    return Metadata(
        map_address=mapper,
        private=private,
        strip_comments=args["--strip-comments"],
        discard_secrets=args["--discard-secrets"],
    )


class Watch(Transform):
    """Count the checksums as they came."""

    def __init__(self) -> None:
        self.header = [0] * 6
        self.transport = [0] * 6

    def feed(self, batch: Batch) -> Iterable[Batch]:
        header, transport = batch.sums(False)
        self.header = [a + b for a, b in zip(self.header, header, strict=True)]
        self.transport = [a + b for a, b in zip(self.transport, transport, strict=True)]
        yield batch


def rewrite(edits: _edits.Job | None, fix_checksums: bool, shaped: Reshape | None) -> Rewrite | None:
    """The transform for what keeps lengths."""
    if not (edits or fix_checksums or shaped):
        return None
    return Rewrite(job=edits, fix_checksums=fix_checksums, resum=shaped is not None)


class Sweep(Transform):
    """Book and leave out what the edits dropped."""

    def __init__(self, account: Account, edits: _edits.Job) -> None:
        self._account = account
        self._edits = edits
        self._booked = (0, 0)

    def feed(self, batch: Batch) -> Iterable[Batch]:
        now = self._edits.dropped
        if now != self._booked:
            self._account.drop("not editable", now[0] - self._booked[0])
            self._account.drop("fuzzed away", now[1] - self._booked[1])
            self._booked = now
            batch.forget_section_length()
            batch.compact()
        yield batch


def retiming(given: dict[str, Any], args: dict[str, Any], account: Account) -> list[Transform]:
    """The transforms for times."""
    from pcaptools.engines.retime import Reorder, Retiming

    found: list[Transform] = []
    if "--reorder" in given:
        found.append(Reorder(account, given["--reorder"]))
    if any(name in given for name in ("--shift", "--scale", "--start", "--min-gap")) or args["--monotonic"]:
        found.append(
            Retiming(
                account,
                shift=given.get("--shift", 0),
                scale=given.get("--scale"),
                start=given.get("--start"),
                monotonic=args["--monotonic"],
                least_gap=given.get("--min-gap", 0),
                digits_kept=args["--format"] in ("nspcap", "pcapng"),
            )
        )
    return found
