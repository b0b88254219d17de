# torch's wheels include CUDA. For a GPU, the host needs only NVIDIA's driver and container toolkit.
#   docker build -t frugalnet .
#   KEEP="-v frugalnet-cache:/home/frugal/frugalnet/.dvc/cache -v frugalnet-checkpoints:/home/frugal/frugalnet/.checkpoints
#         -v frugalnet-runs:/home/frugal/frugalnet/mlruns"
#   docker run --rm --gpus all $KEEP frugalnet          (runs dvc repro, or the command given)
#   docker run --rm --gpus all $KEEP frugalnet sh -c 'dvc repro >&2 && cat results/compare/report.html' > report.html
#   docker run --rm $KEEP -p 127.0.0.1:5000:5000 -e LISTEN=0.0.0.0 frugalnet make ui
# The volumes keep results, not code. After an interruption, also with a rebuilt image, the same command resumes, and DVC
# takes finished stages from its cache.
FROM python:3.11-slim-bookworm

# A C compiler: networks are compiled on CUDA, and Triton needs one.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc git libc6-dev make \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 frugal
USER frugal
WORKDIR /home/frugal/frugalnet

ENV PIP_NO_CACHE_DIR=1
# The lock file first: this layer of several gigabytes is rebuilt only if the lock file or the Makefile changes.
COPY --chown=frugal Makefile requirements.lock ./
RUN make .venv/locked
COPY --chown=frugal . .
ARG EXTRAS=
RUN make install EXTRAS="$EXTRAS" && mkdir -p .dvc/cache .checkpoints artifacts
ENV PATH="/home/frugal/frugalnet/.venv/bin:$PATH"

CMD ["dvc", "repro"]
