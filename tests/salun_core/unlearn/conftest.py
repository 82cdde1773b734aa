"""Nets small enough to solve by hand, on pictures of three pixels."""

from collections.abc import Callable

import pytest
import torch

from salun_core import images
from salun_core.unlearn import contract


class Line(torch.nn.Module):
    """Two classes, three weights: logits (0, w·x), so p = σ(w·x) and ∇ℓ = (p − y)·x."""

    def __init__(self, values: tuple[float, float, float] = (0.4, -0.3, 0.2)) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(values))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        score = inputs.flatten(1) @ self.w
        return torch.stack([torch.zeros_like(score), score], dim=1)


class Exact:
    """What :class:`Line` does, in float64 and written out."""

    def __init__(self, data: images.ImageSet) -> None:
        self.x = data.images[:].flatten(1).double() / 255.0  # (N, 3)
        self.y = data.labels.double()

    def each(self, w: torch.Tensor) -> torch.Tensor:
        """∇ℓ of every sample; (N, 3)."""
        return (torch.sigmoid(self.x @ w.double()) - self.y).unsqueeze(1) * self.x

    def mean(self, w: torch.Tensor) -> torch.Tensor:
        """∇ of the mean loss; (3,)."""
        return self.each(w).mean(dim=0)


def pixels(rows: list[list[int]], labels: list[int], name: str) -> images.ImageSet:
    """Pictures of 1 × 1 × 3 pixels; the net sees them divided by 255."""
    pictures = torch.tensor(rows, dtype=torch.uint8).reshape(-1, 1, 1, 3)
    return images.ImageSet(
        pictures, torch.tensor(labels), tuple(f"{name}-{i}" for i in range(len(rows)))
    )


@pytest.fixture
def line_data() -> contract.UnlearningData:
    """Three samples to forget, five to keep; both classes in each."""
    return contract.UnlearningData(
        pixels([[255, 0, 51], [0, 255, 102], [204, 51, 0]], [1, 0, 1], "forget"),
        pixels(
            [[255, 51, 0], [51, 204, 0], [0, 102, 255], [153, 0, 255], [102, 102, 51]],
            [1, 0, 0, 1, 1],
            "retain",
        ),
        pixels([[102, 51, 204], [51, 51, 51]], [1, 0], "holdout"),
    )


@pytest.fixture
def line() -> Callable[[], torch.nn.Module]:
    """``line()``: the net with its three weights."""
    return Line


@pytest.fixture
def exact() -> Callable[[images.ImageSet], Exact]:
    """``exact(image_set)``: the same net's gradients in closed form."""
    return Exact


@pytest.fixture
def make_pixels() -> Callable[[list[list[int]], list[int], str], images.ImageSet]:
    """``make_pixels(rows, labels, name)``."""
    return pixels
