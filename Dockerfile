# CUDA comes with torch's own wheels: all that the host needs is NVIDIA's driver and container toolkit.
#   docker build -t frugalnet .
#   docker run --rm --gpus all -v frugalnet:/home/frugal/frugalnet frugalnet      (dvc repro; or give another command)
# The named volume keeps data, cache, checkpoints, results and runs: the same command goes on after an interruption.
FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 frugal
USER frugal
WORKDIR /home/frugal/frugalnet

# The lock alone first: the layer of several gigabytes is built again only when the lock changes.
COPY --chown=frugal Makefile README.md pyproject.toml requirements.lock ./
COPY --chown=frugal src/frugalnet/__init__.py src/frugalnet/__init__.py
RUN make install
COPY --chown=frugal . .
ENV PATH="/home/frugal/frugalnet/.venv/bin:$PATH"

CMD ["dvc", "repro"]
