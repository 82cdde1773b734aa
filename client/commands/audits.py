"""``salun audit`` and ``salun audits``: a closer look at an unlearned version."""

import uuid
from typing import Annotated, Any

import typer

from client import audits, console, errors, http, reports, session, submitting, waiting

Model = Annotated[str, typer.Argument(help="Model of the version")]
Version = Annotated[int, typer.Argument(min=1, help="Version that was made by unlearning")]


def audit(
    model: Model,
    version: Version,
    retrained: Annotated[
        bool | None,
        typer.Option(
            "--retrained/--no-retrained",
            help="Compare with two nets retrained without the data; the default",
        ),
    ] = None,
    controls: Annotated[
        bool | None,
        typer.Option(
            "--controls/--no-controls",
            help="Run the recipe with a random mask and without; the default where it has a mask",
        ),
    ] = None,
    densities: Annotated[
        list[float] | None,
        typer.Option("--density", help="Also with this share of weights free; may be repeated"),
    ] = None,
    seeds: Annotated[
        list[int] | None,
        typer.Option("--seed", help="A seed of the controls; may be repeated (default 0 and 1)"),
    ] = None,
    shadow_pairs: Annotated[
        int | None, typer.Option(min=0, help="U-LiRA by so many pairs of shadow nets, 3 or more")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of nets trained from scratch")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Their learning rate")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Their batch size")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Stay and show the progress")] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Repeat a call safely: same key, same audit")
    ] = None,
    url: session.Url = None,
    key: session.Key = None,
    as_json: session.AsJson = False,
) -> None:
    """Compare a version with nets that never saw the data, and with other masks.

    It costs several trainings and runs after all unlearning. Say how your net was trained
    (--epochs, --learning-rate, --batch-size): the service cannot know.

    Examples:

    salun audit digits 2 --epochs 30 --wait

    salun audit digits 2 --density 0.1 --density 0.3 --shadow-pairs 8
    """
    training = {"epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size}
    body = _given(
        retrained=retrained,
        controls=controls,
        densities=densities or None,
        seeds=seeds or None,
        shadow_pairs=shadow_pairs,
        training=_given(**training) or None,
    )
    with session.opened(url, key, as_json=as_json) as api:
        chosen = idempotency_key or str(uuid.uuid4())
        state = submitting.submit(api, _path(model, version), body, chosen)
        if wait:
            state = waiting.until(
                api,
                state["links"]["self"],
                lambda found: found["status"] in ("completed", "failed"),
                title=f"audit {state['id']}",
                as_json=as_json,
            )
    if not (wait and as_json):  # then it was the last line already
        _show(state, as_json=as_json)
    if not wait and not as_json:
        console.err.print(f"read it with: salun audits {model} {version} {state['id']}")
    if state["status"] == "failed":
        raise typer.Exit(1)


def list_audits(
    model: Model,
    version: Version,
    audit_id: Annotated[
        str | None, typer.Argument(help="An audit's id; without it, all audits are listed")
    ] = None,
    html: Annotated[
        str | None,
        typer.Option("--html", metavar="FILE", help="Also write it as one HTML page with plots"),
    ] = None,
    open_page: session.OpenPage = False,
    url: session.Url = None,
    key: session.Key = None,
    as_json: session.AsJson = False,
) -> None:
    """Show one audit of a version, or list them.

    Examples:

    salun audits digits 2

    salun audits digits 2 01a3… --html audit.html --open
    """
    with session.opened(url, key, as_json=as_json) as api:
        path = _path(model, version, *([] if audit_id is None else [audit_id]))
        if audit_id is None and (html is not None or open_page):
            raise errors.ClientError("a page shows one audit: expected its id too")
        found = api.get(path)
        reports.keep_page(api, path, html, show=open_page)
    if audit_id is not None:
        _show(found, as_json=as_json)
    elif as_json:
        console.print_json(found)
    else:
        audits.show_list(found)


def _path(*parts: object) -> str:
    model, version, *rest = parts
    return http.path("v1", "models", model, "versions", version, "audits", *rest)


def _given(**options: Any) -> dict[str, Any]:  # noqa: ANN401
    return {name: value for name, value in options.items() if value is not None}


def _show(state: http.Json, *, as_json: bool) -> None:
    if as_json:
        console.print_json(state)
    else:
        audits.show(state)
