"""How times that were taken in turn are printed."""

import statistics
from collections.abc import Sequence


def compared(times: Sequence[float], others: Sequence[float]) -> str:
    """Median and quartiles of milliseconds, and of their ratios to those of the same rounds."""
    low, median, high = statistics.quantiles(times, n=4)
    ratios = [t / u for t, u in zip(times, others, strict=True)]
    least, ratio, most = statistics.quantiles(ratios, n=4)
    return f"{median:8.1f} ms  [{low:8.1f}, {high:8.1f}]  {ratio:5.3f}  [{least:5.3f}, {most:5.3f}]"
