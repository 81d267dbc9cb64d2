# Triton for engines of the CPU: the server of NVIDIA's wheel. Every argument is described in docs/reference/images.md.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS environment
ARG PREFIX=/opt/diffusion-operator
ARG INSTALL=true
WORKDIR ${PREFIX}
COPY images/install.sh images/triton-cpu/link_backends.sh requirements/serve.txt requirements/tritonserver.txt /tmp/
RUN /tmp/install.sh ${PREFIX}/.venv-serve /tmp/serve.txt && /tmp/install.sh ${PREFIX}/.venv-tritonserver /tmp/tritonserver.txt --no-deps
COPY pyproject.toml README.md LICENSE ./
RUN /tmp/install.sh ${PREFIX}/.venv-serve project && /tmp/link_backends.sh ${PREFIX}

FROM ${BASE}
ARG PREFIX=/opt/diffusion-operator
ARG VERSION=0.2.0
ENV PATH=${PREFIX}/bin:${PREFIX}/.venv-serve/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=environment ${PREFIX}/.venv-serve ${PREFIX}/.venv-serve
COPY --from=environment ${PREFIX}/.venv-tritonserver ${PREFIX}/.venv-tritonserver
COPY --from=environment ${PREFIX}/backends ${PREFIX}/backends
COPY images/triton-cpu/tritonserver ${PREFIX}/bin/tritonserver
COPY pyproject.toml LICENSE ${PREFIX}/
COPY diffusion_api ${PREFIX}/diffusion_api
COPY engine_runtime ${PREFIX}/engine_runtime
LABEL org.opencontainers.image.title="diffusion-operator Triton for CPUs" \
      org.opencontainers.image.description="Serves diffusion engines of OpenVINO" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 1000:1000
CMD ["tritonserver", "--help"]
