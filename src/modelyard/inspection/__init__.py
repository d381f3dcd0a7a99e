"""From files that a stranger sent to a package that can be served, or a refusal with its reason.

Both `modelyard serve` and the upload centre stand on this floor. The parent process parses structure in pure Python
and never loads a model; libraries run in two limited child programs (`inspection/children`), started by path.
"""
