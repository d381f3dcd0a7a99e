"""Every error that a person can meet, as one tree that knows nothing of HTTP.

A class is one kind of trouble. It carries a stable `code` (lower snake case, listed in the reference), a `title` that
never changes from case to case, a `detail` for this case and a `hint` that says what to do. Two tables map the tree to
the outside: problem documents on the control listener and `{"error": …}` on the inference listener. A test walks the
tree and fails on a class with no mapping, so a new error is a new class here and a row there.

Texts stay under 500 characters and never carry internal paths, names or the caller's input unescaped (`quote` helps).
"""

from modelyard.domain.errors.base import Detail, ModelyardError, quote

__all__ = ["Detail", "ModelyardError", "quote"]
