"""The protocol's messages as JSON, strictly validated and bounded: bytes are hexadecimal digits; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from h2tune.errors import H2TuneError
from h2tune.federation.secagg import keys, shamir
from h2tune.federation.secagg.protocol import BOX, Keys, Shares
from h2tune.federation.secagg.signed import CHARACTERS
from h2tune.functional.quorum import SECURE_CLIENTS

HEX = re.compile("([0-9a-f]{2})*")
BASE64 = re.compile(rf"[A-Za-z0-9+/=]{{0,{CHARACTERS}}}")
NAME = re.compile("[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def bytes_to_json(content: Mapping[str, bytes]) -> dict[str, str]:
    """Return bytes by client as JSON."""
    return {name: value.hex() for name, value in content.items()}


def boxes_from_json(content: object) -> dict[str, bytes]:
    """Return boxes by client.

    Raises:
        H2TuneError: It is not an object of boxes, each of their size.
    """
    return {name: _bytes(value, BOX) for name, value in _by_client(content).items()}


def keys_to_json(sent: Keys) -> dict[str, str]:
    """Return public keys as JSON."""
    return {**bytes_to_json({"box": sent.box, "mask": sent.mask}), "signature": sent.signature}


def keys_from_json(content: object) -> Keys:
    """Return public keys.

    Raises:
        H2TuneError: It is not an object with the keys `box`, `mask` and `signature`, each of its size.
    """
    if not isinstance(content, dict) or content.keys() != {"box", "mask", "signature"}:
        raise _malformed()
    box, mask = (_bytes(content[key], keys.SIZE) for key in ("box", "mask"))
    return Keys(box, mask, signature_from_json(content["signature"]))


def roster_from_json(content: object) -> dict[str, Keys]:
    """Return public keys by client.

    Raises:
        H2TuneError: It is not an object of public keys.
    """
    return {name: keys_from_json(sent) for name, sent in _by_client(content).items()}


def signature_from_json(content: object) -> str:
    """Return a signature; "" is none.

    Raises:
        H2TuneError: It is not a text in base64, or a longer one than a signature.
    """
    if not isinstance(content, str) or not BASE64.fullmatch(content):
        raise _malformed()
    return content


def signatures_from_json(content: object) -> dict[str, str]:
    """Return signatures by client.

    Raises:
        H2TuneError: It is not an object of signatures.
    """
    return {name: signature_from_json(value) for name, value in _by_client(content).items()}


def shares_to_json(shares: Shares) -> dict[str, Any]:
    """Return shares as JSON."""
    return {"mask_keys": bytes_to_json(shares.mask_keys), "seeds": bytes_to_json(shares.seeds)}


def shares_from_json(content: object) -> Shares:
    """Return shares.

    Raises:
        H2TuneError: It is not an object with the keys `mask_keys` and `seeds`, of shares of their size.
    """
    if not isinstance(content, dict) or content.keys() != {"mask_keys", "seeds"}:
        raise _malformed()
    mask_keys, seeds = (
        {name: _bytes(value, shamir.SIZE) for name, value in _by_client(content[key]).items()}
        for key in ("mask_keys", "seeds")
    )
    return Shares(mask_keys, seeds)


def names_from_json(content: object) -> tuple[str, ...]:
    """Return names, of clients or roles.

    Raises:
        H2TuneError: It is not a list of names, each once, or a longer one than a federation.
    """
    if not isinstance(content, list) or len(content) > SECURE_CLIENTS[1]:
        raise _malformed()
    if not all(_is_name(name) for name in content) or len(set(content)) != len(content):
        raise _malformed()
    return tuple(content)


def _by_client(content: object) -> dict[str, Any]:
    if not isinstance(content, dict) or len(content) > SECURE_CLIENTS[1]:
        raise _malformed()
    if not all(_is_name(name) for name in content):
        raise _malformed()
    return content


def _is_name(name: object) -> bool:
    return isinstance(name, str) and NAME.fullmatch(name) is not None


def _bytes(value: object, size: int) -> bytes:
    if not isinstance(value, str) or len(value) != 2 * size or not HEX.fullmatch(value):
        raise _malformed()
    return bytes.fromhex(value)


def _malformed() -> H2TuneError:
    return H2TuneError("malformed message of secure aggregation")
