"use strict";

// `scalex_eqx.theory` for the page that explores it: the same functions, in exact rational numbers.
// tests/site/test_exponents.py holds every result equal to the Python one.
const ScaleExponents = (() => {
  // Rational numbers, as [numerator, denominator] in lowest terms.

  const gcd = (x, y) => (y === 0n ? x : gcd(y, x % y));

  function ratio(n, d) {
    if (d < 0n) [n, d] = [-n, -d];
    const common = gcd(n < 0n ? -n : n, d);
    return [n / common, d / common];
  }

  const add = (x, y) => ratio(x[0] * y[1] + y[0] * x[1], x[1] * y[1]);
  const sub = (x, y) => ratio(x[0] * y[1] - y[0] * x[1], x[1] * y[1]);
  const mul = (x, y) => ratio(x[0] * y[0], x[1] * y[1]);
  const equal = (x, y) => x[0] === y[0] && x[1] === y[1];
  const less = (x, y) => x[0] * y[1] < y[0] * x[1];
  const max = (...all) => all.reduce((x, y) => (less(x, y) ? y : x));
  const min = (...all) => all.reduce((x, y) => (less(y, x) ? y : x));
  const text = (x) => (x[1] === 1n ? `${x[0]}` : `${x[0]}/${x[1]}`);
  const number = (x) => Number(x[0]) / Number(x[1]);

  // Reads "-1/2", "3" or "0.55"; null for what is none of them.
  function parse(string) {
    const fraction = /^\s*([+-]?\d+)(?:\/(\d+))?\s*$/.exec(string);
    if (fraction) {
      const denominator = BigInt(fraction[2] ?? 1);
      return denominator === 0n ? null : ratio(BigInt(fraction[1]), denominator);
    }
    const decimal = /^\s*([+-]?\d*)\.(\d+)\s*$/.exec(string);
    if (!decimal) return null;
    const digits = BigInt(decimal[1].replace(/[+-]/, "") + decimal[2]);
    const sign = decimal[1].startsWith("-") ? -1n : 1n;
    return ratio(sign * digits, 10n ** BigInt(decimal[2].length));
  }

  const ZERO = [0n, 1n];
  const HALF = [1n, 2n];
  const ONE = [1n, 1n];
  const parsed = (strings) => strings.split(" ").map(parse);

  // The names that there are. Exponents stand in the order embedding, hidden, readout.

  const parameterization = (name, a, b) => ({ name, a: parsed(a), b: parsed(b) });

  const parameterizations = {
    standard: parameterization("standard", "0 0 0", "0 1/2 1/2"),
    ntk: parameterization("ntk", "0 1/2 1/2", "0 0 0"),
    mup: parameterization("mup", "-1/2 0 1/2", "1/2 1/2 1/2"),
    mean_field: parameterization("mean_field", "0 1/2 1", "0 0 0"),
  };

  const families = {
    sgd: { name: "sgd", gradientDegree: ONE, weightDegree: ZERO },
    adam: { name: "adam", gradientDegree: ZERO, weightDegree: ZERO },
    adafactor: { name: "adafactor", gradientDegree: ZERO, weightDegree: ONE },
  };

  const alignments = {
    full: { alpha: ONE, omega: HALF, u: ONE },
    none: { alpha: HALF, omega: HALF, u: HALF },
  };

  function tied({ name, a, b }) {
    return {
      name: `${name} (tied)`,
      a: [a[0], a[1], sub(ONE, b[0])],
      b: [b[0], b[1], b[0]],
    };
  }

  function gradientExponents({ a, b }) {
    const before = add(a[2], b[2]);
    return {
      embedding: add(before, a[0]),
      hidden: add(before, a[1]),
      readout: a[2],
      vector: before,
      constant: ZERO,
    };
  }

  // Layers: a matrix of the model each, and what is assumed of it.

  function asLayers({ a, b }, alignment, depth) {
    const layer = (name, role, index) => ({
      name,
      role,
      a: a[index],
      b: b[index],
      size: add(a[index], b[index]),
      alignment: role === "embedding" ? null : alignment,
    });
    const hidden = Array.from({ length: depth }, (_, i) => layer(`hidden ${i + 1}`, "hidden", 1));
    return [layer("embedding", "embedding", 0), ...hidden, layer("readout", "readout", 2)];
  }

  // What is wrong with a parameterization whose activations or logits grow before any training;
  // null if nothing is.
  function initialFault({ a, b }) {
    const conditions = [
      ["embedding", "a + b = 0", (size) => equal(size, ZERO)],
      ["hidden", "a + b = 1/2", (size) => equal(size, HALF)],
      ["readout", "a + b >= 1/2", (size) => !less(size, HALF)],
    ];
    for (const [index, [role, condition, holds]] of conditions.entries()) {
      if (!holds(add(a[index], b[index]))) {
        return (
          `not stable at initialisation: its ${role} has a = ${text(a[index])} and ` +
          `b = ${text(b[index])}, but activations and logits stay bounded only with ${condition}`
        );
      }
    }
    return null;
  }

  // What given learning rates do.

  // The exponent of the effective update's size at a learning rate that stays constant.
  const naturalUpdate = (layer, family, gradient) =>
    add(
      layer.a,
      add(mul(family.gradientDegree, gradient), mul(family.weightDegree, layer.b)),
    );

  // The exponents of the terms that the change of a layer's output is a sum of.
  function changes(layer, update, previous) {
    const s = layer.alignment;
    if (s === null) return { update };
    return {
      alpha: sub(update, s.alpha),
      u: sub(add(update, previous), s.u),
      omega: sub(add(layer.size, previous), s.omega),
    };
  }

  function assess(layers, family, rates, others) {
    const readout = layers.at(-1);
    const readoutUpdate = add(rates.at(-1), naturalUpdate(readout, family, readout.a));
    const backward = min(readout.size, readoutUpdate);
    const bias = add(others.vector, mul(family.gradientDegree, backward));
    let previous = ZERO;
    const solved = layers.map((layer, index) => {
      const gradient = layer === readout ? layer.a : add(layer.a, backward);
      const update = add(rates[index], naturalUpdate(layer, family, gradient));
      const terms = changes(layer, update, previous);
      // A bias and a gain stand beside every matrix but the readout.
      if (layer !== readout) terms.vector = bias;
      previous = min(...Object.values(terms));
      // Nothing that this page offers is unstable; its verdicts say so.
      if (less(previous, ZERO)) throw new Error(`${layer.name} is unstable`);
      return {
        name: layer.name,
        role: layer.role,
        a: layer.a,
        b: layer.b,
        c: rates[index],
        initialGradient: layer === readout ? layer.a : add(layer.a, readout.size),
        gradient,
        update,
        residual: previous,
        terms,
      };
    });
    return withVerdict(family, solved, others);
  }

  function withVerdict(family, layers, others) {
    const hidden = layers.slice(1, -1).map((layer) => layer.c);
    const [least, most] = [min(...hidden), max(...hidden)];
    const notes = equal(least, most)
      ? []
      : [
          `the hidden layers' exponents go from ${text(least)} to ${text(most)}; the role has ` +
            "the largest, the smallest learning rate",
        ];
    const [embedding, readout] = [layers[0].c, layers.at(-1).c];
    return {
      layers,
      exponents: { embedding, hidden: most, readout, ...others },
      binding: Object.fromEntries(layers.map((layer) => [layer.name, binding(family, layer)])),
      verdict: `stable; ${onLogits(family, layers)}; ${onFeatures(family, layers)}`,
      notes,
      alternatives: [],
    };
  }

  // The constraints of a layer that hold with equality.
  function binding(family, layer) {
    // The logits have to be bounded; a residual equals the smallest of its terms.
    const level = layer.role === "readout" ? min(layer.residual, ZERO) : layer.residual;
    const named = Object.keys(layer.terms).filter((name) => equal(layer.terms[name], level));
    // Biases and gains are given rates that fit what the matrices do, not the other way round.
    const matrix = named.filter((name) => name !== "vector");
    return [...(matrix.length ? matrix : named), ...(isBounded(family, layer) ? ["size"] : [])];
  }

  // Whether only the size of the initial weight keeps the update from being larger.
  function isBounded(family, layer) {
    const applies =
      !equal(family.weightDegree, ZERO) ||
      (!equal(family.gradientDegree, ZERO) && layer.role === "readout");
    return applies && equal(layer.update, add(layer.a, layer.b));
  }

  function onLogits(family, layers) {
    const { residual } = layers.at(-1);
    if (!less(ZERO, residual)) return "the logits change by order one";
    const said = `trivial in the limit, the logits' change falls as r^-${text(residual)}: `;
    if (!isBounded(family, layers.at(-1))) {
      return said + "the learning rates are too small to change them";
    }
    if (!equal(family.weightDegree, ZERO)) {
      return said + "a readout update no larger than its weight is too small to change them";
    }
    return (
      said +
      "a larger update of the readout would exceed its initial size and enlarge the gradients " +
      "of all layers before it"
    );
  }

  function onFeatures(family, layers) {
    const features = layers.at(-2);
    if (equal(features.residual, ZERO)) return "features are learned";
    const said = `lazy, the features' change falls as r^-${text(features.residual)}: `;
    if (equal(layers.at(-1).terms.omega, ZERO)) {
      return said + "more would make the logits grow, for the readout's omega";
    }
    if (isBounded(family, features)) {
      return said + `an update of ${features.name} no larger than its weight is too small`;
    }
    return said + "the learning rates ask for no more";
  }

  // The largest stable learning rates.

  function solve(law, family, alignment, depth) {
    const layers = asLayers(law, alignment, depth);
    const residuals = requiredResiduals(layers, false);
    const solution = largestRates(layers, family, residuals, true);
    return { ...solution, alternatives: alternatives(layers, family, residuals, solution) };
  }

  // A tied readout is the embedding, and has its learning rate and not one of its own.
  function solveTied(law, family, alignment, depth) {
    const { layers, exponents } = solve(tied(law), family, alignment, depth);
    const rates = [...layers.slice(0, -1).map((layer) => layer.c), exponents.embedding];
    const { vector, constant } = exponents;
    return assess(asLayers(tied(law), alignment, depth), family, rates, { vector, constant });
  }

  // How far each layer's change must fall so that those behind it stay bounded. `lazy` also lets
  // it fall until u no longer limits the learning rate behind it.
  function requiredResiduals(layers, lazy) {
    const residuals = [ZERO];
    for (const layer of layers.slice(1).reverse()) {
      const s = layer.alignment;
      const required = sub(add(residuals[0], s.omega), layer.size);
      residuals.unshift(max(ZERO, required, lazy ? sub(s.u, s.alpha) : ZERO));
    }
    return residuals;
  }

  // `bounded`: whether the readout's update is kept at or below its initial size where updates
  // follow the gradient.
  function largestRates(layers, family, residuals, bounded) {
    const p = family.gradientDegree;
    const readout = layers.at(-1);
    let [largest, previous] = [ZERO, ZERO];
    const updates = layers.map((layer, index) => {
      const s = layer.alignment;
      let update = residuals[index];
      if (s !== null) update = add(update, max(s.alpha, sub(s.u, previous)));
      const follows = !equal(p, ZERO) && bounded && layer === readout;
      if (!equal(family.weightDegree, ZERO) || follows) update = max(update, layer.size);
      largest = max(largest, previous);
      previous = min(...Object.values(changes(layer, update, previous)));
      return update;
    });
    const backward = min(readout.size, updates.at(-1));
    const rates = layers.map((layer, index) => {
      const gradient = layer === readout ? layer.a : add(layer.a, backward);
      return sub(updates[index], naturalUpdate(layer, family, gradient));
    });
    // Biases and gains stand at every layer and must not add to any of their changes.
    const others = { vector: sub(largest, mul(p, backward)), constant: ZERO };
    return assess(layers, family, rates, others);
  }

  // Other maxima. Each has a larger learning rate somewhere, or it is none.
  function alternatives(layers, family, residuals, solution) {
    const others = [];
    const followsGradientAlone =
      !equal(family.gradientDegree, ZERO) && equal(family.weightDegree, ZERO);
    if (followsGradientAlone && equal(solution.layers.at(-1).update, layers.at(-1).size)) {
      others.push({
        why:
          "a larger learning rate of the readout, for smaller ones of all layers before it: its " +
          "update exceeds its initial size, and the gradients grow with it",
        solution: largestRates(layers, family, residuals, false),
      });
    }
    const lazy = requiredResiduals(layers, true);
    if (lazy.some((residual, index) => !equal(residual, residuals[index]))) {
      others.push({
        why:
          "larger learning rates of layers where u > alpha, for smaller ones of layers before " +
          "them: features that change less meet the update more gently",
        solution: largestRates(layers, family, lazy, true),
      });
    }
    return others.filter((other) =>
      other.solution.layers.some((layer, index) => less(layer.c, solution.layers[index].c)),
    );
  }

  // Numbers at a width.

  const power = (r, exponent) => r ** -number(exponent);

  // Adam's epsilon is never less than sqrt(tiny / (1 - beta2)) of its moments, which are float32.
  const LEAST_EPSILON = Math.sqrt(2 ** -126 / (1 - 0.999));

  const epsilonAt = (epsilon, exponent, scaling, r) =>
    Math.max(scaling === "gradient" ? epsilon * power(r, exponent) : epsilon, LEAST_EPSILON);

  // The width ratio at which epsilon takes a tenth of an update; 1 if it does so from the start.
  function tenthLostAt(gradient, exponent, epsilon, scaling) {
    const first = Math.max(epsilon, LEAST_EPSILON);
    if (gradient <= 9 * first) return 1;
    // With the epsilon on its heels a gradient meets only the least one.
    const target = 9 * (scaling === "gradient" ? LEAST_EPSILON : first);
    return less(ZERO, exponent) ? (gradient / target) ** (1 / number(exponent)) : Infinity;
  }

  // The smallest normal and subnormal numbers, and what is rounded to infinity from.
  const dtypes = {
    float32: { tiny: 2 ** -126, least: 2 ** -149, over: 2 ** 128 - 2 ** 103 },
    bfloat16: { tiny: 2 ** -126, least: 2 ** -133, over: 2 ** 128 - 2 ** 119 },
    float16: { tiny: 2 ** -14, least: 2 ** -24, over: 65520 },
  };

  // What a positive number is when it is rounded to a dtype.
  function representation(x, { tiny, least, over }) {
    if (x >= over) return "infinite";
    if (x >= tiny - least / 2) return "normal";
    return x > least / 2 ? "subnormal" : "zero";
  }

  return {
    parse,
    text,
    number,
    equal,
    parameterizations,
    families,
    alignments,
    tied,
    gradientExponents,
    initialFault,
    solve,
    solveTied,
    power,
    epsilonAt,
    tenthLostAt,
    dtypes,
    representation,
  };
})();
