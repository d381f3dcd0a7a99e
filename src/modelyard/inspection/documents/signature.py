"""`*.sig`: an OpenSSF model signature, that is a Sigstore bundle with a DSSE envelope over an in-toto statement.

A valid signature by anybody is worth nothing: it counts when it was made with a key that the operator trusts, and
covers exactly the files of this bundle (model_signing signature v1.0; DSSE protocol, "Signature Definition"). No
transparency log is asked: keyless signatures need one, and are refused because no trusted key made them.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import FileTooLarge, SignatureInvalid
from modelyard.inspection.documents.json_text import read_bounded, read_json, require_object
from modelyard.inspection.policy import InspectionPolicy, TrustedKey

_PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
_PREDICATE: Final = "https://model_signing/signature/v1.0"
_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_HINT: Final = "sign the bundle as it is uploaded: model_signing sign key --private-key KEY --signature model.sig DIR"


def require_signature(path: Path, name: str, files: Mapping[str, str], policy: InspectionPolicy) -> str:
    """The name of the trusted key that signed exactly `files` (name → hex SHA-256), else `SignatureInvalid`."""
    data = read_bounded(path, limit=policy.labels_bytes, what=quote(name), too_large=FileTooLarge)
    envelope, payload, signatures = _envelope(
        _object(read_json(data, what=quote(name), policy=policy, refused=SignatureInvalid), name), name
    )
    statement = _object(
        read_json(payload, what="the signed statement", policy=policy, refused=SignatureInvalid), "the statement"
    )
    _require_cover(statement, files)
    if not policy.trusted_keys:
        raise SignatureInvalid(
            "the signature covers these files, but no trusted key is configured that could verify it",
            hint="an operator adds the signer's public key to the trusted keys; or upload without the signature",
        )
    message = _pre_authentication(str(envelope.get("payloadType")), payload)
    for key in policy.trusted_keys:
        if any(_verifies(key, signature, message) for signature in signatures):
            return key.name
    raise SignatureInvalid("the signature was not made with any of the trusted keys", hint=_HINT)


def _object(value: object, what: str) -> dict[str, object]:
    return require_object(value, what=quote(what), refused=SignatureInvalid)


def _envelope(document: dict[str, object], name: str) -> tuple[dict[str, object], bytes, list[bytes]]:
    """(envelope, payload, signatures) of a Sigstore bundle v0.3."""
    media = document.get("mediaType")
    if not isinstance(media, str) or not media.startswith("application/vnd.dev.sigstore.bundle"):
        raise SignatureInvalid(f"{quote(name)} is not a Sigstore bundle", hint=_HINT)
    if not isinstance(document.get("dsseEnvelope"), dict):
        raise SignatureInvalid(f"{quote(name)} holds no signature (dsseEnvelope is missing)", hint=_HINT)
    envelope = _object(document["dsseEnvelope"], "dsseEnvelope")
    if envelope.get("payloadType") != _PAYLOAD_TYPE:
        raise SignatureInvalid(
            f"the signed payload is {quote(envelope.get('payloadType'))}, not a statement", hint=_HINT
        )
    entries = envelope.get("signatures")
    if not isinstance(entries, list) or not 0 < len(entries) <= 16:  # noqa: PLR2004
        raise SignatureInvalid("the envelope has no signatures", hint=_HINT)
    signatures = [_decoded(_object(entry, "signature").get("sig")) for entry in entries]
    return envelope, _decoded(envelope.get("payload")), signatures


def _decoded(value: object) -> bytes:
    try:
        return base64.b64decode(value if isinstance(value, str) else "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise SignatureInvalid("a part of the signature is not Base64", hint=_HINT) from error


def _require_cover(statement: dict[str, object], files: Mapping[str, str]) -> None:
    """The statement's resources are exactly the bundle's files, and its subject is the digest over them."""
    predicate = _object(statement.get("predicate"), "predicate")
    if statement.get("_type") != _STATEMENT or statement.get("predicateType") != _PREDICATE:
        raise SignatureInvalid("the statement is not a model signature v1.0", hint=_HINT)
    resources = predicate.get("resources")
    if not isinstance(resources, list):
        raise SignatureInvalid("the statement names no resources", hint=_HINT)
    signed = [_resource(entry) for entry in resources]
    names = [name for name, _ in signed]
    for name in sorted(set(names) ^ set(files)):
        how = "was added after signing" if name in files else "was signed and is missing"
        raise SignatureInvalid(f"{quote(name)} {how}", hint=_HINT, details=[{"file": quote(name)}])
    for name, digest in signed:
        if files[name] != digest:
            raise SignatureInvalid(
                f"{quote(name)} was changed after signing", hint=_HINT, details=[{"file": quote(name)}]
            )
    if len(set(names)) != len(names):
        raise SignatureInvalid("the statement names a file twice", hint=_HINT)
    _require_subject(statement.get("subject"), [digest for _, digest in signed])


def _resource(entry: object) -> tuple[str, str]:
    item = _object(entry, "resource")
    name, digest = item.get("name"), item.get("digest")
    if item.get("algorithm") != "sha256" or not isinstance(name, str) or not isinstance(digest, str):
        raise SignatureInvalid("a resource has no SHA-256", hint=_HINT)
    return name, digest.lower()


def _require_subject(subject: object, digests: Sequence[str]) -> None:
    entry = subject[0] if isinstance(subject, list) and len(subject) == 1 else None
    stated = _object(_object(entry, "subject").get("digest"), "digest").get("sha256")
    try:
        whole = hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in digests)).hexdigest()
    except ValueError as error:
        raise SignatureInvalid("a digest of the statement is not hex", hint=_HINT) from error
    if stated != whole:
        raise SignatureInvalid("the statement's subject is not the digest of its resources", hint=_HINT)


def _pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """What is signed: DSSE's PAE of type and payload."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _verifies(key: TrustedKey, signature: bytes, message: bytes) -> bool:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError as error:
        raise SignatureInvalid(
            "signatures cannot be verified here: the package cryptography is not installed",
            hint="an operator installs cryptography; or upload without the signature",
        ) from error
    try:
        public = load_pem_public_key(key.pem)
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise SignatureInvalid(f"the trusted key {quote(key.name)} is not an elliptic-curve key")
        public.verify(signature, message, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    except ValueError as error:
        raise SignatureInvalid(f"the trusted key {quote(key.name)} cannot be read") from error
    return True
