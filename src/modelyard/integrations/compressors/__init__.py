"""Compressors: smaller and quicker forms of a model, made as jobs, with what they cost in accuracy measured first."""
