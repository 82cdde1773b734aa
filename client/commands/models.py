"""``salun models``: networks and their base versions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from client import console, errors, http, progress, render, session, transfer, waiting

app = typer.Typer(no_args_is_help=True, help="Models: push.")

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
    """
    chosen = {"steps": steps, "guidance_scale": guidance_scale, "images": images}
    sampling = {name: value for name, value in chosen.items() if value is not None}
    with session.opened(url, key, as_json=as_json) as api:
        paths = _files(folder)
        _register(api, name, family, dataset, sampling)
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


def _register(
    api: http.Api, name: str, family: str, dataset: str, sampling: Mapping[str, Any]
) -> None:
    try:
        known = api.get(http.path("v1", "models", name))
    except errors.ApiError as error:
        if error.status != httpx.codes.NOT_FOUND:
            raise
        policy = {"policy": {"sampling": dict(sampling)}} if sampling else {}
        api.post("/v1/models", {"name": name, "family": family, "dataset": dataset, **policy})
        return
    if (known["family"], known["dataset"]) != (family, dataset):
        raise errors.ClientError(
            f"model {name} is a {known['family']} trained on {known['dataset']}, "
            f"got {family} on {dataset}; choose another name"
        )
    registered = known["policy"].get("sampling", {})
    if any(registered.get(name) != value for name, value in sampling.items()):
        raise errors.ClientError(
            f"model {name} was registered with sampling {registered}, got {dict(sampling)}"
        )


def _is_decided(state: Mapping[str, Any]) -> bool:
    return state["state"] != "staged" or bool(state.get("errors"))
