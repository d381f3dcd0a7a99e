"""The data plane: answers requests from the models it holds and the routing table it was given, and nothing else."""
