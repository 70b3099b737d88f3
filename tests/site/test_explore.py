"""The page "Explore the exponents", used in a browser."""

import decimal
import itertools
import math
import shlex
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax
import pytest
import tyro

import scalex_eqx as sx
from scalex_eqx.cli._exponents import Exponents
from scalex_eqx.cli._gradient_sizes import gradient_sizes
from scalex_eqx.problems import load_corpus, text as text_problem
from scalex_eqx.theory import LayerSolution, Solution

MATRICES = ("embedding", "hidden", "readout")
BASE_GRADIENTS = {"embedding": 8.7e-4, "hidden": 2.1e-3, "readout": 1e-2, "vector": 6.8e-3}


@pytest.fixture
def address(site: Path) -> str:
    """The page as a file, without a server."""
    return (site / "explore.html").as_uri()


@pytest.fixture
def explore(page: Any, address: str) -> Any:
    """The page as it opens."""
    page.goto(address)
    return page


def table(page: Any, name: str) -> dict[str, list[list[str]]]:
    """The lines of each cell, by the heading of the row. A minus is written as a hyphen."""
    rows = page.evaluate(
        """(name) => [...document.querySelectorAll(`[data-table=${name}] tbody tr`)].map((row) =>
            [...row.cells].map((cell) => {
                const lines = [...cell.querySelectorAll(".explore-line")];
                return (lines.length ? lines : [cell]).map((line) => line.textContent);
            })
        )""",
        name,
    )
    cells = [[[line.replace("−", "-") for line in cell] for cell in row] for row in rows]
    return {heading[0]: row for heading, *row in cells}


def shown(x: float) -> str:
    """Three digits, as the page writes them."""
    half_up = decimal.Context(prec=3, rounding=decimal.ROUND_HALF_UP)
    rounded = float(half_up.create_decimal_from_float(x))
    if rounded == 0 or 1e-3 <= rounded < 1e5:
        return f"{rounded:g}"
    digits, exponent = f"{rounded:e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


def text(page: Any, selector: str) -> str:
    return page.locator(selector).text_content()


def assert_shows(
    page: Any, law: sx.Parameterization, solution: Solution, r: int, rate: float = 0.01
) -> None:
    """That the tables say what the library does."""
    gradients = sx.theory.gradient_exponents(law)
    by_role = {}
    for role, c in solution.exponents.items():
        exponents = (law.a[role], law.b[role], gradients[role], c)
        cells = [[str(x), f"(factor {shown(r ** -float(x))})"] for x in exponents]
        by_role[str(role)] = [*cells, [shown(rate * r ** -float(c))]]
    assert table(page, "roles") == by_role
    name = f"{law.name}, {solution.family.name}"
    assert text(page, ".explore-verdict") == f"{name}: {solution.verdict}."

    binding = [entry.split(": ") for entry in solution.binding]

    def row_of(one: LayerSolution) -> tuple[str, ...]:
        names = [name for layer, name in binding if layer == one.name]
        numbers = (one.c, one.gradient, one.update, one.residual)
        return (*map(str, numbers), ", ".join(names))

    groups = [
        (row, [one.name for one in same])
        for row, same in itertools.groupby(solution.layers, row_of)
    ]
    by_layer = {
        names[0] + (f" to {names[-1].split()[1]}" if len(names) > 1 else ""): [[x] for x in row]
        for row, names in groups
    }
    assert table(page, "layers") == by_layer


def test_opens_as_a_file(explore: Any):
    """At the default choice; the fixture sees that there are no errors."""
    assert explore.url.startswith("file:")
    assert not explore.get_by_text("This page needs JavaScript").is_visible()
    solution = sx.theory.solve(sx.standard, "adam", sx.full_alignment, depth=4)
    assert_shows(explore, sx.standard, solution, 16)
    fields = {role: explore.get_by_label(f"Gradient, {role}") for role in BASE_GRADIENTS}
    assert {role: float(field.input_value()) for role, field in fields.items()} == BASE_GRADIENTS


def test_without_javascript(browser: Any, address: str):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert page.get_by_text("This page needs JavaScript").is_visible()
    assert page.get_by_role("link", name="the tables of the theory").is_visible()
    assert not page.get_by_label("Parameterization").is_visible()
    assert not page.get_by_role("table").count()
    context.close()


def test_selects(explore: Any):
    explore.get_by_label("Assumption").select_option("none")
    explore.get_by_label("Hidden layers").fill("1")
    for law, family in itertools.product((sx.mup, sx.mean_field), ("sgd", "adam", "adafactor")):
        explore.get_by_label("Parameterization").select_option(law.name)
        explore.get_by_label("Update family").select_option(family)
        assert_shows(explore, law, sx.theory.solve(law, family, sx.no_alignment), 16)


def test_sliders_by_keyboard(explore: Any):
    explore.get_by_label("Parameterization").select_option("ntk")
    alpha, omega = (explore.get_by_role("slider", name=name) for name in ("alpha", "omega"))
    for slider, key, times in ((alpha, "ArrowLeft", 3), (omega, "ArrowRight", 2)):
        slider.focus()
        for _ in range(times):
            explore.keyboard.press(key)
    assert alpha.get_attribute("aria-valuetext") == "17/20"
    assert omega.get_attribute("aria-valuetext") == "3/5"
    assert explore.get_by_label("Assumption").input_value() == "own"
    ratio = explore.get_by_role("slider", name="Width ratio")
    ratio.focus()
    explore.keyboard.press("End")
    assert ratio.get_attribute("aria-valuetext") == "1024, width 65536"
    alignment = sx.Alignment("", "17/20", "3/5", "1")
    solution = sx.theory.solve(sx.ntk, "adam", alignment, depth=4)
    assert_shows(explore, sx.ntk, solution, 1024)
    (alternative,) = solution.alternatives
    said = explore.locator(".explore-more li").all_text_contents()
    assert alternative.why in said[0] and said[1:] == list(solution.notes)

    explore.get_by_label("Assumption").select_option("full")
    assert (alpha.input_value(), omega.input_value()) == ("1", "0.5")


def test_exponents_of_ones_own(explore: Any):
    explore.get_by_label("Parameterization").select_option("own")
    explore.get_by_label("b, readout").fill("2/3")
    law = sx.Parameterization(
        "mine", sx.LayerExponents(0, 0, 0), sx.LayerExponents(0, "1/2", "2/3")
    )
    solution = sx.theory.solve(law, "adam", sx.full_alignment, depth=4)
    assert_shows(explore, law, solution, 16)


REFUSED = [
    ("b, readout", "x", "b, readout"),
    ("b, hidden", "1/3", "a + b = 1/2"),
    ("Base width", "1.5", "Base width: expected a whole number from 1"),
    ("Hidden layers", "", "Hidden layers"),
    ("Gradient, hidden", "0", "Gradient, hidden: expected a number from 1e-30"),
    ("Epsilon at the base width", "-1", "Epsilon at the base width"),
]


def test_refused_values(explore: Any):
    explore.get_by_label("Parameterization").select_option("own")
    alert = explore.get_by_role("alert")
    for label, value, said in REFUSED:
        field = explore.get_by_label(label, exact=True)
        before = field.input_value()
        field.fill(value)
        assert said in alert.text_content()
        assert field.is_visible() and not explore.locator(".explore-output:visible").count()
        field.fill(before)
        assert not alert.is_visible() and explore.locator(".explore-verdict").is_visible()


def test_tied(explore: Any):
    """The readout has the embedding's exponents, and no gradient of its own."""
    explore.get_by_label("Parameterization").select_option("mup")
    explore.get_by_label("Tied embeddings").check()
    law = sx.mup.tied()
    c = sx.theory.learning_rate_exponents(law, "adam", sx.full_alignment)
    assert c[sx.Role.readout] == c[sx.Role.embedding]
    roles = table(explore, "roles")
    readout = roles.pop("readout (tied: the embedding)")
    assert [cell[0] for cell in readout] == [str(x) for x in ("1/2", "1/2", "1/2", "1/2")] + [
        "0.0025"
    ]
    assert {role: cells[3][0] for role, cells in roles.items()} == {
        role: str(x) for role, x in c.items() if role != "readout"
    }
    assert set(table(explore, "gradients")) == {"embedding", "hidden", "vector"}


def test_gradients_against_epsilon(explore: Any):
    explore.get_by_label("Parameterization").select_option("mean_field")
    explore.get_by_label("Width ratio").fill("10")
    explore.get_by_label("Epsilon at the base width").fill("1e-6")
    explore.get_by_label("Scaling of epsilon").select_option("constant")
    found = table(explore, "gradients")
    exponents = sx.theory.gradient_exponents(sx.mean_field)
    for role, base in BASE_GRADIENTS.items():
        gradient = base * 1024 ** -float(exponents[sx.Role(role)])
        kept = 100 * gradient / (gradient + 1e-6)
        numbers = [[shown(gradient)], ["1e-6"], [f"{kept:.1f} %"]]
        assert found[role][:3] == numbers
    assert found["hidden"][3:] == [
        ["normal: gradient, square, epsilon"],
        ["normal: gradient, square, epsilon"],
        ["subnormal: gradient, epsilon", "zero: square"],
    ]
    width = 64 * (BASE_GRADIENTS["hidden"] / 9e-6) ** (2 / 3)
    assert text(explore, ".explore-lost") == (
        f"Epsilon takes a tenth of an update first of role hidden, at width {shown(width)}."
    )
    explore.get_by_label("Scaling of epsilon").select_option("gradient")
    kept = 100 * 2.1e-3 / (2.1e-3 + 1e-6)
    assert {cells[2][0] for cells in table(explore, "gradients").values()} <= {
        f"{100 * x / (x + 1e-6):.1f} %" if x < 1.9e-3 else "> 99.9 %" for x in (8.7e-4, 2.1e-3)
    } | {f"{kept:.1f} %"}

    explore.get_by_label("Update family").select_option("sgd")
    assert explore.get_by_label("Epsilon at the base width").is_disabled()
    assert table(explore, "gradients")["hidden"][1:3] == [["none"], ["100 %"]]


def test_where_epsilon_takes_nothing(explore: Any):
    for family, start in (
        ("adam", "Below width 1e12, epsilon"),
        ("adafactor", "In Adam with parameter scaling, below width 1e12, epsilon"),
    ):
        explore.get_by_label("Update family").select_option(family)
        said = text(explore, ".explore-lost")
        assert said == f"{start} takes less than a tenth of every role's update."
    # By the size of the gradients at that width.
    exponents = sx.theory.gradient_exponents(sx.standard)
    for role, base in BASE_GRADIENTS.items():
        gradient = base * (1e12 / 64) ** -float(exponents[sx.Role(role)])
        assert gradient > 9 * 3.4e-18
    explore.get_by_label("Scaling of epsilon").select_option("constant")
    explore.get_by_label("Epsilon at the base width").fill("1e-6")
    assert "takes a tenth of an update first" in text(explore, ".explore-lost")


def test_default_gradients():
    """Those of the smallest weights of the transfer run's model."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the text is the standard library, of which the page has Python 3.11's")
    smallest: dict[str, float] = {}
    problem = text_problem(load_corpus(None))
    for spec, size in gradient_sizes(problem, sx.standard, 64, width=64).values():
        assert spec.role is not None
        smallest[spec.role] = min(size, smallest.get(spec.role, size))
    assert smallest == pytest.approx(BASE_GRADIENTS, rel=0.25)


def test_picture(explore: Any):
    """Lines fall by their exponents, and the picture is told in words."""
    picture = explore.get_by_role("img", name="Gradient against width, by role")
    assert "hidden: gradient from 0.0021 to 6.56e" in picture.locator("desc").text_content()
    for law in (sx.standard, sx.mean_field):
        explore.get_by_label("Parameterization").select_option(law.name)
        exponents = sx.theory.gradient_exponents(law)
        for role, base in BASE_GRADIENTS.items():
            sizes = drawn(picture, f"polyline.gradient.{role}")
            assert len(sizes) == 11
            c = float(exponents[sx.Role(role)])
            assert sizes == pytest.approx([math.log10(base * 2 ** (-c * k)) for k in range(11)])


def axis(picture: Any) -> tuple[float, float, float, float]:
    """Two decades of the axis, the highest and the lowest, and where they stand."""
    labels = picture.locator("text[text-anchor=end]").evaluate_all(
        "(all) => all.map((one) => [one.textContent, Number(one.getAttribute('y')) - 4])"
    )
    decades = [math.log10(float(label.replace("−", "-"))) for label, _ in labels]
    assert 3 <= len(labels) <= 10 and decades == sorted(decades, reverse=True)
    return decades[0], decades[-1], labels[0][1], labels[-1][1]


def drawn(picture: Any, selector: str) -> list[float]:
    """The decades that a line goes through, read off the axis."""
    high, low, top, bottom = axis(picture)
    points = picture.locator(selector).get_attribute("points").split()
    heights = [float(point.split(",")[1]) for point in points]
    return [high + (y - top) / (bottom - top) * (low - high) for y in heights]


SQUARES, NORMAL = "1.08e−19", "1.18e−38"


@pytest.mark.parametrize(
    ("fragment", "inside", "below"),
    [
        ("", 1, (SQUARES, NORMAL)),
        ("family=sgd", 1, (SQUARES, NORMAL)),
        ("family=sgd&g_embedding=1&g_hidden=1&g_readout=1&g_vector=1e6", 0, (SQUARES, NORMAL)),
        ("g_hidden=1e-17", 2, (NORMAL,)),
        ("family=sgd&g_hidden=1e-30&parameterization=mean_field&octaves=10", 3, ()),
        # Beyond what is drawn.
        ("family=sgd&parameterization=own&a_hidden=30&b_hidden=-59/2", 3, ()),
    ],
)
def test_axis(page: Any, address: str, fragment: str, inside: int, below: tuple[str, ...]):
    """It ends a few decades below the lowest line, and what lies below is said."""
    page.goto(f"{address}#base=64&{fragment}")
    picture = page.get_by_role("img", name="Gradient against width, by role")
    high, low, _, _ = axis(picture)
    lines = [
        size
        for role in BASE_GRADIENTS
        for kind in ("gradient", "epsilon")
        if kind == "gradient" or "sgd" not in fragment
        for size in drawn(picture, f"polyline.{kind}.{role}")
    ]
    assert high == max(high, 0) >= max(lines) - 1e-9
    room = min(lines) - low
    assert 2 <= room + 1e-9 <= 2 + 10 or low == -40
    assert picture.locator("line.dtype").count() == inside
    said = text(page, ".explore-below")
    assert bool(said) == bool(below) and all(value in said for value in below)
    words = picture.locator("desc").text_content()
    assert words.endswith(said) and words.count(NORMAL) == 1
    assert words.partition("Below the picture's lower edge")[0].count(NORMAL) == (
        NORMAL not in below
    )


def test_link(explore: Any, page: Any, address: str):
    """A choice is in the address, and comes back with it."""
    assert "#" not in explore.url
    explore.get_by_label("Parameterization").select_option("own")
    explore.get_by_label("a, hidden").fill("1/4")
    explore.get_by_label("b, hidden").fill("0.25")
    explore.get_by_label("Update family").select_option("adafactor")
    explore.get_by_label("Tied embeddings").check()
    explore.get_by_label("omega").fill("0.65")
    explore.get_by_label("Hidden layers").fill("2")
    explore.get_by_label("Learning rate at the base width").fill("0.5")
    before = [table(explore, name) for name in ("roles", "layers", "gradients")]
    link = explore.get_by_role("link", name="Link to this choice").evaluate("(link) => link.href")
    assert link == explore.url
    explore.goto("about:blank")
    explore.goto(link)
    assert [table(explore, name) for name in ("roles", "layers", "gradients")] == before
    # Followed on the page itself.
    explore.evaluate("location.hash = 'parameterization=ntk&alignment=none'")
    explore.wait_for_function("document.querySelector('[name=alignment]').value === 'none'")
    solution = sx.theory.solve(sx.ntk, "adam", sx.no_alignment, depth=4)
    assert_shows(explore, sx.ntk, solution, 16)


def test_link_that_cannot_be_followed(explore: Any):
    for wrong in ("family=lamb", "depht=3", "alpha=2", "base=x", "tied=no"):
        explore.evaluate("(hash) => { location.hash = hash }", f"parameterization=mup&{wrong}")
        alert = explore.get_by_role("alert").filter(has_text=wrong)
        alert.wait_for()
        assert alert.text_content() == f"The link has {wrong}, which this page cannot follow."
        assert explore.get_by_label("Parameterization").input_value() == "mup"
        assert explore.get_by_label("Update family").input_value() == "adam"


def make(width: int) -> list[Any]:
    first, second, third = jax.random.split(jax.random.key(0), 3)
    return [
        sx.nn.Linear(8, width, key=first),
        sx.nn.Linear(width, width, key=second),
        sx.nn.Readout(width, 1, key=third),
    ]


@pytest.mark.parametrize(
    "fragment",
    [
        "parameterization=mup&alignment=none",
        "parameterization=own&a_hidden=1/4&b_hidden=1/4&family=sgd",
        "family=adafactor&alpha=0.8&omega=0.6&epsilon=1e-9&scaling=constant",
        "alpha=0.75&epsilon=0",
    ],
)
def test_code(page: Any, address: str, fragment: str):
    """It runs, and makes the learning rates that the page shows."""
    page.goto(f"{address}#{fragment}&octaves=1&base=16&depth=1")
    code = page.get_by_text("import scalex_eqx as sx").text_content()
    namespace: dict[str, Any] = {"make": make}
    exec(code, namespace)
    rows = sx.plan(namespace["model"], namespace["tx"]).rows
    found = {str(row.role): shown(row.learning_rate or 0.0) for row in rows}
    assert {"embedding", "hidden", "readout"} <= set(found)
    roles = table(page, "roles")
    assert found == {role: roles[role][4][0] for role in found}


@pytest.mark.parametrize(
    "fragment", ["parameterization=mup&family=sgd&alignment=none", "alpha=0.8&omega=0.6&depth=3"]
)
def test_command(page: Any, address: str, fragment: str):
    """It prints the exponents that the page shows."""
    page.goto(f"{address}#{fragment}")
    program, *words = shlex.split(page.get_by_text("--parameterizations").text_content())
    assert [program, words[0]] == ["scalex", "exponents"]
    command = tyro.cli(Exponents, args=words[1:])
    (cell,) = command._solve()
    roles = table(page, "roles")
    assert {role: Fraction(roles[role][3][0]) for role in roles} == {
        str(role): c for role, c in cell.solution.exponents.items()
    }
    page.get_by_label("Tied embeddings").check()
    assert page.get_by_text("has no option for tied models").is_visible()


WIDER = """(limit) => [...document.querySelectorAll(
    ".explore *, .explore-table, .explore-table *, .explore-picture svg"
)].filter((one) => one.getBoundingClientRect().right > limit).map((one) => one.outerHTML)"""


@pytest.mark.parametrize("width", [360, 1280])
def test_fits_the_screen(page: Any, address: str, width: int):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(address)
    for parameterization in ("standard", "own"):
        page.get_by_label("Parameterization").select_option(parameterization)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(WIDER, width) == []
    # The same is seen of a table that is too wide.
    page.add_style_tag(content=".explore-table { min-width: 1500px }")
    assert page.evaluate(WIDER, width)


@pytest.mark.parametrize("width", [360, 1280])
def test_factors_do_not_read_as_products(page: Any, address: str, width: int):
    """As laid out: in one line on a phone, below each other on a desktop."""
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(address)
    table = page.locator("[data-table=roles]")
    cell = table.get_by_role("cell").nth(2)
    assert cell.inner_text().split() == ["1/2", "(factor", "0.25)"]
    assert ("\n" in cell.inner_text().strip()) == (width == 1280)
    assert "in parentheses the factor" in table.locator("caption").text_content()


def test_names_for_screen_readers(explore: Any):
    """Every control has a name of its own, every table a caption, and the verdict is announced."""
    explore.get_by_label("Parameterization").select_option("own")
    controls = explore.locator("#explore-form").evaluate(
        "(form) => [...form.elements].filter((one) => one.type !== 'fieldset').length"
    )
    names = [
        explore.get_by_role(role, name=name, exact=True)
        for role, named in {
            "combobox": ["Parameterization", "Update family", "Assumption", "Scaling of epsilon"],
            "slider": [
                "alpha: update, on its input",
                "omega: weight, on its input's change",
                "u: update, on its input's change",
                "Width ratio r",
            ],
            "checkbox": ["Tied embeddings"],
            "spinbutton": [
                *("Base width", "Hidden layers", "Learning rate at the base width"),
                "Epsilon at the base width",
                *(f"Gradient, {role}" for role in BASE_GRADIENTS),
            ],
            "textbox": [f"{x}, {role}" for x in "ab" for role in MATRICES],
        }.items()
        for name in named
    ]
    assert len(names) == controls
    assert [one.count() for one in names] == [1] * controls
    for group in ("Scaling law", "Model", "Alignment, in all layers", "Epsilon"):
        assert explore.get_by_role("group", name=group).count() == 1
    for caption in ("The exponent x", "Layers from", "Sizes at"):
        assert explore.get_by_role("table", name=caption).count() == 1
    headings = explore.locator("[data-table=roles] tbody").get_by_role("rowheader")
    assert headings.all_text_contents()[:3] == list(MATRICES)
    explore.get_by_role("status").filter(has_text="mine, adam, width ratio 16: stable").wait_for(
        state="attached"
    )


CONTRAST = """(selector) => {
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const over = (top, ground) => {
        const opacity = top[3] ?? 1;
        return [0, 1, 2].map((k) => opacity * top[k] + (1 - opacity) * ground[k]);
    };
    const light = (rgb) => {
        const [r, g, b] = rgb.map((x) => x / 255).map((x) =>
            x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = parse(getComputedStyle(document.body).backgroundColor);
    return [...document.querySelectorAll(selector)].map((one) => {
        const style = getComputedStyle(one);
        const colour = one.tagName === "polyline" ? style.stroke
            : one.ownerSVGElement ? style.fill : style.color;
        const [dark, bright] = [light(over(parse(colour), ground)), light(ground)].sort();
        return (Math.max(dark, bright) + 0.05) / (Math.min(dark, bright) + 0.05);
    });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(page: Any, address: str, scheme: str):
    page.emulate_media(color_scheme=scheme)
    page.goto(address)
    page.locator(".explore-picture svg").wait_for()
    selector = (
        ".explore label, .explore legend, .explore input, .explore select, .explore-verdict, "
        ".explore-table th, .explore-table td, .explore-picture text, .explore-picture polyline, "
        ".explore-permalink"
    )
    found = page.evaluate(CONTRAST, selector)
    assert len(found) > 100 and min(found) >= 4.5
    # What the theme calls lighter is not enough, and is seen to be.
    page.add_style_tag(content=".explore-verdict { color: var(--md-default-fg-color--lighter) }")
    (faint,) = page.evaluate(CONTRAST, ".explore-verdict")
    assert faint < 4.5


def test_keyboard_alone(explore: Any):
    """From the first control to the verdict's link by Tab, each with a visible focus."""
    explore.get_by_label("Parameterization").focus()
    seen = []
    for _ in range(12):
        seen.append(
            explore.evaluate(
                """() => [document.activeElement.name ?? document.activeElement.textContent,
                    getComputedStyle(document.activeElement).outlineStyle]"""
            )
        )
        explore.keyboard.press("Tab")
    names = [name for name, _ in seen]
    fields = ["parameterization", "family", "tied", "base", "octaves", "depth", "rate"]
    assert names[:11] == [*fields, "alignment", "alpha", "omega", "u"]
    assert {outline for _, outline in seen[:11]} == {"solid"}
