# The builder with every compiler. Every argument is described in docs/reference/images.md.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS environment
ARG PREFIX=/opt/diffusion-operator
ARG INSTALL=true
ARG TENSORRT=11.1.0.106
WORKDIR ${PREFIX}
COPY images/install.sh requirements/builder.txt /tmp/
RUN /tmp/install.sh ${PREFIX}/.venv /tmp/builder.txt
# Its wheel fetches its libraries by itself, so no hash of theirs can be given. It must be the version of triton-gpu.
RUN [ "${INSTALL}" != true ] || [ -z "${TENSORRT}" ] || python3 -m pip --python .venv/bin/python3 install --no-cache-dir "tensorrt==${TENSORRT}"
COPY pyproject.toml README.md LICENSE ./
RUN /tmp/install.sh ${PREFIX}/.venv project

FROM ${BASE}
ARG PREFIX=/opt/diffusion-operator
ARG VERSION=0.2.0
ENV PATH=${PREFIX}/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Libraries ask for the name of their user.
RUN getent passwd 1000 || useradd --uid 1000 --user-group --no-create-home --home-dir /tmp diffusion
COPY --from=environment ${PREFIX}/.venv ${PREFIX}/.venv
# What a relative file:// names in a cluster: the model of examples/digits.yaml.
ENV DIFFUSION_FILES_DIR=${PREFIX}/examples
COPY examples/digits/digits-klein ${PREFIX}/examples/digits/digits-klein
COPY pyproject.toml LICENSE ${PREFIX}/
COPY diffusion_api ${PREFIX}/diffusion_api
COPY engine_runtime ${PREFIX}/engine_runtime
COPY engine_builder ${PREFIX}/engine_builder
LABEL org.opencontainers.image.title="diffusion-operator builder" \
      org.opencontainers.image.description="Quantizes, compiles and measures diffusion models" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 1000:1000
ENTRYPOINT ["python3", "-m", "engine_builder"]
