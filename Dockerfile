# CUDA comes with torch's own wheels: all that the host needs is NVIDIA's driver and container toolkit.
#   docker build -t frugalnet .
#   KEEP="-v frugalnet-cache:/home/frugal/frugalnet/.dvc/cache -v frugalnet-checkpoints:/home/frugal/frugalnet/.checkpoints
#         -v frugalnet-runs:/home/frugal/frugalnet/mlruns"
#   docker run --rm --gpus all $KEEP frugalnet          (dvc repro; or give another command)
#   docker run --rm --gpus all $KEEP frugalnet sh -c 'dvc repro >&2 && cat results/compare/report.html' > report.html
#   docker run --rm $KEEP -p 127.0.0.1:5000:5000 -e HOST=0.0.0.0 frugalnet make ui
# The volumes keep what was made, not the code: the same command goes on after an interruption, also with an image built
# anew; DVC takes from its cache what is up to date.
FROM python:3.11-slim-bookworm

# A C compiler: on CUDA networks are compiled, and Triton builds its driver with it.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc git libc6-dev make \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 frugal
USER frugal
WORKDIR /home/frugal/frugalnet

# The lock alone first: the layer of several gigabytes is built again only when it changes, or the Makefile.
COPY --chown=frugal Makefile requirements.lock ./
RUN make .venv/locked
COPY --chown=frugal . .
RUN make install && mkdir -p .dvc/cache .checkpoints
ENV PATH="/home/frugal/frugalnet/.venv/bin:$PATH"

CMD ["dvc", "repro"]
