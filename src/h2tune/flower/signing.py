"""ECDSA signatures with SHA-256 by the keys of nodes, as ssh-keygen writes them. Imports nothing heavy."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

from h2tune.errors import H2TuneError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey


def sign(statement: bytes, key: Path) -> str:
    """Return the signature of a statement, in base64.

    Args:
        statement: What is signed.
        key: File of a private key.

    Raises:
        H2TuneError: The key cannot be used.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        private = load_ssh_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, EllipticCurvePrivateKey):
        raise H2TuneError(
            "the node's key cannot be used", remedy='ssh-keygen -t ecdsa -b 384 -N "" -f node makes one'
        )
    return base64.b64encode(private.sign(statement, ECDSA(SHA256()))).decode()


def is_signed(statement: bytes, signature: str, key: bytes) -> bool:
    """Return whether a signature is that of a statement by the private half of a key.

    Args:
        statement: What was signed.
        signature: The signature, in base64.
        key: The public key, in PEM or as ssh-keygen writes it.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    public = _loaded(key)
    if public is None:
        return False
    try:
        public.verify(base64.b64decode(signature, validate=True), statement, ECDSA(SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def public_key(key: bytes) -> bytes | None:
    """Return the public key of a node in PEM, in which equal keys have equal bytes; None if it is none.

    Args:
        key: The public key, in PEM or as ssh-keygen writes it.
    """
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = _loaded(key)
    return None if public is None else public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _loaded(key: bytes) -> EllipticCurvePublicKey | None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key, load_ssh_public_key

    try:
        public = load_pem_public_key(key) if key.startswith(b"-----") else load_ssh_public_key(key)
    except (UnsupportedAlgorithm, ValueError):
        return None
    return public if isinstance(public, EllipticCurvePublicKey) else None
