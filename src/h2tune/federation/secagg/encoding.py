"""The protocol's messages as JSON, strictly validated: bytes are hexadecimal digits; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from h2tune.errors import H2TuneError
from h2tune.federation.secagg.protocol import Keys, Shares


def bytes_to_json(content: Mapping[str, bytes]) -> dict[str, str]:
    """Return bytes by client as JSON."""
    return {name: value.hex() for name, value in content.items()}


def bytes_from_json(content: object) -> dict[str, bytes]:
    """Return bytes by client.

    Raises:
        H2TuneError: It is not an object of hexadecimal digits.
    """
    try:
        if not isinstance(content, dict):
            raise TypeError
        return {str(name): bytes.fromhex(value) for name, value in content.items()}
    except (TypeError, ValueError):
        raise _malformed() from None


def keys_to_json(keys: Keys) -> dict[str, str]:
    """Return public keys as JSON."""
    return bytes_to_json({"box": keys.box, "mask": keys.mask})


def keys_from_json(content: object) -> Keys:
    """Return public keys.

    Raises:
        H2TuneError: It is not an object with the keys `box` and `mask`.
    """
    pair = bytes_from_json(content)
    if pair.keys() != {"box", "mask"}:
        raise _malformed()
    return Keys(pair["box"], pair["mask"])


def roster_from_json(content: object) -> dict[str, Keys]:
    """Return public keys by client.

    Raises:
        H2TuneError: It is not an object of public keys.
    """
    if not isinstance(content, dict):
        raise _malformed()
    return {str(name): keys_from_json(keys) for name, keys in content.items()}


def shares_to_json(shares: Shares) -> dict[str, Any]:
    """Return shares as JSON."""
    return {"mask_keys": bytes_to_json(shares.mask_keys), "seeds": bytes_to_json(shares.seeds)}


def shares_from_json(content: object) -> Shares:
    """Return shares.

    Raises:
        H2TuneError: It is not an object with the keys `mask_keys` and `seeds`.
    """
    if not isinstance(content, dict) or content.keys() != {"mask_keys", "seeds"}:
        raise _malformed()
    return Shares(bytes_from_json(content["mask_keys"]), bytes_from_json(content["seeds"]))


def names_from_json(content: object) -> tuple[str, ...]:
    """Return names.

    Raises:
        H2TuneError: It is not a list of strings.
    """
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise _malformed()
    return tuple(content)


def _malformed() -> H2TuneError:
    return H2TuneError("malformed message of secure aggregation")
