"""Workers of jobs: each claims one job at a time and does it in a child of its own, bounded and without secrets."""
