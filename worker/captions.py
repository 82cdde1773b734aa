"""Pictures of a dataset with the texts that a generator is asked for them by."""

from typing import Literal

import torch

from salun_core import images, preprocessing, progress, specs
from salun_core.diffusion import data
from worker import pictures, samples


def whole(
    listed: samples.Listing,
    by: Literal["label", "text"],
    image_size: tuple[int, int, int],
    report: progress.Progress,
) -> data.CaptionedSet:
    """Every sample of a listing, in its order, over mapped pictures.

    Args:
        listed: samples with labels or texts, at least one.
        by: what they are asked for by: the name of the label, or the text.
        image_size: (channels, height, width) of the generator's pictures.
        report: called while pictures are decoded.

    Raises:
        InvalidDataError: naming a sample that does not decode.
        CancelledError: from ``report``.
    """
    config = specs.PretrainedConfig(input_size=image_size, mean=(0.5,), std=(0.5,), crop_pct=1.0)
    shared = pictures.mapped(listed, preprocessing.Preprocessing(config), report)
    texts = tuple(_text(listed, one, by) for one in listed.samples)
    ids = tuple(one.sample_id for one in listed.samples)
    return data.CaptionedSet(images.Pictures(shared, torch.arange(len(ids))), texts, ids)


def _text(listed: samples.Listing, one: samples.Located, by: Literal["label", "text"]) -> str:
    if by == "text":
        return one.text or ""
    return listed.label_names[one.label or 0]
