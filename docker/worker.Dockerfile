# A worker: one process, one GPU. The housekeeping worker runs from it too.
# The "base" flavour is enough: torch's wheels bring their own CUDA 13 libraries.
ARG BASE_IMAGE=nvidia/cuda:13.0.1-base-ubuntu24.04

FROM ${BASE_IMAGE} AS build
# Whatever Python the base's release has; its security updates must not be pinned away.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/salun
ENV PATH="/opt/salun/bin:${PATH}"
WORKDIR /src
# Dependencies first: a change in our code does not install torch again.
COPY pyproject.toml constraints.txt README.md ./
COPY salun_core/__init__.py salun_core/
RUN --mount=type=cache,target=/root/.cache/pip pip install -c constraints.txt '.[worker]'
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install -c constraints.txt --no-deps --force-reinstall . \
    && pip check

FROM ${BASE_IMAGE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 salun \
    && useradd --uid 10001 --gid salun --no-create-home --home-dir /data \
       --shell /usr/sbin/nologin salun \
    && install -d -o salun -g salun -m 0750 /data /run/gpu-locks
COPY --from=build /opt/salun /opt/salun
COPY --chmod=0755 docker/one-gpu.sh /usr/local/bin/one-gpu
ENV PATH="/opt/salun/bin:${PATH}" \
    PYTHONUNBUFFERED=1 \
    SALUN_DATA_DIR=/data
# Root's folder: `python -m` and celery put the working directory on the import path.
WORKDIR /opt/salun
USER 10001:10001
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s --retries=3 \
    CMD ["sh", "-c", "celery -A worker.celery_app inspect ping -d gpu@$(uname -n) --timeout 10"]
ENTRYPOINT ["one-gpu"]
CMD ["python", "-m", "celery", "-A", "worker.celery_app", "worker", \
     "-P", "prefork", "-c", "1", "-Q", "unlearning", "-n", "gpu@%h"]
