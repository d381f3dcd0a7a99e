"""Tools without business: registry, settings, telemetry, HTTP edge, supervision. Knows nothing of models."""
