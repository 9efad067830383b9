# The serving image: ONNX Runtime without TensorFlow or a compiler. Its process does not run as root.
FROM python:3.13-slim AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
COPY requirements/run.txt requirements/build.txt /tmp/
RUN /opt/venv/bin/pip install --require-hashes --only-binary :all: -r /tmp/run.txt -r /tmp/build.txt
WORKDIR /app
COPY pyproject.toml README.md ./
COPY api/ api/
COPY auth/ auth/
COPY model/ model/
COPY monitoring/ monitoring/
COPY storage/ storage/
# An editable installation, as in development: the migrations beside the code are found there.
RUN /opt/venv/bin/pip install --no-deps --no-build-isolation --editable . \
    && /opt/venv/bin/pip uninstall --yes setuptools

FROM python:3.13-slim
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin atalaya
COPY --from=builder /opt/venv /opt/venv
COPY --from=builder /app /app
COPY artifacts/ /app/artifacts/
RUN install --directory --owner=atalaya --group=atalaya --mode=0750 /app/var
ENV PATH="/opt/venv/bin:$PATH" \
    HOST=0.0.0.0 \
    PORT=8000 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["atalaya", "healthcheck"]
STOPSIGNAL SIGTERM
CMD ["atalaya", "serve"]
