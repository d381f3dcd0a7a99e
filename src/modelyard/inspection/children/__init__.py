"""The two child programs of the audit: `convert` makes a package of an upload, `probe` proves that it answers.

Libraries that read a stranger's bytes run only here. The parent starts the programs by name
(`python -I -m modelyard.inspection.children.convert`), hands a request to their standard input and reads their events
from a private descriptor; it imports nothing of this package, so that the control plane stays light. What the programs
may do is bounded by `walls`; docs/explanation/sandbox.md says what each wall holds.
"""
