"""Forgetting by diffusion models: the same mask and guarantees as for classifiers."""
