"""Frames between a model server and an isolated worker."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelyard.inference.routing.frames import FrameReader, Kind, frame, pack_tensors, unpack_tensors

NUMBERS = hnp.arrays(
    dtype=st.sampled_from(["<f4", "<f8", "<i8", "|u1", "|b1", "<f2"]),
    shape=hnp.array_shapes(max_dims=3, max_side=4, min_side=0),
)


@given(st.dictionaries(st.text(max_size=8), NUMBERS, max_size=3))
def test_tensors_come_back_as_they_went(tensors: dict[str, np.ndarray]) -> None:
    back = unpack_tensors(pack_tensors(tensors))
    assert list(back) == list(tensors)
    for name, array in tensors.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)


@given(st.lists(st.binary(max_size=20), max_size=6))
def test_texts_come_back_as_they_went(values: list[bytes]) -> None:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    assert unpack_tensors(pack_tensors({"t": array}))["t"].tolist() == values


@given(st.lists(st.binary(max_size=50), max_size=5), st.integers(1, 17))
def test_frames_are_found_wherever_the_stream_is_cut(payloads: list[bytes], step: int) -> None:
    stream = b"".join(frame(Kind.RUN, number, payload) for number, payload in enumerate(payloads))
    reader = FrameReader()
    found = [each for start in range(0, len(stream), step) for each in reader.feed(stream[start : start + step])]
    assert found == [(Kind.RUN, number, payload) for number, payload in enumerate(payloads)]
