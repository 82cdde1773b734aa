# The HTTP front end. It also runs migrations and makes the first admin key. No torch inside.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
RUN python -m venv /opt/salun
ENV PATH="/opt/salun/bin:${PATH}"
WORKDIR /src
# Dependencies first: a change in our code does not install them again.
COPY pyproject.toml constraints.txt README.md ./
COPY salun_core/__init__.py salun_core/
RUN --mount=type=cache,target=/root/.cache/pip pip install -c constraints.txt '.[api]'
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install -c constraints.txt --no-deps --force-reinstall . \
    && pip check \
    && python -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is not None)"

FROM ${BASE_IMAGE}
RUN groupadd --gid 10001 salun \
    && useradd --uid 10001 --gid salun --no-create-home --home-dir /data \
       --shell /usr/sbin/nologin salun \
    && install -d -o salun -g salun -m 0750 /data
COPY --from=build /opt/salun /opt/salun
ENV PATH="/opt/salun/bin:${PATH}" \
    PYTHONUNBUFFERED=1 \
    SALUN_DATA_DIR=/data
# Root's folder: `python -m` puts the working directory on the import path.
WORKDIR /opt/salun
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=4)"]
# Clients that hold a long poll must not hold up the stop.
CMD ["python", "-m", "uvicorn", "api.main:app", "--host", "0.0.0.0", "--port", "8000", \
     "--timeout-graceful-shutdown", "5"]
