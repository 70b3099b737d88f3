import dataclasses
import json
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from .._differences import differences
from ._text import as_text

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult


@dataclasses.dataclass(frozen=True)
class PlanRow:
    r"""What will happen to one weight.

    **Arguments:**

    - `path`, `role`, `shape`, `dtype`: of the weight.
    - `width_ratio`: $r$.
    - `multiplier`: $r^{-(a + f)}$, the factor in the forward pass.
    - `intended_std`: $\sigma r^{-b}$; `None` if no $\sigma$ was declared or measured.
    - `found_std`: the spread of the values that are there; `None` for a tree of shapes.
    - `learning_rate_factor`: $\gamma r^{-c}$; `None` if it isn't known.
    - `learning_rate`: the product with the one at the base width; `None` if that is traced, or a
        schedule, or no learning rate of the library's is in the optimizer.
    - `eps`: the weight's epsilon; `None` if the rule has none or it is traced.
    - `eps_note`: `"clamped"` if that is the least that the rule allows, and not its law's,
        `"traced"` if it isn't known, else empty.
    - `weight_decay`: the share of the weight that a step takes away, at the peak of schedules;
        `None` if it isn't known.
    - `is_trained`: whether it is neither a `buffer` nor frozen; what is not has no step.
    - `depth_ratio`: of the stack that it stands in; 1 outside of one. In JSON only where it isn't.
    - `why`: what the role was read from; empty, and not in JSON, if it was from the shapes alone.
    - `density`: of a masked weight, the share of its entries that is kept; `None`, and not in JSON,
        of a dense one. `found_std` is that of what is kept.
    - `density_ratio`: to the base density; in JSON only where it isn't 1.
    """

    path: str
    role: str
    shape: tuple[int, ...]
    dtype: str
    width_ratio: Fraction
    multiplier: float
    intended_std: float | None
    found_std: float | None
    learning_rate_factor: float | None
    learning_rate: float | None
    eps: float | None
    eps_note: str
    weight_decay: float | None
    is_trained: bool = True
    depth_ratio: Fraction = Fraction(1)
    why: str = ""
    density: Fraction | None = None
    density_ratio: Fraction = Fraction(1)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The per-weight table of what will happen; `print` it.

    **Arguments:**

    - `rows`: a `PlanRow` for each weight, in the order of the model.
    - `optimizer`: a line for each part of the optimizer.
    - `warnings`: what looks suspicious, a sentence each.
    - `fingerprint`: of the model's scaling laws; see [`scalex_eqx.fingerprint`][].
    """

    rows: tuple[PlanRow, ...]
    optimizer: tuple[str, ...]
    warnings: tuple[str, ...]
    fingerprint: str

    def __str__(self) -> str:
        return as_text(self)

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.text import Text

        head, *rest = as_text(self, options.max_width).split("\n")
        yield Text(head, style="bold")
        yield Text("\n".join(rest))

    def to_json(self) -> str:
        """The plan as JSON; exact numbers are strings such as `"3/2"`, and so is `"nan"`."""
        data = dataclasses.asdict(self)
        for row in data["rows"]:
            if row["depth_ratio"] == 1:
                del row["depth_ratio"]
            if not row["why"]:
                del row["why"]
            if row["density"] is None:
                del row["density"]
            if row["density_ratio"] == 1:
                del row["density_ratio"]
        return json.dumps(_finite(data), default=str, indent=2)

    def diff(self, other: "Plan") -> str:
        """A line for each difference from `other`; empty if there is none."""
        one, another = (
            {row.path: dataclasses.asdict(dataclasses.replace(row, why="")) for row in plan.rows}
            for plan in (self, other)
        )
        lines = list(map(str, differences(one, another, "here", "there")))
        if self.optimizer != other.optimizer:
            lines += [f"optimizer here:  {line}" for line in self.optimizer]
            lines += [f"optimizer there: {line}" for line in other.optimizer]
        return "\n".join(lines)


def _finite(x: Any) -> Any:
    """Plain data with words for the numbers that JSON has none for."""
    if isinstance(x, dict):
        return {key: _finite(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [_finite(value) for value in x]
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x
