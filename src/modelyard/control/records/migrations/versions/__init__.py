"""Revisions, named `<capability>_<number>`. A revision that was released is never edited."""
