"""The typed HTTP client: what scripts, notebooks and the command line use."""
