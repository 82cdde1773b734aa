"""A grid has every net's pictures in the same places."""

import io

import numpy as np
import torch
from PIL import Image

from salun_core.diffusion import grids

LEFT, TOP = 150, 18  # of the first picture, in pixels


def opened(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


def test_a_small_picture_is_enlarged_by_whole_pixels() -> None:
    picture = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    picture[0, 0, 0, 0] = 255
    sheet = opened(grids.beside({"before": picture}, ["a dot"]))
    assert (sheet[TOP : TOP + 4, LEFT : LEFT + 4] == 255).all()
    assert (sheet[TOP : TOP + 64, LEFT + 4 : LEFT + 64] == 0).all()


def test_a_large_picture_is_made_smaller() -> None:
    sheet = opened(grids.beside({"x": torch.zeros(1, 3, 512, 512, dtype=torch.uint8)}, ["big"]))
    assert (sheet[TOP : TOP + 128, LEFT : LEFT + 128] == 0).all()
    assert (sheet[TOP + 130 :] == 255).all()


def test_nets_stand_beside_each_other_and_labels_below() -> None:
    before = torch.full((4, 3, 64, 64), 10, dtype=torch.uint8)
    after = torch.full((4, 3, 64, 64), 200, dtype=torch.uint8)
    after[3] = 90
    sheet = opened(grids.beside({"before": before, "after": after}, ["a", "b", "a", "b"]))
    block = 2 * 66 + 8
    assert (sheet[TOP + 66 + 32, LEFT + 66 + 32] == 10).all()
    assert (sheet[TOP + 66 + 32, LEFT + block + 32] == 200).all()
    assert (sheet[TOP + 66 + 32, LEFT + block + 66 + 32] == 90).all()


def test_only_so_many_are_shown() -> None:
    many = torch.zeros(400, 1, 64, 64, dtype=torch.uint8)
    sheet = opened(grids.beside({"x": many}, [f"label {row % 20}" for row in range(400)]))
    assert sheet.shape == (18 + 10 * 66 + 8, 150 + 5 * 66 + 8, 3)
