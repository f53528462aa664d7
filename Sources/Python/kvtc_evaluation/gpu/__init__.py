"""Restoring on a GPU against recomputing there, in the shape of a model of 8 billion parameters."""
