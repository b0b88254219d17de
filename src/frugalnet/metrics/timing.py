"""What a network costs on this machine: time, memory, energy.

Every time comes with its quantiles and n. What this machine cannot measure is None, never an estimate.
"""

import copy
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

# The profiler's C++ side writes to stderr whenever it starts; it reads this when it is first used.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from frugalnet.compute import describe_machine, synchronize
from frugalnet.inference_mode import evaluating
from frugalnet.metrics.config import MeasureConfig
from frugalnet.metrics.counts import named_layers, weights_bytes
from frugalnet.metrics.energy import EnergyMeter
from frugalnet.metrics.load import OtherLoad
from frugalnet.metrics.statistics import quantiles


def measure_networks(
    networks: Mapping[str, nn.Module],
    device: torch.device,
    config: MeasureConfig,
    input_shape: Sequence[int] = (3, 64, 64),
) -> dict[str, dict[str, Any]]:
    """What each network costs on this device, ready for JSON; the networks themselves are not touched.

    Times are {median, p5, p95, n}. Each round measures all networks, in alternating order, so that a machine that slows
    down for a while favours none.

    - latency_ms: forward, batch 1. train_latency_ms: forward and backward, batch 1 (in evaluation mode: one image
      gives batch normalisation no statistics).
    - throughput, train_throughput: images a second at `batch_size`; train_step_ms: the same forward and backward.
    - layer_ms: median of each layer's share of a forward at `batch_size`.
    - cpu_seconds_per_image, cpu_seconds_per_training_image: of all threads of this process, medians.
    - peak_memory_*_bytes: weights, input and all that PyTorch allocates on the way, at `batch_size`; None on MPS.
    - energy_joules_per_image, energy_joules_per_training_image: from a counter, see EnergyMeter; None without one.
    - other_cores: that other programs used meanwhile, on average; None where the system does not say.
    - machine: what it was measured on and how.
    """
    subjects = {name: _Subject(network, device, config.batch_size, input_shape) for name, network in networks.items()}
    samples: dict[str, dict[str, list[float]]] = {name: {} for name in subjects}
    load = OtherLoad()
    rounds = tqdm(range(-config.warmup_rounds, config.rounds), desc="measure", unit=" rounds", disable=None)
    for number in rounds:
        for name in sorted(subjects, reverse=number % 2 == 1):
            taken = subjects[name].sample(config.latencies_per_round)
            if number >= 0:
                for key, values in taken.items():
                    samples[name].setdefault(key, []).extend(values)
    other_cores = load.cores()
    machine = describe_machine(device) | {
        "input_shape": "×".join(map(str, input_shape)),
        "batch_size": config.batch_size,
        "precision": "bfloat16 autocast in training steps, else float32" if device.type == "cuda" else "float32",
    }
    return {
        name: _summary(samples[name], config.batch_size)
        | subject.memory()
        | subject.energy(config.energy_seconds)
        | {"other_cores": other_cores, "machine": machine}
        for name, subject in subjects.items()
    }


def _summary(samples: Mapping[str, list[float]], batch_size: int) -> dict[str, Any]:
    def milliseconds(key: str) -> list[float]:
        return [1000 * seconds for seconds in samples[key]]

    return {
        "latency_ms": _quantiles(milliseconds("forward_1")),
        "throughput": _quantiles([batch_size / seconds for seconds in samples["forward"]]),
        "train_latency_ms": _quantiles(milliseconds("backward_1")),
        "train_step_ms": _quantiles(milliseconds("backward")),
        "train_throughput": _quantiles([batch_size / seconds for seconds in samples["backward"]]),
        "layer_ms": {
            key.removeprefix("layer "): float(np.median(milliseconds(key)))
            for key in samples
            if key.startswith("layer ")
        },
        "cpu_seconds_per_image": float(np.median(samples["forward_cpu"])) / batch_size,
        "cpu_seconds_per_training_image": float(np.median(samples["backward_cpu"])) / batch_size,
    }


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    return asdict(quantiles(values))


class _Subject:
    """A network under measurement, with the inputs it is given."""

    def __init__(self, network: nn.Module, device: torch.device, batch_size: int, input_shape: Sequence[int]) -> None:
        self.device = device
        self.network = copy.deepcopy(network).to(device).to(memory_format=torch.channels_last)
        images = torch.randn(batch_size, *input_shape, generator=torch.Generator().manual_seed(0))
        self.images = images.to(device=device, memory_format=torch.channels_last)
        self.labels = torch.zeros(batch_size, dtype=torch.long, device=device)
        self.image = self.images[:1].clone(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> tuple[float, float]:
        """A forward in evaluation mode; seconds of wall clock, and of the processor over all threads."""
        with evaluating(self.network):
            return self._seconds(lambda: self.network(images))

    def backward(self, images: Tensor, *, train: bool = True) -> tuple[float, float]:
        """Forward and backward of one step, without the optimiser's part; seconds as of `forward`."""
        self.network.train(train)
        self.network.zero_grad(set_to_none=True)
        return self._seconds(lambda: self._backward(images))

    def _backward(self, images: Tensor) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss = cross_entropy(self.network(images), self.labels[: len(images)])
        loss.backward()  # type: ignore[no-untyped-call]

    def sample(self, latencies: int) -> dict[str, list[float]]:
        """Seconds of everything that is timed, once round."""
        forward, forward_cpu = self.forward(self.images)
        backward, backward_cpu = self.backward(self.images)
        taken = {
            "forward_1": [self.forward(self.image)[0] for _ in range(latencies)],
            "backward_1": [self.backward(self.image, train=False)[0] for _ in range(latencies)],
            "forward": [forward],
            "backward": [backward],
            "forward_cpu": [forward_cpu],
            "backward_cpu": [backward_cpu],
        }
        return taken | {f"layer {name}": [seconds] for name, seconds in self.layer_seconds().items()}

    def layer_seconds(self) -> dict[str, float]:
        """Seconds of each layer in one forward, in which a network may use it several times."""
        seconds: dict[str, float] = {}

        def add(name: str, sign: int) -> Callable[..., None]:
            def hook(*_: Any) -> None:
                synchronize(self.device)
                seconds[name] = seconds.get(name, 0.0) + sign * time.perf_counter()

            return hook

        with ExitStack() as stack:
            for name, layer in named_layers(self.network):
                stack.callback(layer.register_forward_pre_hook(add(name, -1)).remove)
                stack.callback(layer.register_forward_hook(add(name, 1)).remove)
            self.forward(self.images)
        return seconds

    def memory(self) -> dict[str, int | None]:
        resident = weights_bytes(self.network) + self.images.nbytes
        memory: dict[str, int | None] = {}
        for key, step in (("forward", self.forward), ("train_step", self.backward)):
            self.network.zero_grad(set_to_none=True)  # gradients belong to the step's memory
            peak = peak_allocated(lambda step=step: step(self.images), self.device)  # type: ignore[misc]
            memory[f"peak_memory_{key}_bytes"] = None if peak is None else peak + resident
        return memory

    def energy(self, seconds: float) -> dict[str, float | None]:
        """Joules an image, over at least so many seconds: counters are too slow for a single step."""
        energy: dict[str, float | None] = {}
        for key, step in (("image", self.forward), ("training_image", self.backward)):
            meter = EnergyMeter(self.device)
            images = 0
            end = time.perf_counter() + seconds
            while meter.available and (images == 0 or time.perf_counter() < end):
                step(self.images)
                images += len(self.images)
            joules = meter.lap()
            energy[f"energy_joules_per_{key}"] = None if joules is None else joules / images
        return energy

    def _seconds(self, step: Callable[[], object]) -> tuple[float, float]:
        synchronize(self.device)
        cpu = time.process_time()
        wall = time.perf_counter()
        step()
        synchronize(self.device)
        return time.perf_counter() - wall, time.process_time() - cpu


def peak_allocated(step: Callable[[], None], device: torch.device) -> int | None:
    """The most bytes that PyTorch's allocator held during `step`, beyond what it held before; None on MPS."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu":
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return int(np.cumsum([0, *changes]).max())
