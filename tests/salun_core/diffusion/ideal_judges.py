"""Judges of the ideal models' pictures, trained once a run."""

import functools

from salun_core.diffusion import judge, judge_training
from tests.salun_core.diffusion import ideal_models

_STEPS = 60


@functools.cache
def of_words() -> judge.Judge:
    """Colours and shapes."""
    return judge_training.train(
        ideal_models.captioned(12, 0), ideal_models.captioned(4, 1), exclusive=False, steps=_STEPS
    )


@functools.cache
def of_classes() -> judge.Judge:
    """Shapes alone, which exclude each other."""
    return judge_training.train(
        ideal_models.labelled(12, 0), ideal_models.labelled(4, 1), exclusive=True, steps=_STEPS
    )
