"""The messages of Bonawitz et al. 2017 (CCS, figure 4, without its round for malicious servers); no network.

The rounds, with the paper's names and symbols:

0. AdvertiseKeys: each member u sends two public keys, c_u for boxes and s_u for masks. U₁ are those who did.
1. ShareKeys: u shares s_u's private key and a seed b_u among U₁, each share in a box for its owner. U₂ did.
2. MaskedInputCollection: u sends x_u + PRG(b_u) ± PRG(s_u,v) over all other v in U₂. U₃ did.
3. Unmasking: members of U₃ send shares of b_v for v in U₃ and of s_v for v in U₂ outside U₃; never both of one v.

Each half (`member.Member`, `server.Server`) is a state machine: a message in another state, from another party or of
another shape is refused. Keys are new in every run of the protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from h2tune.errors import H2TuneError
from h2tune.federation.secagg import keys, shamir

BOX = keys.NONCE + 2 * shamir.SIZE + keys.TAG
"""Bytes of a box: a share of the key for masks, and one of the own seed."""


@dataclass(frozen=True)
class Keys:
    """What a member sends in AdvertiseKeys: its public keys for boxes (c) and for masks (s)."""

    box: bytes
    mask: bytes


@dataclass(frozen=True)
class Shares:
    """What a member sends in Unmasking: its shares of private keys (of who is gone) and of own seeds, by member."""

    mask_keys: Mapping[str, bytes]
    seeds: Mapping[str, bytes]


def check_keys(roster: Mapping[str, Keys]) -> None:
    """Refuse keys of another size, and keys that two members have, or one twice."""
    found = [key for member in roster.values() for key in (member.box, member.mask)]
    if any(len(key) != keys.SIZE for key in found) or len(set(found)) != len(found):
        raise H2TuneError("a member's keys are malformed, or another's", where="secure aggregation")


def refused(member: str, why: str) -> H2TuneError:
    return H2TuneError(why, where=f"secure aggregation, '{member}'")
