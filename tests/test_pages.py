"""Errors that a newcomer meets end with the section of the documentation that explains them."""

import re
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx import _explain
from scalex_eqx._explain import explanation, slug
from scalex_eqx._pages import Section, listed, see, topic

ROOT = Path(__file__).parents[1]
KEY = jax.random.key(0)


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


def missing(sections: Iterable[str]) -> list[str]:
    """The sections that the sources of the documentation don't have."""
    found = []
    for section in sections:
        page, _, anchor = section.partition("#")
        if not (ROOT / page).is_file() or anchor not in anchors(ROOT / page):
            found.append(section)
    return found


def test_every_section_is_there():
    assert len(Section) > 8
    assert missing(Section) == []


@pytest.mark.parametrize(
    "section",
    [
        "docs/weights.md#a-made-up-section",
        "docs/no-such-page.md#arithmetic-of-a-weight",
        "docs/weights.md",
        # A comment in a block of code is no heading.
        "docs/convert.md#from-here-on",
    ],
)
def test_a_section_that_is_not_there_is_found(section: str):
    assert missing([*Section, section]) == [section]


@pytest.mark.parametrize("section", Section)
def test_every_section_is_explained(section: Section):
    text = explanation(section)
    first, *rest = text.splitlines()
    assert slug(first.lstrip("# ")) == section.partition("#")[2]
    assert len(" ".join(rest)) > 100
    # It ends before the next heading of its rank: those inside are deeper.
    rank = len(first) - len(first.lstrip("#"))
    prose = re.sub(r"^```.*?^```$", "", "\n".join(rest), flags=re.M | re.S)
    assert all(len(marks) > rank for marks in re.findall(r"^(#+) ", prose, re.MULTILINE))


def test_the_wheel_has_every_page_that_is_explained():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    pages = {section.partition("#")[0] for section in Section}
    assert wheel == {page: f"scalex_eqx/_docs/{page.removeprefix('docs/')}" for page in pages}


def test_a_page_beside_the_package_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "weights.md").write_text("## A weight without its law\n\nAs installed.\n")
    monkeypatch.setattr(_explain, "_PLACES", (tmp_path, ROOT / "docs"))
    assert explanation(Section.no_law) == "## A weight without its law\n\nAs installed.\n"
    monkeypatch.setattr(_explain, "_PLACES", (tmp_path,))
    with pytest.raises(LookupError, match=r"docs/convert.md was not installed"):
        explanation(Section.conversion)
    with pytest.raises(LookupError, match="has no section arithmetic-of-a-weight"):
        explanation(Section.arithmetic)


def test_slugs_are_those_of_python_markdown():
    toc = pytest.importorskip("markdown.extensions.toc")
    for heading in ("A weight, `without` its law", "What isn't (yet) there?", "a - b  c"):
        assert slug(heading) == toc.slugify(heading, "-")


def test_each_section_is_named_once_and_last():
    errors = ["a: x" + see(Section.growth), "b: y", "c: z" + see(Section.growth)]
    assert listed("heading:", errors) == f"heading:\n  a: x\n  b: y\n  c: z{see(Section.growth)}"


# Every error with a section, provoked.


def scaled(make: Any, **more: Any) -> Any:
    settings = {"width": 16, "base_width": 4, "parameterization": sx.standard}
    return sx.parameterize(make, **{**settings, **more})


def good(width: int) -> Any:
    return sx.nn.Linear(width, width, key=KEY)


def build_with_a_base_that_follows(width: int, key: Any) -> Any:
    return scaled(good, width=width, base_width=width // 2)


def load(folder: Path, damage: Callable[[bytes], bytes] = bytes) -> Any:
    path = folder / "model"
    sx.save(path, scaled(good))
    path.write_bytes(damage(path.read_bytes()))
    return sx.load(path, scaled(good, parameterization=sx.ntk))


def check_coordinates() -> Any:
    def batch(key: Any) -> Any:
        return (jnp.ones((2, 8)),)

    build = build_with_a_base_that_follows
    return sx.diagnostics.coordinate_check(build, jnp.sum, sx.adam(0.1), batch, widths=(8, 16))


def convert_with_another_transformation() -> Any:
    model = scaled(good)
    tx = optax.chain(optax.clip_by_global_norm(1.0), sx.adam(0.1))
    return sx.convert(model, tx.init(model), to=sx.ntk, tx=tx)


def parameterize_model(base: int, probe: int, make: Any = good, values: Any = "keep") -> Any:
    shapes = (jax.eval_shape(lambda width=width: make(width)) for width in (base, probe))
    return sx.parameterize_model(make(16), *shapes, parameterization=sx.mup, values=values)


def readout(width: int) -> sx.nn.Readout:
    return sx.nn.Readout(width, width, key=KEY)


def tied(width: int) -> Any:
    return sx.nn.Embedding(3, width, key=KEY), sx.nn.TiedReadout(width)


def ambiguous(width: int) -> Any:
    return {"table": jnp.ones((3, width))}


ERRORS: dict[Section, list[Callable[[Path], Any]]] = {
    Section.arithmetic: [
        lambda _: good(4).weight @ jnp.ones(4),
        lambda _: jnp.sin(good(4).weight),
        lambda _: good(4).weight.shape,
    ],
    Section.unknown_role: [lambda _: scaled(ambiguous)],
    Section.growth: [
        lambda _: scaled(lambda width: sx.nn.Linear(width, width**2, key=KEY)),
        lambda _: scaled(lambda width: sx.nn.Linear(width, min(width, 8), key=KEY)),
        lambda _: parameterize_model(4, 8, lambda w: {"w": jnp.ones((w, w**2))}),
    ],
    Section.contradiction: [
        lambda _: scaled(readout),
        lambda _: scaled(lambda width: jnp.ones((width, width)), roles={"": "readout"}),
    ],
    Section.no_law: [
        lambda _: sx.adam(0.1).init(good(4)),
        lambda _: sx.adam(0.1).init(sx.resolve(scaled(good))),
        lambda _: sx.plan(sx.resolve(scaled(good)), sx.adam(0.1)),
        lambda _: good(4).weight.spec.gradient_exponent,
    ],
    Section.width: [
        lambda _: scaled(good, width=0),
        lambda _: scaled(good, base_width=-4),
        lambda _: scaled(good, probe_width=4),
        lambda _: parameterize_model(4, 4),
        lambda _: sx.nn.CausalSelfAttention(20, head_dimension=16, key=KEY),
    ],
    Section.base_widths: [lambda _: check_coordinates()],
    Section.heads: [
        lambda _: scaled(lambda width: eqx.nn.MultiheadAttention(2, width, key=KEY)),
        lambda _: scaled(
            lambda width: sx.nn.CausalSelfAttention(width, head_dimension=width // 2, key=KEY)
        ),
    ],
    Section.values: [
        lambda _: parameterize_model(4, 8, values=None),
        lambda _: scaled(good, trained=good(4)),
    ],
    Section.arrays: [lambda _: sx.unresolve(scaled(good), {})],
    Section.kept_tie: [lambda _: scaled(tied, trained=tied(16))],
    Section.use: [lambda _: scaled(good, use=lambda model: None)],
    Section.tie_by_hand: [
        lambda _: scaled(
            lambda width: {"table": jnp.ones((3, width))},
            use=lambda model: model["table"][jnp.arange(2)] @ model["table"].T,
        )
    ],
    Section.fused: [
        lambda _: scaled(
            lambda width: {"first": jnp.ones((width, 3)), "w": jnp.ones((width + 4, width))},
            layouts={"first": ("out", "in"), "w": ("out", "in")},
            use=lambda model: (model["w"] @ (model["first"] @ jnp.ones(3)))[:4],
        )
    ],
    Section.make: [lambda _: scaled(lambda width: {"w": np.tanh(jnp.ones((width, width)))})],
    Section.decay_schedule: [
        lambda _: sx.adamw(optax.constant_schedule(0.1), 0.01, decay_mode="independent")
    ],
    Section.mismatch: [
        lambda _: sx.adam(0.1).update(scaled(good), sx.adam(0.1).init(scaled(good, width=64))),
        lambda _: sx.adam(0.1).update(scaled(good), sx.lion(0.1).init(scaled(good))),
        lambda _: sx.adam(0.1).update(scaled(good), sx.adam(0.1).init({})),
        lambda _: sx.adam(0.1).update(scaled(good), ()),
    ],
    Section.decay_mode: [
        lambda _: sx.adamw(0.1, 0.01),
        lambda _: sx.lion(optax.constant_schedule(0.1), weight_decay=0.01),
    ],
    Section.no_factor: [
        lambda _: sx.adam(0.1, {"hidden": 9999}).init(scaled(good)),
        lambda _: sx.adam(0.1, role_multipliers={"hidden": 1e-60}).init(scaled(good)),
    ],
    Section.depth: [
        lambda _: scaled(good, depth=2, base_depth=1),
        lambda _: scaled(good, branches=["*"]),
        lambda _: scaled(good, depth=2, base_depth=1, parameterization=sx.mup.deep()),
    ],
    Section.no_match: [
        lambda _: scaled(good, roles={"wieght": "hidden"}),
        lambda _: scaled(good, frozen=[sx.nn.Readout]),
        lambda _: sx.adam(0.1, {"wieght": 1, "hidden": 1}).init(scaled(good)),
    ],
    Section.checkpoint: [
        lambda folder: load(folder),
        lambda _: sx.check_laws({}, sx.export_laws(scaled(good))),
    ],
    Section.damaged: [lambda folder: load(folder, lambda data: data[:-1])],
    Section.other_file: [
        lambda folder: load(folder, lambda _: b"something else"),
        lambda folder: load(folder, lambda _: b"scalex_eqx checkpoint 3\n"),
    ],
    Section.kept: [lambda folder: sx.save(folder / "a", [jax.ShapeDtypeStruct((2,), "float32")])],
    Section.exported: [lambda _: sx.check_laws({}, "{}")],
    Section.unit: [
        lambda _: sx.nn.unit.Linear(4, 4, key=KEY)(jnp.ones((1, 4)), mapped=1),
        lambda _: scaled(lambda width: sx.nn.unit.Linear(width, width, key=KEY)),
    ],
    Section.conversion: [lambda _: convert_with_another_transformation()],
}


@pytest.mark.parametrize(
    ("section", "provoke"),
    [(section, provoke) for section, several in ERRORS.items() for provoke in several],
    ids=[f"{section.name}-{i}" for section, one in ERRORS.items() for i in range(len(one))],
)
def test_an_error_ends_with_its_section(
    tmp_path: Path, section: Section, provoke: Callable[[Path], Any]
):
    with pytest.raises((ValueError, TypeError, AttributeError)) as caught:
        provoke(tmp_path)
    message = str(caught.value)
    assert message.splitlines()[-1] == f"See `scalex explain {topic(section)}`, or {section}"
    assert message.count("See ") == 1


def test_every_section_has_an_error():
    assert set(ERRORS) == set(Section)


def test_several_problems_name_each_section_once():
    def make(width: int) -> Any:
        return {"a": ambiguous(width), "b": ambiguous(width), "c": readout(width)}

    with pytest.raises(ValueError, match="cannot give every weight a law") as caught:
        scaled(make)
    sections = [line for line in str(caught.value).splitlines() if line.startswith("See ")]
    assert sections == [see(Section.unknown_role).strip(), see(Section.contradiction).strip()]
