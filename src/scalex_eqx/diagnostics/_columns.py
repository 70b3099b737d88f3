from collections.abc import Sequence


def columns(rows: Sequence[Sequence[str]], *, text: int = 1) -> str:
    """Rows of cells under each other; the first `text` columns to the left, others to the right."""
    aligned = []
    for i, column in enumerate(zip(*rows, strict=True)):
        widest = max(map(len, column))
        side = str.ljust if i < text else str.rjust
        aligned.append([side(cell, widest) for cell in column])
    return "\n".join("  ".join(row).rstrip() for row in zip(*aligned, strict=True))
