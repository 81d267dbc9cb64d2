# The operator, and the hook that applies the CRDs. Every argument is described in docs/reference/images.md.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS environment
ARG PREFIX=/opt/diffusion-operator
ARG INSTALL=true
WORKDIR ${PREFIX}
COPY images/install.sh requirements/operator.txt /tmp/
RUN /tmp/install.sh ${PREFIX}/.venv /tmp/operator.txt
COPY pyproject.toml README.md LICENSE ./
RUN /tmp/install.sh ${PREFIX}/.venv project

FROM ${BASE}
ARG PREFIX=/opt/diffusion-operator
ARG VERSION=0.2.0
ENV PATH=${PREFIX}/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=environment ${PREFIX}/.venv ${PREFIX}/.venv
COPY pyproject.toml LICENSE ${PREFIX}/
COPY diffusion_api ${PREFIX}/diffusion_api
COPY operator ${PREFIX}/operator
LABEL org.opencontainers.image.title="diffusion-operator" \
      org.opencontainers.image.description="Turns distilled diffusion models into fast, checked, autoscaled services" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 1000:1000
ENTRYPOINT ["python3", "-m", "diffusion_operator"]
