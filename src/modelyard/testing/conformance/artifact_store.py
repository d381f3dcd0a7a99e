"""What every artifact store must do. Subclass, and give the fixture `store` (and `damage`, where bytes can be reached).

```python
class TestFiles(ArtifactStoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ArtifactStore:
        return FileArtifactStore(tmp_path / "store")
```
"""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.domain.errors.platform import ArtifactDamaged, NotFound
from modelyard.ports.artifact_store import ArtifactStore

Damage = Callable[[str], None]
"""Changes a stored byte of the blob of this digest, behind the store's back."""


def written(directory: Path, content: bytes, name: str = "source.bin") -> tuple[Path, str]:
    """A file with `content`, and its digest."""
    path = directory / name
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


class ArtifactStoreConformance:
    """The promises of `modelyard.ports.artifact_store.ArtifactStore`."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> ArtifactStore:
        """The store under test, empty."""
        raise NotImplementedError

    @pytest.fixture
    def damage(self) -> Damage:
        """How to damage a blob; skipped where nobody can."""
        pytest.skip("bytes of this store cannot be reached from a test")

    def test_what_was_put_comes_back(self, store: ArtifactStore, tmp_path: Path) -> None:
        """Open and fetch give the same bytes; the digest is listed once."""
        source, digest = written(tmp_path, b"model" * 100_000)
        store.put(source, digest)
        with store.open(digest) as stream:
            assert stream.read() == source.read_bytes()
        store.fetch(digest, tmp_path / "fetched.bin")
        assert (tmp_path / "fetched.bin").read_bytes() == source.read_bytes()
        assert list(store.digests()) == [digest]
        assert store.exists(digest)

    def test_putting_twice_is_one_blob(self, store: ArtifactStore, tmp_path: Path) -> None:
        """A second put of the same bytes changes nothing."""
        source, digest = written(tmp_path, b"once")
        again, _ = written(tmp_path, b"once", "again.bin")
        store.put(source, digest)
        store.put(again, digest)
        assert list(store.digests()) == [digest]

    def test_an_empty_file_is_a_blob_too(self, store: ArtifactStore, tmp_path: Path) -> None:
        """Zero bytes have a digest as well."""
        source, digest = written(tmp_path, b"")
        store.put(source, digest)
        with store.open(digest) as stream:
            assert stream.read() == b""

    def test_the_source_may_change_afterwards(self, store: ArtifactStore, tmp_path: Path) -> None:
        """A blob never changes, whatever its source does."""
        source, digest = written(tmp_path, b"before")
        store.put(source, digest)
        source.write_bytes(b"after!")
        with store.open(digest) as stream:
            assert stream.read() == b"before"

    def test_a_fetched_copy_may_change(self, store: ArtifactStore, tmp_path: Path) -> None:
        """Replacing a fetched file leaves the blob as it is."""
        source, digest = written(tmp_path, b"before")
        store.put(source, digest)
        target = tmp_path / "fetched.bin"
        store.fetch(digest, target)
        target.unlink()
        target.write_bytes(b"after!")
        with store.open(digest) as stream:
            assert stream.read() == b"before"

    def test_a_wrong_digest_is_refused_and_leaves_nothing(self, store: ArtifactStore, tmp_path: Path) -> None:
        """The digest that the caller gives is checked."""
        source, _ = written(tmp_path, b"these bytes")
        with pytest.raises(ArtifactDamaged):
            store.put(source, "0" * 64)
        assert list(store.digests()) == []

    def test_an_unknown_digest_is_not_found(self, store: ArtifactStore, tmp_path: Path) -> None:
        """Open and fetch say so; exists is False; delete does nothing."""
        unknown = "ab" * 32
        with pytest.raises(NotFound):
            store.open(unknown)
        with pytest.raises(NotFound):
            store.fetch(unknown, tmp_path / "x")
        assert not (tmp_path / "x").exists()
        assert not store.exists(unknown)
        store.delete(unknown)

    def test_a_deleted_blob_is_gone_and_can_come_back(self, store: ArtifactStore, tmp_path: Path) -> None:
        """Delete forgets; the same bytes may be put again."""
        source, digest = written(tmp_path, b"again")
        store.put(source, digest)
        store.delete(digest)
        assert not store.exists(digest)
        store.put(source, digest)
        assert store.exists(digest)

    def test_damage_is_an_error_and_never_wrong_bytes(
        self, store: ArtifactStore, damage: Damage, tmp_path: Path
    ) -> None:
        """A changed byte is found by open and by fetch, which leaves no file."""
        source, digest = written(tmp_path, b"precious" * 1000)
        store.put(source, digest)
        damage(digest)
        with pytest.raises(ArtifactDamaged):
            store.open(digest)
        with pytest.raises(ArtifactDamaged):
            store.fetch(digest, tmp_path / "fetched.bin")
        assert not (tmp_path / "fetched.bin").exists()

    def test_many_may_put_the_same_bytes_at_once(self, store: ArtifactStore, tmp_path: Path) -> None:
        """Racing writers end with one whole blob and no error."""
        sources = [written(tmp_path, b"raced" * 50_000, f"{n}.bin") for n in range(8)]
        failures: list[BaseException] = []

        def put(source: Path, digest: str) -> None:
            try:
                store.put(source, digest)
            except BaseException as error:  # noqa: BLE001  (handed to the test below)
                failures.append(error)

        threads = [threading.Thread(target=put, args=each) for each in sources]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert failures == []
        assert list(store.digests()) == [sources[0][1]]
        with store.open(sources[0][1]) as stream:
            assert stream.read() == b"raced" * 50_000
