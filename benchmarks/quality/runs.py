"""One draw of the data: a net, what retraining gives, and what every method gives."""

import copy
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from benchmarks.quality import data, rivals, scenarios
from salun_core import (
    errors,
    images,
    inference,
    preprocessing,
    specs,
    trials,
    verification,
)
from salun_core.unlearn import contract, methods, retrain

GAP_OF = {
    "unlearning_accuracy": "UA",
    "retain_accuracy": "RA",
    "test_accuracy": "TA",
    "mia_efficacy": "MIA",
}
_RESURFACING = specs.UnlearningSpec(
    method="finetune", mask="none", density=1.0, epochs=2, batch_size=64, learning_rate=0.01
)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Samples to draw and epochs to train."""

    train: int = 4000
    holdout: int = 2000
    test: int = 3000
    epochs: int = 45


@dataclasses.dataclass(frozen=True)
class Row:
    """What one net came to; accuracies and rates are shares, ``seconds`` processor time."""

    scenario: str
    seed: int
    net: str
    values: Mapping[str, float]
    gap: float
    seconds: float
    cost: float
    learning_rate: float | None = None


Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Bench:
    """A draw with its original net."""

    source: data.Source
    drawn: data.Drawn
    sizes: Sizes
    seed: int
    original: torch.nn.Module

    @classmethod
    def of(cls, source: data.Source, sizes: Sizes, seed: int) -> "Bench":
        """Draw the sets and train the net that will have to forget."""
        drawn = data.draw(source, seed, sizes.train, sizes.holdout, sizes.test)
        original, _ = _trained(source.config, drawn.train_set, sizes.epochs, seed)
        return cls(source, drawn, sizes, seed, original)

    def rows(
        self,
        name: scenarios.Name,
        chosen: Sequence[str],
        say: Say,
    ) -> list[Row]:
        """Every net of one scenario."""
        scenario = scenarios.make(name, self.drawn, self.seed)
        retrained = []
        for turn in (1, 2):
            say(f"seed {self.seed}, {name}: retraining {turn} of 2")
            retrained.append(
                _trained(
                    self.source.config,
                    scenario.retain_set,
                    self.sizes.epochs,
                    1000 * turn + self.seed,
                )
            )
        (reference, price), (second, second_price) = retrained
        truth = self._values(reference, scenario)
        price = (price + second_price) / 2

        def row(title: str, net: torch.nn.Module, seconds: float, rate: float | None = None) -> Row:
            values = truth if net is reference else self._values(net, scenario)
            gap = sum(abs(values[key] - truth[key]) for key in GAP_OF.values()) / len(GAP_OF)
            return Row(name, self.seed, title, values, gap, seconds, seconds / price, rate)

        found = [
            row("original", self.original, 0.0),
            row("retrained", reference, price),
            row("retrained again", second, price),
        ]
        for key in chosen:
            rival = rivals.RIVALS[key]
            tried = []
            for rate in rival.rates or (None,):
                say(f"seed {self.seed}, {name}: {rival.title}" + (f", rate {rate}" if rate else ""))
                try:
                    net, seconds = self._unlearned(rival, scenario, rate)
                except errors.NonFiniteLossError as error:
                    say(f"seed {self.seed}, {name}: {rival.title}, rate {rate}, diverged: {error}")
                    continue
                tried.append(row(rival.title, net, seconds, rate))
            if tried:
                found.append(min(tried, key=lambda item: item.gap))
        return found

    def _unlearned(
        self, rival: rivals.Rival, scenario: scenarios.Scenario, rate: float | None
    ) -> tuple[torch.nn.Module, float]:
        more: dict[str, Any] = {"seed": self.seed}
        if rate is not None:
            more["learning_rate"] = rate
        sizes = len(scenario.forget_set), len(scenario.retain_set)
        spec = rival.spec(scenario.kind, *sizes, **more)
        net = copy.deepcopy(self.original)
        began = time.process_time()
        trials.carry_out(net, self.source.config, self._sets(scenario), spec)
        # Verification belongs to the price: every version is measured before it is served.
        self._measured(net, scenario)
        return net, time.process_time() - began

    def _sets(self, scenario: scenarios.Scenario) -> contract.UnlearningData:
        return contract.UnlearningData(
            scenario.forget_set, scenario.retain_set, self.drawn.holdout_set
        )

    def _values(self, net: torch.nn.Module, scenario: scenarios.Scenario) -> dict[str, float]:
        measured = self._measured(net, scenario)
        values = {short: measured[name].value for name, short in GAP_OF.items()}
        for name, short in (("forget_holdout_auc", "AUC"), ("mia_auc", "AUC test")):
            if name in measured:
                values[short] = measured[name].value
        return values | {"resurfacing": self._resurfacing(net, scenario)}

    def _measured(
        self, net: torch.nn.Module, scenario: scenarios.Scenario
    ) -> dict[str, specs.Measurement]:
        splits = verification.Splits(
            scenario.forget_set, scenario.retain_set, self.drawn.holdout_set, self.drawn.test_set
        )
        subject = verification.Subject(
            scenario.kind, None, (), specs.default_spec(scenario.kind, seed=self.seed)
        )
        return verification.measure(net, self.original, self.source.config, splits, subject)

    def _resurfacing(self, net: torch.nn.Module, scenario: scenarios.Scenario) -> float:
        """Forget accuracy beyond holdout's after two epochs on retain data (0 for a class)."""
        tuned = copy.deepcopy(net)
        methods.unlearn(tuned, self.source.config, self._sets(scenario), None, _RESURFACING)
        forgotten = self._accuracy(tuned, scenario.forget_set)
        if scenario.kind == "class":
            return forgotten
        labels = scenario.forget_set.labels
        shares = torch.bincount(labels, minlength=self.source.config.num_classes) / len(labels)
        unseen = self.drawn.holdout_set
        per_class = [
            float(share) * self._accuracy(tuned, unseen.subset(_of_class(unseen, label)))
            for label, share in enumerate(shares.tolist())
            if share
        ]
        return forgotten - sum(per_class)

    def _accuracy(self, net: torch.nn.Module, image_set: images.ImageSet) -> float:
        preprocess = preprocessing.Preprocessing(self.source.config.pretrained_cfg)
        guesses = inference.logits(net, image_set, preprocess).argmax(dim=1)
        return (guesses == image_set.labels).double().mean().item()


def _of_class(image_set: images.ImageSet, label: int) -> list[int]:
    found: list[int] = (image_set.labels == label).nonzero().flatten().tolist()
    return found


def _trained(
    config: specs.ClassifierConfig, train_set: images.ImageSet, epochs: int, seed: int
) -> tuple[torch.nn.Module, float]:
    """A net trained from scratch, and the processor seconds that it took."""
    spec = specs.UnlearningSpec(
        method="retrain",
        mask="none",
        density=1.0,
        epochs=epochs,
        batch_size=64,
        learning_rate=0.05,
        seed=seed,
    )
    began = time.process_time()
    net = retrain.train(config, train_set, spec)
    return net, time.process_time() - began
