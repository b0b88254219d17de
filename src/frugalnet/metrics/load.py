"""What else the machine computes while something is timed."""

import os
import time
from pathlib import Path

_IDLE = (3, 4)  # of user, nice, system, idle, iowait, irq, softirq, steal


class OtherLoad:
    """The cores that other programs use from now on, on average; those of other virtual machines count."""

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat
        self._wall = time.perf_counter()
        self._own = self._own_seconds()
        self._busy = self._busy_seconds()

    def cores(self) -> float | None:
        """The average since the start; None where the system does not say."""
        busy = self._busy_seconds()
        if busy is None or self._busy is None:
            return None
        others = busy - self._busy - (self._own_seconds() - self._own)
        return max(0.0, others / (time.perf_counter() - self._wall))

    def _busy_seconds(self) -> float | None:
        """Seconds of all cores in which they were not idle, since the machine started."""
        try:
            ticks = [int(field) for field in self._stat.read_text().split(maxsplit=9)[1:9]]
        except OSError:
            return None
        return (sum(ticks) - sum(ticks[field] for field in _IDLE)) / os.sysconf("SC_CLK_TCK")

    @staticmethod
    def _own_seconds() -> float:
        """Seconds of this process, its threads and its children that have ended."""
        used = os.times()
        return used.user + used.system + used.children_user + used.children_system
