"""Runtimes: libraries that run models."""
