"""Random inputs from sound ones: flip, cut, repeat, splice, put in words. The same seed gives the same inputs."""

import random
from collections.abc import Iterator, Sequence
from typing import Final

_MOST_STEPS: Final = 6
_LARGEST: Final = 8192
_EDGES: Final = (0, 1, 9, 10, 13, 32, 34, 44, 48, 58, 92, 127, 128, 254, 255)


def inputs(seeds: Sequence[bytes], words: Sequence[bytes], *, seed: int) -> Iterator[bytes]:
    """First the seeds themselves, then without end what becomes of them."""
    yield from seeds
    chance = random.Random(seed)
    while True:
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, _MOST_STEPS)):
            _change(data, seeds, words, chance)
        yield bytes(data[:_LARGEST])


def _change(data: bytearray, seeds: Sequence[bytes], words: Sequence[bytes], chance: random.Random) -> None:
    at = chance.randint(0, len(data))
    end = min(len(data), at + chance.randint(1, 32))
    match chance.randrange(8):
        case 0 if data:
            data[at - 1] ^= 1 << chance.randrange(8)
        case 1 if data:
            data[at - 1] = chance.choice(_EDGES)
        case 2:
            del data[at:end]
        case 3:
            data[at:at] = data[at:end] * chance.randint(1, 4)
        case 4:
            data[at:at] = chance.choice(words)
        case 5:
            data[at:end] = chance.choice(words)
        case 6:
            other = chance.choice(seeds)
            start = chance.randint(0, len(other))
            data[at:] = other[start:]
        case _:
            data[at:at] = chance.randbytes(chance.randint(1, 8))
