import dataclasses
from fractions import Fraction
from typing import Literal, get_args

from ._rational import Exponent, Number, exact, set_rounded
from ._role import Role

_TIED = " (tied)"


@dataclasses.dataclass(frozen=True, init=False)
class LayerExponents:
    """One exact exponent for each of the three kinds of matrices.

    **Arguments:** each an int, a `Fraction`, a string such as `"1/2"`, or a float, which is read
    as the nearest fraction with a denominator of at most 1000; `notes` says so.
    """

    embedding: Fraction
    hidden: Fraction
    readout: Fraction
    notes: tuple[str, ...] = dataclasses.field(init=False, compare=False, repr=False)

    def __init__(self, embedding: Number, hidden: Number, readout: Number):
        set_rounded(self, {"embedding": embedding, "hidden": hidden, "readout": readout})

    def __getitem__(self, role: Role) -> Fraction:
        """The exponent of `role`; it is zero for `vector` and `constant`, which are not scaled."""
        return getattr(self, Role(role), Fraction(0))


def derived(source: LayerExponents, **changed: Fraction) -> LayerExponents:
    """`source` with other exponents, and still with its notes on those that were rounded."""
    new = dataclasses.replace(source, **changed)
    object.__setattr__(new, "notes", source.notes)
    return new


@dataclasses.dataclass(frozen=True)
class UnitRules:
    """What [`scalex_eqx.theory.unit_scaled`][] adds to the exponents; see there."""

    embedding_rate: Fraction = Fraction(1, 2)
    bias: Literal["vector", "layer"] = "vector"
    depth: Literal["layers", "branches"] = "layers"

    def __post_init__(self):
        for name in ("bias", "depth"):
            known = get_args(self.__annotations__[name])
            if getattr(self, name) not in known:
                expected = " or ".join(map(repr, known))
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected {expected}")


@dataclasses.dataclass(frozen=True)
class Parameterization:
    r"""How the effective weights of a model and their initial values scale with its width.

    With $r = n / n_\text{base}$ the ratio of a weight's growing fan to the base model's,

    $$W_\text{effective} = r^{-a}\, m\, w, \qquad w \sim \sigma\, r^{-b}\, \mathcal N(0, 1).$$

    The constants $m$ and $\sigma$ belong to the base model; only the exponents are here. Biases
    and gains (roles `vector` and `constant`) have $a = b = 0$.

    **Arguments:**

    - `name`: how it is printed.
    - `a`: the multiplier's exponents (embedding, hidden, readout).
    - `b`: the exponents of the initial standard deviation.
    - `branch`: $\alpha$, the exponent of residual branches' factor $r_\text{depth}^{-\alpha}$,
        from 1/2 to 1; `None` if there is no law for the depth. See `deep`.
    - `unit`: if given, sizes are counted from one and not from a base model's, $\sigma = 1$, and
        these are the rules that come with it; see [`scalex_eqx.theory.unit_scaled`][].

    `standard`, `ntk`, `mup` and `mean_field` are ready-made; write your own as
    `Parameterization("mine", a=LayerExponents(0, "1/4", "1/2"), b=LayerExponents(0, "1/4", 0))`.

    ??? cite "Source"

        Table 1 of Everett et al., *Scaling Exponents Across Parameterizations and Optimizers*
        (2024), [arXiv:2407.05872](https://arxiv.org/abs/2407.05872).
    """

    name: str
    a: LayerExponents
    b: LayerExponents
    branch: Fraction | None = None
    unit: UnitRules | None = None

    def __post_init__(self):
        if self.branch is None:
            return
        object.__setattr__(self, "branch", exact(self.branch, "branch"))
        if not Fraction(1, 2) <= self.branch <= 1:
            raise ValueError(
                f"branch of {self.name!r} is {self.branch}; expected 1/2 to 1: below, the sum of "
                "the residual branches grows with the depth, and above it vanishes"
            )

    @property
    def notes(self) -> tuple[str, ...]:
        """What was rounded, a sentence each: empty unless exponents were given as floats."""
        return tuple(
            f"{field}, {note}" for field in ("a", "b") for note in getattr(self, field).notes
        )

    @property
    def is_tied(self) -> bool:
        """Whether it comes from `tied`."""
        # The exponents don't tell: those of muP are the same.
        return _TIED in self.name

    @property
    def logit_exponent(self) -> Fraction:
        r"""$A = a + b$ of the readout: the effective readout's entries are $r^{-A}$ at init."""
        return self.a.readout + self.b.readout

    @property
    def tie_exponent(self) -> Fraction:
        r"""Of a tied model, the exponent of the factor between its embedding's two uses.

        The weight is multiplied by $r^{-a_\text{embedding}}$, and by $r^{-(a_o -
        a_\text{embedding})}$ besides where it is used as readout.
        """
        return self.a.readout - self.a.embedding

    def deep(self, branch: Exponent = 1) -> "Parameterization":
        r"""The same parameterization with a law for the depth.

        With $L$ the ratio of the depths, each residual branch is multiplied by $L^{-\alpha}$, and
        learning rates and epsilons of the weights inside follow from that; see
        [`scalex_eqx.theory.depth_exponent`][]. $\alpha = 1$ is CompleteP, with which every layer
        learns features at every depth; $\alpha = 1/2$ is the least that keeps the residual stream
        bounded.

        **Arguments:**

        - `branch`: $\alpha$, exact, from 1/2 to 1.

        ??? cite "Source"

            Dey et al., *Don't be lazy: CompleteP enables compute-efficient deep transformers*
            (2025), [arXiv:2505.01618](https://arxiv.org/abs/2505.01618).
        """
        alpha = exact(branch, "branch")
        return dataclasses.replace(self, name=f"{self.name} (deep {alpha})", branch=alpha)

    def tied(self) -> "Parameterization":
        r"""The same parameterization for a model whose embedding is also its readout.

        The weight keeps the embedding's $b$ and has a second multiplier $r^{-a_o}$ where it is
        used as readout, with $a_o + b = 1$: trained embeddings are aligned with the features,
        so that the sum over the fan-in grows as $r$. The readout's exponents become
        $(a_o, b_\text{embedding})$, hence $A = 1$, in every parameterization.
        """
        if self.is_tied:
            return self
        b = self.b.embedding
        return dataclasses.replace(
            self,
            name=f"{self.name}{_TIED}",
            a=derived(self.a, readout=1 - b),
            b=derived(self.b, readout=b),
        )


def _table(name: str, a: tuple[str, str, str], b: tuple[str, str, str]) -> Parameterization:
    return Parameterization(
        name, LayerExponents(*map(Fraction, a)), LayerExponents(*map(Fraction, b))
    )


standard = _table("standard", ("0", "0", "0"), ("0", "1/2", "1/2"))
ntk = _table("ntk", ("0", "1/2", "1/2"), ("0", "0", "0"))
mup = _table("mup", ("-1/2", "0", "1/2"), ("1/2", "1/2", "1/2"))
mean_field = _table("mean_field", ("0", "1/2", "1"), ("0", "0", "0"))
