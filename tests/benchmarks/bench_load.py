"""What a model of many weights costs the host before its first step.

    python tests/benchmarks/bench_load.py [--weights 5000] [--rounds 3] [--against SRC]

Processor time of `parameterize`, `init` and one traced `update`, and of the user's own function
`make` at the two widths whose values are needed. With `--against`, the `src` folder of another
build is measured turn and turn about, each in a process of its own, and the ratio of neighbouring
rounds is printed. What is compiled once a shape is done before the clock starts. `optax` is the
same for plain arrays.
"""

import argparse
import functools
import inspect
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[2] / "src"
MODELS = ("layers", "arrays", "weights", "nested", "stacked")


def makers(count: int) -> dict[str, Callable[[int], Any]]:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    import scalex_eqx as sx

    key = jax.random.key(0)

    def layers(width: int, layers: int = count // 2):
        return [eqx.nn.Linear(width, width, key=key) for _ in range(layers)]

    def arrays(width: int):
        x = jax.random.normal(key, (width, width))
        return {f"w{i}": jnp.copy(x) for i in range(count)}

    def nested(width: int):
        return [
            {"block": (layers(width, 5), {"head": layers(width, 5)})} for _ in range(count // 20)
        ]

    def stacked(width: int):
        return [
            eqx.filter_vmap(lambda k: eqx.nn.Linear(width, width, key=k))(jax.random.split(key, 2))
            for _ in range(count // 2)
        ]

    return {
        "layers": layers,
        "arrays": arrays,
        "weights": lambda width: [sx.nn.Linear(width, width, key=key) for _ in range(count)],
        "nested": nested,
        "stacked": stacked,
    }


def rules() -> dict[str, Any]:
    import optax

    import scalex_eqx as sx

    return {
        "adam": sx.adam(1e-3),
        "adamw": sx.adamw(1e-3, 1e-4, decay_mode="independent"),
        "adam_atan2": sx.adam_atan2(1e-3),
        "adafactor": sx.adafactor(1e-3),
        "sgd": sx.sgd(1e-3, momentum=0.9),
        "lion": sx.lion(1e-3),
        "adam_parameter_scaling": sx.adam_parameter_scaling(1e-3),
        "low_precision": sx.optim.low_precision(sx.adam(1e-3), "kahan"),
        "skip_nonfinite": sx.optim.skip_nonfinite(sx.adam(1e-3)),
        "optax": optax.adamw(1e-3),
    }


def applied(model: Any) -> Any:
    """Every matrix of a model, one behind the other, with a bias and an activation each."""
    import jax
    import jax.numpy as jnp

    import scalex_eqx as sx

    arrays = jax.tree.leaves(sx.resolve(model))
    x = jnp.ones((2, arrays[0].shape[-1]))
    stacked = arrays[0].ndim == 3

    def layer(x: Any, array: Any) -> Any:
        return jax.nn.gelu(x @ array.T) if array.ndim == 2 else x + array

    for array in arrays:
        if stacked:
            x, _ = jax.lax.scan(lambda x, array: (layer(x, array), None), x, array)
        else:
            x = layer(x, array)
    return x


def seconds(f: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = f()
    return time.process_time() - start, result


def measure(model: str, count: int, chosen: list[str]) -> dict[str, float]:
    import equinox as eqx
    import jax

    import scalex_eqx as sx

    def scaled(make: Callable[[int], Any], **options: Any):
        return sx.parameterize(make, width=16, base_width=4, parameterization=sx.mup, **options)

    # Builds of before have no `use`.
    has_use = "use" in inspect.signature(sx.parameterize).parameters
    scaled(makers(20)[model])
    if has_use:
        scaled(makers(20)[model], use=applied)
    make = makers(count)[model]
    found = {"make, twice": seconds(lambda: (make(4), make(16)))[0]}
    found["parameterize"], params = seconds(lambda: scaled(make))
    if has_use:
        found["parameterize, use"], _ = seconds(lambda: scaled(make, use=applied))
    few = eqx.filter(scaled(makers(20)[model]), eqx.is_array)
    params = eqx.filter(params, eqx.is_array)
    for name in chosen:
        tx = rules()[name]
        for trees, counts in ((few, False), (params, True)):
            tree = jax.tree.leaves(trees) if name == "optax" else trees
            init, state = seconds(functools.partial(tx.init, tree))
            # A new function, so that its trace isn't the one that was made before.
            update = functools.partial(lambda update, *args: update(*args), tx.update)
            update, _ = seconds(functools.partial(jax.make_jaxpr(update), tree, state, tree))
            if counts:
                found |= {f"init {name}": init, f"update {name}": update}
    return found


def in_process(source: Path, arguments: argparse.Namespace, model: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", model, "--weights", str(arguments.weights)]
    done = subprocess.run(
        [*command, "--rules", *arguments.rules],
        env={**os.environ, "PYTHONPATH": str(source)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def compare(arguments: argparse.Namespace, model: str) -> None:
    sources = [SOURCE, *([arguments.against] if arguments.against else [])]
    rounds = [
        [in_process(source, arguments, model) for source in sources]
        for _ in range(arguments.rounds)
    ]
    print(f"{model}: {arguments.weights} weights, median of {arguments.rounds} [least, most]")
    # A build of before may lack a part.
    for name in (name for name in rounds[0][0] if name in rounds[0][-1]):
        cells = []
        for build in range(len(sources)):
            times = [found[build][name] for found in rounds]
            cells.append(f"{statistics.median(times):6.2f} s [{min(times):.2f}, {max(times):.2f}]")
        ratios = [found[0][name] / found[-1][name] for found in rounds]
        ratio = f"  ratio {statistics.median(ratios):.2f}" if arguments.against else ""
        print(f"  {name:30}  {'   '.join(cells)}{ratio}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--weights", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="the src folder of another build")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rules", nargs="+", default=[])
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.rules = arguments.rules or list(rules())
    if arguments.measure:
        found = measure(arguments.measure, arguments.weights, arguments.rules)
        print(json.dumps(found))
        return
    for model in arguments.models:
        compare(arguments, model)


if __name__ == "__main__":
    main()
