"""Which service a command talks to, and with which key."""

import contextlib
import json
import urllib.parse
from collections.abc import Iterator
from typing import Annotated

import typer

from client import console, errors, http, settings

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Address of the service [env SALUN_URL, else the stack of SALUN_DATA_DIR]",
        rich_help_panel="Connection",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        help="API key [env SALUN_API_KEY, else SALUN_DATA_DIR/admin.key for a local service]",
        rich_help_panel="Connection",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output")]
OpenPage = Annotated[bool, typer.Option("--open", help="Show the page in the browser")]

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@contextlib.contextmanager
def opened(url: str | None, key: str | None, *, as_json: bool) -> Iterator[http.Api]:
    """Connect for one command; an error of ours ends it with one line and status 1."""
    with console.reported_errors(as_json=as_json), connect(url, key) as api:
        yield api


def connect(url: str | None = None, key: str | None = None) -> http.Api:
    """Return a connection: what is given, else what the environment says, else the local stack.

    Raises ClientError when no key can be found.
    """
    configured = settings.load()
    address = url or configured.url or _local_address(configured)
    found = key or configured.api_key or _local_key(configured, address)
    if not found:
        raise errors.ClientError(
            f"no API key for {address}: give --key or set SALUN_API_KEY "
            "(`salun keys create` makes one)"
        )
    return http.Api(address, found)


def _local_address(configured: settings.Settings) -> str:
    """Return the address of the stack that runs on the data folder, else that of the port."""
    state = configured.data_dir / "run" / "state.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        return str(json.loads(state.read_text(encoding="utf-8"))["url"])
    return f"http://127.0.0.1:{configured.port}"


def _local_key(configured: settings.Settings, address: str) -> str | None:
    """Return the local admin key, which no other machine may ever see."""
    with contextlib.suppress(OSError, ValueError):
        if urllib.parse.urlsplit(address).hostname in _LOOPBACK:
            return configured.key_file.read_text(encoding="utf-8").strip()
    return None
