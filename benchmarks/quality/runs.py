"""One draw of the data: a net, what retraining gives, and what every method gives."""

import copy
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality import data, nets, reference, rivals, scenarios
from salun_core import comparison, errors, measures, specs, trials, verification
from salun_core.unlearn import contract

_SHORT = {
    "unlearning_accuracy": "UA",
    "retain_accuracy": "RA",
    "test_accuracy": "TA",
    "mia_efficacy": "MIA",
    "forget_holdout_auc": "AUC",
    "mia_auc": "AUC test",
    "resurfacing": "resurfacing",
    "relearn_delay": "relearn",
    "head_bias_shortcut": "shortcut",
}
YARDSTICKS = {
    "original": "original",
    "retrained": "retrained",
    "retrained_again": "retrained again",
}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Samples to draw and epochs to train."""

    train: int
    holdout: int
    test: int
    epochs: int


OF_A_FILE = Sizes(train=4000, holdout=2000, test=3000, epochs=45)
OF_THE_PACKAGE = Sizes(train=2000, holdout=1500, test=1000, epochs=45)


@dataclasses.dataclass(frozen=True)
class Row:
    """What one net came to; accuracies and rates are shares, ``seconds`` processor time.

    Attributes:
        key: of the rival or yardstick; ``net`` is its title.
        values: by short name, as the library's verification measured them; ``relearn`` in steps.
        gap: the library's average gap to the retrained net.
        seconds: what a service would pay: for a method with mask, search and verification, the
            original's own reading included; for retraining the training alone.
        cost: ``seconds`` as a share of retraining's.
        chosen: which of the rival's settings gave the least gap.
    """

    scenario: str
    seed: int
    key: str
    net: str
    values: Mapping[str, float]
    gap: float
    seconds: float
    cost: float
    chosen: Mapping[str, float] = dataclasses.field(default_factory=dict)


Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Bench:
    """A draw with its original net.

    Attributes:
        reference: a checkout of the authors' code; needed for that rival alone.
    """

    source: data.Source
    drawn: data.Drawn
    sizes: Sizes
    seed: int
    store: nets.Store
    reference: Path | None
    original: torch.nn.Module

    @classmethod
    def of(
        cls, source: data.Source, sizes: Sizes, seed: int, store: nets.Store, reference: Path | None
    ) -> "Bench":
        """Draw the sets and train the net that will have to forget, unless the store has it."""
        drawn = data.draw(source, seed, sizes.train, sizes.holdout, sizes.test)
        original = store.trained("original", source.config, drawn.train_set, sizes.epochs, seed)
        return cls(source, drawn, sizes, seed, store, reference, original.net)

    def rows(self, name: scenarios.Name, missing: Sequence[str], say: Say) -> Iterator[Row]:
        """The nets of one scenario that are ``missing``, by key, as they come.

        A rival whose every setting diverged gives no row.
        """
        tell = functools.partial(_tell, say, f"seed {self.seed}, {name}")
        field = _Field(self, scenarios.make(name, self.drawn, self.seed), tell)
        for key in missing:
            row = field.yardstick(key) if key in YARDSTICKS else field.best(key)
            if row is not None:
                yield row


class _Field:
    """One scenario: its yardsticks, measured once, and rivals held against them."""

    def __init__(self, bench: Bench, scenario: scenarios.Scenario, say: Say) -> None:
        self._bench, self._scenario, self._say = bench, scenario, say
        self._config = bench.source.config
        self._retrained = [self._retrain(turn) for turn in (1, 2)]
        self._price = sum(made.seconds for made in self._retrained) / len(self._retrained)
        self._splits = verification.Splits(
            scenario.forget_set, scenario.retain_set, bench.drawn.holdout_set, bench.drawn.test_set
        )
        self._subject = verification.Subject(
            scenario.kind, None, (), specs.default_spec(scenario.kind, seed=bench.seed)
        )
        began = time.process_time()
        self._reading: comparison.Reading = verification.read_original(
            bench.original, self._config, self._splits, self._subject
        )
        self._reading_seconds = time.process_time() - began
        self._truth = self._measured(self._retrained[0].net)

    def yardstick(self, key: str) -> Row:
        """The row of the original or a retrained net."""
        first, second = self._retrained
        if key == "original":
            return self._row(key, self._measured(self._bench.original), 0.0)
        if key == "retrained":
            return self._row(key, self._truth, first.seconds)
        return self._row(key, self._measured(second.net), second.seconds)

    def best(self, key: str) -> Row | None:
        """The row of a rival's setting with the least gap; ``None`` where all diverged."""
        found = []
        for setting in rivals.RIVALS[key].tried:
            told = f"{rivals.RIVALS[key].title} {_shown(setting)}"
            try:
                row = self._unlearned(key, setting)
            except errors.NonFiniteLossError as error:
                self._say(f"{told} diverged: {error}")
                continue
            self._say(f"{told}: gap {100 * row.gap:.2f}, {row.seconds:.0f} s")
            found.append(row)
        return min(found, key=lambda row: row.gap, default=None)

    def _unlearned(self, key: str, setting: Mapping[str, Any]) -> Row:
        scenario, bench = self._scenario, self._bench
        sets = contract.UnlearningData(
            scenario.forget_set, scenario.retain_set, bench.drawn.holdout_set
        )
        sizes = len(scenario.forget_set), len(scenario.retain_set)
        spec = rivals.RIVALS[key].spec(scenario.kind, *sizes, seed=bench.seed, **setting)
        net = copy.deepcopy(bench.original)
        began = time.process_time()
        if key == rivals.REFERENCE:
            self._by_the_authors(net, spec)
        else:
            trials.carry_out(net, self._config, sets, spec)
        # Verification belongs to the price: every version is measured before it is served.
        measured = self._measured(net)
        seconds = time.process_time() - began + self._reading_seconds
        return self._row(key, measured, seconds, setting)

    def _by_the_authors(self, net: torch.nn.Module, spec: specs.UnlearningSpec) -> None:
        if self._bench.reference is None:
            raise errors.InvalidInputError("got no checkout of the authors' code, expected one")
        reference.unlearn(
            self._bench.reference,
            net,
            self._config,
            self._scenario.forget_set,
            self._scenario.retain_set,
            learning_rate=spec.learning_rate,
            epochs=spec.epochs,
            batch_size=spec.batch_size,
            seed=spec.seed,
        )

    def _retrain(self, turn: int) -> nets.Trained:
        bench, name = self._bench, self._scenario.name
        self._say(f"retraining {turn} of 2")
        return bench.store.trained(
            f"{name}-retrained-{turn}",
            self._config,
            self._scenario.retain_set,
            bench.sizes.epochs,
            1000 * turn + bench.seed,
        )

    def _measured(self, net: torch.nn.Module) -> dict[str, specs.Measurement]:
        return verification.measure(net, self._reading, self._config, self._splits, self._subject)

    def _row(
        self,
        key: str,
        measured: Mapping[str, specs.Measurement],
        seconds: float,
        chosen: Mapping[str, float] | None = None,
    ) -> Row:
        title = YARDSTICKS[key] if key in YARDSTICKS else rivals.RIVALS[key].title
        return Row(
            scenario=self._scenario.name,
            seed=self._bench.seed,
            key=key,
            net=title,
            values={
                short: measured[name].value for name, short in _SHORT.items() if name in measured
            },
            gap=measures.average_gap(measured, self._truth).value,
            seconds=seconds,
            cost=seconds / self._price,
            chosen=chosen or {},
        )


def _tell(say: Say, where: str, what: str) -> None:
    say(f"{where}: {what}")


def _shown(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in setting.items()) or "as it comes"
