import io
import json
import math
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest
from matplotlib import rcParams
from rich.console import Console

from scalex_eqx.experiments._fits import Run, analyse, to_json
from scalex_eqx.experiments._plot import _curves, _loss_limits
from scalex_eqx.experiments._report import plot_transfer, print_table, write_html, write_json
from scalex_eqx.experiments._write import written_whole

WIDTHS = (32, 64, 256)
GRID = range(-9, 0)
FACTS = {"data <digest>": "sha256 & more", "device": "cpu"}


def synthetic_runs(recipe, exponent, *, seeds=3, cliff=2.5):
    generator = np.random.default_rng(5)
    runs = []
    for seed in range(seeds):
        for width in WIDTHS:
            best = -4.6 + exponent * math.log2(width / 32) + generator.normal(0, 0.05)
            for k in GRID:
                loss = 2.3 + 0.04 * (k - best) ** 2 + float(generator.normal(0, 0.002))
                runs.append(Run(recipe, width, 2.0**k, seed, None if k - best > cliff else loss))
    return runs


ALL_DIVERGED = [
    Run("dead [red]x", width, 2.0**k, seed, None)
    for width in WIDTHS
    for k in GRID
    for seed in (0, 1)
]
MIXED = [
    *synthetic_runs("standard:adam:full", 0.0),
    *synthetic_runs("standard:adam:<none> & global", -0.7),
    *ALL_DIVERGED,
]
CASES = {
    "mixed": MIXED,
    "all diverged": ALL_DIVERGED,
    "single seed": synthetic_runs("standard:adam:full", 0.0, seeds=1),
    "single run": [Run("one", 64, 0.01, 0, 2.5)],
    "non-finite": [Run("bad", 64, 0.01, 0, math.nan), Run("bad", 64, 0.02, 0, math.inf)],
}


class Page(HTMLParser):
    """Checks that tags close in order, and keeps what there is to see."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.text, self.cells = [], [], "", 0

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset")]
        self.cells += tag == "td"
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def write_page(runs, folder, **options):
    analyses = analyse(runs)
    plot_transfer(runs, analyses, folder / "transfer.png")
    path = folder / "report.html"
    write_html("Transfer <of> rates", FACTS, analyses, folder / "transfer.png", path, **options)
    source, page = path.read_text(encoding="utf-8"), Page()
    page.feed(source)
    page.close()
    assert page.open == []
    return analyses, source, page


@pytest.mark.parametrize("runs", CASES.values(), ids=CASES)
def test_the_picture_is_drawn(runs, tmp_path):
    before = dict(rcParams)
    path = tmp_path / "new folder" / "transfer.png"
    plot_transfer(runs, analyse(runs), path)
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[1] >= 900 and pixels.shape[0] >= 600
    assert pixels[0, 0, :3].tolist() == [1, 1, 1]
    colours = np.rint(255 * pixels[..., :3]).astype(int) @ [256 * 256, 256, 1]
    assert len(np.unique(colours)) > 50
    assert [file.name for file in path.parent.iterdir()] == ["transfer.png"]
    assert dict(rcParams) == before


def test_the_bowls_stay_legible_beside_losses_near_divergence():
    """A million nats in place of each diverged run leaves the axis as it was."""
    runs = synthetic_runs("r", 0.0)
    wild = [
        Run(
            r.recipe,
            r.size,
            r.learning_rate,
            r.seed,
            1e6 if r.held_out_loss is None else r.held_out_loss,
        )
        for r in runs
    ]
    before, after = (_loss_limits(_curves(one), analyse(one)) for one in (runs, wild))
    assert after == pytest.approx(before, abs=0.02)
    best = [summary.loss or 0.0 for summary in analyse(wild)[0].sizes]
    assert after[0] < min(best) and max(best) + 0.1 < after[1] < max(best) + 1.0


@pytest.mark.parametrize("runs", CASES.values(), ids=CASES)
def test_the_page_is_whole_and_self_contained(runs, tmp_path):
    analyses, source, page = write_page(runs, tmp_path, command="scalex a && b > 'c'")
    assert len(page.links) == 1 and page.links[0].startswith("data:image/png;base64,")
    assert "http:" not in source and "https:" not in source and "<script" not in source
    assert "prefers-color-scheme: dark" in source and "width=device-width" in source
    for analysis in analyses:
        assert analysis.sentence in page.text
        for summary in analysis.sizes:
            assert str(summary.size) in page.text
    assert "scalex a && b > 'c'" in page.text
    assert "nan" not in page.text.lower().split()


def test_the_page_escapes_and_says_how_it_was_judged(tmp_path):
    analyses, source, page = write_page(MIXED, tmp_path)
    assert {a.verdict for a in analyses} == {"transfers", "drifts", "cannot tell"}
    assert "<none>" not in source and "&lt;none&gt; &amp; global" in source
    assert "Transfer <of> rates" in page.text and "data <digest>" in page.text
    for phrase in ("[-0.25, 0.25]", "90 %", "PCHIP", "fewer than 3 seeds"):
        assert phrase in page.text
    assert "Rebuild" not in page.text


def test_an_unescaped_page_would_be_noticed(tmp_path):
    """Negative control: the checker sees a tag that was smuggled in."""
    _, source, _ = write_page(MIXED, tmp_path)
    with pytest.raises(AssertionError):
        Page().feed(source.replace("&lt;none&gt;", "<none>"))


@pytest.mark.parametrize("runs", CASES.values(), ids=CASES)
def test_the_table_fits_eighty_columns(runs):
    output = io.StringIO()
    analyses = analyse(runs)
    print_table(analyses, Console(file=output, width=80))
    lines = output.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    flat = " ".join(output.getvalue().split())
    for analysis in analyses:
        assert analysis.recipe in flat and analysis.sentence in flat
        for summary in analysis.sizes:
            rows = [line.split() for line in lines]
            assert any(row[:1] == [str(summary.size)] for row in rows)
            if summary.log2_learning_rate is not None:
                assert f"2^{summary.log2_learning_rate:.2f}" in flat
    assert "…" not in flat


@pytest.mark.parametrize("runs", CASES.values(), ids=CASES)
def test_the_data_are_strict_json(runs, tmp_path):
    path, analyses = tmp_path / "results.json", analyse(runs)
    write_json(FACTS, runs, analyses, path)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert content["facts"] == FACTS
    assert content["analyses"] == [to_json(analysis) for analysis in analyses]
    assert len(content["runs"]) == len(runs)
    for plain, run in zip(content["runs"], runs, strict=True):
        assert (plain["recipe"], plain["width"], plain["seed"]) == (run.recipe, run.size, run.seed)
        assert plain["learning_rate"] == run.learning_rate
        lost = run.held_out_loss is None or not math.isfinite(run.held_out_loss)
        assert plain["held_out_loss"] == (None if lost else run.held_out_loss)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), written_whole(path) as unfinished:
        unfinished.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
