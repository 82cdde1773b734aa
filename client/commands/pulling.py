"""``salun pull``: what an alias points at, in a folder; ``salun deployments``: who serves it."""

import dataclasses
import datetime
import time
from pathlib import Path
from typing import Annotated

import typer

from client import console, errors, http, progress, pull, render, session

_RETRY_SECONDS = 5.0


def pull_model(
    model: Annotated[str, typer.Argument(help="Model to pull")],
    to: Annotated[Path, typer.Option("--to", help="Where the model shall be (becomes a link)")],
    alias: Annotated[str, typer.Option(help="Which pointer to follow")] = "production",
    watch: Annotated[bool, typer.Option("--watch", help="Stay and pull every new version")] = False,
    deployment: Annotated[
        str | None, typer.Option(help="Report under this name what is served here now")
    ] = None,
    url: session.Url = None,
    key: session.Key = None,
    as_json: session.AsJson = False,
) -> None:
    """Fetch a model, check every digest, and swap it in without a moment of half a model.

    DIR is a symbolic link into DIR.versions/; it is swapped in one step when the new version is
    whole and checked; until then DIR stays as it is. Versions that must be forgotten are deleted
    here too. With --deployment the service is told then who serves the model: from then on forget
    requests are complete only once that name has pulled, too. If anything is wrong, also with the
    telling, the exit status is 1.

    Examples:

    salun pull digits --to /srv/models/digits

    salun pull digits --to /srv/models/digits --watch --deployment edge-7
    """
    with session.opened(url, key, as_json=as_json) as api:
        if watch:
            _watch(api, model, alias, to, deployment, as_json=as_json)
        _pull_once(api, model, alias, to, deployment, as_json=as_json)


def list_deployments(
    model: Annotated[str, typer.Argument(help="Name of the model")],
    remove: Annotated[
        str | None, typer.Option("--remove", help="This one serves the model no more")
    ] = None,
    url: session.Url = None,
    key: session.Key = None,
    as_json: session.AsJson = False,
) -> None:
    """List who said that they serve a model, and which version; forget requests wait for them.

    Examples:

    salun deployments digits

    salun deployments digits --remove edge-7
    """
    address = http.path("v1", "models", model, "deployments")
    with session.opened(url, key, as_json=as_json) as api:
        if remove is not None:
            api.call("DELETE", address + http.path(remove))
            console.err.print(f"removed: no forget request waits for {remove} any more")
            return
        found = api.get(address)
    render.listing(
        found,
        ["deployment", "version", "up to date", "reported"],
        lambda item: [
            item["deployment"],
            item["version"],
            "yes" if item["up_to_date"] else "no",
            render.moment(item["reported_at"]),
        ],
        none="no deployments: no forget request waits for one",
        as_json=as_json,
    )


def _watch(
    api: http.Api, model: str, alias: str, to: Path, deployment: str | None, *, as_json: bool
) -> None:
    """Follow the alias for ever; an error is told and tried again."""
    while True:
        try:
            for pointer in pull.follow(api, model, alias):
                _pull_once(api, model, alias, to, deployment, as_json=as_json, pointer=pointer)
        except errors.ClientError as error:
            console.tell(error, as_json=as_json)
            time.sleep(_RETRY_SECONDS)


def _pull_once(
    api: http.Api,
    model: str,
    alias: str,
    to: Path,
    deployment: str | None,
    *,
    as_json: bool,
    pointer: http.Json | None = None,
) -> None:
    with progress.download_bar(f"pulling {model}", quiet=as_json) as on_bytes:
        pulled = pull.pull(api, model, alias, to, pointer=pointer, on_bytes=on_bytes)
    _show(pulled, as_json=as_json)
    if deployment is not None:
        now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
        pull.report(api, deployment, pulled, now)


def _show(pulled: pull.Pulled, *, as_json: bool) -> None:
    if as_json:
        console.print_json({**dataclasses.asdict(pulled), "folder": str(pulled.folder)})
        return
    render.fields(
        [
            ("model", f"{pulled.model}@{pulled.alias}"),
            ("version", f"{pulled.version} ({'new' if pulled.changed else 'was here already'})"),
            ("folder", pulled.folder),
            ("fetched", f"{pulled.fetched_bytes / 1e6:.1f} MB"),
            ("deleted", list(pulled.purged_versions) or None),
        ]
    )
