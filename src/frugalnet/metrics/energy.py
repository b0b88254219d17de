"""Joules from a hardware counter, where there is one that may be read; never an estimate."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from frugalnet.compute import synchronize


@dataclass(frozen=True)
class _Counter:
    """A counter of energy that only goes up, until it wraps."""

    read: Callable[[], int]
    joules: float  # a unit
    units: int | None = None  # after which it is 0 again

    def between(self, start: int, end: int) -> float:
        return self.joules * (end - start if end >= start or self.units is None else end - start + self.units)


class EnergyMeter:
    """Joules from a hardware counter: `lap()` gives those since the meter was made or the last lap.

    On CUDA the GPU's own counter (NVML, Volta or newer); on the CPU the packages' (RAPL), other processes included,
    where this user may read it. A RAPL counter wraps after some 262 kJ: read it more often than every half hour.
    """

    def __init__(self, device: torch.device, powercap: Path = Path("/sys/class/powercap")) -> None:
        self._counters = {"cuda": lambda: _nvml(device), "cpu": lambda: _rapl(powercap)}.get(device.type, list)()
        self._device = device
        self._start = [counter.read() for counter in self._counters]

    @property
    def available(self) -> bool:
        """Whether there is a counter to read."""
        return bool(self._counters)

    def lap(self) -> float | None:
        """Joules since the last lap, once what was queued is done; None: not measured on this machine."""
        if not self._counters:
            return None
        synchronize(self._device)
        start = self._start
        self._start = [counter.read() for counter in self._counters]
        laps = zip(self._counters, start, self._start, strict=True)
        return sum(counter.between(before, now) for counter, before, now in laps)


class Stopwatch:
    """Wall-clock seconds, CPU seconds of all threads, and joules where there is a counter."""

    def __init__(self, device: torch.device) -> None:
        self._meter = EnergyMeter(device)
        self._wall = time.monotonic()
        self._cpu = time.process_time()

    def lap(self) -> tuple[float, float, float | None]:
        """What was spent since the last lap."""
        joules = self._meter.lap()
        wall = time.monotonic()
        cpu = time.process_time()
        spent = wall - self._wall, cpu - self._cpu, joules
        self._wall = wall
        self._cpu = cpu
        return spent


def _nvml(device: torch.device) -> list[_Counter]:
    import pynvml

    try:
        pynvml.nvmlInit()
        # NVML doesn't know CUDA_VISIBLE_DEVICES: its indices may name another GPU.
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return []
    return [_Counter(lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)), 1e-3)]


def _rapl(powercap: Path) -> list[_Counter]:
    counters = []
    for zone in sorted(powercap.glob("intel-rapl:*")):
        with suppress(OSError):  # most systems let only root read it
            if (zone / "name").read_text().startswith("package"):  # cores and memory are part of it, psys holds it
                counters.append(_rapl_counter(zone))
    return counters


def _rapl_counter(zone: Path) -> _Counter:
    energy = zone / "energy_uj"
    energy.read_text()  # raises if it may not be read
    return _Counter(lambda: int(energy.read_text()), 1e-6, int((zone / "max_energy_range_uj").read_text()))
