# The serving image: ONNX Runtime without TensorFlow, pip or a compiler. Its process does not run as root.
#
# Another base, such as a hardened one, needs Python 3.11 to 3.13; no stage but the builder needs a shell or pip:
#   docker build --build-arg PYTHON_IMAGE=… --build-arg BUILDER_IMAGE=… .
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b
ARG BUILDER_IMAGE=${PYTHON_IMAGE}

FROM ${BUILDER_IMAGE} AS builder
# Nothing runs from this stage.
# hadolint ignore=DL3002
USER 0
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /app
# The stores of secrets whose libraries are installed: aws, vault, or both with a space between them.
ARG EXTRAS=""
COPY requirements/build.txt requirements/run.txt requirements/
COPY requirements/secrets/ requirements/secrets/
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --require-hashes --only-binary :all: -r requirements/build.txt \
    && /opt/venv/bin/pip install --require-hashes --only-binary :all: -r requirements/run.txt \
    && for store in ${EXTRAS}; do \
         /opt/venv/bin/pip install --require-hashes --only-binary :all: -r "requirements/secrets/$store.txt" || exit 1; \
       done
COPY pyproject.toml README.md ./
COPY api/ api/
COPY auth/ auth/
COPY model/ model/
COPY monitoring/ monitoring/
COPY storage/ storage/
# An editable installation, as in development: the migrations beside the code are found there. Bytecode is compiled
# here, because Python cannot store it in a read-only image.
RUN /opt/venv/bin/pip install --no-deps --no-build-isolation --editable . \
    && /opt/venv/bin/pip uninstall --yes --requirement requirements/build.txt \
    && rm -r requirements \
    && python3 -m compileall -q --invalidation-mode unchecked-hash . \
    && mkdir -p /state/var

FROM ${PYTHON_IMAGE} AS runtime
USER 0
RUN --mount=type=bind,source=deploy/image/remove_pip.py,target=/tmp/remove_pip.py ["python3", "/tmp/remove_pip.py"]
COPY --from=builder /opt/venv /opt/venv
COPY --from=builder /app /app
COPY artifacts/ /app/artifacts/
# Creates /app/var, for a volume.
COPY --from=builder --chown=10001:10001 --chmod=0750 /state /app
ENV PATH="/opt/venv/bin:$PATH" \
    HOME=/nonexistent \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001:10001

FROM builder AS keras-builder
COPY requirements/build.txt requirements/keras.txt requirements/
RUN python3 -m venv /opt/venv-keras \
    && /opt/venv-keras/bin/pip install --require-hashes --only-binary :all: -r requirements/build.txt \
    && /opt/venv-keras/bin/pip install --require-hashes -r requirements/keras.txt \
    && /opt/venv-keras/bin/pip install --no-deps --no-build-isolation --editable .

# docker build --target keras: for the jobs that import, train and export models. It serves nothing.
FROM runtime AS keras
COPY --from=keras-builder /opt/venv-keras /opt/venv-keras
ENV MODEL__KERAS_PYTHON=/opt/venv-keras/bin/python
CMD ["atalaya", "--help"]

# `docker build` builds this last stage by default.
FROM runtime AS gateway
# Every IPv4 and IPv6 address.
ENV HOST=:: \
    PORT=8000
EXPOSE 8000
# Finds the port, the address and TLS by itself.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["atalaya", "healthcheck"]
STOPSIGNAL SIGTERM
CMD ["atalaya", "serve"]
