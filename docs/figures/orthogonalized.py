"""How near `sx.ops.orthogonalized` comes to orthonormal rows: the table in docs/optimizers.md.

    python docs/figures/orthogonalized.py

Square matrices of independent normal numbers, whose smallest singular value is some 1 / n of the
largest, and ones of rank 32 with as much noise as makes the full rank 1e-4 of that. Prints the
smallest, the median and the largest singular value of the result, and how many are below 0.5.
"""

import jax
import jax.numpy as jnp
import numpy as np

import scalex_eqx as sx

WIDTHS = (64, 512, 1024)
RANK = 32
CASES = [
    ("newton_schulz", 5, None),
    ("newton_schulz", 5, "bfloat16"),
    ("minimax", 5, None),
    ("minimax", 5, "bfloat16"),
    ("minimax", 7, None),
    ("minimax", 7, "bfloat16"),
]


def random(n: int) -> np.ndarray:
    return np.random.default_rng(n).normal(size=(n, n))


def of_low_rank(n: int) -> np.ndarray:
    rng = np.random.default_rng(n)
    return rng.normal(size=(n, RANK)) @ rng.normal(size=(RANK, n)) + 1e-4 * random(n)


def main() -> None:
    print("| method, steps | computed in | n | smallest | median | largest | below 0.5 |")
    print("|---|---|---|---|---|---|---|")
    for kind, n in [(random, n) for n in WIDTHS] + [(of_low_rank, WIDTHS[1])]:
        x = jnp.asarray(kind(n), jnp.float32)
        for method, steps, dtype in CASES:
            y = jax.jit(
                lambda x, m=method, s=steps, d=dtype: sx.ops.orthogonalized(
                    x, method=m, steps=s, compute_dtype=d
                )
            )(x)
            s = np.linalg.svd(np.asarray(y, np.float64), compute_uv=False)
            name = f"{n}" if kind is random else f"{n}, rank {RANK}"
            print(
                f"| `{method}`, {steps} | {dtype or 'float32'} | {name} | {s[-1]:.3f} | "
                f"{np.median(s):.3f} | {s[0]:.3f} | {np.mean(s < 0.5):.1%} |"
            )


if __name__ == "__main__":
    main()
