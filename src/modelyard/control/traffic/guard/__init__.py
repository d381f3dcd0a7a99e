"""The guard of a canary: is it worse than what is there, and how sure can one be by now.

Pure inside (`odds`, `bounds`, `evidence`, `findings`, `decision`): counts in, a decision with its reasons out. The
explanation, with the sources of every formula and what was measured, is in docs/explanation/guard.md.
"""
