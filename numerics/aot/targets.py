"""The chips that are compiled for, and how their compilers are told."""

import dataclasses
from typing import Any, Literal

from jax.experimental import topologies


@dataclasses.dataclass(frozen=True)
class Target:
    """**Arguments:**

    - `name`: of the generation or architecture.
    - `platform`: `"tpu"` or `"cuda"`.
    - `one`, `four`: the topologies with one chip (its first is taken) and with four.
    - `capability`: of a CUDA architecture.
    """

    name: str
    platform: Literal["tpu", "cuda"]
    one: str
    four: str
    capability: tuple[int, int] | None = None


def _tpu(name: str, one: str, four: str) -> Target:
    return Target(name, "tpu", one, four)


def _cuda(major: int, minor: int) -> Target:
    return Target(f"sm_{major}{minor}", "cuda", "1x1x1", "1x4x1", (major, minor))


TARGETS = {
    target.name: target
    for target in (
        _tpu("v3", "v3:2x2", "v3:2x2"),
        _tpu("v4", "v4:2x2x1", "v4:2x2x1"),
        _tpu("v5e", "v5e:1x1", "v5e:2x2"),
        _tpu("v5p", "v5p:2x2x1", "v5p:2x2x1"),
        _tpu("v6e", "v6e:1x1", "v6e:2x2"),
        _tpu("7x", "tpu7x:2x2x1", "tpu7x:2x2x1"),
        _cuda(8, 0),
        _cuda(9, 0),
        _cuda(10, 0),
    )
}
# The others are compiled for with --stress.
USUAL = ("v5e", "v6e", "sm_80", "sm_90")


def devices(target: Target, chips: int) -> list[Any]:
    """The first chips of a target, as objects to place arguments on."""
    name = target.one if chips == 1 else target.four
    if target.capability is None:
        topology = topologies.get_topology_desc(platform="tpu", topology_name=name)
    else:
        topology = topologies.get_topology_desc(
            platform="cuda",
            topology_name="",
            topology=name,
            target_config=_gpu(*target.capability),
        )
    return list(topology.devices[:chips])


def _gpu(major: int, minor: int) -> str:
    """A GpuTargetConfig message. Only the capability varies; the rest is an H100's."""
    return f"""
    platform_name: "CUDA"
    device_description_str: "NVIDIA H100 80GB HBM3"
    dnn_version_info {{ major: 9 minor: 8 }}
    runtime_version {{ major: 12 minor: 9 patch: 0 }}
    gpu_device_info {{
      cuda_compute_capability {{ major: {major} minor: {minor} }}
      threads_per_block_limit: 1024
      threads_per_warp: 32
      shared_memory_per_block: 49152
      shared_memory_per_block_optin: 232448
      shared_memory_per_core: 233472
      threads_per_core_limit: 2048
      core_count: 132
      fpus_per_core: 128
      block_dim_limit_x: 2147483647
      block_dim_limit_y: 65535
      block_dim_limit_z: 65535
      memory_bandwidth: 3352320000000
      l2_cache_size: 52428800
      clock_rate_ghz: 1.98
      device_memory_size: 84929347584
      registers_per_core_limit: 65536
      registers_per_block_limit: 65536
    }}
    """
