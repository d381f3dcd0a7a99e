"""Keys and certificates change under load."""

import datetime as dt
import ssl
import time
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.faults import models
from tests.faults.experiment import Run, experiment
from tests.faults.load import Load, Question
from tests.faults.models import question
from tests.faults.stand import Stand, within

_ADDRESS = "127.0.0.1"


@experiment("P05", short=False)
def rotation(run: Run) -> None:
    """A new key beside the old one, a new certificate in the place of the old one, then the old key goes."""
    place = run.stands.folder()
    certificate, private = place / "cert.pem", place / "key.pem"
    _issue(certificate, private, serial=1)
    options = ("--servers", "2", "--auth", "required", "--tls-cert", str(certificate), "--tls-key", str(private))
    stand = run.stands.fresh(*options)
    run.cleanup.callback(run.stands.discard, stand)
    control = _Control(stand)
    with stand.platform.client(control.admin) as client:
        client._http = httpx.Client(verify=False, headers={"authorization": f"Bearer {control.admin}"})
        client.upload(models.linear(place / "m1.onnx"), name="m1")
        client.deploy("m1")
    old, new = control.key("old"), control.key("new")
    asked = [Question("/v2/models/m1/infer", question(float(value))) for value in range(1, 9)]
    load = Load(
        stand.platform.inference_url,
        asked,
        run.scale.rate,
        10.0,
        run.seed,
        headers=[_with(old)],
    )
    with load:
        run.steady(load)
        run.inject("clients take the new key", lambda: load.use(_with(new)))
        load.wait_s(1.0)
        run.inject("a new certificate", lambda: _issue(certificate, private, serial=2))
        taken = within(lambda: _serial(stand) == 2, limit_s=90.0)
        run.inject("the old key is revoked", lambda: control.ask("DELETE", f"/keys/{old['id']}"))
        began = time.monotonic()
        refused_after = _refused_everywhere(stand, old["key"], began)
        run.after(load)
    run.check_no_failures(load)
    run.check("old key refused on every server after", refused_after, at_most=5.0, unit="s")
    run.check("new certificate in use after", taken, at_most=60.0, unit="s")


class _Control:
    """The control API of a platform that asks for keys."""

    def __init__(self, stand: Stand) -> None:
        self._url = f"{stand.platform.control_url}/api/v1"
        token = Path(str(stand.platform.standing["bootstrap_token"])).read_text().strip()
        answer = httpx.post(f"{self._url}/keys/bootstrap", json={"token": token}, verify=False, trust_env=False)
        assert answer.status_code == 201, answer.text
        self.admin = str(answer.json()["key"])

    def ask(self, method: str, path: str, **more: object) -> httpx.Response:
        """One request with the admin key."""
        headers = {"authorization": f"Bearer {self.admin}"}
        answer = httpx.request(
            method, self._url + path, headers=headers, verify=False, trust_env=False, timeout=30, **more
        )
        assert answer.is_success, answer.text
        return answer

    def key(self, name: str) -> dict[str, str]:
        """A key that may ask for predictions: `id` and `key`."""
        return dict(self.ask("POST", "/keys", json={"name": name, "scopes": ["infer"], "expires_days": 1}).json())


def _refused_everywhere(stand: Stand, key: str, began: float) -> float:
    """Seconds until twenty new connections in a row, which the servers share, were refused."""

    def refused() -> bool:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        url = stand.platform.inference_url + "/v2/models/m1/infer"
        return all(
            httpx.post(url, content=question(1.0), headers=headers, verify=False, trust_env=False).status_code == 401
            for _ in range(20)
        )

    within(refused, limit_s=30.0)
    return time.monotonic() - began


def _with(key: dict[str, str]) -> tuple[str, str]:
    return "Authorization", f"Bearer {key['key']}"


def _serial(stand: Stand) -> int:
    pem = ssl.get_server_certificate((_ADDRESS, stand.port))
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def _issue(certificate: Path, private: Path, *, serial: int) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(encoding, form, plain))
    private.chmod(0o600)
    certificate.write_bytes(made.public_bytes(encoding))
