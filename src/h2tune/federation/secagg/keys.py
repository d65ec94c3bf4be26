"""Keys, boxes and masks on the primitives of `cryptography`: X25519, HKDF-SHA256, AES-256-GCM, ChaCha20."""

from __future__ import annotations

import secrets

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from h2tune.errors import H2TuneError
from h2tune.federation.secagg.masking import Words

SIZE = 32
"""Bytes of a public key, a private key and a seed."""
NONCE = 12
TAG = 16


def new_private() -> bytes:
    """Return a new private key."""
    return X25519PrivateKey.generate().private_bytes_raw()


def public_of(private: bytes) -> bytes:
    """Return the public key of a private key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, public: bytes, purpose: bytes) -> bytes:
    """Return the 32-byte secret that two parties share for one purpose (X25519, HKDF); both public keys enter it.

    Raises:
        H2TuneError: The public key is invalid, such as a point of low order.
    """
    try:
        secret = X25519PrivateKey.from_private_bytes(private).exchange(
            X25519PublicKey.from_public_bytes(public)
        )
    except ValueError:
        raise H2TuneError("a public key is invalid") from None
    info = b"h2tune secure aggregation 1|" + purpose + b"|" + b"".join(sorted((public_of(private), public)))
    return HKDF(SHA256(), length=SIZE, salt=None, info=info).derive(secret)


def seal(key: bytes, content: bytes, about: bytes) -> bytes:
    """Return a box: content encrypted with a key (AES-256-GCM); `about` is authenticated and not encrypted."""
    nonce = secrets.token_bytes(NONCE)
    return nonce + AESGCM(key).encrypt(nonce, content, about)


def unseal(key: bytes, box: bytes, about: bytes) -> bytes:
    """Return the content of a box.

    Raises:
        H2TuneError: It was sealed with another key or another `about`, or was altered.
    """
    try:
        return AESGCM(key).decrypt(box[:NONCE], box[NONCE:], about)
    except (InvalidTag, ValueError):
        raise H2TuneError("a box of shares was altered, or is not for this client") from None


def expand(seed: bytes, count: int) -> Words:
    """Return `count` words of ChaCha20's key stream. A seed is used for one stream, so the nonce is constant."""
    stream = Cipher(ChaCha20(seed, bytes(16)), mode=None).encryptor().update(bytes(8 * count))
    return np.frombuffer(stream, dtype="<u8")
