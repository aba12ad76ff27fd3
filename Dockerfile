# The image of the gateway: Python, the locked packages and the gateway itself, nothing that builds or installs.
# The same base in both stages, since an environment refers to the Python it was made with.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# Every download is checked against the lock, and none is compiled here.
COPY requirements.lock ./
RUN pip download --require-hashes --only-binary=:all: --dest /wheels -r requirements.lock

# The build backend comes from the same lock; from here on nothing is downloaded.
RUN pip install --no-index --find-links /wheels hatchling
COPY pyproject.toml README.md LICENSE ./
COPY gateway ./gateway
RUN pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /wheels .

# An environment without pip, with what the gateway needs to run and nothing else. Byte code is made here, and is never
# looked up in the sources again, since the root file system is read-only later.
RUN python -m venv --without-pip /opt/llm-gateway \
    && pip --python /opt/llm-gateway/bin/python install --no-index --no-compile --find-links /wheels llm-gateway \
    && python -m compileall -q --invalidation-mode unchecked-hash /opt/llm-gateway/lib

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="LLM Gateway" org.opencontainers.image.licenses="Apache-2.0"
RUN python -m pip uninstall --yes --root-user-action ignore pip
COPY --from=build /opt/llm-gateway /opt/llm-gateway
ENV PATH=/opt/llm-gateway/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    LLM_GATEWAY_REGISTRY=/etc/llm-gateway/registry \
    LLM_GATEWAY_LISTEN=0.0.0.0:8080 \
    LLM_GATEWAY_MANAGEMENT_LISTEN=0.0.0.0:8081
# Nothing on disk is written: what workers share is in /dev/shm, which is memory.
WORKDIR /etc/llm-gateway
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
ENTRYPOINT ["llm-gateway"]
CMD ["serve"]
