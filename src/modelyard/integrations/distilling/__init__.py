"""Distilling: small models that learn from the answers of larger ones, made as jobs."""
