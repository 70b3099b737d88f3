"""How much memory there is, so that what can't fit is refused before it is tried."""

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax

from ._usage import UsageError

_MEMINFO = Path("/proc/meminfo")
# What a container may use; its second version first.
_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
    ),
)


def available() -> int | None:
    """Bytes that the machine, or the container, could still give; `None` if it doesn't say."""
    found = [*_of_the_machine(), *_of_the_container()]
    return min(found, default=None)


def total() -> int | None:
    """Bytes that the machine, or the container, has in all; `None` if it doesn't say."""
    found = []
    with suppress(OSError, ValueError, KeyError):
        found.append(_kilobytes("MemTotal") * 1024)
    for limit, _, _ in _LIMITS:
        with suppress(OSError, ValueError):
            found.append(int(Path(limit).read_text()))
    return min(found, default=None)


def available_on(devices: Sequence[Any]) -> int | None:
    """Bytes that the devices together could still give, `None` if they don't say.

    Devices are JAX's; those of the CPU share the machine's memory.
    """
    if devices[0].platform == "cpu":
        return available()
    free = [
        stats["bytes_limit"] - stats["bytes_in_use"]
        for device in devices
        if (stats := device.memory_stats()) and "bytes_limit" in stats
    ]
    return len(devices) * min(free) if len(free) == len(devices) else None


def in_words(size: int | float) -> str:
    """A number of bytes for people."""
    if size < 1000:
        return f"{size:.0f} bytes"
    power = min(int(math.log10(size)) // 3, 6)
    return f"{size / 1000**power:.3g} {' kMGTPE'[power]}B"


def bytes_of(tree: Any) -> int:
    """Of all arrays of a tree, or of their shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def check_runs(needed: int | float, runs: int, devices: Sequence[Any], *, width: int) -> None:
    """Refuses `runs` runs of a width that need more memory than there is.

    **Arguments:**

    - `needed`: bytes on all devices; each trains the same number of runs.

    **Raises:** `UsageError` that names `--at-once` where a smaller one helps.
    """
    free = available_on(devices)
    if free is None or needed <= free:
        return
    rounds = -(-runs // len(devices))
    fitting = int(free / (needed / rounds)) * len(devices)
    remedy = "smaller widths, a smaller --batch-size, --sequence-length or --depth"
    if 0 < fitting < runs:
        remedy = f"--at-once {fitting}, or {remedy}"
    elif runs > 1 and len(devices) < runs:
        remedy = f"--at-once 1 and {remedy}"
    together = f"{runs} runs of width {width} at once" if runs > 1 else f"a run of width {width}"
    raise UsageError(
        f"out of memory: {together} need{'' if runs > 1 else 's'} at least {in_words(needed)}, and "
        f"{in_words(free)} are free; give {remedy}"
    )


def _of_the_machine() -> list[int]:
    with suppress(OSError, ValueError, KeyError):
        return [1024 * (_kilobytes("MemAvailable") + _kilobytes("SwapFree"))]
    return []


def _kilobytes(field: str) -> int:
    lines = _MEMINFO.read_text(encoding="ascii", errors="replace").splitlines()
    return int(dict(line.split(":", 1) for line in lines)[field].split()[0])


def _of_the_container() -> list[int]:
    for limit, used, stat in _LIMITS:
        with suppress(OSError, ValueError):
            free = int(Path(limit).read_text()) - int(Path(used).read_text())
            # Pages of files that were read count as used, and are given back.
            for line in Path(stat).read_text().splitlines():
                if line.startswith(("inactive_file ", "total_inactive_file ")):
                    free += int(line.split()[1])
                    break
            return [max(free, 0)]
    return []
