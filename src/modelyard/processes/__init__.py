"""Composition roots: the only places that know which parts a process is made of."""
