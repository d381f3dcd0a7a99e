"""Optimisation towards a latency: forms, runtimes, threads and batching measured through real servers under a load."""
