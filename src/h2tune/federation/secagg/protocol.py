"""The messages of Bonawitz et al. 2017 (CCS, figure 4), with its parts against active adversaries; no network.

The rounds, with the paper's names and symbols:

0. AdvertiseKeys: each client u sends two public keys, c_u for boxes and s_u for masks, signed. U₁ are the clients that
   did.
1. ShareKeys: u checks the signatures, splits s_u's private key and a seed b_u among U₁, and sends each owner its share
   in a box (encrypted). U₂ are the clients that did.
2. MaskedInputCollection: u sends x_u + PRG(b_u) ± PRG(s_u,v) over all other v in U₂. U₃ are the clients that did.
3. ConsistencyCheck: u signs U₃ as the server names it. U₄ are the clients that did.
4. Unmasking: u checks that t or more signed the same U₃, and then sends shares of b_v for v in U₃ and of s_v for v in
   U₂ outside U₃; never both of one v.

Each side (`client.SecAggClient`, `server.SecAggServer`) is a state machine: it rejects a message in another state, from
an unknown sender or of another shape. Every run of the protocol has new keys.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from h2tune.errors import H2TuneError
from h2tune.federation.secagg import keys, shamir

BOX = keys.NONCE + 2 * shamir.SIZE + keys.TAG
"""Bytes of a box: the encrypted shares of a client's private key for masks and of its seed."""
SESSION = re.compile(r"([^|]{1,64})\|([^|]{1,64})\|([0-9]{1,9})\|[0-9a-f]{32}")


@dataclass(frozen=True)
class Keys:
    """A client's message in AdvertiseKeys.

    Args:
        box: Public key for boxes (c).
        mask: Public key for masks (s).
        signature: The client's signature of both, in base64.
    """

    box: bytes
    mask: bytes
    signature: str


@dataclass(frozen=True)
class Shares:
    """A client's message in Unmasking: shares of the private keys of dropped clients, and of survivors' seeds.

    Args:
        mask_keys: Dropped client → share of its private key for masks.
        seeds: Survivor → share of its seed.
    """

    mask_keys: Mapping[str, bytes]
    seeds: Mapping[str, bytes]


def new_session(federation: str, run: str, round_number: int) -> str:
    """Return the name of a new session, which ends with a random part: a repeated round has another name."""
    return f"{federation}|{run}|{round_number}|{secrets.token_hex(16)}"


def round_of(session: str, federation: str, run: str) -> int:
    """Return the round that a session's name names.

    Raises:
        H2TuneError: It is no session's name, or that of another federation or run.
    """
    found = SESSION.fullmatch(session)
    if found is None or found.group(1, 2) != (federation, run):
        raise H2TuneError("the session is not one of this federation and run", where="secure aggregation")
    return int(found[3])


def check_keys(roster: Mapping[str, Keys]) -> None:
    """Check that all keys have the right size and that no key occurs twice.

    Raises:
        H2TuneError: A key is too short or too long, or two keys are equal.
    """
    public = [key for sent in roster.values() for key in (sent.box, sent.mask)]
    if any(len(key) != keys.SIZE for key in public) or len(set(public)) != len(public):
        raise H2TuneError("a client's keys are malformed, or equal another's", where="secure aggregation")


def protocol_error(client: str, reason: str) -> H2TuneError:
    """Return the error of a message that breaks the protocol."""
    return H2TuneError(reason, where=f"secure aggregation, '{client}'")
