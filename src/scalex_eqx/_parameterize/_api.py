import functools
import inspect
from collections.abc import Callable, Collection
from fractions import Fraction
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import PyTree

from .._pages import Section, see
from ..theory import Parameterization
from ._assign import Options
from ._law import give_law
from ._make import built, settled, shapes
from ._nodes import declares_all, find_nodes
from ._select import Choices, Key
from ._stacks import depth_ratio
from ._trained import with_specs

Frozen = Collection[Key] | Callable[[str, Any], Any]
Use = Callable[[PyTree], Any]


def parameterize(
    make: Callable[..., PyTree],
    *,
    width: int | np.integer,
    base_width: int | np.integer | None = None,
    parameterization: Parameterization,
    roles: Choices | None = None,
    layouts: Choices | None = None,
    factors: Choices | None = None,
    frozen: Frozen | None = None,
    probe_width: int | np.integer | None = None,
    force: bool = False,
    depth: int | np.integer | None = None,
    base_depth: int | np.integer | None = None,
    branches: Frozen | None = None,
    use: Use | None = None,
    trained: PyTree | None = None,
    parts: Choices | None = None,
) -> PyTree:
    r"""The model `make(width)` with the scaling law of every trainable array.

    $$w \sim \sigma\, r^{-b}, \qquad W_\text{effective} = r^{-(a + f)}\, w, \qquad
    r = \text{width} / \text{base_width}.$$

    `make` may return any pytree. Each [`scalex_eqx.Weight`][] in it is completed, and each other
    floating-point array becomes one. Comparing the shapes at `base_width` and at `probe_width`
    tells which axes grow, hence each array's role; which axes are summed over is known for the
    modules of `equinox.nn` and Flax NNX and their subclasses, and for layers of Linen and Haiku
    where names and shapes agree, declared by a `Weight`, and otherwise inferred where the shapes
    leave no choice. The state of stateful layers, integers and keys are left alone.

    The initial spread $\sigma$ is the base model's: the `std` that a `Weight` declares, or the root
    mean square of an array's entries, all layers of a stack together. A matrix is multiplied by
    what the law asks for. A bias or gain stays as it is drawn, unless its spread falls with the
    width; then its deviations from the mean are multiplied. Constants, such as zeros, stay.

    At `width == base_width` all parameterizations are the same model, the one that was tuned, and
    every value is bitwise what `make` returned.

    **Arguments:**

    - `make`: builds the model at a given width, e.g.
        `lambda width: eqx.nn.MLP(8, 4, width, 2, key=key)`. What it draws at random must come
        from keys that it holds.
    - `width`: the width wanted; smaller than the base width works as well.
    - `base_width`: the width at which the hyperparameters are tuned. `u_mup` has no base: there it
        is only a width at which `make` works, `width` if not given.
    - `parameterization`: `standard`, `ntk`, `mup`, `mean_field`, `u_mup` or your own. What `u_mup`
        does is said at [`scalex_eqx.theory.unit_scaled`][]: hidden matrices and readouts have a
        spread of one, and the rest stays as `make` draws it.
    - `roles`: the roles of some arrays. One that the shapes contradict is an error. Fans that stay
        contradict none: `"hidden"` is also a layer inside the model from or to a fixed size, and
        `"readout"` one of features whose number stays.
    - `layouts`: the names of some arrays' last axes: `"in"` if it is summed over, `"out"` if it is
        produced. Axes in front of them number stacked layers. They precede what is known.
    - `factors`: the exponents $f$ of factors $r^{-f}$ in the forward pass of some arrays, such as
        `"1/2"` for attention's queries where the heads' dimension grows. They leave the initial
        values and the exponents $a$ and $b$ alone.
    - `frozen`: the arrays that are not trained. Their initial values and multipliers are those of
        trained ones. One that has no law, and of which no other option says anything, stays as
        `make` drew it and gets the role `buffer`, as does one in a layer that normalises it.
    - `probe_width`: a second width at which `make` works, other than the base width; twice the
        base width by default.
    - `force`: whether `roles` may contradict the shapes.
    - `depth`, `base_depth`: the number of blocks wanted, and the one at which the hyperparameters
        are tuned. The parameterization needs a law for the depth, as `mup.deep(1)` has one, and
        `make` is called as `make(width, depth)`.
    - `branches`: the arrays in which a residual branch ends, weights and biases, and which then
        carry its factor. The blocks of [`scalex_eqx.nn`][] declare theirs.
    - `use`: what the training does with a model, `use(model)`: a loss on an example batch, a pair
        of it and more, or a forward pass. It is traced for shapes at both widths, and what it does
        with each array tells the array's axes and role: see *Read from the use* in the docs. What
        is declared, `roles` and `layouts` go before, and a contradiction is an error.
    - `trained`: a model of the wanted width that has been trained. It is what is returned, with its
        laws, and it computes what it did: each effective weight stays, $w = r^{a + f}\, W$. `make`
        then only shows the sizes, and draws nothing. With `base_width=width` the base is the
        model's own width. It may have been given another law before.

    `roles`, `layouts` and `factors` are each a mapping or a function. A mapping's keys are path
    patterns (`"layers/*/weight"`, in which `*` also matches slashes) or module types, which stand
    for all arrays in modules of that type or a subclass; under a type there may be a mapping from
    patterns of paths within the module, `{MyDense: {"kernel": ("in", "out")}}`. A function is
    called with path and array, or its shape, and returns a value or `None`. `frozen` and `branches`
    are each a collection of such keys, or a function that returns whether the array is one.

    **Returns:** the model. Works under `jit`, and under `vmap` over the keys.

    **Raises:** `ValueError` if the widths are not positive integers, the parameterization is not
    stable at initialisation, `make` asks for the values of arrays that it has drawn, the three
    models don't have the same arrays, or there are none; and,
    listing every offending path, if an array's role cannot be inferred, an axis grows at another
    rate than the width, a stack axis grows, a given or declared role contradicts the shapes, a
    `Weight` that needs a `std` has none or is completed already, a shared weight has uses without
    a law, a layer normalises its weight, or an option matches no array or says two things of one.
    With a depth also if blocks are not alike, or nothing ends a residual branch; with `trained`
    also if that is not the model that `make` builds, or an embedding that is trained is tied with
    another factor than the law's.
    """
    _check_is_function(make, sizes=1 if depth is None else 2)
    width = _checked("width", width)
    base_width = _checked("base_width", _base_width(base_width, width, parameterization))
    probe_width = 2 * base_width if probe_width is None else _checked("probe_width", probe_width)
    if probe_width == base_width:
        raise ValueError(
            f"probe_width and base_width are both {base_width}; which axes grow can only be seen "
            f"from two different widths{see(Section.width)}"
        )
    if depth is not None:
        depth = _checked("depth", depth)
    if base_depth is not None:
        base_depth = _checked("base_depth", base_depth)
    ratio = depth_ratio(depth, base_depth, parameterization, branches)
    base, probe, wanted = (
        tuple(size for size in sizes if size is not None)
        for sizes in ((base_width, base_depth), (probe_width, base_depth), (width, depth))
    )
    deeper = () if base_depth is None else ((base_width, 2 * base_depth),)
    models = _models(make, wanted, base, probe, *deeper, trained=trained)
    return give_law(
        models[:3],
        (_label(base), _label(probe), _label(wanted)),
        (Fraction(probe_width, base_width), Fraction(width, base_width)),
        parameterization,
        Options(
            roles,
            layouts,
            factors,
            frozen,
            force,
            branches,
            keep_values=trained is not None,
            use=use,
            parts=parts,
        ),
        None if ratio is None else (models[3], ratio),
        functools.partial(settled, make, *base),
    )


def parameterize_model(
    model: PyTree,
    base: PyTree,
    probe: PyTree,
    *,
    parameterization: Parameterization,
    roles: Choices | None = None,
    layouts: Choices | None = None,
    factors: Choices | None = None,
    frozen: Frozen | None = None,
    force: bool = False,
    values: str | None = None,
    use: Use | None = None,
    parts: Choices | None = None,
) -> PyTree:
    r"""A model that is there already, with the scaling law of every trainable array.

    It does what [`scalex_eqx.parameterize`][] does, for a model that no function of the width
    makes. The width ratio $r$ is the rate at which axes grow from `base` to `model`. What becomes
    of the values has to be said:

    $$w = r^{a + f}\, W \quad\text{with `values="keep"`}, \qquad
    w \sim \sigma\, r^{-b} \quad\text{with `values="rescale"`}.$$

    `"keep"` is for a model that has been trained: each effective weight stays what the array $W$
    is, so that the model computes what it did, up to rounding, whatever the parameterization.
    Learning rates, epsilon and decay follow the law from there on. A `std` is dropped: the values
    are no draw any more.

    `"rescale"` is for a fresh model. The initial spread $\sigma$ is measured if `base` holds
    arrays. If it holds shapes, the values of `model` are taken to be drawn with the usual spread:
    $1 / \sqrt{\text{fan-in}}$ where the fan-in grows, and one that does not depend on the width
    elsewhere. Under the standard parameterization they then stay as they are.

    **Arguments:**

    - `model`: the model, trained or freshly initialised.
    - `base`: the same model at the base width; arrays, or their shapes as `jax.eval_shape`
        returns them. It may be `model` itself: the base is then the model's own width. Any
        `Weight` in it has the spec that it has at that width.
    - `probe`: the same at another width than the base width, which may be `model` itself.
    - `parameterization`: `standard`, `ntk`, `mup`, `mean_field` or your own.
    - `roles`, `layouts`, `factors`, `frozen`, `force`, `use`, `parts`: as for `parameterize`.
    - `values`: `"keep"` or `"rescale"`; has to be given.

    **Returns:** the model.

    **Raises:** `ValueError` as `parameterize` does, if `values` is not given, if axes grow at
    different rates or nothing grows from `base` to `probe`, and with `"keep"` if an embedding that
    is trained is tied with another factor than the law's.
    """
    _check_values(values)
    return give_law(
        (base, probe, model),
        ("in base", "in probe", "in the model"),
        None,
        parameterization,
        Options(
            roles,
            layouts,
            factors,
            frozen,
            force,
            keep_values=values == "keep",
            use=use,
            parts=parts,
        ),
    )


def _base_width(base_width: Any, width: int, parameterization: Any) -> Any:
    """The base width that is given, or a width that serves in place of one where there is none."""
    is_unit = isinstance(parameterization, Parameterization) and parameterization.unit is not None
    if base_width is None and not is_unit:
        raise ValueError(
            "base_width is missing: give the width at which the hyperparameters are tuned"
            f"{see(Section.width)}"
        )
    return width if base_width is None else base_width


def _check_values(values: Any) -> None:
    if values not in ("keep", "rescale"):
        raise ValueError(
            f'values is {values!r}; say what becomes of the model\'s values: "keep" leaves what a '
            "trained model computes as it is, and divides each stored value by its multiplier; "
            '"rescale" takes them for a fresh draw, and gives each array the spread that the law '
            f"asks for{see(Section.values)}"
        )


_Sizes = tuple[int, ...]


def _models(
    make: Callable[..., PyTree],
    wanted: _Sizes,
    base: _Sizes,
    *probes: _Sizes,
    trained: PyTree | None,
) -> Any:
    """The model at the base, the first probe and the wanted sizes, then at further probes.

    With a trained model the others are shapes: no spread is asked for.

    Building it takes far longer than all that is done with it, under a trace above all: it is
    built once for each width, and as shapes only where no values are needed. Arrays come first:
    what `make` keeps from its first call are then no traces.
    """
    known = {wanted: (built if trained is None else shapes)(make, *wanted)}
    without_values = trained is not None or declares_all(known[wanted])
    if base not in known:
        known[base] = (shapes if without_values else built)(make, *base)
    for probe in probes:
        if probe not in known:
            known[probe] = shapes(make, *probe)
    first, *others = (known[probe] for probe in probes)
    model = known[wanted]
    if trained is not None:
        model = with_specs(trained, model, _label(wanted))
    return known[base], first, model, *others


def _label(sizes: _Sizes) -> str:
    return "at " + " and ".join(
        f"{name} {size}" for name, size in zip(("width", "depth"), sizes, strict=False)
    )


def _check_is_function(make: Any, sizes: int) -> None:
    # A module can be called too, and would take the width for its input.
    if not callable(make) or (isinstance(make, eqx.Module) and find_nodes(make)):
        raise ValueError(
            f"make is a {type(make).__name__}; expected a function of the width that builds the "
            "model, such as lambda width: MLP(width). For a model that is there already, did you "
            "mean scalex_eqx.parameterize_model(model, base, probe, ...)?"
        )
    if sizes == 2 and not _takes_two(make):
        raise ValueError(
            "make is called as make(width, depth) where a depth is given, but it does not take two "
            f"arguments{see(Section.depth)}"
        )


def _takes_two(make: Any) -> bool:
    try:
        inspect.signature(make).bind(1, 1)
    except TypeError:
        return False
    except ValueError:  # It has no signature to look at.
        return True
    return True


def _checked(name: str, width: Any) -> int:
    if isinstance(width, bool) or not isinstance(width, int | np.integer) or width < 1:
        raise ValueError(f"{name} is {width!r}; expected a positive integer{see(Section.width)}")
    return int(width)
