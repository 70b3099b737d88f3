"""What the compiled programs are like; the backend is `compiled tpu` or `compiled cuda`.

Traffic is in units of the least there can be: every argument read once, every result written
once. Limits leave 1 % for what is small beside the matrices.
"""

from numerics.expectations._entry import entries

TPU, CUDA = ("compiled tpu", "*"), ("compiled cuda", "*")
_ONE_LOOP = ("adam", "adamw", "adam_atan2", "sgd", "lion", "sign_sgd")
_MASTER, _KAHAN = "low_precision(adam, master)", "low_precision(adam, kahan)"
_STOCHASTIC = "low_precision(adam, stochastic)"
_CAST, _NAIVE = "cast there and back", "naive Kahan"
_ROUNDED = (
    "Kahan with a barrier",
    "Kahan with sx.ops.rounded",
    "low_precision(sgd, kahan)",
)
_EXCESS = "XLA may keep more precision than asked for: https://github.com/jax-ml/jax/issues/23007"
_NO_BFLOAT16 = f"bfloat16 is computed in float32 here, and not rounded in between; {_EXCESS}"
_BFLOAT16 = "this chip adds in bfloat16, so that there is no rounding to be left out"

COMPILED = (
    *entries("fusions", "element by element: one loop", dict.fromkeys(_ONE_LOOP, 1)),
    *entries("fusions", "element by element: one loop", {_MASTER: 1}),
    *entries("fusions", "element by element: one loop", {_KAHAN: 1}, on=CUDA),
    *entries(
        "fusions",
        "libtpu 0.0.52 adds the bfloat16 update in a loop of its own",
        {_KAHAN: 2},
        on=TPU,
    ),
    *entries(
        "traffic",
        "one loop over all arrays",
        dict.fromkeys((*_ONE_LOOP, _MASTER, _STOCHASTIC), 1.01),
    ),
    *entries("traffic", "one loop over all arrays", {_KAHAN: 1.01}, on=CUDA),
    *entries(
        "traffic",
        "30 bytes for 26: the step, which a second loop adds, is written and read",
        {_KAHAN: 30 / 26 * 1.01},
        on=TPU,
    ),
    *entries(
        "traffic",
        "w, g, m, v read and w, m, v written; g read once more to see whether it is finite",
        {"skip_nonfinite(adam)": 8 / 7 * 1.01},
    ),
    *entries(
        "traffic",
        "w, g, m, v read and w, m, v written; w read once more for its root mean square",
        {"adam_parameter_scaling": 8 / 7 * 1.01},
    ),
    *entries(
        "traffic",
        "w and g read and w written; g read for its largest entry, for its rows, for its columns "
        "and for the size of the update, and w for its root mean square: 8 for 3",
        {"adafactor": 8 / 3 * 1.01},
    ),
    *entries(
        "flushing",
        "in the power of the step count, of a number between 1 and 3",
        {"adafactor": "rcp.approx.ftz.f32"},
        on=CUDA,
    ),
    *entries("flushing", "XLA:GPU flushes only when told to", {"*": ""}, on=CUDA),
    *entries("rounding", "reduce_precision and barriers stay", dict.fromkeys(_ROUNDED, 1.0)),
    *entries("rounding", _NO_BFLOAT16, {_NAIVE: 0.0}, on=("compiled cuda", "sm_80")),
    *entries("rounding", _BFLOAT16, {_NAIVE: 1.0}, on=CUDA),
    *entries("rounding", _BFLOAT16, {_NAIVE: 1.0}, on=("compiled tpu", "7x")),
    *entries("rounding", _NO_BFLOAT16, {_NAIVE: 0.0}, on=TPU),
    *entries("rounding", "the casts are in the program", {_CAST: 1.0}, on=TPU),
    *entries("rounding", _EXCESS, {_CAST: 0.0}, on=CUDA),
)
