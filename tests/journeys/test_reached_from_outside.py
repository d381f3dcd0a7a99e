"""Beyond loopback: what refuses to start, TLS on both listeners with certificates that are replaced, hosts, proxies."""

import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import trustme
from guarded import Guarded, bootstrap, until

from modelyard.client import Client
from modelyard.testing.platform import Platform, running_platform

pytestmark = [pytest.mark.platform, pytest.mark.slow]


def refused(*arguments: str, cwd: Path) -> str:
    """What a command that must not start says."""
    command = [sys.executable, "-m", "modelyard.cli", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=cwd)
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert sum(line.startswith("hint:") for line in done.stderr.splitlines()) == 1
    return done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_an_open_address_without_tls_does_not_start(host: str, tmp_path: Path) -> None:
    for command in (
        ["up", "--data", str(tmp_path / "data")],
        ["up", "--data", str(tmp_path / "data"), "--auth", "required"],
    ):
        said = refused(*command, "--host", host, cwd=tmp_path)
        assert "--tls-cert" in said
        assert host in said
    said = refused("up", "--data", str(tmp_path / "data"), "--host", host, "--auth", "open", cwd=tmp_path)
    assert "keys are required" in said
    assert "--tls-cert" in refused("serve", "model.joblib", "--host", host, cwd=tmp_path)
    assert not (tmp_path / "data").exists()


def test_half_of_a_certificate_does_not_start(tmp_path: Path) -> None:
    pem = tmp_path / "cert.pem"
    pem.write_text("not a certificate")
    data = ["--data", str(tmp_path / "data")]
    assert "go together" in refused("up", *data, "--tls-cert", str(pem), cwd=tmp_path)
    assert "go together" in refused("serve", "m.joblib", "--tls-key", str(pem), cwd=tmp_path)
    said = refused("up", *data, "--tls-cert", str(pem), "--tls-key", str(pem), cwd=tmp_path)
    assert "PEM" in said


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def write_certificate(authority: trustme.CA, place: Path) -> int:
    """New files, and the serial number of the certificate."""
    issued = authority.issue_cert("127.0.0.1", "localhost", "models.example.org")
    for name, content in (("key.pem", issued.private_key_pem), ("cert.pem", issued.cert_chain_pems[0])):
        draft = place / f"{name}.new"
        content.write_to_path(draft)
        draft.replace(place / name)
    return serial(ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode()))


def serial(certificate: bytes) -> int:
    from cryptography.x509 import load_der_x509_certificate

    return load_der_x509_certificate(certificate).serial_number


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[Platform]:
    """A platform with TLS on all addresses of the machine, which one more name is for."""
    place = tmp_path_factory.mktemp("secured")
    write_certificate(authority, place)
    authority.cert_pem.write_to_path(place / "ca.pem")
    tls = ["--tls-cert", str(place / "cert.pem"), "--tls-key", str(place / "key.pem")]
    with running_platform(place, "--host", "0.0.0.0", *tls, "--allowed-host", "models.example.org") as platform:
        yield platform


def presented(url: str, authority: trustme.CA) -> int:
    """Serial number of the certificate that a listener shows."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    parts = urlsplit(url)
    with (
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped,
    ):
        certificate = wrapped.getpeercert(binary_form=True)
        assert certificate is not None
        return serial(certificate)


def test_both_listeners_speak_tls_only_and_take_up_a_new_certificate(secured: Platform, authority: trustme.CA) -> None:
    assert secured.control_url.startswith("https://127.0.0.1:")
    assert secured.standing["auth_required"] is True
    for url in (secured.control_url, secured.inference_url):
        with pytest.raises(httpx.HTTPError):
            httpx.get(url.replace("https", "http") + "/healthz", trust_env=False, timeout=5).raise_for_status()
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with httpx.Client(verify=old, trust_env=False) as client:
            assert client.get(url + "/healthz").status_code == 200
    before = {presented(url, authority) for url in (secured.control_url, secured.inference_url)}
    assert len(before) == 1
    fresh = write_certificate(authority, secured.directory)
    for url in (secured.control_url, secured.inference_url):
        until(lambda url=url: presented(url, authority) == fresh, limit_s=20, what="the new certificate")


def test_a_key_is_asked_for_and_the_client_checks_the_certificate(secured: Platform) -> None:
    context = ssl.create_default_context(cafile=str(secured.directory / "ca.pem"))
    for url in (secured.control_url + "/api/v1/models", secured.inference_url + "/v2/models"):
        with httpx.Client(verify=context, trust_env=False) as client:
            assert client.get(url).status_code == 401
    with httpx.Client(verify=context, trust_env=False) as http:
        token = Path(str(secured.standing["bootstrap_token"])).read_text().strip()
        answer = http.post(secured.control_url + "/api/v1/keys/bootstrap", json={"token": token})
        key = answer.json()["key"]
    with Client(secured.control_url, key=key, ca=str(secured.directory / "ca.pem")) as client:
        assert client.models() == []


def test_only_names_of_the_list_are_answered(secured: Platform) -> None:
    context = ssl.create_default_context(cafile=str(secured.directory / "ca.pem"))
    for url in (secured.control_url, secured.inference_url):
        port = urlsplit(url).port
        with httpx.Client(verify=context, trust_env=False) as client:
            for host, status in (
                ("models.example.org", 200),
                (f"models.example.org:{port}", 200),
                ("localhost", 200),
                ("models.example.org:1", 421),
                ("evil.example", 421),
                ("models.example.org.evil.example", 421),
            ):
                assert client.get(url + "/healthz", headers={"host": host}).status_code == status, host


def test_behind_a_proxy_that_is_trusted_it_starts_without_tls(tmp_path: Path) -> None:
    with running_platform(
        tmp_path, "--host", "0.0.0.0", "--trusted-proxy", "127.0.0.0/8", "--allowed-host", "models.example.org"
    ) as platform:
        guarded = Guarded(platform, bootstrap(platform))
        assert guarded.control("GET", "/models", None).status_code == 401
        assert guarded.control("GET", "/models", guarded.admin).status_code == 200
        forwarded = {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https", "host": "models.example.org"}
        assert guarded.control("GET", "/models", guarded.admin, headers=forwarded).status_code == 200
        near, far = {"x-forwarded-for": "203.0.113.9"}, {"x-forwarded-for": "198.51.100.7"}
        until(
            lambda: guarded.control("GET", "/models", "wrong", headers=near).status_code == 429,
            limit_s=20,
            what="the delay of a source that guesses",
        )
        assert guarded.control("GET", "/models", "wrong", headers=far).status_code == 401
        assert guarded.control("GET", "/models", guarded.admin, headers=near).is_success


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc")
def test_an_open_platform_listens_on_loopback_only(digits_platform: Platform) -> None:
    import psutil

    assert digits_platform.command is not None
    assert digits_platform.command.process is not None
    supervisor = psutil.Process(digits_platform.command.process.pid)
    listening = {
        connection.laddr.ip
        for process in [supervisor, *supervisor.children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    for path in digits_platform.places.run.rglob("*.sock"):
        assert path.stat().st_mode & 0o077 == 0, path
