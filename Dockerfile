# torch's wheels include CUDA. For a GPU, the host needs only NVIDIA's driver and container toolkit.
#   docker build -t frugalnet .
#   KEEP="-v frugalnet-cache:/home/frugal/frugalnet/.dvc/cache -v frugalnet-checkpoints:/home/frugal/frugalnet/.checkpoints
#         -v frugalnet-runs:/home/frugal/frugalnet/mlruns"
#   docker run --rm --gpus all $KEEP frugalnet          (runs dvc repro, or the command given)
#   docker run --rm --gpus all $KEEP frugalnet sh -c 'dvc repro >&2 && cat results/compare/report.html' > report.html
#   docker run --rm $KEEP -p 127.0.0.1:5000:5000 -e LISTEN=0.0.0.0 frugalnet make ui
# The volumes keep results, not code. Ctrl-C and `docker stop --time 60` interrupt a training, which first writes a
# checkpoint. After an interruption, also with a rebuilt image, the same command resumes, and DVC takes finished stages
# from its cache.
FROM python:3.11-slim-bookworm AS base

# A C compiler: networks are compiled on CUDA, and Triton needs one. tini: as process 1, dvc would ignore signals.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc git libc6-dev make tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*

# The project: what git tracks, new code and parameters, and of the history the present commit alone. No stash, no
# earlier commit, no settings of the clone, no secret that lies about, nothing that .gitignore names.
FROM base AS source
WORKDIR /source
COPY . .
RUN git clone --quiet --depth 1 --no-checkout "file://$PWD" /clone \
    && git -C /clone remote remove origin \
    && rm -rf .git && mv /clone/.git . && git reset --quiet \
    && git clean -dX --force --quiet \
    && git clean -d --force --quiet --exclude '/src/frugalnet/**/*.py' --exclude '/pipeline/*.py' \
        --exclude '/conf/*/*.yaml' --exclude /dvc.lock

FROM base
RUN useradd --create-home --uid 1000 frugal
USER frugal
WORKDIR /home/frugal/frugalnet

# The packages first: this layer of several gigabytes is rebuilt only if their list changes.
COPY --chown=frugal requirements-image.lock ./
RUN python3 -m venv .venv \
    && .venv/bin/pip install --no-cache-dir --require-hashes -r requirements-image.lock
COPY --chown=frugal --from=source /source ./
RUN .venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
    && touch .venv/locked .venv/installed \
    && mkdir -p .dvc/cache .checkpoints artifacts
ENV PATH="/home/frugal/frugalnet/.venv/bin:$PATH"

STOPSIGNAL SIGINT
ENTRYPOINT ["tini", "-g", "--"]
CMD ["dvc", "repro"]
