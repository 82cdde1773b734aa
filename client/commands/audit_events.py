"""``salun audit-events``: who did what."""

from typing import Annotated

import typer

from client import audit_trail, console, errors, render, session


def list_events(
    action: Annotated[
        str | None, typer.Option(help="Only this, such as alias.move or forget_request.deny")
    ] = None,
    object_id: Annotated[
        str | None, typer.Option("--object", help="Only of this request, version, model, key …")
    ] = None,
    after: Annotated[int, typer.Option(min=0, help="Only behind this position")] = 0,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the whole chain instead of showing it")
    ] = False,
    known: Annotated[
        str | None,
        typer.Option(help="With --verify: a digest noted earlier, which must still be in it"),
    ] = None,
    url: session.Url = None,
    key: session.Key = None,
    as_json: session.AsJson = False,
) -> None:
    """Tell who did what to which request, version, model or key, oldest first.

    Takes a key with the scope audit:read. Every entry has the digest of the one before; keep what
    --verify prints outside the service, and nobody can change what came before unseen. With --json
    every entry is a line of its own.

    Examples:

    salun audit-events --action alias.move

    salun audit-events --after 1200 --json >> trail.jsonl

    salun audit-events --verify
    """
    with session.opened(url, key, as_json=as_json) as api:
        chosen = {"action": action, "object_id": object_id}
        filters = {name: value for name, value in chosen.items() if value is not None}
        if (verify and (filters or after)) or (known and not verify):
            raise errors.ClientError(
                "got filters with --verify or --known without it, expected --verify [--known "
                "DIGEST] alone: a chain is checked as a whole"
            )
        found = audit_trail.entries(api, after, filters)
        if verify:
            with console.err.status("reading the trail"):
                told = audit_trail.verified(found, known)
            if as_json:
                console.print_json(told)
            else:
                render.fields(
                    [("entries", told["entries"]), ("digest of the last", told["digest"])]
                )
                console.out.print("the chain is whole")
            return
        if as_json:
            for entry in found:
                console.print_json(entry)
            return
        render.table(
            ["position", "at", "actor", "action", "object", "detail"],
            (
                [
                    entry["position"],
                    render.moment(entry["at"]),
                    entry["actor"],
                    entry["action"],
                    entry["object_id"],
                    entry["detail"] or None,
                ]
                for entry in found
            ),
        )
