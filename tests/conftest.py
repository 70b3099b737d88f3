import os

from jaxlib.version import __version_info__ as jaxlib_version

# The tests compile many small programs and run each for a moment: leaving out LLVM's expensive
# passes and XLA's own way to make fused loops takes a quarter of the time. A jaxlib aborts at a
# flag that it doesn't know, and 0.12 no longer knows the last one.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    + (" --xla_cpu_use_fusion_emitters=false" if jaxlib_version < (0, 11) else ""),
)

import jax
import matplotlib
import pytest

matplotlib.use("Agg")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Runs a test in double precision."""
    with jax.enable_x64(True):
        yield
