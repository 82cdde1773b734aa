"""What an audit can be asked for."""

import pydantic
import pytest

from salun_core import specs
from salun_core.metrics import ulira
from service import audit_options


def test_the_service_knows_how_many_shadow_pairs_the_attack_needs() -> None:
    assert audit_options.LEAST_SHADOW_PAIRS == ulira.LEAST_PAIRS


def test_training_is_the_services_own_but_for_what_is_given() -> None:
    own = specs.default_spec("samples", method="retrain", seed=7)
    assert audit_options.Training().spec("samples", seed=7) == own
    given = audit_options.Training(epochs=3, learning_rate=0.2).spec("class", seed=7)
    assert given == own.model_copy(update={"epochs": 3, "learning_rate": 0.2})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"shadow_pairs": 2}, "expected 0 or 3 or more"),
        ({"shadow_pairs": 257}, "less than or equal to 256"),
        ({"densities": [0.0]}, "greater than 0"),
        ({"densities": [1.5]}, "less than or equal to 1"),
        ({"densities": [0.1, 0.1]}, "each once"),
        ({"densities": [i / 20 for i in range(1, 12)]}, "at most 10"),
        ({"densities": [0.1], "controls": False}, "densities without controls"),
        ({"seeds": []}, "at least 1"),
        ({"seeds": [-1]}, "greater than or equal to 0"),
        ({"retrained": False, "controls": False}, "no part to carry out"),
        ({"training": {"epochs": 0}}, "greater than or equal to 1"),
        ({"training": {"momentum": 0.5}}, "Extra inputs"),
    ],
)
def test_what_cannot_be_asked_for(options: dict[str, object], told: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=told):
        audit_options.AuditOptions.model_validate(options)
