"""``salun forget``, ``status``, ``watch`` and ``report``: forget requests."""

import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from client import (
    console,
    errors,
    http,
    json_objects,
    render,
    reports,
    session,
    submitting,
    waiting,
)

RequestId = Annotated[str, typer.Argument(help="The request's id, from `salun forget`")]


def forget(
    model: Annotated[str, typer.Argument(help="Model that shall forget")],
    samples: Annotated[
        list[str] | None, typer.Option("--sample", help="A sample_id; may be repeated")
    ] = None,
    samples_file: Annotated[
        Path | None,
        typer.Option(help="File with one sample_id a line", exists=True, dir_okay=False),
    ] = None,
    labels: Annotated[
        list[str] | None, typer.Option("--class", help="A whole class; may be repeated")
    ] = None,
    subjects: Annotated[
        list[str] | None, typer.Option("--subject", help="A person's subject_id; may be repeated")
    ] = None,
    concepts: Annotated[
        list[str] | None,
        typer.Option("--concept", help="What a text-to-image model draws no more; may be repeated"),
    ] = None,
    replacements: Annotated[
        list[str] | None,
        typer.Option("--replacement", help="What it draws instead; one for each --concept"),
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option("--prompt", help="A text that names the (single) concept; may be repeated"),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Fields of the recipe to pin, as JSON or @FILE; else the service chooses"
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Stay and show the progress")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be matched")
    ] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Repeat a call safely: same key, same request")
    ] = None,
    url: session.Url = None,
    key: session.Key = None,
    as_json: session.AsJson = False,
) -> None:
    """Ask a model to forget samples, a class, a person or a concept. Accepted means durable.

    Examples:

    salun forget digits --sample img_0001 --sample img_0417

    salun forget digits --class seven --wait

    salun forget digits --samples-file erase.txt --dry-run

    salun forget icons --concept twemoji --replacement fluent --wait

    salun forget digits --class seven --method '{"method": "retrain"}'
    """
    with session.opened(url, key, as_json=as_json) as api:
        targets = _targets(samples or [], samples_file, labels or [], subjects or [])
        targets += _concepts(concepts or [], replacements or [], prompts or [])
        if not targets:
            raise errors.ClientError(
                "nothing to forget: got no target, expected --sample, --samples-file, --class, "
                "--subject or --concept"
            )
        body: http.Json = {"model": model, "targets": targets}
        if method is not None:
            body["method"] = json_objects.parse("--method", method)
        if dry_run:
            _show_dry_run(api.post("/v1/forget-requests:validate", body), as_json=as_json)
            return
        chosen = idempotency_key or str(uuid.uuid4())
        state = submitting.submit(api, "/v1/forget-requests", body, chosen)
        if (unknown := state["targets_summary"]["unknown"]) and not as_json:
            console.err.print(f"{unknown} of the names are of no training sample: check them")
        if wait:
            _show_end(waiting.forget_request(api, state["id"], as_json=as_json), as_json=as_json)
            return
    if as_json:
        console.print_json(state)
        return
    render.forget_request(state)
    console.err.print(f"follow it with: salun watch {state['id']}")


def status(
    request_id: Annotated[
        str | None, typer.Argument(help="A request's id; without it, all requests are listed")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model")] = None,
    only: Annotated[
        str | None,
        typer.Option(
            "--status",
            help="Only pending, in_progress, completed, action_required, denied or cancelled",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many to list")] = 50,
    url: session.Url = None,
    key: session.Key = None,
    as_json: session.AsJson = False,
) -> None:
    """Show one forget request, or list them, newest first.

    Examples:

    salun status

    salun status --model digits --status action_required
    """
    with session.opened(url, key, as_json=as_json) as api:
        if request_id is not None:
            found = api.get(http.path("v1", "forget-requests", request_id))
        else:
            asked = {"model": model, "status": only, "limit": limit, "order": "newest"}
            query = {name: value for name, value in asked.items() if value is not None}
            found = api.get("/v1/forget-requests", params=query)
    if as_json:
        console.print_json(found)
    elif request_id is not None:
        render.forget_request(found)
    else:
        _list(found)


def watch(
    request_id: RequestId,
    url: session.Url = None,
    key: session.Key = None,
    as_json: session.AsJson = False,
) -> None:
    """Follow a forget request live until it is done; exit 0 only if it was completed.

    Example: salun watch 01a3…
    """
    with session.opened(url, key, as_json=as_json) as api:
        _show_end(waiting.forget_request(api, request_id, as_json=as_json), as_json=as_json)


def report(
    request_id: RequestId,
    html: Annotated[
        str | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Also write it as one HTML page with plots; - for standard output, alone",
        ),
    ] = None,
    open_page: session.OpenPage = False,
    url: session.Url = None,
    key: session.Key = None,
    as_json: session.AsJson = False,
) -> None:
    """Show what was measured on the new version, and the verdict.

    Examples:

    salun report 01a3…

    salun report 01a3… --html report.html --open
    """
    path = http.path("v1", "forget-requests", request_id, "report")
    with session.opened(url, key, as_json=as_json) as api:
        if html == "-":
            if as_json or open_page:
                raise errors.ClientError("--html - writes the page alone: got --json or --open too")
            typer.echo(reports.page(api, path), nl=False)
            return
        found = api.get(path)
        reports.keep_page(api, path, html, show=open_page)
    if as_json:
        console.print_json(found)
    else:
        reports.show(found)


def _targets(
    samples: list[str], samples_file: Path | None, labels: list[str], subjects: list[str]
) -> list[dict[str, Any]]:
    ids = list(samples)
    if samples_file is not None:
        try:
            text = samples_file.read_text(encoding="utf-8-sig")  # some editors put a mark first
        except (OSError, UnicodeDecodeError) as error:
            raise errors.ClientError(
                f"--samples-file: cannot read {samples_file} ({error})"
            ) from error
        ids += [line.strip() for line in text.split("\n") if line.strip()]
    targets: list[dict[str, Any]] = [{"kind": "sample", "ids": ids}] if ids else []
    targets += [{"kind": "class", "label": label} for label in labels]
    targets += [{"kind": "subject", "subject_id": subject} for subject in subjects]
    return targets


def _concepts(
    concepts: list[str], replacements: list[str], prompts: list[str]
) -> list[dict[str, Any]]:
    if len(concepts) != len(replacements):
        raise errors.ClientError(
            f"got {len(concepts)} --concept and {len(replacements)} --replacement, expected one "
            "replacement for each concept"
        )
    if prompts and len(concepts) != 1:
        raise errors.ClientError(
            f"got --prompt for {len(concepts)} concepts, expected one; send several over HTTP"
        )
    more = {"prompts": prompts} if prompts else {}
    return [
        {"kind": "concept", "concept": concept, "replacement": replacement, **more}
        for concept, replacement in zip(concepts, replacements, strict=True)
    ]


def _show_dry_run(found: http.Json, *, as_json: bool) -> None:
    if as_json:
        console.print_json(found)
        return
    render.fields((name.replace("_", " "), value) for name, value in found.items())


def _show_end(state: http.Json, *, as_json: bool) -> None:
    if not as_json:  # as JSON it was the last line already
        render.forget_request(state)
        if state["status"] == "completed" and state.get("result_version") is not None:
            console.err.print(f"what was measured: salun report {state['id']}")
        if state["status"] == "action_required":
            console.err.print(
                f"a person must decide: salun approve {state['id']} --reason …, perhaps with "
                'another --method, or salun deny; see "When a request needs a person" in '
                "docs/operations.md"
            )
    if state["status"] != "completed":
        raise typer.Exit(1)


def _list(found: http.Json) -> None:
    if not found["items"]:
        console.out.print("no forget requests")
        return
    render.table(
        ["id", "model", "status", "stage", "received", "due", "version"],
        (
            [
                entry["id"],
                entry["model"],
                entry["status"],
                entry["stage"],
                render.moment(entry.get("received_at")),
                render.moment(entry.get("due_at")),
                entry.get("result_version"),
            ]
            for entry in found["items"]
        ),
    )
    if found.get("next_cursor"):
        console.err.print(
            "there are more: raise --limit (500 at most), or name a --status or --model"
        )
