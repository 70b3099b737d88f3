"""Which devices a command trains on."""

import contextlib
import os

import jax


def use_all_cores() -> None:
    """One virtual device for each core: the runs are independent, and so need no shared pool of
    threads. A device count of the user's own is left alone.

    Called before anything else: a learned rule in a recipe, or a problem, has arrays, and with the
    first of them the number of devices stands."""
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    with contextlib.suppress(RuntimeError):  # JAX is running already, with the devices it has.
        jax.config.update("jax_num_cpu_devices", min(os.cpu_count() or 1, 8))
