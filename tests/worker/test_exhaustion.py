"""Whatever an error is wrapped in, memory that ran out is not taken for the request's fault."""

import pytest
import torch

from salun_core import architectures, errors, specs
from tests import material
from worker import exhaustion


def short(*_: object, **__: object) -> torch.Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_memory_that_runs_out_under_a_check_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "empty", short)  # what every layer allocates its weights with
    with pytest.raises(errors.InvalidConfigError) as found:
        architectures.build(specs.parse_classifier_config(material.CONFIG))
    assert exhaustion.is_told_by(found.value)


def test_an_error_of_the_model_is_not_taken_for_it() -> None:
    config = specs.parse_classifier_config({**material.CONFIG, "model_args": {"layers": 3}})
    with pytest.raises(errors.InvalidConfigError) as found:
        architectures.build(config)
    assert not exhaustion.is_told_by(found.value)
