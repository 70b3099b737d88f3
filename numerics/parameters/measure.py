"""How much of many small updates arrives in low-precision weights, by how they are added."""

from pathlib import Path

from numerics.parameters import drift
from numerics.reference.rounding import DTYPES
from scalex_eqx.diagnostics import Table

RECOVERED = "parameters: part of the updates that arrives"
COLUMNS = tuple(f"{size:.0e}" for size in drift.SIZES)


def tables(thorough: bool) -> list[Table]:
    """**Arguments:**

    - `thorough`: whether stochastic rounding, which is slow on CPUs, is measured in float16 too.
    """
    rows = [
        {"dtype": dtype, "form": form, **dict(zip(COLUMNS, found, strict=True))}
        for dtype in DTYPES
        for form in drift.FORMS
        if thorough or (form, dtype) != ("stochastic", "float16")
        for found in [drift.recovered(form, dtype)]
    ]
    keys = ("dtype", "form")
    return [Table(RECOVERED, keys, (*keys, *COLUMNS), rows)]


def picture(tables: list[Table], folder: Path) -> None:
    """A group of bars for each size of the update, in bfloat16."""
    from matplotlib.figure import Figure

    rows = [row for row in tables[0].rows if row["dtype"] == "bfloat16"]
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(rows)
    for number, row in enumerate(rows):
        places = [i + (number - (len(rows) - 1) / 2) * width for i in range(len(COLUMNS))]
        heights = [float(str(row[column])) for column in COLUMNS]
        axes.bar(places, heights, 0.9 * width, label=str(row["form"]))
    axes.axhline(1.0, color="0.3", linewidth=0.8, linestyle="--")
    axes.set_xticks(range(len(COLUMNS)), COLUMNS)
    axes.set_xlabel(f"size of the update; weights of size 0.02 in bfloat16, {drift.STEPS} steps")
    axes.set_ylabel("part that arrives")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(rows), frameon=False, fontsize=9)
    figure.savefig(folder / "parameters.png", dpi=130, metadata={"Software": None})
