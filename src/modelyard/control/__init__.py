"""The control plane: decides and remembers. It never loads a model."""
