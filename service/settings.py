"""The only place on the server side that reads the environment."""

import functools
from pathlib import Path
from typing import Annotated

import pydantic
import pydantic_settings


class Settings(pydantic_settings.BaseSettings):
    """What an operator may set; sizes in bytes, times in seconds.

    ``database_url`` and ``broker_url`` have no default: a service that silently picks another
    database would lose requests.
    """

    model_config = pydantic_settings.SettingsConfigDict(frozen=True, extra="ignore")

    database_url: str
    broker_url: str
    data_dir: Annotated[Path, pydantic.Field(validation_alias="SALUN_DATA_DIR")] = Path(".salun")

    lease_seconds: Annotated[
        float, pydantic.Field(gt=0, validation_alias="SALUN_LEASE_SECONDS")
    ] = 30.0
    max_attempts: Annotated[int, pydantic.Field(ge=1, validation_alias="SALUN_MAX_ATTEMPTS")] = 3
    sweep_seconds: Annotated[
        float, pydantic.Field(gt=0, validation_alias="SALUN_SWEEP_SECONDS")
    ] = 4.0
    batch_window_seconds: Annotated[
        float, pydantic.Field(ge=0, validation_alias="SALUN_BATCH_WINDOW_SECONDS")
    ] = 86_400.0
    max_body_bytes: Annotated[
        int, pydantic.Field(gt=0, validation_alias="SALUN_MAX_BODY_BYTES")
    ] = 16 * 2**20
    max_blob_bytes: Annotated[
        int, pydantic.Field(gt=0, validation_alias="SALUN_MAX_BLOB_BYTES")
    ] = 64 * 2**30
    unused_seconds: Annotated[
        float, pydantic.Field(ge=3600, validation_alias="SALUN_UNUSED_SECONDS")
    ] = 86_400.0
    picture_cache_bytes: Annotated[
        int, pydantic.Field(ge=0, validation_alias="SALUN_PICTURE_CACHE_BYTES")
    ] = 64 * 2**30
    pointer_ttl_seconds: Annotated[
        float, pydantic.Field(gt=0, validation_alias="SALUN_POINTER_TTL_SECONDS")
    ] = 86_400.0
    validation_wait_seconds: Annotated[
        float, pydantic.Field(ge=0, validation_alias="SALUN_VALIDATION_WAIT_SECONDS")
    ] = 10.0
    torch_threads: Annotated[int, pydantic.Field(ge=0, validation_alias="SALUN_TORCH_THREADS")] = (
        0  # 0: let torch decide
    )


@functools.cache
def load() -> Settings:
    """The settings of this process, read once."""
    return Settings()
