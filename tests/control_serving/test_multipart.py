"""The streaming multipart reader: the same outcome however the bytes are cut, and an error of ours for any bytes."""

import hashlib
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.control.intake.limits import UploadLimits
from modelyard.control.intake.multipart import MultipartReceiver, boundary_of
from modelyard.control.intake.received import ReceivedUpload
from modelyard.domain.errors import ModelyardError
from modelyard.domain.errors.edge import BodyTooLarge, UnsupportedMediaType
from modelyard.domain.errors.uploads import FileTooLarge, MultipartInvalid, NameInvalid, TooManyFiles

LIMITS = UploadLimits(files=4, total_bytes=10_000, config_bytes=100, part_header_bytes=300)


def part(name: bytes, data: bytes, field: bytes = b"files") -> bytes:
    return (
        b'--b\r\nContent-Disposition: form-data; name="'
        + field
        + b'"; filename="'
        + name
        + b'"\r\n\r\n'
        + data
        + b"\r\n"
    )


def receive(place: Path, body: bytes, cuts: list[int] | None = None) -> list[tuple[str, bytes, str]]:
    shutil.rmtree(place, ignore_errors=True)
    upload = ReceivedUpload.create(place, limits=LIMITS, reserve=lambda _: None)
    receiver = MultipartReceiver(b"b", upload)
    try:
        edges = [0, *sorted(cuts or []), len(body)]
        for start, end in pairwise(edges):
            receiver.feed(body[start:end])
        receiver.finish()
    finally:
        receiver.close()
    return [(file.name, file.path.read_bytes(), file.sha256) for file in upload.files]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "upload"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), contents=st.lists(st.binary(max_size=400), min_size=1, max_size=4))
def test_however_the_body_is_cut_the_files_are_the_same(
    place: Path, data: st.DataObject, contents: list[bytes]
) -> None:
    contents = [content.replace(b"--b", b"==b") for content in contents]
    body = b"".join(part(b"f%d.bin" % n, content) for n, content in enumerate(contents)) + b"--b--\r\n"
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=20))
    expected = [(f"f{n}.bin", c, hashlib.sha256(c).hexdigest()) for n, c in enumerate(contents)]
    assert receive(place, body, cuts) == expected


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(body=st.binary(max_size=300), at=st.integers(0, 200), tail=st.booleans())
def test_any_bytes_are_files_or_an_error_of_ours(place: Path, body: bytes, at: int, tail: bool) -> None:
    good = part(b"a.bin", b"hello") + b"--b--\r\n"
    for made in (body, good[:at] + body + (good[at:] if tail else b"")):
        error = None
        try:
            receive(place, made)
        except ModelyardError as raised:
            error = raised
        assert error is None or (error.hint and len(error.detail) <= 500)


def test_names_come_as_they_were_sent(place: Path) -> None:
    for sent, read in (
        (b"..\\..\\x", "..\\..\\x"),
        (b"..%2fx", "..%2fx"),
        ("é.json".encode(), "é.json"),
        (b'a\\"b', 'a"b'),
    ):
        assert receive(place, part(sent, b"x") + b"--b--\r\n")[0][0] == read


def test_a_name_that_is_no_utf8_is_refused(place: Path) -> None:
    with pytest.raises(NameInvalid):
        receive(place, part(b"\xff\xfe", b"x") + b"--b--\r\n")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"".join(part(b"f%d" % n, b"") for n in range(5)) + b"--b--\r\n", TooManyFiles),
        (b"".join(part(b"f%d" % n, b"", b"x%d" % n) for n in range(9)) + b"--b--\r\n", TooManyFiles),
        (part(b"config.json", b"x" * 101) + b"--b--\r\n", FileTooLarge),
        (part(b"a.bin", b"x" * 10_001) + b"--b--\r\n", BodyTooLarge),
        (part(b"n" * 400, b"x") + b"--b--\r\n", MultipartInvalid),
        (part(b"a.bin", b"x"), MultipartInvalid),
        (part(b"a.bin", b"x", b"other") + b"--b--\r\n", MultipartInvalid),
        (b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\nx\r\n--b--\r\n', MultipartInvalid),
        (b'--b\r\nContent-Disposition: form-data; name="files"; filename="a\r\n\r\nx\r\n--b--\r\n', MultipartInvalid),
        (
            part(b"a", b"x").replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n") + b"--b--",
            MultipartInvalid,
        ),
    ],
)
def test_each_limit_has_its_error(place: Path, body: bytes, error: type[ModelyardError]) -> None:
    with pytest.raises(error):
        receive(place, body)


def test_files_are_private_and_sealed(place: Path) -> None:
    receive(place, part(b"a.bin", b"x") + b"--b--\r\n")
    assert [oct(path.stat().st_mode & 0o777) for path in place.iterdir()] == ["0o400"]
    assert oct(place.stat().st_mode & 0o777) == "0o700"


@pytest.mark.parametrize("content_type", [None, "application/json", "multipart/mixed; boundary=b"])
def test_only_form_data_is_an_upload(content_type: str | None) -> None:
    with pytest.raises(UnsupportedMediaType):
        boundary_of(content_type)


@pytest.mark.parametrize("rest", ["", "; boundary=", '; boundary="', "; boundary=" + "b" * 71, '; boundary="a\tb"'])
def test_a_boundary_that_cannot_be_one_is_refused(rest: str) -> None:
    with pytest.raises(MultipartInvalid):
        boundary_of("multipart/form-data" + rest)
