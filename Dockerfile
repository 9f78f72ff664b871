# diffpriv in a container: CPU by default, CUDA with another index for PyTorch.
#
#   docker build -t diffpriv .
#   docker build -t diffpriv:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
#   docker run --rm --network none --read-only --tmpfs /tmp -v "$PWD:/work" --user "$(id -u):$(id -g)" diffpriv sanitize SRC DST ...
#
# The model's weights are inside the package; nothing is fetched at run time. deploy/kuberay uses the same image.

ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=beam,aws,pkcs11
ENV PATH=/opt/diffpriv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/diffpriv
# PyTorch first, alone, so that its index serves nothing else.
COPY constraints.txt ./
RUN pip install --index-url "$TORCH_INDEX" "$(sed -n 's/^\(torch==[^ ;]*\).*/\1/p' constraints.txt)"
COPY setup.py pyproject.toml README.md LICENSE ./
COPY keys keys
COPY pipelines pipelines
COPY jobs jobs
COPY diffpriv diffpriv
# The headless OpenCV last, over the one that needs X libraries.
RUN pip install -c constraints.txt ".[${EXTRAS}]" \
    && pip install -c constraints.txt --force-reinstall --no-deps opencv-python-headless

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="diffpriv" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/diffpriv /opt/diffpriv
# KubeRay starts a login shell, which sets PATH anew: its programs are linked where every PATH looks. wget is for its probes.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends wget=1.21.* \
    && rm -rf /var/lib/apt/lists/* \
    && ln -s /opt/diffpriv/bin/diffpriv /opt/diffpriv/bin/ray /usr/local/bin/ \
    && groupadd --gid 10001 diffpriv \
    && useradd --uid 10001 --gid 10001 --create-home diffpriv
ENV PATH=/opt/diffpriv/bin:$PATH HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 RAY_USAGE_STATS_ENABLED=0 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /work
RUN ["diffpriv", "doctor"]
ENTRYPOINT ["diffpriv"]
CMD ["--help"]
