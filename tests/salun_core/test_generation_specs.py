from typing import get_args

import pydantic
import pytest

from salun_core import generation_specs, specs


@pytest.mark.parametrize("method", get_args(generation_specs.MethodName))
@pytest.mark.parametrize("kind", get_args(specs.ForgetKind))
def test_every_method_has_a_recipe_for_every_kind(
    kind: specs.ForgetKind, method: generation_specs.MethodName
) -> None:
    spec = generation_specs.default_spec(kind, method=method, seed=3)
    assert (spec.method, spec.seed) == (method, 3)
    again = generation_specs.GenerationSpec.model_validate_json(spec.model_dump_json())
    assert again == spec


def test_a_class_is_erased_from_a_net_without_cross_attention() -> None:
    found = {
        kind: generation_specs.default_spec(kind, method="esd").trainable
        for kind in get_args(specs.ForgetKind)
    }
    assert found == {"samples": "all", "class": "all", "concept": "cross_attention"}


@pytest.mark.parametrize(
    ("method", "alpha"), [("esd", 1.0), ("selective_amnesia", 10.0), ("uce", 0.1), ("salun", None)]
)
def test_the_one_figure_of_a_method_is_the_papers(
    method: generation_specs.MethodName, alpha: float | None
) -> None:
    assert generation_specs.GenerationSpec(method=method).alpha == alpha


def test_a_figure_that_a_method_has_not_is_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match=r"got alpha 2\.0 for salun"):
        generation_specs.GenerationSpec(method="salun", alpha=2.0)
