"""Artifact stores: systems that keep immutable bytes."""
