"""From encoded bytes to what the net sees, as its ``pretrained_cfg`` says (test transform)."""

import dataclasses
import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import PIL
import timm
import torch
import torchvision
from timm.data import transforms_factory

from salun_core import encoded, errors, images, specs


@dataclasses.dataclass(frozen=True, eq=False)
class Preprocessing:
    """Decode, resize, crop, normalise.

    Attributes:
        config: timm's ``pretrained_cfg``.
    """

    config: specs.PretrainedConfig

    def __post_init__(self) -> None:
        cfg = self.config
        transform = transforms_factory.create_transform(
            input_size=cfg.input_size,
            is_training=False,
            use_prefetcher=True,  # stops before normalisation: uint8 (C, H, W)
            interpolation=cfg.interpolation,
            crop_pct=cfg.crop_pct,
            crop_mode=cfg.crop_mode,
        )
        std = torch.tensor(cfg.channel_std, dtype=torch.float32).reshape(-1, 1, 1)
        mean = torch.tensor(cfg.channel_mean, dtype=torch.float32).reshape(-1, 1, 1)
        object.__setattr__(self, "_transform", transform)
        object.__setattr__(self, "_scale", 1.0 / (255.0 * std))
        object.__setattr__(self, "_shift", -mean / std)

    _transform: Callable[[Any], Any] = dataclasses.field(init=False, repr=False)
    _scale: torch.Tensor = dataclasses.field(init=False, repr=False)
    _shift: torch.Tensor = dataclasses.field(init=False, repr=False)

    def fingerprint(self) -> str:
        """What the decoded bytes depend on beside the encoded ones: settings and libraries.

        Mean and spread are not among it: they come after.
        """
        settings = self.config.model_dump(mode="json", exclude={"mean", "std"})
        libraries = {module.__name__: module.__version__ for module in (PIL, timm, torchvision)}
        return json.dumps([settings, libraries], sort_keys=True)

    def decode(self, content: bytes, sample_id: str) -> torch.Tensor:
        """One encoded picture (PNG, JPEG or WebP) as uint8 (C, H, W) at the net's input size.

        Raises:
            InvalidDataError: naming the sample, when the bytes are no such picture.
        """
        try:
            picture = encoded.picture(content)
        except errors.InvalidDataError as error:
            raise errors.InvalidDataError(f"sample {sample_id!r}: {error}") from error
        converted = picture.convert("L" if self.config.input_size[0] == 1 else "RGB")
        array = np.asarray(self._transform(converted), dtype=np.uint8)
        return torch.from_numpy(array.copy()).reshape(self.config.input_size)  # (C, H, W)

    def image_set(self, samples: Iterable[tuple[str, int, bytes]]) -> images.ImageSet:
        """Decode ``(sample id, class number, encoded bytes)`` rows, in their order.

        Raises:
            InvalidDataError: naming the sample that does not decode, or an id that comes twice.
        """
        ids, labels, decoded = [], [], []
        for sample_id, label, content in samples:
            ids.append(sample_id)
            labels.append(label)
            decoded.append(self.decode(content, sample_id))
        pictures = (
            torch.stack(decoded)
            if decoded
            else torch.empty(0, *self.config.input_size, dtype=torch.uint8)
        )
        return images.ImageSet(pictures, torch.tensor(labels, dtype=torch.int64), tuple(ids))

    def normalise(self, batch: torch.Tensor) -> torch.Tensor:
        """uint8 (B, C, H, W) on any device to normalised float32 of the same shape."""
        scale, shift = self._scale.to(batch.device), self._shift.to(batch.device)
        return torch.addcmul(shift, batch.float(), scale)
