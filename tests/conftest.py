import functools
import gc
import itertools
import os
import tempfile
from pathlib import Path

from jaxlib.version import __version_info__ as jaxlib_version

# The tests compile many small programs and run each for a moment: leaving out LLVM's expensive
# passes and XLA's own way to make fused loops takes a quarter of the time, and a module that isn't
# split among threads, which the other worker needs, takes a sixth less of the processor's. A jaxlib
# aborts at a flag that it doesn't know, and 0.12 no longer knows the last one.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    + " --xla_cpu_parallel_codegen_split_count=1"
    + (" --xla_cpu_use_fusion_emitters=false" if jaxlib_version < (0, 11) else ""),
)
# Programs are the same without the lines that their operations come from, which take time to write.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

import jax
import jaxtyping
import matplotlib
import pytest
from jax._src.interpreters import mlir
from jaxlib.mlir import ir

matplotlib.use("Agg")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Tracing makes millions of objects that live on; looking for garbage among them is mostly in vain.
gc.set_threshold(100_000, 20, 50)

# What trains whole models calls the same few annotated functions a hundred thousand times. Their
# shapes are checked in the tests of the modules themselves, which are in the other folders.
_TESTS = Path(__file__).parent
_WITHOUT_SHAPES = tuple(_TESTS / name for name in ("cli", "foreign", "scaling", "site", "uses"))


# A program is written in a context that knows some twenty dialects, which JAX loads anew for each:
# a sixth of the time of tests that run operation by operation. Those of one test share one.
_new_context = mlir.make_ir_context
_shared_context = functools.cache(_new_context)


def _context() -> ir.Context:
    """The shared one, unless a program is written while another is: they must not mix."""
    return _shared_context() if ir.Context.current is None else _new_context()


mlir.make_ir_context = _context


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item):
    """Checks shapes in the tests that are for that."""
    _shared_context.cache_clear()
    parents = item.path.parents
    is_whole = any(folder in parents for folder in _WITHOUT_SHAPES)
    is_whole |= item.path.name.startswith("test_coordinates")
    jaxtyping.config.update("jaxtyping_disable", is_whole)
    return (yield)


def pytest_configure(config: pytest.Config):
    """Programs that are compiled twice are compiled once: a fifth of the time of tests that trace.

    Each process has a cache of its own, since JAX writes an entry in place, and not for the
    processes that tests start, which are killed while they write.
    """
    folder = tempfile.TemporaryDirectory(prefix="scalex-tests-")
    config.add_cleanup(folder.cleanup)
    jax.config.update("jax_compilation_cache_dir", folder.name)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_collection_finish():
    """Modules and tests live as long as the process: garbage is not looked for among them."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def x64():
    """Runs a test in double precision."""
    with jax.enable_x64(True):
        yield


# XLA maps memory for every program that it compiles, and Linux grants a process 65,530 maps: beyond
# that the compiler crashes. A worker compiles more programs than that has room for.
_MOST_MAPS, _EVERY = 45_000, 20
_MAPS = Path("/proc/self/maps")
_ended = itertools.count(1)


def pytest_runtest_logfinish():
    """Forgets compiled programs before they are too many."""
    if next(_ended) % _EVERY or not _MAPS.exists():
        return
    if _MAPS.read_bytes().count(b"\n") > _MOST_MAPS:
        jax.clear_caches()
        gc.collect()
