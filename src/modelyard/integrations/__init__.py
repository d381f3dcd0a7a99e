"""Leaves: one folder for each kind of outside system, reached by name through a registry, never imported."""
