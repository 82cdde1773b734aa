"""``salun datasets``: training sets in the ledger."""

from pathlib import Path
from typing import Annotated

import typer

from client import errors, http, progress, render, session, transfer, waiting

app = typer.Typer(no_args_is_help=True, help="Training sets: push, list.")


@app.command()
def push(
    name: Annotated[str, typer.Argument(help="Name of the dataset")],
    files: Annotated[list[Path], typer.Argument(help="Parquet files", exists=True, dir_okay=False)],
    url: session.Url = None,
    key: session.Key = None,
    as_json: session.AsJson = False,
) -> None:
    """Upload Parquet files and have them ingested into the ledger.

    The columns follow the Hugging Face image convention: `image` (struct of bytes and path),
    `label` or `text`, plus `sample_id`, `split` (train, test or holdout) and optionally
    `subject_id`. Content that the service has is not sent again.

    Example: salun datasets push digits train.parquet test.parquet
    """
    with session.opened(url, key, as_json=as_json) as api:
        total = sum(path.stat().st_size for path in files)
        with progress.bytes_bar("uploading", total, quiet=as_json) as on_bytes:
            uploads = transfer.push(api, files, on_bytes)
        api.post("/v1/datasets", {"name": name, "files": [upload.digest for upload in uploads]})
        state = waiting.until(
            api,
            http.path("v1", "datasets", name),
            lambda found: found["status"] != "ingesting",
            title=f"dataset {name}",
            as_json=as_json,
        )
        if state["status"] == "failed":
            raise errors.ClientError(f"dataset {name} was refused: {render.reasons(state)}")
    if not as_json:
        render.fields(
            [("dataset", name), ("rows", state.get("rows")), ("splits", state.get("splits"))]
        )


@app.command("list")
def list_datasets(
    url: session.Url = None, key: session.Key = None, as_json: session.AsJson = False
) -> None:
    """List all datasets.

    Example: salun datasets list
    """
    with session.opened(url, key, as_json=as_json) as api:
        found = api.get("/v1/datasets")
    render.listing(
        found,
        ["dataset", "status", "rows", "splits", "classes", "registered"],
        lambda dataset: [
            dataset["name"],
            dataset["status"],
            dataset["rows"],
            dataset["splits"],
            len(dataset["label_names"]),
            render.moment(dataset["created_at"]),
        ],
        none="no datasets; `salun datasets push` registers one",
        as_json=as_json,
    )
