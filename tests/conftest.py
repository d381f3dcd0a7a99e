"""What tests of several areas share: real models, made once a run by the libraries that users use, and PyTorch."""

import fcntl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
TORCH = ROOT / ".envs" / "torch"
TORCH_LOCK = ROOT / "src" / "modelyard" / "inspection" / "children" / "torch_export.lock"


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """The example's bundle directory (model.joblib, labels.json, sample.csv) and held-out images."""
    sys.path.insert(0, str(ROOT / "examples" / "digits"))
    try:
        from train import train
    finally:
        sys.path.pop(0)
    place = tmp_path_factory.mktemp("digits")
    images, _, _ = train(place)
    return place, images


@pytest.fixture(scope="session")
def digits_bundle(digits: tuple[Path, np.ndarray]) -> Path:
    """The example's bundle directory."""
    return digits[0]


@pytest.fixture(scope="session")
def digits_images(digits: tuple[Path, np.ndarray]) -> np.ndarray:
    """Held-out images, one a row of 64."""
    return digits[1]


@pytest.fixture(scope="session")
def digits_platform(tmp_path_factory: pytest.TempPathFactory, digits_bundle: Path) -> Iterator["object"]:
    """A platform on which the digits are deployed; tests leave it serving."""
    from modelyard.testing.platform import running_platform

    with running_platform(tmp_path_factory.mktemp("platform")) as platform:
        with platform.client() as client:
            client.upload(digits_bundle, name="digits", alias="champion")
            client.deploy("digits")
        yield platform


@pytest.fixture(scope="session")
def postgres_server() -> Iterator["object"]:
    """A PostgreSQL server of this process's tests, started by the first that needs it."""
    from modelyard.testing.postgres import PostgresMissing, running_postgres

    try:
        with running_postgres() as server:
            yield server
    except PostgresMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a database whose schema is up to date, to copy from."""
    from sqlalchemy.engine import make_url

    from modelyard.control.records import open_served_records

    url = postgres_server.make()
    open_served_records(make_url(url), backups=tmp_path_factory.mktemp("backups")).close()
    return url.rpartition("/")[2]


@pytest.fixture
def make_postgres(postgres_server, migrated_postgres: str) -> Iterator[Callable[[], str]]:
    """Makes databases that are up to date and empty; they are gone after the test."""
    made: list[str] = []

    def make() -> str:
        made.append(postgres_server.make(migrated_postgres))
        return made[-1]

    yield make
    for url in made:
        postgres_server.drop(url)


@pytest.fixture(params=["sqlite", "postgres"])
def records_url(request: pytest.FixtureRequest) -> str:
    """What `records.url` is: the test runs once on each database."""
    return "" if request.param == "sqlite" else request.getfixturevalue("make_postgres")()


@pytest.fixture(scope="session")
def torch_python() -> Path:
    """An interpreter that has torch (its CPU build) and, after it, all that the tests have; built once by plain pip.

    The CPU build is asked for by its own version, which only a folder of wheels or torch's own index has: never the
    build for GPUs, which is several gigabytes.
    """
    TORCH.parent.mkdir(exist_ok=True)
    stamp, python = TORCH / "lock.txt", TORCH / "bin" / "python"
    with (TORCH.parent / "torch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_bytes() != TORCH_LOCK.read_bytes():
            _build(python)
            stamp.write_bytes(TORCH_LOCK.read_bytes())
    return python


def _build(python: Path) -> None:
    pins = TORCH_LOCK.read_text().splitlines()
    torch = next(pin for pin in pins if pin.startswith("torch=="))
    subprocess.run([sys.executable, "-m", "venv", "--clear", TORCH], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*install, f"{torch}+cpu"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{torch}+cpu is not to be had here (a folder of wheels or torch's CPU index has it)")
    subprocess.run([*install, *(pin for pin in pins if pin != torch)], check=True)
    site = next((TORCH / "lib").glob("python3.*")) / "site-packages"
    beside = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "beside.pth").write_text(f"{beside}\n{ROOT / 'src'}\n")
