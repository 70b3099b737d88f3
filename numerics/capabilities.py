"""What this device does with numbers, found by trying it rather than by its name."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from scalex_eqx.diagnostics import Device, Table, describe_device


@dataclasses.dataclass(frozen=True)
class Capabilities:
    """**Arguments:**

    - `device`: which one.
    - `keeps_subnormals`: by dtype, whether a product below the smallest normal number survives.
    - `elides_rounding`: by dtype, whether a float32 cast there and back comes out unrounded.
    - `matmul_bits`: of the worst entry of a product of float32 matrices at the default precision.
    """

    device: Device
    keeps_subnormals: dict[str, bool]
    elides_rounding: dict[str, bool]
    matmul_bits: float

    def table(self) -> Table:
        """A row a capability."""
        found: dict[str, bool | float] = {
            f"{name} keeps subnormal numbers": keeps
            for name, keeps in self.keeps_subnormals.items()
        }
        for name, elides in self.elides_rounding.items():
            found[f"float32 to {name} and back is left out"] = elides
        found["bits of the worst entry of a float32 matmul at default precision"] = self.matmul_bits
        rows = [{"capability": name, "found": value} for name, value in found.items()]
        return Table("capabilities", ("capability",), ("capability", "found"), rows)


@functools.cache
def capabilities() -> Capabilities:
    """Those of JAX's default device; tried once."""
    wide = (jnp.float32, jnp.bfloat16, jnp.float16)
    narrow = (jnp.bfloat16, jnp.float16, jnp.float8_e4m3fn)
    return Capabilities(
        describe_device(),
        {jnp.dtype(dtype).name: _keeps_subnormals(dtype) for dtype in wide},
        {jnp.dtype(dtype).name: _elides_rounding(dtype) for dtype in narrow},
        round(_matmul_bits(), 1),
    )


def _keeps_subnormals(dtype) -> bool:
    # Values are arguments: constants would be multiplied by the compiler, which flushes nothing.
    tiny = np.asarray(jnp.finfo(dtype).tiny, dtype)
    product = jax.jit(jnp.multiply)(tiny, np.asarray(0.5, dtype))
    return bool(np.asarray(product).astype(np.float64) > 0)


def _elides_rounding(dtype) -> bool:
    x = np.float32(1.0 + 2.0**-14)
    return bool(jax.jit(lambda x: x.astype(dtype).astype(jnp.float32))(x) == x)


def _matmul_bits() -> float:
    """From one random product; each entry's error in units of the sizes of row and column."""
    a, b = np.random.default_rng(0).normal(size=(2, 256, 256)).astype(np.float32)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    sizes = np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=0))
    error = np.abs(np.asarray(jax.jit(jnp.matmul)(a, b)) - exact) / sizes
    return float(-np.log2(error.max()))
