from pathlib import Path

from matplotlib.figure import Figure

from .._usage import shown
from ..experiments import UsageError


def check_picture(path: Path | None) -> None:
    """Makes sure, before anything is measured, that a picture can be written."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        with path.open("ab"):
            pass
        if new:
            path.unlink()
    except OSError as error:
        raise UsageError(
            f"--picture {shown(path)} can't be written: {error.strerror}; name another file"
        ) from None


def write_picture(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG."""
    figure.savefig(path, dpi=130, format="png")
