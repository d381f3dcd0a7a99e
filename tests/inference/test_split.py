"""Shares of traffic are exact in every window."""

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from modelyard.inference.routing.split import Split


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5))
def test_a_full_round_has_exactly_the_weights(weights: list[int]) -> None:
    split = Split(list(enumerate(weights)))
    total = sum(weights)
    if not total:
        assert split.pick() is None
        return
    for _ in range(2):
        counts = Counter(split.pick() for _ in range(total))
        assert counts == {index: weight for index, weight in enumerate(weights) if weight}


def test_a_small_share_is_spread_out() -> None:
    split = Split([("old", 9), ("new", 1)])
    picks = [split.pick() for _ in range(100)]
    gaps = [index for index, pick in enumerate(picks) if pick == "new"]
    assert len(gaps) == 10
    assert {later - earlier for earlier, later in pairwise(gaps)} == {10}
