"""Whatever an error is wrapped in, memory that ran out is not taken for the request's fault."""

import pytest
import torch

from salun_core import architectures, errors, generation_specs, specs
from service import errors as service_errors
from tests import material
from worker import exhaustion, validating
from worker.families import contract


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


class Unfit:
    """A family that finds every version unfit, for one reason."""

    def __init__(self, reason: Exception) -> None:
        self._reason = reason

    def validate(self, _: contract.Upload) -> None:
        try:
            raise errors.InvalidConfigError("vae/: cannot be opened") from self._reason
        except errors.InvalidConfigError as error:
            raise contract.unfit("", "invalid-artifact", error) from error


def test_a_version_is_not_refused_because_memory_was_short() -> None:
    upload = contract.Upload({}, "digits", generation_specs.Sampling(), enter=lambda _: print)
    told = validating._unfit(Unfit(RuntimeError("sizes differ")), upload)  # type: ignore[arg-type]
    assert told is not None
    with pytest.raises(service_errors.Invalid) as found:
        validating._unfit(Unfit(torch.OutOfMemoryError()), upload)  # type: ignore[arg-type]
    assert exhaustion.is_told_by(found.value)
