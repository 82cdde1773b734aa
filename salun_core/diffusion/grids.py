"""Pictures before and after, side by side, for people: the same noise in the same place."""

import io
from collections.abc import Mapping, Sequence

import torch
from PIL import Image, ImageDraw, ImageFont

_SHOWN_SIDE = 64  # pixels: a smaller picture is enlarged to about this
_LARGEST_SIDE = 128  # pixels: a larger picture is made smaller
_COLUMNS = 5  # pictures of a row, for each net
_ROWS = 10
_GAP, _MARGIN, _LABEL, _HEADER = 2, 8, 150, 18  # pixels
_FONT_SIZE = 12  # pixels
_INK, _PAPER = (32, 33, 36), (255, 255, 255)


def beside(drawn: Mapping[str, torch.Tensor], labels: Sequence[str], seed_note: str = "") -> bytes:
    """One PNG: a row for each label, a block of columns for each net.

    Args:
        drawn: by the net's name, uint8 (N, C, H, W); place i is the same question and noise in all.
        labels: N texts, what was asked for; equal ones share rows. At most 10 rows of 5 are shown.
        seed_note: text for the corner.

    Returns:
        The file's bytes, the same for the same arguments.
    """
    rows = _rows(labels)
    side = _side(next(iter(drawn.values())))
    columns = max(len(places) for _, places in rows)
    block = columns * (side + _GAP) + _MARGIN
    width = _LABEL + len(drawn) * block
    height = _HEADER + len(rows) * (side + _GAP) + _MARGIN
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_SIZE)
    pen.text((4, 2), seed_note, _INK, font)
    for number, (name, pictures) in enumerate(drawn.items()):
        left = _LABEL + number * block
        pen.text((left, 2), name, _INK, font)
        for row, (_, places) in enumerate(rows):
            top = _HEADER + row * (side + _GAP)
            for column, place in enumerate(places):
                tile = _tile(pictures[place], side)
                sheet.paste(tile, (left + column * (side + _GAP), top))
    for row, (label, _) in enumerate(rows):
        top = _HEADER + row * (side + _GAP) + side // 2 - _FONT_SIZE
        pen.multiline_text((4, top), _wrapped(label, pen, font), _INK, font, spacing=1)
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _rows(labels: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Labels in turn, each with places of its pictures; a label with many fills more rows."""
    places: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(label, []).append(place)
    found: list[tuple[str, list[int]]] = []
    start = 0
    while len(found) < _ROWS and any(len(own) > start for own in places.values()):
        for label, own in places.items():
            if len(own) > start and len(found) < _ROWS:
                found.append((label, own[start : start + _COLUMNS]))
        start += _COLUMNS
    return found


def _side(pictures: torch.Tensor) -> int:
    """Of a shown picture: whole pixels are repeated, so that a small one stays sharp."""
    own = int(pictures.shape[-1])
    return min(own * max(1, _SHOWN_SIDE // own), _LARGEST_SIDE)


def _tile(picture: torch.Tensor, side: int) -> Image.Image:
    array = picture.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
    image = Image.fromarray(array)
    how = Image.Resampling.NEAREST if side >= image.width else Image.Resampling.LANCZOS
    return image.resize((side, side), how)


def _wrapped(
    label: str, pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> str:
    """At most three lines that fit beside the pictures."""
    lines = [""]
    for word in label.split():
        longer = f"{lines[-1]} {word}".strip()
        if pen.textlength(longer, font) <= _LABEL - _MARGIN:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(line[:24] for line in lines[:3])
