"""The documentation: it builds, is complete, needs no network, and says what the code does."""

import ast
import dataclasses
import importlib
import importlib.util
import itertools
import json
import re
import shlex
from collections.abc import Iterator
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
import tyro

from scalex_eqx import theory
from scalex_eqx.cli._check import Check, Measuring
from scalex_eqx.cli._commands import COMMANDS, Command, Train, Transfer
from scalex_eqx.cli._stress import Stress
from scalex_eqx.diagnostics import Results, stress_rules
from scalex_eqx.experiments import parse_learning_rate, parse_recipe
from scalex_eqx.experiments._call import parse_call
from scalex_eqx.optim._catalogue import OF_DECAY, catalogue

from ..smoke._page import blocks, near, run as run_page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md"]
PARAMETERIZATIONS = {
    p.name: p for p in (theory.standard, theory.ntk, theory.mup, theory.mean_field)
}
MATRICES = (theory.Role.embedding, theory.Role.hidden, theory.Role.readout)
NAMESPACES = (
    *("", ".nn", ".nn.unit", ".ops", ".ops.scaled", ".optim", ".theory"),
    *(".diagnostics", ".per_example", ".problems", ".experiments"),
)

# Formulas that were not converted: dollars, delimiters, and commands such as \alpha.
RAW_TEX = re.compile(r"\$|\\[()\[\]]|\\[a-zA-Z]")


def page_name(path: Path) -> str:
    """What pytest calls a page."""
    return path.relative_to(ROOT).as_posix()


# The site.


@dataclasses.dataclass
class Page:
    """What a built page refers to, and what it shows."""

    ids: set[str]
    links: list[str]
    resources: list[str]
    prose: str
    scripts: str
    formulas: int


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page(set(), [], [], "", "", 0)
        self._inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.page.ids.update(attributes[name] for name in ("id", "name") if name in attributes)
        self.page.formulas += tag == "math"
        if tag == "a" and "href" in attributes:
            self.page.links.append(attributes["href"])
        elif tag == "link":
            self.page.resources.append(attributes.get("href", ""))
        elif "src" in attributes:
            self.page.resources.append(attributes["src"])
        if tag in ("script", "style", "code", "pre"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.page.prose += data
        elif "script" in self._inside:
            self.page.scripts += data


def read(path: Path) -> Page:
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader.page


@pytest.fixture(scope="session")
def pages(site: Path) -> dict[str, Page]:
    """Every page of the site, by its path."""
    return {path.relative_to(site).as_posix(): read(path) for path in sorted(site.rglob("*.html"))}


def test_every_source_is_built(pages: dict[str, Page]):
    sources = {
        path.relative_to(DOCS).with_suffix(".html").as_posix() for path in DOCS.rglob("*.md")
    }
    devices = {f"devices/{path.stem}.html" for path in (ROOT / "numerics/results").glob("*.md")}
    made = {name for name in pages if name.startswith("tests/")}
    assert devices and made
    assert set(pages) == sources | devices | made | {"404.html"}


def test_results_of_every_device_are_shown(pages: dict[str, Page]):
    for path in (ROOT / "numerics/results").glob("*.json"):
        page = pages[f"devices/{path.stem}.html"]
        tables = [table["name"] for table in json.loads(path.read_text())["tables"]]
        assert tables and all(name in page.prose for name in tables)
        assert f"devices/{path.stem}.html" in pages["devices.html"].links
        for picture in (path.parent / path.stem).glob("*.png"):
            assert f"{path.stem}/{picture.name}" in page.resources


def test_every_formula_has_its_code_and_its_test(pages: dict[str, Page]):
    """Each part of the theory names both, and each link to a test leads to that test."""
    text = (DOCS / "theory.md").read_text(encoding="utf-8")
    named = re.findall(r"\]\((tests/[\w/]+\.py)::(\w+)\)", text)
    links = [link for link in pages["theory.html"].links if link.startswith("tests/")]
    assert len(links) == len(named) > 20
    for (path, name), link in zip(named, links, strict=True):
        lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
        url, _, line = link.partition("#__codelineno-0-")
        assert url == f"{path}.html"
        assert lines[int(line) - 1].startswith(f"def {name}(")
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        if "$$" in part:
            assert "\nCode: " in part and "](tests/" in part, part.splitlines()[0]


@pytest.mark.parametrize(
    "link", ["tests/theory/test_exponents.py::test_nothing", "tests/theory/nowhere.py::test_a"]
)
def test_a_link_to_no_test_fails_the_build(link: str):
    from mkdocs.exceptions import PluginError

    with pytest.raises(PluginError, match=r"page\.md: there is no test"):
        hook_of("tests").on_page_markdown(f"[it]({link})", page=page_named("page.md"))


def test_hooks_are_not_published(site: Path):
    assert not list(site.rglob("*.py"))


def test_needs_no_network(site: Path, pages: dict[str, Page]):
    needed = {f"{name}: {url}" for name, page in pages.items() for url in page.resources}
    assert not [entry for entry in needed if "//" in entry]
    assert not [name for name, page in pages.items() if "http" in page.scripts]
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.findall(r"@import[^;]*|url\(\s*['\"]?(?:https?:)?//[^)]*", styles)


def test_formulas_are_converted(pages: dict[str, Page]):
    raw = {name: RAW_TEX.findall(page.prose) for name, page in pages.items()}
    assert not {name: found for name, found in raw.items() if found}
    # One with formulas in its text, and one that has them from docstrings only.
    assert pages["theory.html"].formulas > 30
    assert pages["api/optim.html"].formulas > 10


def test_internal_links(site: Path, pages: dict[str, Page]):
    broken = []
    # The page for missing pages links from the root of the server, wherever that is.
    for name, page in pages.items():
        for link in page.links if name != "404.html" else ():
            url, fragment = urldefrag(link)
            if urlsplit(url).scheme:
                continue
            target = (site / name).parent / unquote(url) if url else site / name
            target = target / "index.html" if target.is_dir() else target
            found = pages.get(target.resolve().relative_to(site.resolve()).as_posix())
            if not target.is_file() or (fragment and found and unquote(fragment) not in found.ids):
                broken.append(f"{name}: {link}")
    assert not broken


def public_names(namespace: str) -> list[str]:
    """The names that a package's `__init__` marks as public."""
    source = importlib.import_module(f"scalex_eqx{namespace}").__file__
    assert source is not None
    nodes = ast.walk(ast.parse(Path(source).read_text()))
    aliases = (alias for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names)
    names = [alias.name for alias in aliases if alias.asname == alias.name]
    return [name for name in names if not name.startswith("_")]


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_public_names_are_documented(namespace: str, pages: dict[str, Page]):
    api = [page.ids for name, page in pages.items() if name.startswith("api/")]
    documented = set().union(*api)
    names = public_names(namespace)
    assert names
    package, module = (importlib.import_module(f"scalex_eqx{part}") for part in ("", namespace))

    def is_documented(name: str) -> bool:
        # A name that the package itself exports as well is documented as that.
        short = getattr(package, name, None) is getattr(module, name)
        return f"scalex_eqx{namespace}.{name}" in documented or (
            short and f"scalex_eqx.{name}" in documented
        )

    assert not [name for name in names if not is_documented(name)]


# The formulas.


def page_named(path: str) -> Any:
    """What a hook is told of a page."""
    return SimpleNamespace(file=SimpleNamespace(src_uri=path, dest_uri=path))


def hook_of(name: str) -> Any:
    """A hook of the site, as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"hooks/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def mathml() -> Any:
    """The hook that converts formulas."""
    return hook_of("mathml")


@pytest.mark.parametrize(
    ("tex", "message"),
    [
        (r"\unknown x", "unknown command"),
        (r"x_{1", "braces"),
        (r"x \\ y", "line break"),
        (r"\mathcal\alpha", "not supported"),
    ],
)
def test_formula_that_cannot_be_converted(mathml: Any, tex: str, message: str):
    with pytest.raises(ValueError, match=message):
        mathml.mathml(tex, is_block=False)


def test_formula_fails_the_build(mathml: Any):
    from mkdocs.exceptions import PluginError

    html = r'<p><span class="arithmatex">\(\unknown\)</span></p>'
    with pytest.raises(PluginError, match=r"page\.md.*unknown"):
        mathml.on_page_content(html, page=page_named("page.md"))


def test_formula(mathml: Any):
    shown = mathml.mathml(r"w \sim \mathcal N(0, 1)", is_block=True)
    assert shown.startswith('<div class="formula"><math display="block"')
    assert "<mo>∼</mo>" in shown and "𝒩" in shown and "mathvariant" not in shown


def test_formula_spacing(mathml: Any):
    space = '<mspace width="0.167em"></mspace>'
    assert f"<mi>c</mi>{space}<mi>log</mi>{space}<mi>n</mi>" in mathml.mathml(
        r"c \log n", is_block=False
    )
    assert "mspace" not in mathml.mathml(r"\max(a, b)", is_block=False)
    assert '<mo form="prefix">−</mo>' in mathml.mathml("p = -1", is_block=False)
    assert "prefix" not in mathml.mathml("a - 1", is_block=False)


# The tables of the theory.


def tables(page: str) -> dict[str, list[list[str]]]:
    """The rows of each table of a page, header first, by the text of its first cell."""
    found = {}
    text = (DOCS / page).read_text(encoding="utf-8")
    for lines in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = [
            [cell.strip().strip("`") for cell in line.strip("|").split("|")]
            for line in lines.splitlines()
        ]
        found[rows[0][0]] = [rows[0], *rows[2:]]
    return found


def numbers(table: list[list[str]]) -> dict[str, dict[str, Fraction]]:
    """The exponents of a table, by row and column."""
    header, *rows = table
    return {
        row[0]: {
            name: Fraction(cell.rstrip("*"))
            for name, cell in zip(header, row, strict=True)
            if name != header[0]
        }
        for row in rows
    }


@pytest.mark.parametrize("exponent", ["a", "b"])
def test_parameterization_table(exponent: str):
    assert numbers(tables("theory.md")[exponent]) == {
        name: {str(role): getattr(p, exponent)[role] for role in MATRICES}
        for name, p in PARAMETERIZATIONS.items()
    }


def test_gradient_table():
    assert numbers(tables("theory.md")["g"]) == {
        name: {str(role): g for role, g in theory.gradient_exponents(p).items()}
        for name, p in PARAMETERIZATIONS.items()
    }


def prescriptions(
    family: theory.UpdateFamily,
) -> Iterator[tuple[str, str, theory.Role, theory.Alignment, Fraction]]:
    """Row, column, role, alignment and exponent of a learning-rate table's cells."""
    alignments = (theory.full_alignment, theory.no_alignment)
    for (name, p), alignment in itertools.product(PARAMETERIZATIONS.items(), alignments):
        exponents = theory.learning_rate_exponents(p, family, alignment)
        for role in MATRICES:
            yield name, f"{role}, {alignment.name}", role, alignment, exponents[role]


FAMILIES = pytest.mark.parametrize(
    "family", [theory.sgd, theory.adam, theory.adafactor], ids=lambda family: family.name
)


@FAMILIES
def test_learning_rate_table(family: theory.UpdateFamily):
    table = numbers(tables("theory.md")[family.name])
    cells = {(name, column): c for name, column, _, _, c in prescriptions(family)}
    assert {(name, column): c for name, row in table.items() for column, c in row.items()} == cells


@FAMILIES
def test_stars(family: theory.UpdateFamily):
    """A star stands where both changes of the logits, of readout and of features, vanish."""
    header, *rows = tables("theory.md")[family.name]
    stars = {
        (row[0], column)
        for row in rows
        for column, x in zip(header, row, strict=True)
        if x.endswith("*")
    }
    expected = set()
    for name, column, role, alignment, c in prescriptions(family):
        p = PARAMETERIZATIONS[name]
        g = theory.gradient_exponents(p)[role]
        update = p.a[role] + c + family.gradient_degree * g + family.weight_degree * p.b[role]
        if role is theory.Role.readout and update > alignment.alpha:
            assert p.logit_exponent > alignment.omega
            expected.add((name, column))
    assert stars == expected


def test_alignment_table():
    for row, field in zip(tables("theory.md")[""][1:], ("alpha", "omega", "u"), strict=True):
        assert row[0] == (f"$\\{field}$" if field != "u" else "$u$")
        assert Fraction(row[2]) == getattr(theory.no_alignment, field)
    text = (DOCS / "theory.md").read_text(encoding="utf-8")
    for alignment in (theory.full_alignment, theory.no_alignment):
        values = f"({alignment.alpha}, {alignment.omega}, {alignment.u})$"
        name = {"full": "full_alignment", "none": "no_alignment"}[alignment.name]
        assert re.search(f"`{name}` is [^.]*{re.escape(values)}", text)


def test_family_table():
    assert {row[0]: (row[1], row[2]) for row in tables("theory.md")["family"][1:]} == {
        family.name: (str(family.gradient_degree), str(family.weight_degree))
        for family in (theory.sgd, theory.adam, theory.adafactor, theory.muon)
    }


def test_tied_table():
    expected = {}
    for name, p in PARAMETERIZATIONS.items():
        g = theory.gradient_exponents(p.tied())
        expected[name] = {"$a_o$": p.tied().a.readout} | {
            f"g, {role}": g[theory.Role(role)] for role in ("embedding", "hidden", "vector")
        }
    assert numbers(tables("theory.md")["tied"]) == expected


def test_budget_tables():
    """The page's exponents of batch, tokens and width are those of the rules."""
    shown = tables("budget.md")
    assert [row[0] for row in shown["rule"][1:]] == list(theory.budget_rules)
    for name, _, *cells, _ in shown["rule"][1:]:
        rule = theory.budget_rules[name]
        growths = (rule.learning_rate, rule.one_minus_b1, rule.one_minus_b2, rule.eps)
        # SGD has neither betas nor epsilon.
        assert [growth_in(cell) for cell in cells] == [
            (growth.batch or 0, growth.tokens or 0) for growth in growths
        ]
    for name, *cells, _ in shown["decay rule"][1:]:
        rule = theory.decay_rules[name]
        exponents = (rule.width and rule.width.hidden, rule.batch, rule.tokens)
        assert cells == ["?" if x is None else str(x) for x in exponents]
    horizons = {row[0]: Fraction(row[1]) for row in shown["name"][1:]}
    assert horizons == theory.horizons


def growth_in(cell: str) -> tuple[Fraction, Fraction]:
    """The exponents of batch and tokens in a formula such as `$(B / D)^{1/2}$`."""
    found = re.fullmatch(r"\$\(?([BD])(?: / ([BD]))?\)?(?:\^\{(.*)\})?\$", cell)
    if found is None:
        assert cell in ("1", "")
        return Fraction(0), Fraction(0)
    above, below, power = found.groups()
    exponents = {above: Fraction(power or 1), below: -Fraction(power or 1)}
    return exponents.get("B", Fraction(0)), exponents.get("D", Fraction(0))


# The code on the pages.


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_python_blocks(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """They run, one after the other, and print the text that stands right behind them."""
    monkeypatch.chdir(tmp_path)
    run_page(page)


def test_a_page_that_prints_something_else_is_found(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1.25, 'a')\n```\n\n```text\n1.25 b\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md:6 shows\n1\.25 b\n[^$]*printed\n1\.25 a"):
        run_page(page)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [("0.56", "0.55"), ("fell by 2.5 %", "fell by 2.6 %"), ("-0.0999", "-0.1000")],
)
def test_the_last_place_may_differ_by_one(shown: str, printed: str):
    assert near(shown, printed)
    assert near("2.5e-13", "2.6e-13")


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("0.56", "0.54"),
        ("x 0.5", "x 0.6"),
        ("0.03", "0.04"),
        ("-0.56", "0.56"),
        ("2.5e-13", "2.5e-12"),
        ("width 64", "width 65"),
        ("1/2", "1/3"),
        ("0.56 a", "0.56 b"),
        ("0.56", "0.56 0.56"),
        ("0.56", "nan"),
    ],
)
def test_more_than_the_last_place_may_not_differ(shown: str, printed: str):
    assert not near(shown, printed)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each line of the page's shell blocks, comments and redirections left out."""
    for language, content, _ in blocks(page):
        if language == "bash":
            for line in content.replace("\\\n", " ").splitlines():
                words = shlex.split(line.split(" > ")[0], comments=True)
                if words:
                    yield words


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_shell_blocks(page: Path):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for program, *words in commands(page):
        if program == "make":
            target, *assignments = words
            assert target in targets
            for assignment in assignments if target == "transfer" else ():
                assert assignment.startswith("ARGS=")
                check_scalex(["transfer", *shlex.split(assignment.removeprefix("ARGS="))])
        elif program == "scalex":
            check_scalex(words)


def check_scalex(words: list[str]) -> None:
    """Parses a command without running it."""
    command: Any = tyro.cli(Command, prog="scalex", args=words)  # pyright: ignore[reportArgumentType]
    if isinstance(command, Transfer):
        assert [parse_recipe(text) for text in command.recipes]
        assert [parse_learning_rate(text) for text in command.learning_rates]
    elif isinstance(command, Measuring):
        assert parse_recipe(command.recipe)
        assert parse_learning_rate(command.learning_rate)
    elif isinstance(command, Stress):
        own = {text for text in command.optimizer if "." in parse_call(text).name}
        assert set(command.optimizer) <= {"all", *stress_rules} | own


@pytest.mark.parametrize(
    ("page", "command"),
    [
        ("transfer.md", Transfer),
        ("diagnostics.md", Check),
        ("numerics.md", Stress),
        ("train.md", Train),
    ],
    ids=["transfer", "check", "stress", "train"],
)
def test_option_table(page: str, command: Any):
    rows = {row[0]: row[1] for row in tables(page)["option"][1:]}
    options = [field for field in dataclasses.fields(command) if field.name != "recipe"]
    fields = {f"--{field.name.replace('_', '-')}": field for field in options}
    # In the page's own order: the help has a command's own options first.
    assert sorted(rows) == sorted(fields)
    for option, shown in rows.items():
        default = fields[option].default
        if default is False:
            assert shown == "off"
        elif default is not None:
            values = default if isinstance(default, tuple) else (default,)
            assert shown == " ".join(map(str, values))


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_options_exist(page: Path):
    fields = (field for command in COMMANDS.values() for field in dataclasses.fields(command))
    known = {f"--{field.name.replace('_', '-')}" for field in fields}
    known |= {"--help", "--version"}
    known |= {"--array", "--cpus-per-task", "--time", "--requeue"}  # SLURM's
    known |= {"--nodes", "--ntasks-per-node", "--gpus-per-node"}
    scripts = [ROOT / "numerics/conftest.py", *(ROOT / "tests").glob("*/*_*.py")]
    for script in scripts:
        text = script.read_text(encoding="utf-8")
        known |= set(re.findall(r'add_?(?:option|argument)\(\s*"(--[a-z-]+)"', text))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text(encoding="utf-8")))
    assert named <= known


# The figures of the diagnostics.


def test_power_tables():
    """The page's counts of false alarms and missed faults are those of the committed run."""
    text = (DOCS / "results/coordinate_power.json").read_text(encoding="utf-8")
    rows = Results.from_json(text).table("coordinate check").by_key()
    shown = tables("diagnostics.md")
    correct = {
        (f"{law}, {family}",): cell
        for law, *cells in shown["rejected of 20"][1:]
        for family, cell in zip(("sgd", "adam", "adafactor"), cells, strict=True)
    }
    correct |= {
        (f"{model} ({setting})",): cell
        for model, *cells in shown["right model"][1:]
        for setting, cell in zip(("standard, adam", "mup, sgd"), cells, strict=True)
    }
    planted = {(row[0],): row[1:] for row in shown["planted fault"][1:]}
    assert rows.keys() == correct.keys() | planted.keys()
    assert {row["checks"] for row in rows.values()} == {20}
    for key, cell in correct.items():
        assert not rows[key]["planted"] and cell == str(rows[key]["rejected"])
    for key, cells in planted.items():
        assert cells == [str(rows[key]["rejected"]), str(rows[key]["culprit named"])]


def test_power_over_the_depth():
    """As over the width."""
    text = (DOCS / "results/depth_power.json").read_text(encoding="utf-8")
    rows = Results.from_json(text).table("check over the depth").rows
    shown = sorted(tuple(cells[1:]) for cells in tables("depth.md")["case"][1:])
    assert shown == sorted(
        (
            "yes" if row["planted"] else "no",
            f"{row['rejected']} of {row['checks']}",
            str(row["culprit named"]) if row["planted"] else "",
        )
        for row in rows
    )


def test_stress_table():
    """Each named rule has a row."""
    assert [row[0] for row in tables("numerics.md")["rule"][1:]] == list(stress_rules)


# The update rules.


def test_pages_name_every_optimizer():
    rows = tables("optimizers.md")["optimizer"][1:]
    named = re.findall(r"`([a-z_0-9]+)`\]\[", " ".join(row[0] for row in rows))
    assert sorted(named) == sorted(catalogue)
    recipes = next(row for row in tables("transfer.md")["part"][1:] if row[0] == "optimizer")
    assert re.findall(r"[a-z_0-9]+(?=`)", recipes[1]) == list(catalogue)


def test_what_recipes_leave_out_is_in_the_table():
    rows = {row[0].strip("`"): row[1] for row in tables("transfer.md")["takes"][1:]}
    assert list(rows) == list(catalogue)
    for name, entry in catalogue.items():
        own = {key: x for key, x in entry.takes.items() if key not in OF_DECAY}
        shown = ", ".join(f"`{key}={x!r}`" for key, x in own.items())
        assert rows[name].replace("`", "") == (shown.replace("`", "") or "none")
