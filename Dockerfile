# The image of the gateway: Python, the locked packages, the gateway and the libraries that they need. No shell, no
# package manager, nothing that builds. `make image` builds it; docs/image.md says how it is run.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
# The time of every file, so that the same sources give the same bytes whenever they are built.
ARG SOURCE_DATE_EPOCH=1580601600
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONHASHSEED=0
WORKDIR /src

# Every download is checked against the lock, and none is compiled here.
COPY requirements.lock ./
RUN pip download --require-hashes --only-binary=:all: --dest /wheels -r requirements.lock

# The build backend comes from the same lock; from here on nothing is downloaded.
RUN pip install --no-index --find-links /wheels hatchling
COPY pyproject.toml README.md LICENSE ./
COPY gateway ./gateway
RUN pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /wheels .

# An environment without pip, and around it a root file system with what the gateway needs to run and nothing else.
RUN python -m venv --without-pip /opt/llm-gateway \
    && pip --python /opt/llm-gateway/bin/python install --no-index --no-compile --find-links /wheels llm-gateway
COPY tools/image_root.py ./tools/
RUN python tools/image_root.py /opt/llm-gateway /image

FROM scratch
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="LLM Gateway" \
    org.opencontainers.image.description="A stateless, multi-tenant gateway in front of large language models" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image /
ENV PATH=/opt/llm-gateway/bin \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    LLM_GATEWAY_REGISTRY=/etc/llm-gateway/registry \
    LLM_GATEWAY_LISTEN=0.0.0.0:8080 \
    LLM_GATEWAY_MANAGEMENT_LISTEN=0.0.0.0:8081
# Nothing on disk is written: what workers share is in /dev/shm, which is memory.
WORKDIR /etc/llm-gateway
# A number, so that Kubernetes can see that it is not root. Any other does as well: nothing belongs to it.
USER 65532:65532
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
ENTRYPOINT ["llm-gateway"]
CMD ["serve"]
