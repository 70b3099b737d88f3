"""The script behind the page "Explore the exponents" computes what `scalex_eqx.theory` does."""

import importlib.util
import itertools
import math
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx import WeightSpec
from scalex_eqx.optim._adam_rule import EpsScaling, effective_eps

ROOT = Path(__file__).parents[2]
SCRIPT = (ROOT / "docs/javascripts/exponents.js").read_text(encoding="utf-8")
NAMES = ("standard", "ntk", "mup", "mean_field")
FAMILIES = ("sgd", "adam", "adafactor")
DEPTHS = (1, 2, 3, 6)

# What a solution says, as one line of text.
DESCRIBE = """
const { text } = ScaleExponents;
const exponents = (s) => Object.entries(s.exponents).map(([role, c]) => `${role} ${text(c)}`);
const layer = (s, one) => [
  one.name,
  ...[one.a, one.b, one.c, one.initialGradient, one.gradient, one.update, one.residual].map(text),
  ...s.binding[one.name],
].join(" ");
const describe = (s) => [
  ...exponents(s), ...s.layers.map((one) => layer(s, one)), s.verdict, ...s.notes,
  ...s.alternatives.flatMap((one) => [one.why, ...exponents(one.solution)]),
].join("; ");
const solved = ([name, family, alpha, omega, u, depth, tied]) => {
  const [a, o, v] = [alpha, omega, u].map(ScaleExponents.parse);
  const solver = tied ? ScaleExponents.solveTied : ScaleExponents.solve;
  const law = typeof name === "string" ? ScaleExponents.parameterizations[name] : {
    name: "mine", a: name[0].map(ScaleExponents.parse), b: name[1].map(ScaleExponents.parse)
  };
  return describe(
    solver(law, ScaleExponents.families[family], { alpha: a, omega: o, u: v }, depth)
  );
};
"""

# Parameterization by name or its (a, b), family, alpha, omega, u, depth, tied.
Case = tuple[Any, ...]


@pytest.fixture(scope="module")
def theory() -> ModuleType:
    """`scalex_eqx.theory` again, without the tests' type checks, which take thrice its time."""
    source = ROOT / "src/scalex_eqx/theory/__init__.py"
    spec = importlib.util.spec_from_file_location("unchecked_theory", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["unchecked_theory"] = module
    spec.loader.exec_module(module)
    return module


def run(tab: Any, function: str, argument: Any = None, script: str = SCRIPT) -> Any:
    """What a function in JavaScript returns, in which `E` is the script's."""
    return tab.evaluate(
        f"(argument) => {{ {script}; const E = ScaleExponents; return ({function})(argument) }}",
        argument,
    )


def by_script(tab: Any, cases: Sequence[Case], script: str = SCRIPT) -> list[str]:
    """What the script says of the cases; the name of the error where it fails."""
    attempt = "(one) => { try { return solved(one) } catch (error) { return error.name } }"
    return run(tab, f"(cases) => {{ {DESCRIBE}; return cases.map({attempt}) }}", cases, script)


def by_library(theory: ModuleType, case: Case) -> str:
    name, family, alpha, omega, u, depth, tied = case
    if isinstance(name, str):
        law = getattr(theory, name)
    else:
        law = theory.Parameterization("mine", *(theory.LayerExponents(*one) for one in name))
    alignment = theory.Alignment("", alpha, omega, u)
    law = law.tied() if tied else law
    solution = theory.solve(law, family, alignment, depth=depth)
    return describe(tied_readout(theory, law, alignment, solution) if tied else solution)


def tied_readout(theory: ModuleType, law: Any, alignment: Any, solution: Any) -> Any:
    """What happens if the readout, which is the embedding, has the embedding's learning rate."""
    layers, notes = sys.modules["unchecked_theory._layers"].as_layers(
        law, solution.family, alignment, len(solution.layers) - 2
    )
    rates = [one.c for one in solution.layers[:-1]] + [solution.exponents["embedding"]]
    others = {role: solution.exponents[role] for role in theory.Role if role in solution.exponents}
    others = {role: others[role] for role in (theory.Role.vector, theory.Role.constant)}
    assess_layers = sys.modules["unchecked_theory._assess"].assess_layers
    return assess_layers(layers, solution.family, rates, others, notes)


def describe(solution: Any) -> str:
    """As the script's."""
    binding = [entry.split(": ") for entry in solution.binding]
    layers = [
        [one.name]
        + [
            str(x)
            for x in (
                *(one.a, one.b, one.c),
                *(one.initial_gradient, one.gradient, one.update, one.residual),
            )
        ]
        + [name for layer, name in binding if layer == one.name]
        for one in solution.layers
    ]
    others = [text for one in solution.alternatives for text in (one.why, *rates(one.solution))]
    parts = [*rates(solution), *map(" ".join, layers), solution.verdict, *solution.notes, *others]
    return "; ".join(parts)


def rates(solution: Any) -> list[str]:
    return [f"{role} {c}" for role, c in solution.exponents.items()]


def alignments(steps: int) -> list[tuple[str, ...]]:
    """Every (alpha, omega, u) from 1/2 to 1 in so many steps."""
    grid = [str(Fraction(1, 2) + Fraction(k, 2 * steps)) for k in range(steps + 1)]
    return list(itertools.product(grid, repeat=3))


PAIRS = list(itertools.product(NAMES, FAMILIES))


def slider_cases() -> list[Case]:
    """Every alignment that the sliders have, each with a third of the pairs of a parameterization
    and a family. The thirds take turns, and so do depths and ties."""
    return [
        (*pair, *alignment, DEPTHS[(number // 3) % 4], (number // 12 + index) % 4 == 0)
        for index, pair in enumerate(PAIRS)
        for number, alignment in enumerate(alignments(10))
        if number % 3 == index % 3
    ]


def test_solutions_are_equal(tab: Any, theory: ModuleType):
    chosen = slider_cases()
    assert {case[2:5] for case in chosen} == set(alignments(10))
    assert len({(*case[:2], *case[5:]) for case in chosen}) == len(PAIRS) * len(DEPTHS) * 2
    shown = by_script(tab, chosen)
    assert sum("features are learned" in one for one in shown) > 1000
    different = (
        (case, one, expected)
        for case, one in zip(chosen, shown, strict=True)
        if one != (expected := by_library(theory, case))
    )
    assert next(different, None) is None


def coarse_cases(depths: Sequence[int]) -> list[Case]:
    """Every pair, depth and tie, with the ends of the sliders."""
    return [
        (*pair, *alignment, depth, tied)
        for pair, alignment, depth, tied in itertools.product(
            PAIRS, alignments(1), depths, (False, True)
        )
    ]


def test_every_depth_and_tie(tab: Any, theory: ModuleType):
    chosen = coarse_cases(DEPTHS)
    assert by_script(tab, chosen) == [by_library(theory, case) for case in chosen]


def test_exponents_of_ones_own(tab: Any, theory: ModuleType):
    laws = [
        (("0", "1/4", "1/2"), ("0", "1/4", "0")),
        (("-1/3", "7/10", "0"), ("1/3", "-1/5", "0.75")),
        (("1/997", "0", "2/991"), ("-1/997", "1/2", "3/2")),
    ]
    alignments = (("1", "1/2", "1"), ("3/5", "13/20", "1"))
    own = [
        (law, family, *alignment, 3, tied)
        for law, family, alignment, tied in itertools.product(
            laws, FAMILIES, alignments, (False, True)
        )
    ]
    assert by_script(tab, own) == [by_library(theory, case) for case in own]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"0 0 0", "0 1/2 1/2"', '"0 0 0", "0 11/20 1/2"'),
        ("add(residuals[0], s.omega)", 'add(residuals[0], parse("11/20"))'),
        ("omega: sub(add(layer.size, previous), s.omega)", "omega: sub(layer.size, s.omega)"),
        ("let [largest, previous] = [ZERO, ZERO]", "let [largest, previous] = [ONE, ZERO]"),
        ("weightDegree: ONE", "weightDegree: HALF"),
        ("exponents.embedding];", "exponents.readout];"),
        ('said + "more would make', 'said + "less would make'),
        ("update of the readout would exceed", "update of the readout might exceed"),
        ("less(layer.c, solution.layers[index].c)", "less(solution.layers[index].c, layer.c)"),
    ],
)
def test_an_altered_script_is_noticed(tab: Any, theory: ModuleType, old: str, new: str):
    assert SCRIPT.count(old) == 1
    chosen = coarse_cases([2])
    expected = [by_library(theory, case) for case in chosen]
    assert by_script(tab, chosen) == expected
    assert by_script(tab, chosen, SCRIPT.replace(old, new)) != expected


def test_alignments(tab: Any):
    texts = "(s) => [s.alpha, s.omega, s.u].map(E.text)"
    assert run(tab, f"() => Object.values(E.alignments).map({texts})") == [
        [str(s.alpha), str(s.omega), str(s.u)] for s in (sx.full_alignment, sx.no_alignment)
    ]
    assert run(tab, "() => Object.keys(E.alignments)") == ["full", "none"]


def test_gradient_exponents(tab: Any):
    shown = run(
        tab,
        """() => Object.values(E.parameterizations).flatMap((p) => [p, E.tied(p)]).map((law) =>
            Object.entries(E.gradientExponents(law)).map(([role, g]) => [role, E.text(g)])
        )""",
    )
    laws = [law for name in NAMES for law in (getattr(sx, name), getattr(sx, name).tied())]
    assert shown == [
        [[role, str(g)] for role, g in sx.theory.gradient_exponents(law).items()] for law in laws
    ]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (("1/3", "0", "0"), ("0", "1/2", "1/2")),
        (("0", "1/4", "0"), ("0", "1/2", "1/2")),
        (("0", "0", "-1"), ("0", "1/2", "1")),
        (("0", "0", "5"), ("0", "1/2", "-4")),
    ],
)
def test_unstable_at_initialisation(tab: Any, a: tuple[str, ...], b: tuple[str, ...]):
    said = run(tab, "([a, b]) => E.initialFault({ a: a.map(E.parse), b: b.map(E.parse) })", [a, b])
    law = sx.Parameterization("mine", sx.LayerExponents(*a), sx.LayerExponents(*b))
    if a[2] == "5":
        assert said is None and sx.theory.gradient_exponents(law)
    else:
        with pytest.raises(sx.theory.Infeasible) as refused:
            sx.theory.gradient_exponents(law)
        assert str(refused.value) == f"parameterization 'mine' is {said}"


@pytest.mark.parametrize("text", ["-3", " 2/4 ", "+1/3", "-0.75", ".5", "-.25"])
def test_reading_exponents(tab: Any, text: str):
    assert run(tab, "(text) => E.text(E.parse(text))", text) == str(Fraction(text))


@pytest.mark.parametrize("text", ["", "x", "1/0", "1/-2", "1/2/3", "1.", "1e3", "½"])
def test_refused_exponents(tab: Any, text: str):
    assert run(tab, "(text) => E.parse(text)", text) is None


def test_epsilon(tab: Any):
    """It is the one that Adam adds."""
    specs = [
        WeightSpec((-1,), (-2,), role=sx.Role(role), parameterization=law, width_ratio=Fraction(r))
        for role, law, r in itertools.product(
            ("embedding", "hidden", "readout"), (sx.standard, sx.mean_field), (1, 4, 1024)
        )
    ]
    scalings: tuple[EpsScaling, ...] = ("gradient", "constant")
    chosen = list(itertools.product((1e-8, 1e-12, 1e-16, 0.0), scalings, specs))
    shown = run(
        tab,
        "(all) => all.map(([eps, how, g, r]) => E.epsilonAt(eps, E.parse(g), how, r))",
        [
            (eps, how, str(spec.gradient_exponent), float(spec.width_ratio or 0))
            for eps, how, spec in chosen
        ],
    )
    assert shown == pytest.approx(
        [float(effective_eps(spec, eps, how, 0.999, jnp.float32)) for eps, how, spec in chosen]
    )


def test_where_a_tenth_is_lost(tab: Any):
    """There the gradient is nine times its epsilon."""
    function = """(all) => all.map(([base, g, eps, how]) => {
        const r = E.tenthLostAt(base, E.parse(g), eps, how);
        return [String(r), base * E.power(r, E.parse(g)), E.epsilonAt(eps, E.parse(g), how, r)];
    })"""
    chosen = list(
        itertools.product((1e-2, 1e-4), ("1/2", "3/2"), (1e-6, 1e-12), ("gradient", "constant"))
    )
    for _, gradient, epsilon in run(tab, function, chosen):
        assert gradient / (gradient + epsilon) == pytest.approx(0.9)
    never, already = run(tab, function, [(1e-2, "0", 1e-12, "constant"), (1e-11, "1", 1e-11, "")])
    assert (never[0], already[0]) == ("Infinity", "1")


DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


def test_what_dtypes_represent(tab: Any):
    numbers = [float(x) for x in 2.0 ** np.random.default_rng(0).uniform(-160, 130, 4000)]
    for info in map(ml_dtypes.finfo, DTYPES.values()):
        ends = (float(info.tiny), float(info.smallest_subnormal), float(info.max))
        numbers += [end * near for end in ends for near in (0.49, 0.51, 0.999, 1.0, 1.01)]
    function = "([dtype, numbers]) => numbers.map((x) => E.representation(x, E.dtypes[dtype]))"
    for name, dtype in DTYPES.items():
        shown = run(tab, function, [name, numbers])
        assert shown == [representation(x, dtype) for x in numbers]
        assert set(shown) == {"normal", "subnormal", "zero", "infinite"}


def representation(x: float, dtype: Any) -> str:
    """By rounding it."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = float(np.float64(x).astype(dtype))
    if math.isinf(rounded):
        return "infinite"
    if rounded >= float(ml_dtypes.finfo(dtype).tiny):
        return "normal"
    return "subnormal" if rounded else "zero"
