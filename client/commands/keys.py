"""``salun keys``: API keys and what they may do."""

from typing import Annotated

import typer

from client import console, http, render, session

app = typer.Typer(no_args_is_help=True, help="API keys: create, list, revoke.")

_SCOPES = (
    "requests:submit, requests:read, requests:approve, models:write, models:pull, audit:read, admin"
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for")],
    scopes: Annotated[
        list[str], typer.Option("--scope", "-s", help=f"May be repeated. One of: {_SCOPES}")
    ],
    url: session.Url = None,
    key: session.Key = None,
    as_json: session.AsJson = False,
) -> None:
    """Create a key. It is shown once: the service keeps only a hash.

    Example: salun keys create serving --scope models:pull
    """
    with session.opened(url, key, as_json=as_json) as api:
        made = api.post("/v1/api-keys", {"name": name, "scopes": scopes})
    if as_json:
        console.print_json(made)
        return
    render.fields([("id", made["id"]), ("name", made["name"]), ("scopes", made["scopes"])])
    console.out.print(f"[bold]key[/]  {made['key']}", soft_wrap=True)
    console.err.print("Keep it now; it cannot be read again.")


@app.command("list")
def list_keys(
    url: session.Url = None, key: session.Key = None, as_json: session.AsJson = False
) -> None:
    """List all keys.

    Example: salun keys list
    """
    with session.opened(url, key, as_json=as_json) as api:
        found = api.get("/v1/api-keys")
    render.listing(
        found,
        ["id", "name", "scopes", "created", "revoked"],
        lambda entry: [
            entry["id"],
            entry["name"],
            entry["scopes"],
            render.moment(entry.get("created_at")),
            render.moment(entry.get("revoked_at")),
        ],
        none="no keys",
        as_json=as_json,
    )


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, from `salun keys list`")],
    url: session.Url = None,
    key: session.Key = None,
    as_json: session.AsJson = False,
) -> None:
    """Revoke a key at once.

    Example: salun keys revoke 01a3…
    """
    with session.opened(url, key, as_json=as_json) as api:
        api.call("DELETE", http.path("v1", "api-keys", key_id))
    if as_json:
        console.print_json({"id": key_id, "revoked": True})
    else:
        console.out.print(f"key {key_id} is revoked")
