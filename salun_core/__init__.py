"""Saliency unlearning (SalUn, arXiv 2310.12508) as a library: masks, masked updates, verification.

Importing this package loads nothing heavy; import the submodule you need, for example
``salun_core.saliency`` or ``salun_core.specs`` (the latter is free of torch).
"""

__version__ = "0.1.0"
