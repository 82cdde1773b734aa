"""Options whose value is a JSON object, typed or in a file."""

import json
from pathlib import Path

from client import errors, http


def parse(option: str, text: str) -> http.Json:
    """The object in ``text``, or in the file that ``@path`` names.

    Raises ClientError, which names the option.
    """
    content, shown = text, text[:60]
    if text.startswith("@"):
        try:
            content = Path(text[1:]).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise errors.ClientError(f"{option}: cannot read {text[1:]} ({error})") from error
    try:
        found = json.loads(content)
    except ValueError as error:
        raise errors.ClientError(f"{option}: expected JSON, got {shown!r} ({error})") from error
    if not isinstance(found, dict):
        raise errors.ClientError(f"{option}: expected a JSON object, got {shown!r}")
    return found
