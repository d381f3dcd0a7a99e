"""Where things run: this machine, its servers and what each of them says."""
