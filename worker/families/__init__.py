"""Adapters by model family."""
