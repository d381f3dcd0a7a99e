"""The small documents beside the weights: configuration, labels, manifest, signature, MLflow's description."""
