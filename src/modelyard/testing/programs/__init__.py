"""Small programs that tests let the supervisor run."""
