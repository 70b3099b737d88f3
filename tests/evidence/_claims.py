"""What the papers claim of several rows together, as statements that intervals answer."""

from dataclasses import dataclass

from _rows import EVERETT, HAYOU, KALRA, KOSSON

from scalex_eqx.experiments._drift import MARGIN
from scalex_eqx.experiments._judged import Claim, Statement

# Losses nearer than this are taken as the same.
SAME = 0.01


@dataclass(frozen=True)
class Asked:
    """A claim, and the table that it stands under."""

    group: str
    claim: Claim


def _same(first: str, second: str) -> Statement:
    return Statement("loss", first, second, -SAME, SAME)


def _transfers(row: str) -> Statement:
    return Statement("exponent", row, None, -MARGIN, MARGIN)


def _claims() -> list[Asked]:
    asked = [
        Asked(
            "epsilon",
            Claim(
                "Far below where it costs, an epsilon of 1e-6 is no different in mean-field",
                EVERETT,
                (
                    _same(
                        "mean-field, constant epsilon 1e-15", "mean-field, constant epsilon 1e-06"
                    ),
                ),
            ),
        ),
        Asked(
            "epsilon",
            Claim(
                "The same epsilon costs the standard parameterization nothing",
                EVERETT,
                (_same("standard, constant epsilon 1e-15", "standard, constant epsilon 1e-06"),),
            ),
        ),
        Asked(
            "epsilon",
            Claim(
                "Adam-atan2 ends where the smallest epsilon does",
                EVERETT,
                tuple(
                    _same(f"{law}, Adam-atan2", f"{law}, constant epsilon 1e-15")
                    for law in ("mean-field", "standard")
                ),
            ),
        ),
    ]
    for words in ("vocabulary 256", "vocabulary 16"):
        one, every = f"one rate, {words}", f"all by their law, {words}"
        alone = f"embedding's rate x width, {words}"
        asked += [
            Asked(
                "embedding",
                Claim(f"One rate ends higher, {words}", KALRA, (Statement("loss", every, one),)),
            ),
            Asked(
                "embedding",
                Claim(
                    f"The embedding's rate alone gains as much as the whole law, {words}",
                    KALRA,
                    (Statement("loss", alone, one), _same(alone, every)),
                ),
            ),
        ]
    root, width = ("embedding's rate x root of width", "embedding's rate x width")
    asked += [
        Asked(
            "embedding",
            Claim(
                "With more tokens than features the root of the width is better for the embedding",
                HAYOU,
                (Statement("loss", f"{root}, vocabulary 256", f"{width}, vocabulary 256"),),
            ),
        ),
        Asked(
            "embedding",
            Claim(
                "With fewer tokens the width is",
                HAYOU,
                (Statement("loss", f"{width}, vocabulary 16", f"{root}, vocabulary 16"),),
            ),
        ),
        Asked(
            "decay",
            Claim(
                "Independent decay keeps the best learning rate with the law",
                KOSSON,
                (_transfers("independent decay 0.01, with the law, warm-up 10 %"),),
            ),
        ),
        Asked(
            "decay",
            Claim(
                "One rate needs the long warm-up beside independent decay: without it, it drifts",
                KOSSON,
                (
                    Statement(
                        "exponent", "independent decay 0.01, one rate, warm-up 10 %", high=-MARGIN
                    ),
                ),
            ),
        ),
        Asked(
            "decay",
            Claim(
                "A long warm-up takes drift away from one rate",
                KOSSON,
                (
                    Statement(
                        "exponent",
                        "no decay, one rate, warm-up 10 %",
                        "no decay, one rate, warm-up 50 %",
                    ),
                ),
            ),
        ),
        Asked(
            "decay",
            Claim(
                "With a long warm-up and independent decay one rate transfers",
                KOSSON,
                (_transfers("independent decay 0.01, one rate, warm-up 50 %"),),
            ),
        ),
        Asked(
            "decay",
            Claim(
                "Coupled decay, whose strength falls with the layer's rate, moves the best one",
                KOSSON,
                (
                    Statement(
                        "exponent", "coupled decay 0.5, with the law, warm-up 10 %", high=-MARGIN
                    ),
                ),
            ),
        ),
    ]
    return asked


CLAIMS = _claims()
