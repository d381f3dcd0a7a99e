"""The file store keeps the promises of its port, and the ones of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.integrations.artifact_stores.files import FileArtifactStore
from modelyard.testing.conformance.artifact_store import ArtifactStoreConformance, Damage, written


class TestFiles(ArtifactStoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> FileArtifactStore:
        return FileArtifactStore(tmp_path / "store")

    @pytest.fixture
    def damage(self, tmp_path: Path) -> Damage:
        def flip(digest: str) -> None:
            blob = tmp_path / "store" / digest[:2] / digest
            blob.chmod(0o600)
            with blob.open("r+b") as stream:
                stream.seek(17)
                stream.write(b"\xff")

        return flip

    def test_a_sealed_source_is_linked_and_not_copied(self, store: FileArtifactStore, tmp_path: Path) -> None:
        source, digest = written(tmp_path, b"sealed")
        source.chmod(0o400)
        store.put(source, digest)
        assert (tmp_path / "store" / digest[:2] / digest).stat().st_ino == source.stat().st_ino

    def test_blobs_are_private_and_read_only(self, store: FileArtifactStore, tmp_path: Path) -> None:
        source, digest = written(tmp_path, b"private")
        store.put(source, digest)
        assert (tmp_path / "store" / digest[:2] / digest).stat().st_mode & 0o777 == 0o400

    def test_a_link_is_not_followed(self, store: FileArtifactStore, tmp_path: Path) -> None:
        source, digest = written(tmp_path, b"elsewhere")
        link = tmp_path / "link"
        link.symlink_to(source)
        with pytest.raises(OSError, match="symbolic"):
            store.put(link, digest)
        assert list(store.digests()) == []

    def test_a_full_disk_leaves_nothing_behind(self, tmp_path: Path) -> None:
        """A limit on file sizes stands in for a full disk: the write fails half-way in the same place."""
        source, digest = written(tmp_path, b"x" * 200_000)
        program = (
            "import resource, signal, sys\n"
            "from pathlib import Path\n"
            "from modelyard.domain.errors.platform import StorageFull\n"
            "from modelyard.integrations.artifact_stores.files import FileArtifactStore\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
            "store = FileArtifactStore(Path(sys.argv[1]))\n"
            "try:\n    store.put(Path(sys.argv[2]), sys.argv[3])\n"
            "except StorageFull:\n    print('full', list(store.digests()))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, tmp_path / "store", source, digest],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout == "full []\n", done.stderr
        assert list((tmp_path / "store" / ".incoming").iterdir()) == []

    def test_what_a_crash_left_is_removed_at_the_next_start(self, tmp_path: Path) -> None:
        FileArtifactStore(tmp_path / "store")
        (tmp_path / "store" / ".incoming" / "half").write_bytes(b"half")
        FileArtifactStore(tmp_path / "store")
        assert list((tmp_path / "store" / ".incoming").iterdir()) == []
