"""What we need from the world: one Protocol a file; the docstring is the contract, `modelyard.testing` proves it."""
