"""Signal and noise in words."""

from typing import Any

from .._columns import columns


def printed(found: Any) -> str:
    """The numbers of each weight at the first and the last step, and the predictions."""
    steps = list(dict.fromkeys(row.step for row in found.rows))
    names = list(dict.fromkeys(row.weight for row in found.rows))
    known = {(row.step, row.weight): row for row in found.rows}
    ends = list(dict.fromkeys((steps[0], steps[-1])))
    table = [["weight", "signal/noise", "critical batch", "kurtosis", "sign/mean"]]
    for name in names:
        rows = [known[step, name] for step in ends]
        cells = (
            [f"{row.signal_to_noise:.2g}" for row in rows],
            [_or_noise(row.critical_batch) for row in rows],
            [f"{row.kurtosis:.3g}" for row in rows],
            [_or_noise(row.sign_ratio) for row in rows],
        )
        table.append([name, *(" to ".join(cell) for cell in cells)])
    where = f"at step {steps[0]}" + (f" and step {steps[-1]}" if len(steps) > 1 else "")
    heading = (
        f"{where}, from {found.examples} examples; batches of the training have {found.batch_size}"
    )
    said = [str(one) for one in (found.predictions[0], *found.predictions[-1:])]
    return "\n".join([heading, columns(table, text=1), "", *dict.fromkeys(said)])


def _or_noise(number: float | None) -> str:
    return "noise" if number is None else f"{number:.3g}"
