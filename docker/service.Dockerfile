# The service: no Keras, no TensorFlow. `docker compose build service` builds it; docs/deploy.md tells the rest.
FROM python:3.12-slim AS build

WORKDIR /src
COPY pyproject.toml README.md LICENSE lr_arena.py ./
COPY arena_cli arena_cli
COPY studies studies
COPY service service
COPY workers workers
RUN pip wheel --no-deps --wheel-dir dist .

FROM python:3.12-slim

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONUNBUFFERED=1
WORKDIR /install
COPY requirements.lock ./
COPY --from=build /src/dist dist
RUN pip install --constraint requirements.lock "$(echo dist/*.whl)[service]"

# /data takes an SQLite file where there is no PostgreSQL. Anybody may write there, so that any user id will do.
WORKDIR /data
RUN chmod 1777 .
ENV HOME=/tmp
USER 10001:10001

EXPOSE 8000
ENTRYPOINT ["lr-arena"]
CMD ["serve", "--host", "0.0.0.0"]
