import dataclasses


@dataclasses.dataclass(frozen=True)
class UpdateFamily:
    r"""How the size of an optimizer's update follows from the gradient's and the weight's.

    $$|\Delta w| \propto \text{learning rate} \times |g|^{p} \times \text{RMS}(w)^{q}$$

    **Arguments:**

    - `name`: how it is printed.
    - `gradient_degree`: $p$.
    - `weight_degree`: $q$.

    | family | p | q | optimizers |
    |---|---|---|---|
    | `sgd` | 1 | 0 | SGD, with or without momentum |
    | `adam` | 0 | 0 | Adam, AdamW, Adam-atan2, Lion, signSGD |
    | `adafactor` | 0 | 1 | Adafactor, Adam with parameter scaling |
    """

    name: str
    gradient_degree: int
    weight_degree: int

    def __post_init__(self):
        for field in ("gradient_degree", "weight_degree"):
            if getattr(self, field) not in (0, 1):
                raise ValueError(
                    f"{field} of family {self.name!r} is {getattr(self, field)!r}; expected 0 or 1"
                )


sgd = UpdateFamily("sgd", 1, 0)
adam = UpdateFamily("adam", 0, 0)
adafactor = UpdateFamily("adafactor", 0, 1)

families = {family.name: family for family in (sgd, adam, adafactor)}


def as_family(family: str | UpdateFamily) -> UpdateFamily:
    """The family called `family`; an `UpdateFamily` is itself."""
    if isinstance(family, UpdateFamily):
        return family
    if family not in families:
        raise ValueError(
            f"family {family!r} is unknown: expected {', '.join(families)}, or an UpdateFamily"
        )
    return families[family]
