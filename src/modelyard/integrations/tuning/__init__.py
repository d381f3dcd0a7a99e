"""Tuning: searches over recipes and training scripts, each trial a process of its own behind walls."""
