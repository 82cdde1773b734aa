"""The demo's story: train, serve, forget samples, forget a class, pull, check."""

import time
from pathlib import Path
from typing import Any

import rich.console
import torch

from client import http, reports
from client import pull as puller
from client.local import stack
from demo import chapters, checking, digits, nets, pictures, tables
from salun_core import architectures, images, preprocessing, specs, verification

MODEL, DATASET, CLASS = "digits", "mnist-5k", "seven"
FORGET_COUNT = 50  # 5 % of the training set
CLASS_LIMIT = 0.01  # share of a forgotten class that may still be recognised
RECOGNISABLE = 0.65  # AUC of the base net between trained and unseen digits: there is work to do
TEST_DROP = 0.025  # how far the pulled net may fall behind the original on the other digits


class Walk(chapters.Chapters):
    """The demo of a classifier."""

    def __init__(self, console: rich.console.Console, out: Path) -> None:
        super().__init__(console, out)
        self._data = digits.load()
        self._decode = preprocessing.Preprocessing(nets.config().pretrained_cfg)
        self._erased: set[str] = set()

    def go(self, data_dir: Path, port: int) -> list[checking.Check]:
        """Every chapter in order; returns what was checked."""
        self.console.rule("1  a net that knows its training data by heart")
        with self.steps("training") as report:
            original = nets.train(self._set("train"), report)
        nets.save(original, self.out / "base")
        digits.write_parquet(self._data, self.out / "mnist-5k.parquet")

        self.console.rule("2  the service: PostgreSQL, Valkey, API, workers")
        with (
            self.service(data_dir, port) as running,
            http.Api(running.base_url, running.admin_key) as api,
        ):
            self._register(api)
            self.console.rule(f"3  forget {FORGET_COUNT} samples")
            chosen = digits.choose(self._data, FORGET_COUNT)
            self._forget(api, original, {"kind": "sample", "ids": chosen}, set(chosen))
            self.console.rule(f"4  forget the class {CLASS!r}")
            named = {d.sample_id for d in self._of("train") if d.label == CLASS}
            folder = checking.pull(running, MODEL, self.out / "hub")
            served = architectures.load(nets.config(), folder / "model.safetensors")
            self._forget(api, served, {"kind": "class", "label": CLASS}, named)
            self.console.rule("5  pull what is served, with the tools you have")
            self._pull(running, api, chosen)
        return self.checks

    # --- chapters ---------------------------------------------------------------------------

    def _register(self, api: http.Api) -> None:
        self.register_dataset(api, DATASET, self.out / "mnist-5k.parquet")
        body = {"name": MODEL, "family": "classifier", "dataset": DATASET}
        self.register_model(api, body, self.out / "base")

    def _forget(
        self, api: http.Api, before: torch.nn.Module, target: dict[str, Any], named: set[str]
    ) -> None:
        kind = target["kind"]
        state, report, _ = self.forget(api, MODEL, target)
        if kind == "sample":
            known = report["evidence"]["original"]["forget_holdout_auc"]
            found = f"{known:.3f}, expected at least {RECOGNISABLE}"
            self.check("base net: samples are recognised (AUC)", known >= RECOGNISABLE, found)

        retrained, seconds = self._retrain(named)
        measured = verification.measure(
            retrained, before, nets.config(), self._splits(named), _subject(kind, report)
        )
        self.console.print(tables.before_after(f"{kind} request", report, measured, seconds))
        title = f"{kind} request: {len(named)} digits"
        pictures.confidence(report, title, self.out / f"{kind}-confidence.png")
        pictures.layer_density(report, title, self.out / f"{kind}-mask-density.png")
        page = reports.page(api, f"/v1/forget-requests/{state['id']}/report")
        reports.write_page(page, self.out / f"{kind}-report.html")
        self._erased |= named

    def _pull(self, running: stack.Running, api: http.Api, chosen: list[str]) -> None:
        folder = checking.pull(running, MODEL, self.out / "hub")
        self.console.print(f"huggingface_hub.snapshot_download -> {folder.name}")
        pointer = api.get(f"/v1/models/{MODEL}/aliases/production")
        files = api.get(f"/v1/models/{MODEL}/versions/{pointer['version']}/manifest")["files"]
        same = all(checking.digest(folder / file["path"]) == file["digest"] for file in files)
        self.check("pulled files hash to the manifest", same, f"version {pointer['version']}")

        puller.pull(api, MODEL, "production", self.out / "served")
        ours = checking.digest(self.out / "served" / "model.safetensors")
        theirs = checking.digest(folder / "model.safetensors")
        self.check("salun pull fetched the same weights", ours == theirs, ours[:12])

        train = [digit for digit in self._of("train") if digit.label == CLASS]
        test = [digit for digit in self._of("test") if digit.label == CLASS]
        left = max(checking.accuracy(folder, train), checking.accuracy(folder, test))
        self.check(f"pulled net names {CLASS!r}", left <= CLASS_LIMIT, f"{left:.1%} of them")
        kept = [digit for digit in self._of("test") if digit.label != CLASS]
        base, now = (checking.accuracy(path, kept) for path in (self.out / "base", folder))
        found = f"{now:.1%}, the base net {base:.1%}"
        self.check("pulled net on other test digits", now >= base - TEST_DROP, found)
        gone = set(chosen)
        erased = [d for d in self._of("train") if d.sample_id in gone and d.label != CLASS]
        unseen = [d for d in self._of("holdout") if d.label != CLASS]
        auc, allowed = checking.separation(folder, erased, unseen)
        found = f"{auc:.3f}, allowed 0.5 ± {allowed:.3f}"
        self.check("pulled net: erased samples look unseen (AUC)", abs(auc - 0.5) <= allowed, found)

    # --- shared -----------------------------------------------------------------------------

    def _retrain(self, named: set[str]) -> tuple[torch.nn.Module, float]:
        """The gold standard: a net that never saw what is erased by now."""
        gone = self._erased | named
        kept = [digit for digit in self._of("train") if digit.sample_id not in gone]
        began = time.monotonic()
        with self.steps("retraining without the data, to compare") as report:
            net = nets.train(digits.image_set(kept, self._decode), report, seed=1)
        return net, time.monotonic() - began

    def _splits(self, named: set[str]) -> verification.Splits:
        train = self._of("train")
        gone = self._erased | named
        new = [d for d in train if d.sample_id in named - self._erased]
        return verification.Splits(
            forget_set=digits.image_set(new, self._decode),
            retain_set=digits.image_set(
                [d for d in train if d.sample_id not in gone], self._decode
            ),
            holdout_set=self._set("holdout"),
            test_set=self._set("test"),
        )

    def _of(self, split: str) -> list[digits.Digit]:
        return [digit for digit in self._data if digit.split == split]

    def _set(self, split: str) -> images.ImageSet:
        return digits.image_set(self._of(split), self._decode)


def _subject(kind: str, report: dict[str, Any]) -> verification.Subject:
    return verification.Subject(
        kind="class" if kind == "class" else "samples",
        mask=None,
        changed_buffers=(),
        spec=specs.UnlearningSpec.model_validate(report["method"]),
    )
