# docker build -t xboard-backend .
# With another base, and pinned for good: --build-arg BASE=docker.io/library/python@sha256:... It has to be a Debian or
# Ubuntu with Python 3.10 or later and its venv module.
ARG BASE=docker.io/library/python:3.13.9-slim-trixie

FROM ${BASE} AS build
WORKDIR /src
RUN python3 -m venv /tools && python3 -m venv --without-pip /opt/xboard
# What we depend on comes first, so that a change of ours leaves this layer as it is.
COPY setup.cfg pyproject.toml constraints.txt ./
RUN python3 -c "import configparser as c; f = c.ConfigParser(); f.read('setup.cfg'); \
print(f['options']['install_requires'], f['options.extras_require']['fast'])" >/tools/requirements.txt \
 && /tools/bin/pip --python /opt/xboard/bin/python install --no-cache-dir --only-binary :all: -c constraints.txt -r /tools/requirements.txt
COPY README.md LICENSE ./
COPY plugins plugins
COPY xboard_circus xboard_circus
RUN /tools/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /tools/wheel . \
 && /tools/bin/pip --python /opt/xboard/bin/python install --no-cache-dir --no-deps /tools/wheel/*.whl \
 # The tests of others, and headers: nothing runs them here.
 && find /opt/xboard -depth \( -name tests -o -name test -o -name include \) -type d -exec rm -rf {} +

FROM ${BASE}
ARG BASE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="xboard-backend" \
      org.opencontainers.image.description="A FastAPI backend, kept up by Circus" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BASE}"

# 1000 is the first user of most hosts, so that what is mounted from there can be written. Any other --user will do too:
# one without a group of its own is in group 0.
RUN useradd --uid 1000 --user-group --no-create-home --home-dir /app --shell /usr/sbin/nologin xboard \
 && install -d -o xboard -g 0 -m 775 /app /app/uploads /app/data \
 && rm -rf /var/log/* /var/cache/*
COPY --from=build /opt/xboard /opt/xboard
COPY --chmod=644 deploy/container/circus.ini /app/circus.ini

# XBOARD_DRAIN and XBOARD_GRACEFUL_TIMEOUT fit into the 10 s of a plain `docker stop`; with --stop-timeout, raise them.
# Only /tmp has to be writable, and wherever the app keeps its data. Uploads are spooled to TMPDIR: not in /tmp, which is
# mostly memory, and where circusd's sockets are.
ENV TMPDIR=/var/tmp \
    PATH=/opt/xboard/bin:$PATH \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CIRCUSCTL_ENDPOINT=ipc:///tmp/xboard/circusd \
    XBOARD_RUNTIME_DIR=/tmp/xboard \
    XBOARD_LEDGER=/tmp/xboard/ledger.db \
    XBOARD_APP=xboard_circus.app:app \
    XBOARD_WORKERS=2 \
    XBOARD_LIVE_PATH=/health/live \
    XBOARD_READY_PATH=/health/ready \
    XBOARD_DRAIN=6 \
    XBOARD_GRACEFUL_TIMEOUT=8 \
    XBOARD_GIVE_UP_AFTER=120 \
    XBOARD_DASHBOARD=False \
    XBOARD_DASHBOARD_HOST=127.0.0.1 \
    XBOARD_DASHBOARD_FOLDER=/tmp/xboard \
    LOG_LEVEL=info
WORKDIR /app
USER 1000:1000
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=8s --start-period=60s --retries=3 \
    CMD ["python", "-m", "xboard_circus.container", "health"]
ENTRYPOINT ["python", "-m", "xboard_circus.container"]
