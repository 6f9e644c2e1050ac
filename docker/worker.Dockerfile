# A worker, for NVIDIA GPUs, or with --build-arg BACKEND=tensorflow for CPUs alone. docs/deploy.md tells the rest.
FROM python:3.12-slim AS build

WORKDIR /src
COPY pyproject.toml README.md LICENSE lr_arena.py ./
COPY arena_cli arena_cli
COPY studies studies
COPY service service
COPY workers workers
RUN pip wheel --no-deps --wheel-dir dist .

FROM python:3.12-slim

# One of the extras of pyproject.toml: tensorflow-gpu brings the CUDA libraries, so the image needs none.
ARG BACKEND=tensorflow-gpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONUNBUFFERED=1
WORKDIR /install
COPY requirements.lock ./
COPY --from=build /src/dist dist
# The lock has TensorFlow for CPUs; the one for GPUs is to be of the same version.
RUN sed -n 's/^tensorflow-cpu==\([^ ;]*\).*/tensorflow==\1/p' requirements.lock > tensorflow.lock
RUN pip install --constraint requirements.lock --constraint tensorflow.lock "$(echo dist/*.whl)[worker,$BACKEND]"

# Anybody may write to the folders below, so that any user id will do; a volume takes this over when it is made.
WORKDIR /var/lib/lr-arena
RUN mkdir checkpoints models data tasks && chmod 1777 . checkpoints models data
# The home is where CUDA keeps what it has compiled, and Keras what it has downloaded.
ENV HOME=/var/lib/lr-arena/data LR_ARENA_DATA=/var/lib/lr-arena/data
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001

ENTRYPOINT ["lr-arena"]
CMD ["worker", "--checkpoints", "/var/lib/lr-arena/checkpoints", "--models", "/var/lib/lr-arena/models"]
