# An image that runs the demo, then shows its results in the browser at http://localhost:8501.
#
#   docker build -f deploy/demo.Dockerfile -t hkdbench-demo .
#   docker run --rm -p 127.0.0.1:8501:8501 --shm-size=2g -v hkdbench-runs:/runs hkdbench-demo
#
# The volume keeps the runs: a second start shows them without training again. `docker run ... hkdbench-demo hkdbench
# rank` runs another command. `deploy/Dockerfile` is the image for the nodes of a cluster.
FROM python:3.11-slim-bookworm
ARG PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"

ENV HKDBENCH_STORE=/runs \
    RAY_AUTH_MODE=disabled \
    RAY_USAGE_STATS_ENABLED=0 \
    TOKENIZERS_PARALLELISM=false

COPY requirements.lock /src/
RUN python -m pip install --no-cache-dir ${PIP_FLAGS} -r /src/requirements.lock
COPY pyproject.toml README.md LICENSE /src/
COPY harness /src/harness
COPY methods /src/methods
COPY benchmarks /src/benchmarks
COPY dashboard /src/dashboard
COPY suites /src/suites
RUN python -m pip install --no-cache-dir --no-deps --no-build-isolation /src && rm -r /src

RUN useradd --create-home bench && mkdir /runs && chown bench /runs
USER bench
WORKDIR /home/bench
VOLUME /runs
EXPOSE 8501
CMD ["bash", "-c", "hkdbench demo && exec hkdbench dashboard --address 0.0.0.0 --port 8501"]
