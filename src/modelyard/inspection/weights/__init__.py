"""Structure of weights files, read by parsers of our own before any library sees them.

Each parser takes the mapped bytes and the policy, compares every number with what is there, and returns the facts that
the report shows. None of them loads, builds or runs anything.
"""
