"""The project's own checks and generators; not part of the product."""
