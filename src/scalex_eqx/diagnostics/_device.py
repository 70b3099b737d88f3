import dataclasses
import platform
import re
from pathlib import Path

import jax


@dataclasses.dataclass(frozen=True)
class Device:
    """What computed: the chip, never the machine.

    **Arguments:**

    - `chip`: its name, such as `"NVIDIA H100 80GB HBM3"`.
    - `platform`: `"cpu"`, `"gpu"` or `"tpu"`, as JAX says.
    """

    chip: str
    platform: str

    @property
    def slug(self) -> str:
        """The name of a file for this device's results, without an ending."""
        plain = re.sub(r"\((r|tm)\)", " ", f"{self.platform} {self.chip}".lower())
        return "-".join(re.findall(r"[a-z0-9]+", plain))


def describe_device() -> Device:
    """The device that JAX computes on by default."""
    device = jax.devices()[0]
    chip = _cpu_model() if device.platform == "cpu" else device.device_kind
    return Device(chip, device.platform)


def _cpu_model() -> str:
    """The processor's name as Linux says, or else as Python does."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", information.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()
