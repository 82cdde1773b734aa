"""A package, so that pytest ends its second worker (``faulted``) with the last of its tests."""
