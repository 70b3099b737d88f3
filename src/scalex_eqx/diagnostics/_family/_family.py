from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ._arguments import Extra
from ._degrees import Degrees, degrees, local, vector_degrees
from ._judge import matched, reasons
from ._moved import Drift, Moved, drift, root_mean_square
from ._notes import notes
from ._probe import SPREAD, Probe, annotated, large_probe, only, rank_one_probe, shapes, small_probe
from ._reach import Reach, reach, sizes
from ._result import MeasuredFamily
from ._run import Program, Rule, callable_rule, program, usual_promotion
from ._settings import (
    SCALES,
    WEIGHT_SCALES,
    bare_settings,
    held,
    large_settings,
    small_settings,
)
from ._shape import Layout, Shape, shape
from ._special import wander, without_gradient, zero_first, zero_weight

STEPS = 36
"""Of a run; the first third, in which averages settle, is not counted."""
_SETTLES = 12
# The steps of rules that move the weights every 2, 3, 4, 6, 8 or 12 steps are whole in the rest.
assert (STEPS - _SETTLES) % 24 == 0

LEAF, OTHER = "tall", "wide"
_SHOWN = (1.0, 1e-2, 1e-4, 1e-6, 1e-8)
_SIDE = 1024


def family(
    tx: optax.GradientTransformation, *, layout: Layout = "out, in", extra: Extra | None = None
) -> MeasuredFamily:
    r"""Which update family an optimizer is of, by trying it out.

    $$|\Delta w| \propto |g|^{p} \times \text{RMS}(w)^{q} \times r^{-o}$$

    The rule gets made-up gradients of many sizes, for all weights and for parts of them, with
    weights that move as it says; what it does is compared. Nothing is read from its name or its
    code. What it does to weights without a gradient, such as decay, is measured by itself, and
    taken off.

    A degree is told as a fraction if it is within 0.01 of a whole number, or 0.01 / n of n-ths up
    to eighths; otherwise as measured.

    **Arguments:**

    - `tx`: any `optax.GradientTransformation`, also one that needs `value`, `grad`, `value_fn`,
        `obj_fn` or `hessian`: these are of one made-up loss. Rules of this library get weights of
        role hidden, and vectors.
    - `layout`: how weights are stored, for the exponents of fan-in and fan-out: `"out, in"` as
        Equinox's are, or `"in, out"`.
    - `extra`: `extra(params, gradients, value)`, further arguments of `tx.update`, by name; traced.

    **Returns:** a [`scalex_eqx.diagnostics.MeasuredFamily`][]. Its `family` is what
    [`scalex_eqx.scale_by_width`][] takes.

    **Raises:** `ValueError` for what is no optimizer, and for one that can't be called so.
    """
    if layout not in ("out, in", "in, out"):
        raise ValueError(f"layout is {layout!r}; expected 'out, in' or 'in, out'")
    probe = small_probe(STEPS)
    rule = callable_rule(tx, probe, extra)
    moved, is_held = _moved(program(rule, probe), probe)
    gradient, weight = (degrees(moved, LEAF, OTHER, kind) for kind in ("part", "weight part"))
    vector = vector_degrees(moved, OTHER)
    slopes = local(moved, LEAF, SCALES, "all")
    by_shape = _by_shape(rule, moved, layout, float(gradient.first))
    why = reasons(gradient, weight, vector, by_shape, slopes)
    found = MeasuredFamily(
        family=None if why else matched(gradient.together, weight.together, by_shape, vector),
        reasons=why,
        notes=(),
        gradient=gradient,
        weight=weight,
        vector=vector,
        slopes={scale: _slope_at(slopes, scale) for scale in _SHOWN},
        reach=reach(SCALES, sizes(moved, LEAF, SCALES), float(gradient.together)),
        weight_reach=_weight_reach(moved, weight),
        shape=by_shape,
        first=_first(moved),
        period=_period(moved),
        decay=moved.without.decay,
        without_gradient=without_gradient(moved.without),
        wander=(_wander(moved.found, moved.places[("zero", 0)]), _narrow(rule, probe)),
        zero_first=zero_first(moved, LEAF),
        zero_weight=zero_weight(moved, LEAF),
        state_bytes=_state_bytes(rule),
        held=is_held,
    )
    return found.noted(notes(found, rule.wrap is annotated))


def _moved(run: Program, probe: Probe) -> tuple[Moved, bool]:
    """What the rule does on the small probe, and whether weights had to be held in place.

    A rule without a learning rate may send weights that it multiplies its steps by away, and what
    comes of it is no power of anything.
    """
    settings = small_settings(probe, LEAF)
    keys = list(settings)
    moving = _of(keys, run(settings))
    if _is_tame(moving):
        return moving, False
    still = _of(keys, run(held(settings)))
    return (still, True) if _is_tame(still) else (moving, False)


def _of(keys: list[Any], found: Any) -> Moved:
    return Moved(keys, found, drift(keys, found), _SETTLES)


def _is_tame(moved: Moved) -> bool:
    """Whether weights stay within a thousand times what they were, at gradients of sixteen."""
    for key in (("all", 0.0), ("all", "up"), ("weights", "up")):
        weights = moved.found.weights[LEAF][moved.places[key]]
        if not root_mean_square(weights[-1]) <= 1e3 * (SPREAD + root_mean_square(weights[0])):
            return False
    return True


def _by_shape(rule: Rule, small: Moved, layout: Layout, degree: float) -> Shape:
    """How sizes follow shapes, in the first two steps that move anything, of that degree."""
    steps = small.steps(("all", 0.0), LEAF)
    moving = np.flatnonzero([step.any() for step in steps])
    count = int(moving[0]) + 2 if len(moving) else 2

    def on(probe: Probe) -> Moved:
        settings = large_settings(probe, "square")
        found = program(rule, probe)(settings)
        return Moved(list(settings), found, _shares(small.without, probe))

    return shape(on(large_probe(count)), lambda: on(rank_one_probe(count)), layout, degree)


def _shares(small: Drift, probe: Probe) -> Drift:
    """The decay of the small probe, for the leaves of the large one."""
    if small.kind != "decay":
        return Drift("nothing", {}, {})
    of = {2: small.share[LEAF], 1: small.share["vector"]}
    return Drift("decay", {name: of[x.ndim] for name, x in probe.weights.items()}, {})


def _slope_at(slopes: Mapping[float, float], scale: float) -> float:
    """The degree in the half decade around or above a scale."""
    at = np.log10(scale)
    nearest = min(slopes, key=lambda x: (abs(x - at), -x))
    return slopes[nearest]


def _weight_reach(moved: Moved, weight: Degrees) -> Reach:
    found = reach(
        WEIGHT_SCALES, sizes(moved, LEAF, WEIGHT_SCALES, "weights"), float(weight.together)
    )
    return Reach(found.low * SPREAD, found.high * SPREAD, found.below, found.above)


def _first(moved: Moved) -> tuple[float, float]:
    """The size of the first update beside the usual one of the steps that count."""
    found = []
    for leaf in (LEAF, "vector"):
        later = [root_mean_square(x) for x in moved.steps(("all", 0.0), leaf)[_SETTLES:] if x.any()]
        size = root_mean_square(moved.first(("all", 0.0), leaf))
        found.append(size / float(np.median(later)) if later else np.nan)
    return found[0], found[1]


def _period(moved: Moved) -> int:
    """Every how many steps the weights move."""
    moves = np.flatnonzero([x.any() for x in moved.steps(("all", 0.0), LEAF)])
    gaps = np.diff(moves)
    return int(gaps.min()) if len(gaps) and gaps.min() == gaps.max() else 1


def _wander(found: Any, place: int) -> float:
    return wander(found.updates[LEAF][place], found.weights[LEAF][place])


def _narrow(rule: Rule, probe: Probe) -> float:
    """How far weights in bfloat16 come without gradients; NaN if the rule refuses them."""
    try:
        alone = only(probe, LEAF)
        found = program(rule, alone, jnp.bfloat16)(bare_settings(alone))
    # Whatever it is: it is the user's code.
    except Exception:
        return float("nan")
    return _wander(found, 0)


def _state_bytes(rule: Rule) -> float:
    params = shapes(Probe({"w": np.empty((_SIDE, _SIDE), np.float32)}, {}), rule.wrap)
    with usual_promotion():
        state = jax.eval_shape(rule.tx.init, params)
    kept = [x for x in jax.tree.leaves(state) if hasattr(x, "dtype")]
    return sum(x.size * x.dtype.itemsize for x in kept) / _SIDE**2
