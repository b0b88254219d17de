#!/usr/bin/env bash
# Train the sample with torchrun --nnodes=2 on two network namespaces joined by a virtual cable, and count the bytes that
# cross it. Needs root and iproute2: sudo benchmarks/two_hosts.sh [FOLDER]
set -euo pipefail
project=$(cd "$(dirname "$0")/.." && pwd)
work=${1:-$(mktemp -d)}
python=${PYTHON:-$project/.venv/bin/python}
names=("frugal-$$-a" "frugal-$$-b")

clean() {
    kill "${agents[@]}" 2> /dev/null || true
    wait 2> /dev/null || true
    for name in "${names[@]}"; do ip netns delete "$name" 2> /dev/null || true; done
}
agents=()
trap clean EXIT

for name in "${names[@]}"; do ip netns add "$name"; done
ip link add cable netns "${names[0]}" type veth peer name cable netns "${names[1]}"
for host in 0 1; do
    ip -n "${names[host]}" addr add "10.77.0.$((host + 1))/24" dev cable
    ip -n "${names[host]}" link set cable up
    ip -n "${names[host]}" link set lo up
done

export PYTHONPATH=$project:$project/src GLOO_SOCKET_IFNAME=cable TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 OMP_NUM_THREADS=1
for host in 0 1; do # each has its own folder: they share only the cable
    mkdir -p "$work/$host"
    cd "$work/$host"
    "$python" -c "from dvc.utils.hydra import compose_and_dump as compose; compose('params.yaml', '$project/conf', None, 'config', '',
        ['data=sample', 'train=demo', 'model=depthwise', 'augment=none', 'distributed=global_net', 'distributed.workers=2',
         'compute.threads=1', 'train.epochs=${EPOCHS:-4}'])"
    for stage in download normalise augment; do "$python" -m "pipeline.$stage"; done
done
for host in 0 1; do
    cd "$work/$host"
    DVC_ROOT=$PWD ip netns exec "${names[host]}" "$python" -m torch.distributed.run --nnodes="${NNODES:-2}" --nproc-per-node=1 \
        --max-restarts=3 --rdzv-id=sample --rdzv-backend=c10d --rdzv-endpoint=10.77.0.1:29500 --rdzv-conf=is_host=$((host == 0)) \
        --local-addr="10.77.0.$((host + 1))" -m pipeline.train depthwise 0 &
    agents+=($!)
done
for agent in "${agents[@]}"; do wait "$agent"; done
agents=()
for host in 0 1; do
    echo "host $host sent $(ip netns exec "${names[host]}" cat /sys/class/net/cable/statistics/tx_bytes) bytes"
done
cat "$work"/?/results/train/depthwise-0/timing.json
