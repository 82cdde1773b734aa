"""``python -m migrations``: bring the database to the newest schema and exit."""

import argparse
from pathlib import Path

from alembic import command, config


def configuration() -> config.Config:
    """Alembic's configuration; the database comes from ``DATABASE_URL``."""
    result = config.Config()
    result.set_main_option("script_location", str(Path(__file__).parent))
    return result


def upgrade(revision: str) -> None:
    """Migrate to a revision."""
    command.upgrade(configuration(), revision)


def main() -> None:
    """Migrate to head, or to the revision given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("revision", nargs="?", default="head", help="default: head")
    upgrade(parser.parse_args().revision)


if __name__ == "__main__":
    main()
