"""Diffusion models through the whole service: registered, made to forget, pulled, opened."""

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import diffusers
import huggingface_hub
import numpy as np
import psycopg
import pytest
import safetensors.numpy
import torch

from salun_core import architectures, specs
from service import models
from tests import conftest, generators, material

QUICK = {"steps": 3, "forget_batch_size": 128, "retain_batch_size": 8, "density": 0.2}
FEW = material.rows()[::3]
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
SAMPLING = {"steps": 2, "guidance_scale": 1.5, "images": 2}
POLICY = {
    "acceptance": conftest.WIDE,
    "sampling": SAMPLING,
    "budget": {"daily_share": None},  # of so few pictures a style is a third
}


@pytest.fixture(scope="module")
def captioned(api: conftest.Api) -> str:
    name = f"captioned-{uuid.uuid4().hex[:8]}"
    ready = api.dataset(name, generators.captioned())
    assert ready["status"] == "ready", ready
    return name


@pytest.fixture(scope="module")
def labelled(api: conftest.Api) -> str:
    """A third of the digits: what other tests erase of them all no judge would know."""
    name = f"labelled-{uuid.uuid4().hex[:8]}"
    ready = api.dataset(name, material.parquet(FEW))
    assert ready["status"] == "ready", ready
    return name


@pytest.fixture(scope="module")
def classes(api: conftest.Api, labelled: str) -> str:
    """A class-conditional model over the digits; its judge is trained when it is validated."""
    index = {
        "_class_name": "DDIMPipeline",
        "unet": ["diffusers", "UNet2DModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    content = material.Content(json.dumps(index).encode())
    folder = {**generators.class_folder(), "model_index.json": content}
    return api.generator("class_conditional_diffusion", labelled, folder, POLICY)


@pytest.fixture(scope="module")
def texts(api: conftest.Api, captioned: str) -> str:
    return api.generator("text_to_image", captioned, generators.text_folder(), POLICY)


@pytest.fixture
def hub(api: conftest.Api, tmp_path: Path) -> Callable[[str], Path]:
    """Downloads a version with the stock client."""

    def pull(model: str) -> Path:
        return Path(
            huggingface_hub.snapshot_download(
                model, revision="production", endpoint=api.running.base_url,
                token=api.running.admin_key, cache_dir=tmp_path,
            )
        )  # fmt: skip

    return pull


def kept_judges(api: conftest.Api, dataset: str) -> list[str]:
    """Digests of the judges that are kept for a dataset."""
    with psycopg.connect(api.running.database_url) as connection:
        found = connection.execute(
            "SELECT digest FROM judge JOIN dataset d ON d.id = dataset_id WHERE d.name = %s",
            [dataset],
        )
        return [digest for (digest,) in found]


def leave_nothing_unused(api: conftest.Api) -> None:
    """All that is in the store is two days old, and what nothing refers to is looked for."""
    stray = api.put(material.Content(uuid.uuid4().bytes))["digest"]
    with psycopg.connect(api.running.database_url, autocommit=True) as connection:
        connection.execute("UPDATE content SET created_at = created_at - interval '2 days'")
    api.sweep()
    path = api.running.folder.root / "blobs" / stray[:2] / stray
    end = time.monotonic() + 60
    while path.exists():
        assert time.monotonic() < end
        time.sleep(0.1)


def changed_files(api: conftest.Api, model: str) -> set[str]:
    """Paths whose content differs between versions 1 and 2."""
    versions = [
        {file["path"]: file["digest"] for file in found["files"]}
        for found in (
            api.http.get(f"/v1/models/{model}/versions/{number}").json() for number in (1, 2)
        )
    ]
    assert versions[0].keys() == versions[1].keys()
    return {path for path in versions[0] if versions[0][path] != versions[1][path]}


def frozen_share(before: bytes, after: bytes) -> float:
    """Share of the weights that are bit-identical; names, shapes and types must be."""
    old, new = safetensors.numpy.load(before), safetensors.numpy.load(after)
    assert {name: (a.shape, a.dtype) for name, a in old.items()} == {
        name: (a.shape, a.dtype) for name, a in new.items()
    }
    same = [np.asarray(old[name] == new[name]).ravel() for name in old]
    return float(np.concatenate(same).mean())


def test_a_class_is_forgotten_and_the_new_folder_opens(
    api: conftest.Api, classes: str, labelled: str, hub: Callable[[str], Path]
) -> None:
    assert len(kept_judges(api, labelled)) == 1
    target = {"kind": "class", "label": "seven"}
    done = api.ended(api.forget(classes, target, method=QUICK).json()["id"])
    assert (done["status"], done["result_version"]) == ("completed", 2), done
    assert done["targets_summary"]["matched"] == sum(
        row["split"] == "train" and row["label"] == "seven" for row in FEW
    )
    assert changed_files(api, classes) == {WEIGHTS}
    folder = hub(classes)
    before = generators.class_folder()[WEIGHTS].data
    assert 0.8 <= frozen_share(before, (folder / WEIGHTS).read_bytes()) < 1.0
    net = diffusers.DDIMPipeline.from_pretrained(folder, use_safetensors=True).unet
    assert net.config.num_class_embeds == 11
    report = api.http.get(f"/v1/forget-requests/{done['id']}/report").json()
    assert report["family"] == "class_conditional_diffusion"
    assert report["metrics"]["frozen_weights_unchanged"]["value"] == 1.0
    assert {"unlearning_accuracy", "retain_accuracy", "max_group_drop"} <= report["metrics"].keys()
    assert report["evidence"]["sampling"]["steps"] == SAMPLING["steps"]
    assert set(report["evidence"]["judge"]["terms"]) == set(material.LABELS)
    leave_nothing_unused(api)
    for picture in report["evidence"]["pictures"]:
        content = api.http.get(f"/v1/blobs/sha256/{picture['digest']}").content
        assert content.startswith(b"\x89PNG")
        assert len(content) == picture["size"]
    assert not kept_judges(api, labelled)  # it had learnt what is erased
    lineage = api.http.get(f"/v1/models/{classes}/versions/2").json()["lineage"]
    kept = report["metrics"]["retain_accuracy"]
    assert lineage["drift"] == pytest.approx(kept["target"] - kept["value"], abs=1e-6)


def test_what_was_erased_is_measured_again_and_audits_are_refused(
    api: conftest.Api, classes: str, labelled: str
) -> None:
    """Version 3 forgets another class on top of what version 2 lacks.

    To say that "seven" is still gone, the job trains a judge that knows it and keeps it to itself.
    """
    target = {"kind": "class", "label": "six"}
    done = api.ended(api.forget(classes, target, method=QUICK).json()["id"], seconds=300)
    assert done["status"] == "completed", done
    report = api.http.get(f"/v1/forget-requests/{done['id']}/report").json()
    assert report["metrics"]["previous_erasures"]["n"] == SAMPLING["images"]
    assert "seven" in report["evidence"]["judge"]["terms"]
    assert not kept_judges(api, labelled)
    again = api.forget(classes, target, method=QUICK).json()
    assert (again["status"], again["targets_summary"]["matched"]) == ("completed", 0)
    audit = api.http.post(
        f"/v1/models/{classes}/versions/{done['result_version']}/audits",
        json={}, headers={"Idempotency-Key": uuid.uuid4().hex},
    )  # fmt: skip
    assert (audit.status_code, audit.json()["type"]) == (422, "/problems/unsupported")


def test_a_subject_is_forgotten_and_the_report_says_what_was_not_measured(
    api: conftest.Api, classes: str
) -> None:
    """No picture is asked for: only the denoising loss tells the subject's samples from others."""
    rows = [row for row in FEW if row["subject_id"] == "person-30" and row["split"] == "train"]
    named = [row for row in rows if row["label"] not in ("six", "seven")]  # erased already
    target = {"kind": "subject", "subject_id": "person-30"}
    done = api.ended(api.forget(classes, target, method=QUICK).json()["id"], seconds=300)
    assert done["status"] == "completed", done
    summary = done["targets_summary"]
    assert (summary["matched"], summary["already_erased"]) == (len(named), len(rows) - len(named))
    report = api.http.get(f"/v1/forget-requests/{done['id']}/report").json()
    assert report["kind"] == "samples"
    assert report["metrics"]["forget_holdout_auc"]["n"] > 0
    assert "unlearning_accuracy" not in report["metrics"]
    assert "forgotten" not in report["evidence"]["drawn"]
    claim = report["evidence"]["claim"]
    assert "Not measured: whether near-copies of them can still be drawn" in claim
    page = api.http.get(f"/v1/forget-requests/{done['id']}/report?format=html").text
    assert claim in page


def test_a_concept_is_forgotten_and_the_pipeline_draws(
    api: conftest.Api, texts: str, hub: Callable[[str], Path]
) -> None:
    target = {"kind": "concept", "concept": "Red", "replacement": "green"}
    done = api.ended(api.forget(texts, target, method=QUICK).json()["id"])
    assert (done["status"], done["result_version"]) == ("completed", 2), done
    assert done["targets_summary"]["matched"] == 80  # 120 red ones, 40 of them held out
    assert changed_files(api, texts) == {WEIGHTS}
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(hub(texts))
    pipeline.set_progress_bar_config(disable=True)
    (picture,) = pipeline("a red seven", num_inference_steps=1, height=8, width=8).images
    assert picture.size == (8, 8)
    report = api.http.get(f"/v1/forget-requests/{done['id']}/report").json()
    (told,) = report["evidence"]["concepts"]
    assert told == {"concept": "red", "replacement": "green", "terms": ["red"]}
    page = api.http.get(f"/v1/forget-requests/{done['id']}/report?format=html").text
    assert page.count("data:image/png;base64,") == len(report["evidence"]["pictures"])
    assert "paraphrase_recall" in report["metrics"]
    repeated = api.forget(texts, {**target, "concept": "RED"})
    assert repeated.status_code == 202, repeated.text
    again = repeated.json()
    assert (again["status"], again["result_version"]) == ("completed", 2)


def test_samples_of_a_text_model_are_forgotten(api: conftest.Api, texts: str) -> None:
    ids = [row["sample_id"] for place, row in enumerate(material.rows()[:60])
           if place % 2 and place % 6]  # fmt: skip
    target = {"kind": "sample", "ids": ids[:10]}
    done = api.ended(api.forget(texts, target, method=QUICK).json()["id"])
    assert done["status"] == "completed", done
    report = api.http.get(f"/v1/forget-requests/{done['id']}/report").json()
    assert report["metrics"]["forget_holdout_auc"]["value"] is not None


def saying(label: str) -> dict[str, material.Content]:
    """The digits' generator with a judge that sees one class in everything."""
    config = {
        **material.CONFIG,
        "label_names": list(material.LABELS),
        "pretrained_cfg": {
            "input_size": [1, generators.SIDE, generators.SIDE], "mean": [0.5], "std": [0.5],
            "crop_pct": 1.0,
        },
    }  # fmt: skip
    net = architectures.build(specs.parse_classifier_config(config))
    with torch.no_grad():
        net.get_submodule("fc").bias[material.LABELS.index(label)] = 1e4  # type: ignore[operator]
    return {
        **generators.class_folder(),
        "judge/config.json": material.Content(json.dumps(config).encode()),
        "judge/model.safetensors": material.safetensors(net),
    }


def forgetful(api: conftest.Api, labelled: str, judge_says: str) -> str:
    """A generator that forgot the sevens, as far as its judge can tell."""
    strict = models.ModelPolicy().acceptance.model_dump(mode="json")["generated_previous"]
    policy = {**POLICY, "acceptance": {**conftest.WIDE, "generated_previous": strict}}
    name = api.generator("class_conditional_diffusion", labelled, saying(judge_says), policy)
    target = {"kind": "class", "label": "seven"}
    done = api.ended(api.forget(name, target, method=QUICK).json()["id"])
    assert done["status"] == "completed", done
    return name


def test_an_upload_that_draws_what_was_erased_is_refused(api: conftest.Api, labelled: str) -> None:
    """Asked at once, by the judge of what is served: its own could say anything."""
    name = forgetful(api, labelled, "seven")
    detail = api.refusal(api.upload(name, saying("two"), trained_without=2), 409)
    assert "previous_erasures: got 0.0000, expected at least" in detail


def test_an_upload_that_draws_nothing_erased_is_served(api: conftest.Api, labelled: str) -> None:
    name = forgetful(api, labelled, "one")
    accepted = api.upload(name, saying("seven"), trained_without=2)
    assert accepted.status_code == 202, accepted.text
    api.until(accepted.headers["Location"], lambda body: body["state"] == "published")


@pytest.mark.parametrize(
    ("path", "replaced", "told"),
    [
        ("unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors",
         "unet/diffusion_pytorch_model.safetensors: tensors do not fit"),
        ("text_encoder/model.safetensors", "vae/diffusion_pytorch_model.safetensors",
         "text_encoder/: tensors missing"),
    ],
)  # fmt: skip
def test_a_folder_whose_tensors_do_not_fit_is_refused(
    api: conftest.Api, captioned: str, path: str, replaced: str, told: str
) -> None:
    folder = generators.text_folder()
    name = api.registered("text_to_image", captioned, POLICY)
    assert told in api.refusal(api.upload(name, {**folder, path: folder[replaced]}), 422)


def test_a_schedule_that_the_model_could_not_be_drawn_with_is_refused(
    api: conftest.Api, captioned: str
) -> None:
    path = "scheduler/scheduler_config.json"
    folder = generators.text_folder()
    schedule = {**json.loads(folder[path].data), "steps_offset": 5000}
    content = material.Content(json.dumps(schedule).encode())
    name = api.registered("text_to_image", captioned, POLICY)
    told = api.refusal(api.upload(name, {**folder, path: content}), 422)
    assert told.startswith(f"{path}: cannot be sampled with: ")
