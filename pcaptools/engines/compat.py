"""tcprewrite's edits as tcprewrite does them (--compat tcprewrite): byte for byte, its mistakes included.

The edits are native (core/csrc/compat.h) and share little with those of engines/edits.py. The output is a classic pcap
in host byte order with a snap length of 65535, in nanoseconds where the input has them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from pcaptools.core._edits import Tcprewrite, seed_mac_mask, seed_mix
from pcaptools.core.batch import Batch
from pcaptools.core.pipeline import Account, Transform
from pcaptools.engines import options
from pcaptools.engines.rewrite import by_version

USAGE = """pcaprewrite --compat tcprewrite: edit a capture as tcprewrite does.

Usage:
  pcaprewrite [options] [--pnat MAP ...] [--portmap MAP ...] [--enet-subsmac PAIR ...] [--user-dlink HEX ...]

Options:
  -i, --infile=FILE
  -o, --outfile=FILE
  -c, --cachefile=FILE
  -N, --pnat=MAP
  -S, --srcipmap=MAP
  -D, --dstipmap=MAP
  -e, --endpoints=PAIR
  -s, --seed=N
  -b, --skipbroadcast
  -r, --portmap=MAP
  --tcp-sequence=N
  --ttl=N
  --tos=N
  --tclass=N
  --flowlabel=N
  -C, --fixcsum
  --fixhdrlen
  -m, --mtu=N
  --mtu-trunc
  -F, --fixlen=MODE
  -E, --efcs
  --dlt=TYPE
  --enet-dmac=MACS
  --enet-smac=MACS
  --enet-subsmac=PAIR
  --enet-mac-seed=N
  --enet-mac-seed-keep-bytes=N
  --skipl2broadcast
  --enet-vlan=MODE
  --enet-vlan-tag=N
  --enet-vlan-cfi=N
  --enet-vlan-pri=N
  --enet-vlan-proto=PROTO
  --hdlc-control=N
  --hdlc-address=N
  --user-dlt=N
  --user-dlink=HEX
  --fuzz-seed=N
  --fuzz-factor=N
  --skip-soft-errors
  -v, --verbose
  -w, --suppress-warnings
"""


_LINKTYPES = {**options.OUTPUT_LINKTYPES, "ieee80211": 105, "radiotap": 127, "jnpr_eth": 178}
_MORE = {"--dlt": options.one_of(_LINKTYPES)}

_CONFLICTS = (
    ("--seed", "--fuzz-seed"),
    ("--pnat", "--srcipmap"),
    ("--enet-mac-seed", "--enet-smac"),
    ("--enet-mac-seed", "--enet-dmac"),
    ("--enet-mac-seed", "--enet-subsmac"),
)


def _given(args: dict[str, Any]) -> dict[str, Any]:
    """The values of the options; ValueError where tcprewrite refuses them."""
    given = options.parsed(args, _MORE)
    for first, second in _CONFLICTS:
        if first in given and second in given:
            raise ValueError(f"tcprewrite does not take {first} with {second}")
    if given.get("--enet-vlan") == options.VLAN_MODES["add"] and "--enet-vlan-tag" not in given:
        raise ValueError("--enet-vlan=add needs --enet-vlan-tag")
    if given.get("--dlt") != _LINKTYPES["user"]:
        given.pop("--user-dlink", None)
        given.pop("--user-dlt", None)
    return given


class Compat(Transform):
    """A capture through tcprewrite's edits, as a classic pcap; nanoseconds: of that resolution."""

    def __init__(self, args: dict[str, Any], cache: bytes | None, account: Account) -> None:
        self._given = given = _given(args)
        self._args = args
        self._account = account
        self.nanoseconds = False
        self._cache = cache
        self._native: Tcprewrite | None = None
        self._out = Batch()
        self._maps = [
            by_version(rules)
            for rules in (given.get("--srcipmap", []), given.get("--dstipmap", []), *options.direction_maps(given))
        ]
        if "--endpoints" in given and cache is None:
            raise ValueError("--endpoints needs a cache file (-c)")

    def _start(self, linktype: int) -> Tcprewrite:
        given, args = self._given, self._args
        out = given.get("--dlt")
        if out is None:
            out = linktype
        if out == _LINKTYPES["user"]:
            out = given.get("--user-dlt", linktype)
        fields: dict[str, Any] = {
            "in_type": linktype,
            "out_type": out,
            "pnat": any(map(bool, options.direction_maps(given))),
            "skip_broadcast": args["--skipbroadcast"],
            "tos": given.get("--tos", -1),
            "tclass": given.get("--tclass", -1),
            "flowlabel": given.get("--flowlabel", -1),
            "fix_checksums": args["--fixcsum"],
            "fix_lengths": args["--fixhdrlen"],
            "fixlen": given.get("--fixlen", 0),
            "mtu_trunc": args["--mtu-trunc"],
            "mtu": given.get("--mtu", 1500),
            "efcs": args["--efcs"],
            "vlan": given.get("--enet-vlan", 0),
            "vlan_tag": given.get("--enet-vlan-tag", -1),
            "vlan_cfi": given.get("--enet-vlan-cfi", -1),
            "vlan_pri": given.get("--enet-vlan-pri", -1),
            "vlan_proto": given.get("--enet-vlan-proto", 0x8100),
            "hdlc_address": given.get("--hdlc-address", -1),
            "hdlc_control": given.get("--hdlc-control", -1),
            "skip_l2_broadcast": args["--skipl2broadcast"],
            "skip_soft_errors": args["--skip-soft-errors"],
            "mac_keep": given.get("--enet-mac-seed-keep-bytes", 0),
            "fuzz_factor": given.get("--fuzz-factor", 8),
        }
        fields["ttl_mode"], fields["ttl"] = given.get("--ttl", (0, 0))
        seeds = {
            name: seed_mix(given[f"--{name}"]) for name in ("seed", "fuzz-seed", "tcp-sequence") if f"--{name}" in given
        }
        return Tcprewrite(
            fields,
            maps=self._maps,
            ports=given.get("--portmap", []),
            macs=(given.get("--enet-dmac", (None, None)), given.get("--enet-smac", (None, None))),
            swaps=given.get("--enet-subsmac", []),
            links=given.get("--user-dlink", []),
            seed=seeds["seed"][0] if "seed" in seeds else None,
            fuzz=seeds["fuzz-seed"][0] if "fuzz-seed" in seeds else None,
            sequence=seeds["tcp-sequence"][1] if "tcp-sequence" in seeds else None,
            mac_mask=seed_mac_mask(given["--enet-mac-seed"]) if "--enet-mac-seed" in given else None,
            cache=self._cache,
        )

    def feed(self, batch: Batch) -> Iterable[Batch]:
        out = self._out
        out.clear()
        if self._native is None:
            if not batch.linktypes:
                return
            self._native = self._start(batch.linktypes[0])
            magic = 0xA1B23C4D if self.nanoseconds else 0xA1B2C3D4
            out.append(struct.pack("=IHHiIII", magic, 2, 4, 0, 0, 65535, self._native.out_type))
            out.skip(24)
        self._native.edit(batch, out, self.nanoseconds)
        yield out

    def finish(self) -> Iterable[Batch]:
        if self._native:
            self._account.drop("dropped as tcprewrite does", self._native.dropped)
            if self._native.overrun:
                self._account.problem("the cache file has fewer packets than the capture")
        return ()
