"""Orchestrators: systems that run isolated model workers."""
