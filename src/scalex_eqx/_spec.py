import dataclasses
import math
import threading
import weakref
from collections.abc import Callable
from fractions import Fraction
from typing import ClassVar

from ._pages import Section, see
from .theory import (
    Parameterization,
    Power,
    Role,
    gradient_power,
    mean_field,
    mup,
    ntk,
    standard,
    u_mup,
)
from .theory._density import DENSITY_SPREAD
from .theory._power import GROWING, SIZES, Size, own_power, total

_LAWS = (standard, ntk, mup, mean_field)
# Those that a name is enough for.
_NAMED = {law.name: law for own in _LAWS for law in (own, own.tied())} | {u_mup.name: u_mup}


class _Interned(type):
    """Equal specs are one object, so that comparing and hashing them costs nothing.

    JAX does both for every weight at every call of a compiled function.
    """

    _known: ClassVar[weakref.WeakValueDictionary] = weakref.WeakValueDictionary()
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __call__(cls, *args, **kwargs):
        new = super().__call__(*args, **kwargs)
        fields = tuple(getattr(new, field.name) for field in dataclasses.fields(new))
        with cls._lock:
            return cls._known.setdefault((cls, fields), new)


@dataclasses.dataclass(frozen=True, eq=False)
class WeightSpec(metaclass=_Interned):
    r"""What is known of a weight beside its value: its scaling law.

    A layer declares the axes and how the value was drawn; [`scalex_eqx.parameterize`][]
    completes the rest. Equal specs are the same object, so compare them with `==` or `is`.

    **Arguments:**

    - `fan_in`, `fan_out`: the axes that are summed over, and those that are produced, counted
        from the end: `(-1,)` and `(-2,)` for a matrix that is applied as `weight @ x`. All
        other axes, which stand in front, are stack axes: layers stacked for a `scan`, or
        members of an ensemble.
    - `std`: $\sigma$, the standard deviation of the distribution that the value was drawn from,
        `None` if it was not drawn (a gain of ones). Once completed it is that of the base model;
        see `initial_std`.
    - `role`: how the axes grow with the width. Declared by a layer it is a promise that
        `parameterize` checks; left out it is inferred from the shapes.
    - `parameterization`: whose exponents hold; completed by `parameterize`.
    - `width_ratio`: $r = n / n_\text{base}$, exact; completed by `parameterize`. It is that of the
        weight's own width: of its fan-in if that grows, else of its fan-out.
    - `factor_exponent`: $f$ of a further factor $r^{-f}$ in the forward pass, exact. The initial
        value doesn't know of it; see `factors` of `parameterize`.
    - `sizes`: the exact ratios of sizes that grow at another rate than `width_ratio`, by name;
        completed by `parameterize`. See [`scalex_eqx.theory.Power`][] and `size_ratio`.
    - `frozen`: whether the weight keeps its law in the forward pass but is not trained.
    - `forced`: whether `force=True` gave it a role that its shapes contradict. It says nothing of
        the law, which the role has, and is not in the fingerprint.
    - `ends_branch`: whether a residual branch ends in the weight, which then carries the branch's
        factor $r_\text{depth}^{-\alpha}$, if the parameterization has a law for the depth.
    - `carries_tie`: whether what a tied readout meets is scaled by the weight, which then carries
        the readout's factor; completed by `parameterize`, where `use` shows a tie.
    - `why`: what the role was read from, in one phrase. It says nothing of the law.
    - `declared`: whether somebody said the role, a layer or `roles`; else it was inferred. It says
        nothing of the law either.
    - `density`: of a [`scalex_eqx.Masked`][] weight, the share of its entries that are kept, exact;
        `None` of one that is dense. What the law makes of it is in `sizes`.
    - `axes`: names of the last axes, such as `("inner", "width")`, by which
        [`scalex_eqx.shardings`][] splits them over devices; read from the role if not given. They
        say nothing of the law.
    - `scaled`: whether the layer, one of [`scalex_eqx.nn.unit`][], scales forward and backward
        pass by itself. [`scalex_eqx.resolve`][] then leaves the weight to it, and the gradient is
        of size one at all sizes. Declared by the layer, as are in `sizes` the `fan_in` of the
        layer, where the law's multiplier follows it and the role does not say so, and the `depth`
        of a stack.
    """

    fan_in: tuple[int, ...]
    fan_out: tuple[int, ...]
    std: float | None = None
    role: Role | None = None
    parameterization: Parameterization | None = None
    width_ratio: Fraction | None = None
    factor_exponent: Fraction = Fraction(0)
    frozen: bool = False
    sizes: tuple[tuple[Size, Fraction], ...] = ()
    forced: bool = False
    ends_branch: bool = False
    carries_tie: bool = False
    why: str = ""
    declared: bool = False
    density: Fraction | None = None
    axes: tuple[str, ...] = ()
    scaled: bool = False

    def __post_init__(self):
        self._check_declared()
        if self.role is not None:
            # Equal specs are one object, whether the role was given as a Role or as its name.
            object.__setattr__(self, "role", Role(self.role))
        axes = (*self.fan_in, *self.fan_out)
        if any(axis >= 0 for axis in axes) or len(set(axes)) < len(axes):
            raise ValueError(
                f"fan_in {self.fan_in} and fan_out {self.fan_out} must be distinct axes counted "
                "from the end (negative), so that stacked layers keep them"
            )
        if sorted(axes) != list(range(-len(axes), 0)):
            raise ValueError(
                f"fan_in {self.fan_in} and fan_out {self.fan_out} must together be the last "
                f"{len(axes)} axes; only stack axes stand in front of them"
            )
        if self.axes and (
            not isinstance(self.axes, tuple)
            or not all(isinstance(name, str) for name in self.axes)
            or len(self.axes) < len(axes)
        ):
            raise ValueError(
                f"axes is {self.axes!r}; expected a tuple of at least {len(axes)} names, one for "
                "each of the last axes"
            )

    def _check_declared(self) -> None:
        for name in ("fan_in", "fan_out"):
            axes = getattr(self, name)
            if not isinstance(axes, tuple) or not all(isinstance(axis, int) for axis in axes):
                raise ValueError(f"{name} is {axes!r}; expected a tuple of axes such as (-1,)")
        if self.std is not None and not (
            isinstance(self.std, float | int) and 0 <= self.std < float("inf")
        ):
            raise ValueError(f"std is {self.std!r}; expected a number of at least 0, or None")
        if self.role is not None and self.role not in list(Role):
            raise ValueError(f"role is {self.role!r}; expected one of {', '.join(Role)}, or None")
        if not isinstance(self.factor_exponent, Fraction):
            raise ValueError(
                f"factor_exponent is {self.factor_exponent!r}; expected a Fraction: exponents are "
                "exact"
            )
        if self.role is Role.buffer and self.factor_exponent:
            raise ValueError(
                f"factor_exponent is {self.factor_exponent} of a buffer, which has no scaling law; "
                "drop it"
            )

    def __reduce__(self):
        return WeightSpec, tuple(getattr(self, f.name) for f in dataclasses.fields(self))

    def __repr__(self) -> str:
        law = self.parameterization
        own = "" if law is None or law == _NAMED.get(law.name) else f", {law!r}"
        return f"WeightSpec({self.summary(repr)}{own})"

    def summary(self, number: Callable[[float], str] = "{:.4g}".format) -> str:
        """What is known, in a few words: `(out, in), hidden, mup, r=4`.

        **Arguments:**

        - `number`: writes the `std`; with four digits unless another is given.
        """
        law = self.parameterization
        axes = range(-len(self.fan_in) - len(self.fan_out), 0)
        names = ["in" if axis in self.fan_in else "out" for axis in axes]
        known = {
            f"({', '.join(names)}{',' * (len(names) == 1)})": True,
            f"{self.role}": self.role is not None,
            "incomplete": not self.is_complete,
            f"{self.parameterization and self.parameterization.name}": self.is_complete,
            f"r={self.width_ratio}": self.width_ratio is not None,
            ", ".join(f"{size}={ratio}" for size, ratio in self.sizes): bool(self.sizes),
            f"std={self.std if self.std is None else number(self.std)}": self.std is not None,
            f"factor={self.factor_exponent}": self.factor_exponent != 0,
            f"density {self.density}": self.density is not None,
            "scaled by its layer": self.scaled,
            "frozen": self.frozen,
            "forced": self.forced,
            "carries the tied readout's factor": self.carries_tie,
            "ends a branch": self.ends_branch and (law is None or law.branch is not None),
        }
        return ", ".join(words for words, is_said in known.items() if is_said)

    @property
    def is_complete(self) -> bool:
        """Whether `parameterize` has been here."""
        return self.parameterization is not None

    @property
    def is_trained(self) -> bool:
        """Whether update rules move it: it is neither a `buffer` nor frozen."""
        return (self.role is None or self.role.is_trained) and not self.frozen

    @property
    def multiplier(self) -> float:
        """$r^{-(a + f)}$, the value's factor in the forward pass; 1 until completed."""
        return self.scale(self.multiplier_power) if self.is_complete else 1.0

    @property
    def multiplier_exponent(self) -> Fraction:
        """$a + f$."""
        parameterization, role, _ = self._completed()
        return parameterization.a[role] + self.factor_exponent

    @property
    def multiplier_power(self) -> Power:
        """How the multiplier follows the weight's sizes: `multiplier_exponent`, and the depth."""
        own = self.own(self.multiplier_exponent)
        parameterization, _, _ = self._completed()
        if self.ends_branch:
            own += Power(depth=parameterization.branch or 0)
        if self.carries_tie:
            own += Power(readout=parameterization.tie_exponent)
        return own + self._of_layer(parameterization)

    def _of_layer(self, law: Parameterization) -> Power:
        """What the law multiplies a scaled weight by that does not follow from its role.

        An input that is summed over has a fan that does not grow, and a bias that of its layer.
        """
        if law.unit is None or not any(size == "fan_in" for size, _ in self.sizes):
            return Power()
        if self.role is Role.embedding:
            return Power(fan_in=law.a.hidden)
        if self.fan_in or law.unit.bias == "vector":
            return Power()
        return Power(fan_in=law.a.readout if self.role is Role.constant else law.a.hidden)

    @property
    def spread_exponent(self) -> Fraction:
        """$b$: the initial spread is $r^{-b}$ times the base model's."""
        parameterization, role, _ = self._completed()
        return parameterization.b[role]

    @property
    def spread_power(self) -> Power:
        """How the initial spread follows the weight's sizes."""
        own = self.own(self.spread_exponent)
        return own if self.density is None else own + DENSITY_SPREAD

    @property
    def initial_std(self) -> float | None:
        r"""$\sigma r^{-b}$, the standard deviation at initialisation; `None` if not declared."""
        return None if self.std is None else self.std * self.scale(self.spread_power)

    @property
    def gradient_exponent(self) -> Fraction:
        """$g + f$: the gradient's entries are $r^{-(g + f)}$ times the base model's at first.

        That is where all sizes grow at one rate; see `gradient_power`. Zero for a `buffer`, which
        has no gradient.
        """
        return self.gradient_power.total

    @property
    def gradient_power(self) -> Power:
        """How the gradient's entries follow the weight's sizes at first."""
        return Power() if self.scaled else self.natural_gradient_power

    @property
    def natural_gradient_power(self) -> Power:
        """The same where nothing but the loss and the forward pass makes the gradient."""
        parameterization, role, _ = self._completed()
        return gradient_power(parameterization, role) + self.own(self.factor_exponent)

    def own(self, exponent: Fraction) -> Power:
        """A power of the weight's own width, $r$."""
        return own_power(self._completed()[1], exponent)

    def size_ratio(self, size: Size) -> Fraction:
        """The exact ratio of one of the weight's sizes to the base model's; 1 if it stays."""
        _, role, ratio = self._completed()
        return dict(self.sizes).get(size, ratio if size in GROWING[role] else Fraction(1))

    def scale(self, exponent: Fraction | Power) -> float:
        r"""$r^{-\text{exponent}}$, exactly 1 where the exponent is zero.

        A `Power` is taken over the weight's sizes, a number is one of its own width, $r$.

        **Raises:** `ValueError` for one that isn't between $2^{-100}$ and $2^{100}$: as a learning
        rate it would stop or blow up the training, and most dtypes have no such number.
        """
        if isinstance(exponent, Fraction) or not self.sizes:
            return _raised(self._completed()[2], total(exponent))
        # Sizes that grow at one rate make one power: it is the same number where all do.
        exponents: dict[Fraction, Fraction] = {}
        for size in SIZES:
            ratio = self.size_ratio(size)
            exponents[ratio] = exponents.get(ratio, Fraction(0)) + exponent[size]
        self._join_density(exponents)
        return math.prod(_raised(ratio, e) for ratio, e in exponents.items())

    def _join_density(self, exponents: dict[Fraction, Fraction]) -> None:
        """Takes the density together with a size of its exponent: they may make up for each other.

        A wider layer that keeps as many entries an output then has the very numbers of the base.
        """
        density = self.size_ratio("density")
        own = exponents.get(density)
        alike = [ratio for ratio, e in exponents.items() if e == own and ratio not in (density, 1)]
        if density != 1 and own and alike:
            del exponents[density], exponents[alike[0]]
            both = density * alike[0]
            exponents[both] = exponents.get(both, Fraction(0)) + own

    def stack_axes(self, ndim: int) -> tuple[int, ...]:
        """The leading axes of an array with `ndim` axes that number separate weights."""
        return tuple(range(ndim - len(self.fan_in) - len(self.fan_out)))

    def _completed(self) -> tuple[Parameterization, Role, Fraction]:
        if self.parameterization is None or self.role is None or self.width_ratio is None:
            raise ValueError(
                f"{self} is not completed: build the model with parameterize{see(Section.no_law)}"
            )
        return self.parameterization, self.role, self.width_ratio


def _raised(ratio: Fraction, exponent: Fraction) -> float:
    if not exponent:
        return 1.0
    try:
        factor = float(ratio) ** -float(exponent)
    except OverflowError:
        factor = float("inf")
    if not 2.0**-100 <= factor <= 2.0**100:
        raise ValueError(
            f"the factor r^({-exponent}) at the width ratio r = {ratio} is {factor:.3g}; "
            "expected one between 2^-100 and 2^100. Check the exponents of rates, "
            f"parameterization, alignment and factors{see(Section.no_factor)}"
        )
    return factor
