"""The demo's pictures in memory."""

import tempfile
from pathlib import Path

from demo import clean_digits, digits, packs
from salun_core import generation_specs
from salun_core.diffusion import data

LABELS = digits.LABELS
_ICONS = Path(packs.__file__).parent / "data" / "icons.parquet"


def read(family: generation_specs.GenerativeFamily, split: str) -> data.CaptionedSet:
    """A split of the digits (1 × 16 × 16), or of icons and coloured digits (3 × 32 × 32)."""
    if family == "text_to_image":
        return packs.read(_ICONS, split, (3, 32, 32))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.parquet"
        digits.write_parquet(clean_digits.load(), path)
        return packs.read(path, split, (1, clean_digits.SIDE, clean_digits.SIDE))
