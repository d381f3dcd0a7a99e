"""Model signatures: only a trusted key over exactly these files counts."""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from modelyard.domain.report import Verdict
from modelyard.inspection import Inspection, TrustedKey

KEY, STRANGER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())


def trusted(key: ec.EllipticCurvePrivateKey) -> TrustedKey:
    return TrustedKey(name="team-a", pem=key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def signed(files: Mapping[str, bytes], key: ec.EllipticCurvePrivateKey = KEY) -> bytes:
    """A Sigstore bundle as OpenSSF model signing writes it in key mode."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    whole = hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in digests.values())).hexdigest()
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "m", "digest": {"sha256": whole}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []},
            "resources": [{"name": name, "algorithm": "sha256", "digest": digest} for name, digest in digests.items()],
        },
    }
    payload, kind = json.dumps(statement).encode(), b"application/vnd.in-toto+json"
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    signature = key.sign(message, ec.ECDSA(SHA256()))
    document = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": "x"}},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": kind.decode(),
            "signatures": [{"sig": base64.b64encode(signature).decode()}],
        },
    }
    return json.dumps(document).encode()


def test_a_signature_of_a_trusted_key_over_these_files_passes(
    corpus: Callable[[str], Any], inspect: Callable[..., Inspection]
) -> None:
    files = corpus("bundle()")
    done = inspect({**files, "model.sig": signed(files)}, trusted_keys=(trusted(KEY),), require_signature=True)
    assert done.report.verdict is Verdict.APPROVED, done.report.refusal
    assert any(check.name == "signature.bundle" and check.evidence["key"] == "team-a" for check in done.report.checks)


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        (lambda files: {**files, "labels.json": b'{"0":"a","1":"b"}'}, "labels.json"),
        (lambda files: {**files, "README.md": b"# new"}, "README.md"),
        (lambda files: {name: data for name, data in files.items() if name != "labels.json"}, "labels.json"),
    ],
    ids=["changed", "added", "removed"],
)
def test_a_file_that_differs_from_what_was_signed_is_named(
    change: Callable[[Any], Any], culprit: str, corpus: Callable[[str], Any], inspect: Callable[..., Inspection]
) -> None:
    files = corpus("bundle()")
    done = inspect({**change(files), "model.sig": signed(files)}, trusted_keys=(trusted(KEY),))
    assert done.report.refusal is not None
    assert done.report.refusal.code == "signature_invalid"
    assert culprit in done.report.refusal.detail


@pytest.mark.parametrize("keys", [(), (trusted(STRANGER),)], ids=["none", "another"])
def test_a_signature_that_no_trusted_key_made_is_refused(
    keys: tuple[TrustedKey, ...], corpus: Callable[[str], Any], inspect: Callable[..., Inspection]
) -> None:
    files = corpus("bundle()")
    done = inspect({**files, "model.sig": signed(files)}, trusted_keys=keys)
    assert done.report.refusal is not None
    assert done.report.refusal.code == "signature_invalid"


def test_a_policy_may_ask_for_a_signature(corpus: Callable[[str], Any], inspect: Callable[..., Inspection]) -> None:
    done = inspect(corpus("bundle()"), require_signature=True, trusted_keys=(trusted(KEY),))
    assert done.report.refusal is not None
    assert done.report.refusal.code == "signature_invalid"
