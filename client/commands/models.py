"""``salun models``: networks and their base versions."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from client import (
    console,
    errors,
    http,
    json_objects,
    progress,
    render,
    session,
    transfer,
    waiting,
)

app = typer.Typer(no_args_is_help=True, help="Models: push, list.")

_ALLOWED = frozenset({".safetensors", ".json", ".txt", ".md", ".model", ".png"})
_PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})


@app.command()
def push(
    name: Annotated[str, typer.Argument(help="Name of the model")],
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder with config.json and model.safetensors, or in diffusers' layout",
            exists=True,
            file_okay=False,
        ),
    ],
    dataset: Annotated[str, typer.Option(help="Dataset that it was trained on")],
    family: Annotated[
        str, typer.Option(help="classifier, class_conditional_diffusion or text_to_image")
    ] = "classifier",
    steps: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Generators: DDIM steps in serving")
    ] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(min=1.0, max=100.0, help="Generators: guidance in serving")
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Generators: pictures a prompt in verification"),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            help="What its owner decides once, as JSON or @FILE, see docs/operations.md; a new "
            "model takes it, one that is registered keeps its own"
        ),
    ] = None,
    trained_without: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Once the model has forgotten something: the version all of whose erasures the "
            "training data lacked",
        ),
    ] = None,
    url: session.Url = None,
    key: session.Key = None,
    as_json: session.AsJson = False,
) -> None:
    """Register a model if it is new, and add the folder as its next base version.

    The version is published once the service has checked it: safetensors header, config, names and
    shapes of all tensors. Pickled weights are never sent.

    Examples:

    salun models push digits ./resnet18 --dataset digits

    salun models push icons ./folder --dataset icons --family text_to_image --guidance-scale 3

    salun models push digits ./trained-anew --dataset digits --trained-without 7

    salun models push digits ./resnet18 --dataset digits --policy '{"max_forget_share": 0.2}'
    """
    chosen = {"steps": steps, "guidance_scale": guidance_scale, "images": images}
    sampling = {name: value for name, value in chosen.items() if value is not None}
    with session.opened(url, key, as_json=as_json) as api:
        decided = _policy(policy, sampling)
        paths = _files(folder)
        _register(api, name, family, dataset, decided)
        total = sum(path.stat().st_size for path in paths)
        with progress.bytes_bar("uploading", total, quiet=as_json) as on_bytes:
            uploads = transfer.push(api, paths, on_bytes)
        files = [
            {
                "path": upload.path.relative_to(folder).as_posix(),
                "digest": upload.digest,
                "size": upload.size_bytes,
            }
            for upload in uploads
        ]
        versions = http.path("v1", "models", name, "versions")
        body = {"files": files, "trained_without": trained_without}
        version = api.post(versions, body, timeout=120.0)["version"]
        state = waiting.until(
            api,
            f"{versions}/{version}",
            _is_decided,
            title=f"{name} version {version}",
            as_json=as_json,
        )
        if state["state"] == "staged":
            raise errors.ClientError(
                f"{name} version {version} was refused: {render.reasons(state)}"
            )
    if not as_json:
        render.fields([("model", name), ("version", version), ("state", state["state"])])


@app.command("list")
def list_models(
    url: session.Url = None, key: session.Key = None, as_json: session.AsJson = False
) -> None:
    """List all models with what their aliases point at.

    Example: salun models list
    """
    with session.opened(url, key, as_json=as_json) as api:
        found = api.get("/v1/models")
    render.listing(
        found,
        ["model", "family", "dataset", "versions", "aliases", "registered"],
        lambda model: [
            model["name"],
            model["family"],
            model["dataset"],
            model["versions"],
            model["aliases"],
            render.moment(model["created_at"]),
        ],
        none="no models; `salun models push` registers one",
        as_json=as_json,
    )


def _files(folder: Path) -> list[Path]:
    """Return what can be sent, and say what is left out."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    visible = [
        path
        for path in found
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    for path in visible:
        if path.suffix in _PICKLES:
            console.err.print(f"{path} is left out: weights travel as safetensors, never as pickle")
        elif path.suffix not in _ALLOWED:
            console.err.print(f"{path} is left out: files of this kind are not kept")
    allowed = [path for path in visible if path.suffix in _ALLOWED]
    if not allowed:
        raise errors.ClientError(
            f"{folder} has nothing to send; expected config.json and model.safetensors, or a "
            "diffusers folder"
        )
    return allowed


def _policy(text: str | None, sampling: Mapping[str, Any]) -> dict[str, Any]:
    """What is given as a whole, with the single options on top."""
    decided = {} if text is None else json_objects.parse("--policy", text)
    if not sampling:
        return decided
    within = decided.get("sampling", {})
    if not isinstance(within, dict):
        raise errors.ClientError(
            f"--policy: got {json.dumps(within)} for sampling, expected an object"
        )
    return {**decided, "sampling": {**within, **sampling}}


def _register(
    api: http.Api, name: str, family: str, dataset: str, policy: Mapping[str, Any]
) -> None:
    try:
        known = api.get(http.path("v1", "models", name))
    except errors.ApiError as error:
        if error.status != httpx.codes.NOT_FOUND:
            raise
        decided = {"policy": dict(policy)} if policy else {}
        api.post("/v1/models", {"name": name, "family": family, "dataset": dataset, **decided})
        return
    if (known["family"], known["dataset"]) != (family, dataset):
        raise errors.ClientError(
            f"model {name} is a {known['family']} trained on {known['dataset']}, "
            f"got {family} on {dataset}; choose another name"
        )
    if told := _contradictions(policy, known["policy"]):
        raise errors.ClientError(
            f"model {name} is registered with another policy, which stays: {told}"
        )


def _contradictions(wanted: Mapping[str, Any], known: Mapping[str, Any], within: str = "") -> str:
    """What is wanted and not so, by its place in the policy."""
    found = []
    for field, value in wanted.items():
        place, kept = f"{within}{field}", known.get(field)
        if isinstance(value, Mapping) and isinstance(kept, Mapping):
            found.append(_contradictions(value, kept, f"{place}."))
        elif value != kept:
            found.append(f"{place} is {json.dumps(kept)}, got {json.dumps(value)}")
    return "; ".join(filter(None, found))


def _is_decided(state: Mapping[str, Any]) -> bool:
    return state["state"] != "staged" or bool(state.get("errors"))
