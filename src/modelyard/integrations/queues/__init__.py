"""Queues: one module a broker."""
