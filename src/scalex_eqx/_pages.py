"""Where the documentation explains an error."""

from collections.abc import Iterable
from enum import StrEnum

_SEE = "\nSee "


class Section(StrEnum):
    """A section of the documentation that some error ends with."""

    arithmetic = "docs/weights.md#arithmetic-of-a-weight"
    unknown_role = "docs/weights.md#an-array-whose-role-cannot-be-told"
    growth = "docs/weights.md#an-axis-that-grows-at-another-rate"
    contradiction = "docs/weights.md#a-role-that-the-shapes-contradict"
    no_law = "docs/weights.md#a-weight-without-its-law"
    width = "docs/weights.md#a-width-that-cannot-be-used"
    base_widths = "docs/weights.md#models-of-different-base-widths"
    decay_schedule = "docs/weights.md#weight-decay-beside-a-schedule"
    mismatch = "docs/weights.md#gradients-of-another-model"
    no_factor = "docs/weights.md#a-factor-that-is-no-number"
    decay_mode = "docs/optimizers.md#weight-decay"
    make = "docs/foreign.md#a-function-that-asks-for-values"
    values = "docs/foreign.md#a-trained-model"
    use = "docs/use.md#a-use-that-cannot-be-followed"
    tie_by_hand = "docs/use.md#a-tied-readout-written-by-hand"
    arrays = "docs/fine-tuning.md#arrays-back-into-weights"
    kept_tie = "docs/fine-tuning.md#a-tie-of-another-factor"
    depth = "docs/depth.md#what-is-refused"
    heads = "docs/foreign.md#heads-that-grow"
    fused = "docs/foreign.md#several-weights-in-one-array"
    no_match = "docs/foreign.md#a-key-that-matches-nothing"
    checkpoint = "docs/checkpoints.md#a-checkpoint-of-another-model"
    damaged = "docs/checkpoints.md#a-damaged-file"
    other_file = "docs/checkpoints.md#a-file-of-something-else"
    kept = "docs/checkpoints.md#an-array-that-cannot-be-kept"
    exported = "docs/checkpoints.md#laws-that-cannot-be-read"
    conversion = "docs/convert.md#what-is-refused"
    unit = "docs/unit.md#what-is-refused"


def topic(section: Section) -> str:
    """What `scalex explain` calls a section."""
    return section.name.replace("_", "-")


def see(section: Section) -> str:
    """The last line of an error's message: a command that needs no network, and the page."""
    return f"{_SEE}`scalex explain {topic(section)}`, or {section}"


def extended(error: str, remedy: str) -> str:
    """An error's message with one more remedy, in front of its last line."""
    text, mark, section = error.partition(_SEE)
    return f"{text}{remedy}{mark}{section}"


def listed(heading: str, errors: Iterable[str]) -> str:
    """One message of several, with every section that they name once, at the end."""
    parts = [error.partition(_SEE) for error in errors]
    sections = dict.fromkeys(section for _, _, section in parts if section)
    lines = "\n  ".join([heading, *(text for text, _, _ in parts)])
    return lines + "".join(_SEE + section for section in sections)
