"""``python -m service.bootstrap --key-file PATH``: the first admin key of an empty service."""

import argparse
import os
from pathlib import Path

import sqlalchemy as sa

from service import api_keys, database


def main() -> None:
    """Make an admin key unless the file already holds one that works."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--key-file", type=Path, required=True, help="written with mode 0600")
    ensure_admin_key(parser.parse_args().key_file)


def ensure_admin_key(key_file: Path) -> None:
    """Write a new admin key to ``key_file`` unless the one in it is good."""
    with database.transaction() as session:
        session.execute(sa.text("LOCK TABLE api_key IN SHARE ROW EXCLUSIVE MODE"))
        if key_file.exists() and api_keys.identify(session, key_file.read_text().strip()):
            return
        _, key = api_keys.create(session, "bootstrap", "first admin key", ["admin"])
        handle = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as stream:
            os.fchmod(stream.fileno(), 0o600)
            stream.write(key + "\n")


if __name__ == "__main__":
    main()
