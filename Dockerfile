# One image for all services: code location, webserver, daemon, API, migrations, sandbox.
# The base may be named by its digest: --build-arg PYTHON=python:3.11-slim-bookworm@sha256:...
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
# Run launchers and executors that this installation needs, of those that requirements.lock pins:
# dagster-docker, dagster-k8s, dagster-celery, dagster-celery-k8s. And obstore, for frames in a bucket.
ARG LAUNCHERS=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore UV_NO_CACHE=1
WORKDIR /build
COPY requirements.lock pyproject.toml README.md ./
# uv itself is pinned and checked like everything else
RUN awk '/^[a-z]/ { wanted = /^uv==/ } wanted' requirements.lock > uv.lock.txt \
    && pip install --quiet --require-hashes -r uv.lock.txt
# what runs: versions and hashes are the lock's, what only development needs stays out
RUN uv venv --quiet /opt/syncflow \
    && pinned=$(for name in ${LAUNCHERS}; do grep -o "^$name==[^ ]*" requirements.lock || exit 1; done) \
    && VIRTUAL_ENV=/opt/syncflow uv pip install --quiet --compile-bytecode --require-hashes \
        --constraint requirements.lock -r pyproject.toml $pinned
RUN uv venv --quiet tools \
    && VIRTUAL_ENV=tools uv pip install --quiet --require-hashes --constraint requirements.lock \
        "$(grep -o '^hatchling==[^ ]*' requirements.lock)"
COPY syncflow_core syncflow_core
COPY syncflow_dagster syncflow_dagster
COPY migrations migrations
COPY dagster.yaml workspace.yaml ./
RUN tools/bin/hatchling build -t wheel \
    && VIRTUAL_ENV=/opt/syncflow uv pip install --quiet --compile-bytecode --no-deps dist/*.whl

FROM ${PYTHON}
RUN groupadd --system --gid 10001 syncflow \
    && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/syncflow --no-create-home \
        --shell /usr/sbin/nologin syncflow \
    && install -d -m 0700 -o syncflow -g syncflow /var/lib/syncflow
COPY --from=build /opt/syncflow /opt/syncflow
ENV PATH=/opt/syncflow/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SYNCFLOW_HOME=/var/lib/syncflow \
    DAGSTER_HOME=/var/lib/syncflow/dagster \
    SYNCFLOW_LOG_FORMAT=json
# by number: Kubernetes looks whether it is root
USER 10001:10001
WORKDIR /var/lib/syncflow
EXPOSE 4000
# the code location, as docker-compose.yml starts it; the other services have checks of their own there
HEALTHCHECK --interval=30s --timeout=15s --start-period=60s --retries=3 \
    CMD ["dagster", "api", "grpc-health-check", "-p", "4000"]
CMD ["dagster", "code-server", "start", "-h", "0.0.0.0", "-p", "4000", "-m", "syncflow_dagster.definitions", "--location-name", "syncflow", "--log-format", "json"]
