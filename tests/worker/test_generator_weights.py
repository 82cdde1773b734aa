"""The denoiser's weights as they are written: in the types of the base, frozen ones untouched."""

import torch

from salun_core import weights
from worker.families import generation


def test_weights_keep_their_type_and_unchanged_ones_their_bits() -> None:
    """Of float16 a step below half a unit in the last place is lost: .5 + .0001 is .5 again."""
    base = {
        "half": torch.tensor([0.5, -0.0, 1e-7, 3.0], dtype=torch.float16),
        "double": torch.tensor([0.1, 0.2], dtype=torch.float64),
        "whole": torch.tensor([7], dtype=torch.int64),
    }
    changed = {name: tensor.float() for name, tensor in base.items()}
    changed["half"] = changed["half"] + torch.tensor([0.0001, 0.0, 0.0, 0.25])
    changed["double"] = changed["double"] + torch.tensor([0.0, 1.0])
    served = generation._as_served(base, changed)
    assert {name: tensor.dtype for name, tensor in served.items()} == {
        name: tensor.dtype for name, tensor in base.items()
    }
    assert served["half"].tolist() == [0.5, -0.0, base["half"][2].item(), 3.25]
    kept = [0, 1, 2]
    assert (weights.bits(served["half"][kept]) == weights.bits(base["half"][kept])).all()
    assert served["double"][0].item() == 0.1
    assert served["whole"].tolist() == [7]
