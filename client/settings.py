"""The only place of the client side that reads the environment."""

import os
from pathlib import Path

import pydantic
import pydantic_settings

from client import errors


class Settings(pydantic_settings.BaseSettings):
    """What the environment may set; each field's alias is the variable's name."""

    model_config = pydantic_settings.SettingsConfigDict(populate_by_name=True, extra="ignore")

    port: int = pydantic.Field(default=8000, ge=0, le=65535, validation_alias="PORT")
    data_dir: Path = pydantic.Field(default=Path(".salun"), validation_alias="SALUN_DATA_DIR")
    # On one machine somebody waits for the answer; a service collects requests for a day.
    batch_window_seconds: float = pydantic.Field(
        default=0.0, ge=0.0, validation_alias="SALUN_BATCH_WINDOW_SECONDS"
    )
    database_url: str | None = pydantic.Field(default=None, validation_alias="DATABASE_URL")
    broker_url: str | None = pydantic.Field(default=None, validation_alias="BROKER_URL")
    url: str | None = pydantic.Field(default=None, validation_alias="SALUN_URL")
    api_key: str | None = pydantic.Field(default=None, validation_alias="SALUN_API_KEY")

    @pydantic.field_validator("database_url", "broker_url", "url", "api_key", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return None if value == "" else value

    @property
    def key_file(self) -> Path:
        """Where the first admin key of a local stack is kept."""
        return self.data_dir / "admin.key"


def load() -> Settings:
    """Read the environment now; raises ClientError that names the variable which is wrong."""
    try:
        return Settings()
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        detail = f"{first['loc'][0]}: got {first['input']!r}: {first['msg']}"
        raise errors.ClientError(detail) from error


def child_environment(**overrides: str) -> dict[str, str]:
    """Return a copy of this process's environment with ``overrides``, for a child of ours."""
    return {**os.environ, **overrides}


def server_environment() -> dict[str, str]:
    """Return a small environment for a database server: no PG*, no locale of the user's."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
