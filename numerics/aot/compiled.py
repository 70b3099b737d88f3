"""Runs the compilers, once a session, and hands out what they made."""

import concurrent.futures
import dataclasses
import functools
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numerics.aot.hlo import Module, parse
from numerics.aot.targets import TARGETS, USUAL

PACKAGES = {
    "libtpu": "libtpu",
    "jax_cuda12_plugin": "jax-cuda12-plugin",
    "jax_plugins.xla_cuda12": "jax-cuda12-pjrt",
}
ROOT = Path(__file__).parents[2]
# The process computes nothing; it must find neither a TPU nor one that another process holds.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# What is tried out on a GPU while compiling is left out.
CUDA_FLAGS = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"


@dataclasses.dataclass(frozen=True)
class Compiled:
    """**Arguments:**

    - `module`: the optimised program.
    - `text`: as the compiler prints it.
    - `ptx`: the code of a CUDA program's kernels.
    - `traffic`: bytes read and written, as read from the program.
    - `counted`: the same as the compiler counts them, which CUDA's doesn't.
    - `least`: with every argument read once and every result written once.
    - `flops`, `temporary`: the compiler's figures; `temporary` in bytes.
    """

    module: Module
    text: str
    ptx: str
    traffic: int
    counted: float | None
    least: int
    flops: float | None
    temporary: int


def missing_packages() -> list[str]:
    """The names of the compilers' packages that are not installed."""
    return [package for module, package in PACKAGES.items() if not _found(module)]


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False


def targets(thorough: bool) -> tuple[str, ...]:
    """The names of those that are compiled for."""
    return tuple(TARGETS) if thorough else USUAL


@functools.cache
def compiled(thorough: bool) -> Mapping[str, Mapping[str, Compiled]]:
    """Every program by target and name.

    **Raises:** `RuntimeError` with what the compiler said if it failed.
    """
    wanted = [TARGETS[name] for name in targets(thorough)]
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor() as pool:
        runs = [
            pool.submit(_run, Path(folder), [t.name for t in wanted if t.platform == platform])
            for platform in ("tpu", "cuda")
        ]
        for run in runs:
            run.result()
        return {t.name: _read(Path(folder) / f"{t.name}.json") for t in wanted}


def _run(folder: Path, names: list[str]) -> None:
    flags = f"{CUDA_FLAGS} --xla_dump_to={folder / 'dump'}" if _is_cuda(names) else ""
    done = subprocess.run(
        [sys.executable, "-m", "numerics.aot.worker", str(folder), *names],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"compiling for {', '.join(names)} failed:\n{done.stderr[-4000:]}")


def _is_cuda(names: list[str]) -> bool:
    return all(TARGETS[name].platform == "cuda" for name in names)


def _read(path: Path) -> dict[str, Compiled]:
    return {name: _compiled(record) for name, record in json.loads(path.read_text()).items()}


def _compiled(record: dict[str, Any]) -> Compiled:
    module = parse(record["hlo"])
    return Compiled(
        module=module,
        text=record["hlo"],
        ptx=record["ptx"],
        traffic=module.bytes_moved(),
        counted=record["bytes"],
        least=record["least bytes"],
        flops=record["flops"],
        temporary=record["temporary"],
    )
