# Which Neuron SDK the image carries: none, inf1 or inf2. The published image carries inf1; the slim one, and a plain
# `docker build`, none. For inf1 the interpreter's image has to be one of Python 3.10, for inf2 one of 3.11.
ARG NEURON=none

# Published images stand on bases by digest, which the release workflow takes from .github/base/Dockerfile, where Dependabot
# keeps them current. An engine that has a base of its own under these tags builds on that one.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG NEURON_PYTHON_IMAGE=python:3.11-slim-bookworm

# The builder makes one virtual environment; the image is the base and that environment.
# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS builder

# Where torch's CPU files are. Everything else comes from pip's own index, each file by its hash.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1

WORKDIR /build
RUN python3 -m venv /opt/hfexport && python3 -m venv /opt/build
COPY requirements/torch.txt requirements/runtime.txt requirements/build.txt requirements/
RUN /opt/hfexport/bin/pip install --no-compile --no-deps --require-hashes --retries 1 --index-url "${TORCH_INDEX}" \
    -r requirements/torch.txt
RUN /opt/hfexport/bin/pip install --no-compile --no-deps --require-hashes -r requirements/runtime.txt \
    && /opt/build/bin/pip install --no-deps --require-hashes -r requirements/build.txt

# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
COPY scripts/prune.py scripts/prune.py
# Symbol tables that only a debugger and a static linker read are a fifth of torch's libraries.
RUN /opt/hfexport/bin/pip check \
    && /opt/hfexport/bin/pip uninstall --yes pip \
    && python3 scripts/prune.py /opt/hfexport \
    && strip --strip-unneeded /opt/hfexport/lib/python3.*/site-packages/torch/lib/libtorch_*.so

# Bytecode that is not compared with its source, since all times of files are the same below: a time would not match, and each
# start would compile again. -f replaces bytecode that is there. One process compiles in order of names, since bytecode depends on
# what its process compiled before. One file of torch's tests is written for newer Pythons. Python's own modules have no bytecode in
# the base. Then all times are made the same, so that two builds from the same packages have the same layers; torch gets one of its own.
RUN PYTHONHASHSEED=0 /opt/hfexport/bin/python -m compileall -f -q -x py312_ --invalidation-mode unchecked-hash /opt/hfexport \
    && standard=$(python3 -c "import sysconfig; print(sysconfig.get_path('stdlib'))") \
    && PYTHONHASHSEED=0 python3 -m compileall -f -q --invalidation-mode unchecked-hash \
        -x '/(ensurepip|idlelib|lib2to3|site-packages|dist-packages|test|tests|tkinter|turtledemo)/' "${standard}" \
    && mkdir /opt/standard \
    && find "${standard}" -path '*-packages/*' -prune -o -path '*/__pycache__/*.pyc' -exec cp --parents -t /opt/standard {} + \
    && find /opt/standard -exec touch --date=@315532800 {} + \
    && find /opt/hfexport -exec touch --no-dereference --date=@315532800 {} + \
    && packages=$(echo /opt/hfexport/lib/python3.*/site-packages) \
    && mkdir -p "/opt/torch${packages}" \
    && mv "${packages}"/torch "${packages}"/torch-*.dist-info "/opt/torch${packages}" \
    && find /opt/torch /opt/hfexport -type d -exec touch --date=@315532800 {} +


# hfexport itself, in a folder that is laid over the packages.
FROM builder AS code
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY entrypoint.py /opt/code/entrypoint.py
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
    && /opt/build/bin/pip --python /opt/hfexport/bin/python install --no-compile --no-deps --no-index --prefix /opt/code wheels/*.whl \
    && PYTHONHASHSEED=0 /opt/hfexport/bin/python -m compileall -f -q -s /opt/code -p /opt/hfexport \
        --invalidation-mode unchecked-hash /opt/code \
    && find /opt/code -exec touch --no-dereference --date=@315532800 {} +


# The Neuron SDK comes from AWS's index, and takes an interpreter of its own.
# hadolint ignore=DL3006
FROM ${NEURON_PYTHON_IMAGE} AS neuron
ARG NEURON
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG NEURON_INDEX=https://pip.repos.neuron.amazonaws.com
ARG TARGETARCH=amd64
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /build
COPY requirements/neuron.txt requirements/neuron-inf1.txt requirements/neuron-inf1-torch.txt \
    requirements/neuron-inf1-sdk.txt requirements/neuron-inf2-torch.txt requirements/neuron-inf2-sdk.txt requirements/
COPY scripts/install_sdk.py scripts/install_sdk.py
# AWS builds the SDK for amd64 alone. The interpreter finds its library beside itself, so it can be moved.
RUN if [ "${NEURON}" != none ] && [ "${TARGETARCH}" != amd64 ]; then \
        echo "NEURON=${NEURON} needs linux/amd64: AWS has no SDK for ${TARGETARCH}. Build with NEURON=none" >&2; exit 1; \
    fi \
    && mkdir /opt/neuron \
    && if [ "${NEURON}" != none ]; then \
        cp -a /usr/local /opt/neuron/python \
        && /opt/neuron/python/bin/python3 -m venv "/opt/neuron/${NEURON}" \
        && "/opt/neuron/${NEURON}/bin/pip" install --no-deps --require-hashes -r requirements/neuron.txt; \
    fi \
    && if [ "${NEURON}" = inf1 ]; then \
        /opt/neuron/inf1/bin/pip install --no-deps --require-hashes -r requirements/neuron-inf1.txt; \
    fi
RUN if [ "${NEURON}" != none ]; then \
        "/opt/neuron/${NEURON}/bin/pip" install --no-deps --require-hashes --retries 1 --index-url "${TORCH_INDEX}" \
            -r "requirements/neuron-${NEURON}-torch.txt" \
        && "/opt/neuron/${NEURON}/bin/python" scripts/install_sdk.py "${NEURON_INDEX}" \
            "requirements/neuron-${NEURON}-sdk.txt" \
        && { PYTHONHASHSEED=0 "/opt/neuron/${NEURON}/bin/python" -m compileall -f -q -q --invalidation-mode unchecked-hash \
            /opt/neuron || echo "some files of the SDK are written for another Python and have no bytecode" >&2; }; \
    fi


# Layers from what changes least to what changes most: bytecode of Python's own modules, torch, the other packages, the Neuron SDK if any, hfexport. A release that
# changes only hfexport is a pull of the last one.
# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS packages
COPY --from=builder /opt/standard /
COPY --from=builder /opt/torch/opt/hfexport /opt/hfexport
COPY --from=builder /opt/hfexport /opt/hfexport

ARG VERSION=dev
ARG REVISION=unknown
ARG SOURCE=https://github.com/org/hfexport-action
LABEL org.opencontainers.image.title="hfexport" \
      org.opencontainers.image.description="Exports a Hugging Face checkpoint to ONNX and TorchScript, and proves each artifact equal to the model." \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"

# Actions mounts the workspace here and runs the container as root, which is what its file commands need.
WORKDIR /github/workspace

# Absolute and isolated (-I): PATH, PYTHONPATH and the like of whoever starts the container do not matter.
ENTRYPOINT ["/opt/hfexport/bin/python", "-I", "-u", "/opt/hfexport/entrypoint.py"]


FROM packages AS slim
COPY --from=code /opt/code /opt/hfexport


FROM packages AS full
COPY --from=neuron /opt/neuron /opt/neuron
COPY --from=code /opt/code /opt/hfexport
