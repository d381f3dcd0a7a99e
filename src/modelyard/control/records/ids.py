"""Identifiers of records: opaque, and sorted by the time they were made in, which keeps indexes compact."""

import secrets
from datetime import datetime
from typing import Final

_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_TIME_DIGITS: Final = 10
_RANDOM_DIGITS: Final = 12


def make_id(kind: str, *, now: datetime) -> str:
    """`<kind>_` and 22 base-32 digits: milliseconds since 1970, then 60 random bits."""
    moment, digits = int(now.timestamp() * 1000), ""
    for _ in range(_TIME_DIGITS):
        moment, digit = divmod(moment, 32)
        digits = _DIGITS[digit] + digits
    return f"{kind}_{digits}" + "".join(secrets.choice(_DIGITS) for _ in range(_RANDOM_DIGITS))
