"""The net that says what a drawn picture shows.

It is an ordinary image classifier, trained on the pictures that the model was trained on. Its
outputs are *terms*: the classes of labelled data, which exclude each other, or words of captions,
of which a picture may show several. What it cannot tell on pictures that it never saw is no term.

A picture may show nothing that the judge knows. Words are told one by one, so none may be; a judge
of classes has an output more for it, :data:`NOTHING`, which is no term.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from salun_core import architectures, errors, heads, modes, preprocessing, specs, weights
from salun_core.diffusion import terms as vocabularies

NOTHING = "none of these"  # the last label of a judge of classes that may refuse
_BATCH_SIZE = 128
_THRESHOLD = 0.5  # probability from which a word is told
_FLOOR = 0.9  # balanced accuracy: below it a term is told, but not to be relied on


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
    """A net and what its outputs mean.

    Attributes:
        config: of the net; ``label_names`` are the terms, after them perhaps :data:`NOTHING`.
        net: in eval mode.
        exclusive: whether a picture shows one term at most.
        held_out: by term, how it did on pictures that it never saw: ``recall``, ``specificity``,
            ``precision``, ``balanced_accuracy``, ``n`` positives; empty for a judge that was given.
            Of :data:`NOTHING` the positives are pictures made of two unseen ones.
        unknown: words of the captions that pictures do not tell, with their balanced accuracy.
    """

    config: specs.ClassifierConfig
    net: torch.nn.Module
    exclusive: bool
    held_out: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    unknown: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def terms(self) -> tuple[str, ...]:
        """What it can recognise."""
        labels = self.config.labels
        return labels[:-1] if self.exclusive and labels[-1] == NOTHING else labels

    @property
    def may_refuse(self) -> bool:
        """Whether it can say of a picture that it shows none of its terms."""
        return not self.exclusive or len(self.terms) < len(self.config.labels)

    def terms_of(self, text: str) -> tuple[str, ...]:
        """What of a text it can recognise: a class by its name, otherwise every word it knows.

        Raises:
            InvalidDataError: nothing.
        """
        wanted = (text,) if self.exclusive else dict.fromkeys(vocabularies.words(text))
        found = tuple(term for term in wanted if term in self.terms)
        if not found:
            raise errors.InvalidDataError(
                f"the judge recognises no word of {text!r}, only {', '.join(self.terms[:20])}; "
                "upload a judge that does (judge/config.json and judge/model.safetensors)"
            )
        return found

    def knows(self, text: str) -> bool:
        """Whether it recognises anything of the text."""
        try:
            return bool(self.terms_of(text))
        except errors.InvalidDataError:
            return False

    def probabilities(self, pictures: torch.Tensor) -> torch.Tensor:
        """Of every term, float32 (N, K), for uint8 pictures (N, C, H, W) of any size."""
        return self.read(pictures).probabilities

    def told(self, pictures: torch.Tensor) -> torch.Tensor:
        """Which terms a picture shows, bool (N, K)."""
        return self.read(pictures).told

    def recognises(self, pictures: torch.Tensor, text: str) -> torch.Tensor:
        """Whether a picture shows every term of the text, bool (N,).

        Raises:
            InvalidDataError: the text has none.
        """
        return self.told(pictures)[:, self.columns(text)].all(dim=1)

    def tell(self, pictures: torch.Tensor) -> list[tuple[str, ...]]:
        """The names of what each picture shows."""
        return [
            tuple(term for term, shown in zip(self.terms, row, strict=True) if shown)
            for row in self.told(pictures).tolist()
        ]

    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """What goes into the last layer, float32 (N, D); the logits where it is not linear."""
        return self.read(pictures).features

    def columns(self, text: str) -> list[int]:
        """The outputs that stand for a text's terms.

        Raises:
            InvalidDataError: the text has none.
        """
        return [self.terms.index(term) for term in self.terms_of(text)]

    def read(self, pictures: torch.Tensor) -> "Reading":
        """Everything at once, one forward pass over uint8 pictures (N, C, H, W).

        Raises:
            InvalidDataError: there are none, or colour pictures and a judge of grey ones.
        """
        if not len(pictures):
            raise errors.InvalidDataError("got no pictures to judge, expected at least one")
        tap = heads.Tap(torch.ones(len(pictures), dtype=torch.bool))
        try:
            head = heads.find(self.net, self.config)
        except errors.InvalidDataError:
            logits = self._logits(pictures)
            return self._reading(logits, logits)
        with tap.on(head):
            logits = self._logits(pictures)
        return self._reading(logits, tap.features())

    def unreliable(self) -> dict[str, float]:
        """Terms that it told too poorly on unseen pictures, with their balanced accuracy."""
        return {
            term: figures["balanced_accuracy"]
            for term, figures in self.held_out.items()
            if figures["balanced_accuracy"] < _FLOOR
        }

    def digest(self) -> str:
        """SHA-256 of its weights and of what they mean."""
        found = hashlib.sha256(json.dumps(self._record(), sort_keys=True).encode())
        for name, tensor in sorted(self.net.state_dict().items()):
            found.update(name.encode())
            found.update(weights.bits(tensor).tobytes())
        return found.hexdigest()

    def to_file(self, path: pathlib.Path) -> None:
        """One safetensors file that :func:`from_file` reads."""
        record = json.dumps(self._record(), sort_keys=True)
        weights.write(path, self.net.state_dict(), {"judge": record})

    def _logits(self, pictures: torch.Tensor) -> torch.Tensor:
        prepare = Preparation(self.config)
        device = modes.device_of(self.net)
        with modes.evaluating(self.net), torch.inference_mode():
            parts = [
                self.net(prepare(pictures[start : start + _BATCH_SIZE].to(device))).float().cpu()
                for start in range(0, len(pictures), _BATCH_SIZE)
            ]
        return torch.cat(parts).clone()

    def _reading(self, logits: torch.Tensor, features: torch.Tensor) -> "Reading":
        if not self.exclusive:
            probabilities = logits.sigmoid()
            return Reading(probabilities, probabilities >= _THRESHOLD, features)
        told = functional.one_hot(logits.argmax(dim=1), logits.shape[1]).bool()
        count = len(self.terms)  # what remains may be that the picture shows none of them
        return Reading(logits.softmax(dim=1)[:, :count], told[:, :count], features)

    def _record(self) -> dict[str, Any]:
        return {
            "config": self.config.model_dump(mode="json"),
            "exclusive": self.exclusive,
            "held_out": {term: dict(figures) for term, figures in self.held_out.items()},
            "unknown": dict(self.unknown),
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """What a judge says of N pictures.

    Attributes:
        probabilities: float32 (N, K).
        told: bool (N, K).
        features: float32 (N, D).
    """

    probabilities: torch.Tensor
    told: torch.Tensor
    features: torch.Tensor


class Preparation:
    """From pictures of any size to a net's input: resized whole, normalised; nothing is cropped."""

    def __init__(self, config: specs.ClassifierConfig) -> None:
        self._size = config.input_size
        self._preprocess = preprocessing.Preprocessing(config.pretrained_cfg)

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        """uint8 (B, C, H, W) to float32 (B, *input_size).

        Raises:
            InvalidDataError: colour pictures and a net that sees grey ones.
        """
        channels, *sides = self._size
        if pictures.shape[1] not in (1, channels):
            raise errors.InvalidDataError(
                f"got pictures of {pictures.shape[1]} channels, the judge takes {channels}"
            )
        if list(pictures.shape[2:]) != sides:
            scaled = functional.interpolate(
                pictures.float(), size=sides, mode="bilinear", antialias=True
            )
            pictures = scaled.round().clamp(0, 255).to(torch.uint8)
        return self._preprocess.normalise(pictures.expand(-1, channels, -1, -1))


def from_file(path: pathlib.Path) -> Judge:
    """The judge of :meth:`Judge.to_file`.

    Raises:
        UnsafeArtifactError, InvalidConfigError, ArchitectureMismatchError: it is no such file.
    """
    try:
        record = json.loads(weights.read_metadata(path)["judge"])
        config = specs.parse_classifier_config(record["config"])
        exclusive, held_out, unknown = (
            bool(record["exclusive"]),
            dict(record["held_out"]),
            dict(record["unknown"]),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise errors.InvalidConfigError(f"{path.name}: got no judge ({error})") from error
    return Judge(config, architectures.load(config, path), exclusive, held_out, unknown)


def from_classifier(config: Mapping[str, Any], net: torch.nn.Module) -> Judge:
    """A judge that was given, in timm's hub layout: ``label_names`` are the terms.

    Args:
        config: the parsed ``config.json``; with ``"multi_label": true`` a picture may show
            several terms, each given by a sigmoid.
        net: with the weights.

    Raises:
        InvalidConfigError: the configuration is bad or names no terms.
    """
    parsed = specs.parse_classifier_config(config)
    if not parsed.label_names:
        raise errors.InvalidConfigError(
            "judge/config.json: got no label_names, expected the name of every output"
        )
    several = bool(config.get("multi_label", False))
    if several:
        lowered = tuple(name.lower() for name in parsed.label_names)
        parsed = parsed.model_copy(update={"label_names": lowered})
    return Judge(parsed, net.eval(), exclusive=not several)


def select_terms(judge: Judge, kept: Sequence[str]) -> Judge:
    """The same judge with fewer outputs: the rows of the others leave the last layer.

    Raises:
        InvalidDataError: the net does not end in a linear layer.
    """
    head = heads.find(judge.net, judge.config)
    rows = torch.tensor([judge.terms.index(term) for term in kept])
    fields = {"num_classes": len(kept), "label_names": tuple(kept)}
    config = judge.config.model_copy(update=fields)
    net = architectures.build(config)
    state = judge.net.state_dict()
    for name, parameter in judge.net.named_parameters():
        if parameter is head.weight or parameter is head.bias:
            state[name] = parameter.detach()[rows]
    net.load_state_dict(state)
    return dataclasses.replace(judge, config=config, net=net.eval())
