"""The denoiser's weights as they are written: in the types of the base, frozen ones untouched."""

from pathlib import Path

import torch

from salun_core import masks, weights
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


def test_a_mask_of_whole_parameters_is_read_back_and_none_is_none(tmp_path: Path) -> None:
    """Methods that change cross-attention alone have one; without it all weights would be free."""
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    written = masks.parameters_mask(net, lambda name: name.startswith("1."))
    weights.write(tmp_path / "some", written.to_tensors(), {"mask": written.kind})
    weights.write(tmp_path / "all", {}, {"mask": "none"})
    found = generation._mask(tmp_path / "some")
    assert found is not None
    assert found.layer_density == {"0.weight": 0.0, "0.bias": 0.0, "1.weight": 1.0, "1.bias": 1.0}
    assert generation._mask(tmp_path / "all") is None
