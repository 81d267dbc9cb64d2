# Triton for engines of a GPU: NVIDIA's image and what our models import. Every argument is described in docs/reference/images.md.
ARG BASE=nvcr.io/nvidia/tritonserver:26.08-py3

FROM ${BASE} AS environment
ARG PREFIX=/opt/diffusion-operator
ARG INSTALL=true
WORKDIR ${PREFIX}
COPY images/install.sh requirements/triton-gpu.txt /tmp/
RUN /tmp/install.sh ${PREFIX}/.venv-serve /tmp/triton-gpu.txt
COPY pyproject.toml README.md LICENSE ./
RUN /tmp/install.sh ${PREFIX}/.venv-serve project

FROM ${BASE}
ARG PREFIX=/opt/diffusion-operator
ARG INSTALL=true
ARG TENSORRT=11.1.0.106
ARG VERSION=0.2.0
ENV PATH=${PREFIX}/.venv-serve/bin:/opt/tritonserver/bin:/usr/local/cuda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=environment ${PREFIX}/.venv-serve ${PREFIX}/.venv-serve
COPY pyproject.toml LICENSE ${PREFIX}/
COPY diffusion_api ${PREFIX}/diffusion_api
COPY engine_runtime ${PREFIX}/engine_runtime
# A plan loads in the very TensorRT that compiled it: another one than the builder's would let no pod start.
RUN [ "${INSTALL}" != true ] || [ -z "${TENSORRT}" ] || python3 -m engine_runtime.nvidia tensorrt "${TENSORRT}"
LABEL org.opencontainers.image.title="diffusion-operator Triton for GPUs" \
      org.opencontainers.image.description="Serves diffusion engines of TensorRT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 1000:1000
CMD ["tritonserver", "--help"]
