"use strict";

// The page "Explore the exponents": reads the form, asks exponents.js, writes the tables.
(() => {
  const E = ScaleExponents;
  const ROLES = ["embedding", "hidden", "readout", "vector", "constant"];
  const MATRICES = ROLES.slice(0, 3);
  const SLIDERS = ["alpha", "omega", "u"];
  const SVG = "http://www.w3.org/2000/svg";

  const find = (selector) => document.querySelector(selector);
  const form = find("#explore-form");
  const results = find(".explore-results");
  const control = (name) => form.elements.namedItem(name);

  // How things are written.

  // Screen readers pass over a hyphen, and speak a minus.
  const minus = (string) => string.replaceAll("-", "−");
  const exact = (x) => minus(E.text(x));

  // Three significant digits.
  function shown(x) {
    if (x === Infinity) return "∞";
    const rounded = Number(x.toPrecision(3));
    const plain = rounded === 0 || (rounded >= 1e-3 && rounded < 1e5);
    const [digits, exponent] = rounded.toExponential().split("e");
    return minus(plain ? String(rounded) : `${digits}e${Number(exponent)}`);
  }

  // As Python reads it.
  const literal = (x) => (x > 0 && x < 1e-3 ? x.toExponential() : String(x));

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  // The choice.

  function read() {
    const text = (name) => control(name).value;
    const number = (name) => Number(text(name));
    const named = E.parameterizations[text("parameterization")];
    const own = (letter) => MATRICES.map((role) => E.parse(text(`${letter}_${role}`)));
    const [alpha, omega, u] = SLIDERS.map((name) => E.parse(text(name)));
    const base = number("base");
    const r = 2 ** number("octaves");
    return {
      law: named ?? { name: "mine", a: own("a"), b: own("b") },
      family: E.families[text("family")],
      alignment: { alpha, omega, u },
      tied: control("tied").checked,
      depth: number("depth"),
      base,
      r,
      width: base * r,
      rate: number("rate"),
      gradients: Object.fromEntries(
        ["embedding", "hidden", "readout", "vector"].map((role) => [role, number(`g_${role}`)]),
      ),
      epsilon: number("epsilon"),
      scaling: text("scaling"),
    };
  }

  const nameOf = (input) => input.labels[0].firstChild.textContent.trim();

  // What is wrong with the fields, a sentence each; marks them.
  function faults() {
    const found = [];
    for (const input of form.elements) {
      if (!["number", "text"].includes(input.type)) continue;
      const said = input.matches(":disabled") ? null : fault(input);
      input.setAttribute("aria-invalid", said !== null);
      if (said !== null) found.push(`${nameOf(input)}: ${said}`);
    }
    const initial = found.length ? null : E.initialFault(read().law);
    return initial === null ? found : [`Your a and b are ${initial}.`];
  }

  function fault(input) {
    if (input.type === "number") {
      if (input.checkValidity()) return null;
      const kind = input.step === "any" ? "a number" : "a whole number";
      return `expected ${kind} from ${input.min} to ${input.max}.`;
    }
    const wanted = "expected a fraction or a decimal, such as 1/4 or 0.25.";
    return E.parse(input.value) === null ? `${JSON.stringify(input.value)}; ${wanted}` : null;
  }

  // Controls that follow each other.

  function follow(changed) {
    if (changed === "alignment") setSliders();
    if (changed === "parameterization") prefill();
    control("alignment").value = matchingAlignment();
    const own = find(".explore-own");
    own.disabled = own.hidden = control("parameterization").value !== "own";
    // SGD has no epsilon.
    find(".explore-epsilon").disabled = control("family").value === "sgd";
    control("g_readout").disabled = control("tied").checked;
    for (const name of SLIDERS) describe(control(name), exact(E.parse(control(name).value)));
    const octaves = control("octaves");
    const width = Number(control("base").value) * 2 ** octaves.value;
    describe(octaves, `${2 ** octaves.value}, width ${width}`);
  }

  function describe(slider, text) {
    slider.setAttribute("aria-valuetext", text);
    slider.labels[0].querySelector(".explore-value").textContent = text;
  }

  function setSliders() {
    const chosen = E.alignments[control("alignment").value];
    if (!chosen) return;
    for (const name of SLIDERS) control(name).value = E.number(chosen[name]);
  }

  function matchingAlignment() {
    const matches = ([, alignment]) =>
      SLIDERS.every((name) => E.equal(alignment[name], E.parse(control(name).value)));
    return (Object.entries(E.alignments).find(matches) ?? ["own"])[0];
  }

  // Your own exponents start from those of the last choice.
  function prefill() {
    const chosen = E.parameterizations[control("parameterization").value];
    if (!chosen) return;
    for (const letter of ["a", "b"]) {
      for (const [index, role] of MATRICES.entries()) {
        control(`${letter}_${role}`).value = E.text(chosen[letter][index]);
      }
    }
  }

  // The link.

  const fragment = () => `#${new URLSearchParams(new FormData(form))}`;

  // Leaves a control as it is that cannot have the value.
  function setValue(input, value) {
    const before = input.value;
    input.value = value;
    if (input.value !== value) input.value = before;
  }

  // Sets the controls to what a link says; returns what of it cannot be followed.
  function restore(hash) {
    const wanted = new URLSearchParams(hash.slice(1));
    if (![...wanted.keys()].some((name) => control(name))) return [];
    form.reset();
    const order = ["parameterization", "alignment"];
    const names = [...order, ...[...wanted.keys()].filter((name) => !order.includes(name))];
    for (const name of names.filter((name) => wanted.has(name) && control(name))) {
      const value = wanted.get(name);
      const input = control(name);
      if (input.type === "checkbox") input.checked = value === input.value;
      else setValue(input, value);
      if (order.includes(name)) follow(name);
    }
    follow();
    const followed = ([name, value]) => {
      const input = control(name);
      return input?.value === value && (input.type !== "checkbox" || input.checked);
    };
    const refused = [...wanted].filter((entry) => !followed(entry));
    return refused.map(
      ([name, value]) => `The link has ${name}=${value}, which this page cannot follow.`,
    );
  }

  // The tables.

  // A row: a heading and cells, each an array of lines.
  function row(labels, heading, cells) {
    const made = element("tr", { role: "row" });
    made.append(element("th", { scope: "row", role: "rowheader" }, heading));
    for (const [index, lines] of cells.entries()) {
      const cell = element("td", { role: "cell", "data-label": labels[index + 1] });
      const value = element("span");
      for (const line of lines) value.append(element("span", { class: "explore-line" }, line), " ");
      cell.append(value);
      made.append(cell);
    }
    return made;
  }

  function fill(name, caption, rows) {
    const table = find(`[data-table=${name}]`);
    const headings = [...table.querySelectorAll("thead th")];
    const labels = headings.map((heading) => heading.textContent);
    table.caption.textContent = caption;
    table.tBodies[0].replaceChildren(...rows.map(([head, ...cells]) => row(labels, head, cells)));
  }

  // Stacked for a narrow screen a table is a table only by its roles.
  function markRoles(table) {
    table.setAttribute("role", "table");
    for (const part of [table.tHead, table.tBodies[0]]) part.setAttribute("role", "rowgroup");
    table.tHead.rows[0].setAttribute("role", "row");
    for (const heading of table.tHead.rows[0].cells) heading.setAttribute("role", "columnheader");
  }

  const factor = (x, r) => `(factor ${shown(E.power(r, x))})`;

  function roleRows(choice, law, solution) {
    const g = E.gradientExponents(law);
    return ROLES.map((role) => {
      const index = MATRICES.indexOf(role);
      const zero = E.parse("0");
      const [a, b] = index < 0 ? [zero, zero] : [law.a[index], law.b[index]];
      const c = solution.exponents[role];
      const exponents = [a, b, g[role], c].map((x) => [exact(x), factor(x, choice.r)]);
      const heading = choice.tied && role === "readout" ? "readout (tied: the embedding)" : role;
      return [heading, ...exponents, [shown(choice.rate * E.power(choice.r, c))]];
    });
  }

  // A row for each layer, and one for equal layers that follow each other.
  function layerRows(solution) {
    const rows = [];
    for (const layer of solution.layers) {
      const numbers = [layer.c, layer.gradient, layer.update, layer.residual].map(exact);
      const cells = [...numbers, solution.binding[layer.name].join(", ") || "none"];
      const last = rows.at(-1);
      if (last && String(last.cells) === String(cells)) last.to = layer.name;
      else rows.push({ from: layer.name, to: layer.name, cells });
    }
    return rows.map(({ from, to, cells }) => {
      const heading = from === to ? from : `${from} to ${to.split(" ")[1]}`;
      return [heading, ...cells.map((cell) => [cell])];
    });
  }

  // The roles that have gradients of their own, and what there is to say of each.
  function gradientSizes(choice, law) {
    const exponents = E.gradientExponents(law);
    const { r, epsilon, scaling } = choice;
    return Object.entries(choice.gradients)
      .filter(([role]) => !(choice.tied && role === "readout"))
      .map(([role, base]) => ({
        role,
        base,
        exponent: exponents[role],
        gradient: base * E.power(r, exponents[role]),
        epsilon: E.epsilonAt(epsilon, exponents[role], scaling, r),
        lostAt: choice.base * E.tenthLostAt(base, exponents[role], epsilon, scaling),
      }));
  }

  function gradientRows(choice, sizes) {
    const usesEpsilon = choice.family.name !== "sgd";
    return sizes.map(({ role, gradient, epsilon }) => {
      const numbers = usesEpsilon ? { gradient, square: gradient ** 2, epsilon } : { gradient };
      const kept = usesEpsilon ? [shown(epsilon), leftOf(gradient, epsilon)] : ["none", "100 %"];
      const dtypes = Object.values(E.dtypes).map((dtype) => kinds(numbers, dtype));
      return [role, [shown(gradient)], ...kept.map((cell) => [cell]), ...dtypes];
    });
  }

  // Never rounded up to all of it.
  function leftOf(gradient, epsilon) {
    const percent = (100 * gradient) / (gradient + epsilon);
    return percent >= 99.95 && percent < 100 ? "> 99.9 %" : `${percent.toFixed(1)} %`;
  }

  // A line for each kind, such as "zero: square, epsilon".
  function kinds(numbers, dtype) {
    const byKind = new Map();
    for (const [name, x] of Object.entries(numbers)) {
      const found = E.representation(x, dtype);
      byKind.set(found, [...(byKind.get(found) ?? []), name]);
    }
    return [...byKind].map(([found, names]) => {
      const line = `${found}: ${names.join(", ")}`;
      return found === "normal" ? line : element("strong", {}, line);
    });
  }

  function lostSentence(choice, sizes) {
    if (choice.family.name === "sgd") return "SGD's update is the gradient: it has no epsilon.";
    const { role, lostAt } = sizes.reduce((x, y) => (y.lostAt < x.lostAt ? y : x));
    const scaled = choice.family.name === "adafactor";
    const which = scaled ? "In Adam with parameter scaling epsilon" : "Epsilon";
    if (lostAt <= choice.base) {
      return `${which} takes a tenth of the update of role ${role} at the base width already.`;
    }
    return lostAt > 1e12
      ? `${scaled ? "In Adam with parameter scaling, below" : "Below"} width 1e12, epsilon takes ` +
          "less than a tenth of every role's update."
      : `${which} takes a tenth of an update first of role ${role}, at width ${shown(lostAt)}.`;
  }

  // The picture.

  const HEIGHT = 480;
  const MARGIN = { left: 46, right: 76, top: 12, bottom: 40 };
  // In decades: how far the axis goes at most, and the room under the lowest line.
  const DECADES = { high: 10, low: -40 };
  const ROOM = 2;
  const MOST_STEPS = 8;
  const DASHES = { embedding: "", hidden: "8 3", readout: "2 3", vector: "9 3 2 3" };

  function svg(tag, attributes, ...children) {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  // A line of the picture for each role's gradient and, but for SGD, its epsilon.
  function curves(choice, sizes) {
    return sizes.flatMap(({ role, base, exponent }) => {
      const gradient = (r) => base * E.power(r, exponent);
      const epsilon = (r) => E.epsilonAt(choice.epsilon, exponent, choice.scaling, r);
      const found = [{ role, kind: "gradient", at: gradient }];
      if (choice.family.name !== "sgd") found.push({ role, kind: "epsilon", at: epsilon });
      return found;
    });
  }

  const within = (x, low, high) => Math.min(high, Math.max(low, x));

  // The axis: from 1, or the highest line, down to a little below the lowest.
  function decadesOf(lines, last) {
    const ends = lines
      .flatMap(({ at }) => [at(1), at(last)])
      .map((value) => within(Math.log10(value), DECADES.low + ROOM, DECADES.high));
    const [lowest, highest] = [Math.min(...ends) - ROOM, Math.max(...ends, 0)];
    const step = [1, 2, 5, 10].find((size) => (highest - lowest) / size <= MOST_STEPS);
    const [low, high] = [Math.floor(lowest / step), Math.ceil(highest / step)];
    return { low: low * step, high: high * step, step };
  }

  function draw(choice, sizes) {
    const place = find(".explore-picture");
    const width = Math.max(place.clientWidth, 280);
    const octaves = Number(control("octaves").max);
    const lines = curves(choice, sizes);
    const decades = decadesOf(lines, 2 ** octaves);
    const seen = dtypeEnds.filter(({ value }) => Math.log10(value) >= decades.low);
    const below = belowPicture(dtypeEnds.filter((end) => !seen.includes(end)));
    find(".explore-below").textContent = below;
    const inner = { x: width - MARGIN.left - MARGIN.right, y: HEIGHT - MARGIN.top - MARGIN.bottom };
    const x = (octave) => MARGIN.left + (octave / octaves) * inner.x;
    const y = (value) => {
      const { low, high } = decades;
      const decade = within(Math.log10(value), low, high);
      return MARGIN.top + ((high - decade) / (high - low)) * inner.y;
    };
    const along = (f) =>
      Array.from({ length: octaves + 1 }, (_, k) => `${x(k)},${y(f(2 ** k))}`).join(" ");

    const parts = [
      svg("title", { id: "explore-title" }, "Gradient against width, by role"),
      svg("desc", { id: "explore-desc" }, inWords(choice, lines, 2 ** octaves, seen, below)),
      ...axes(choice, x, y, octaves, width, decades),
      ...dtypeLines(seen, x, y, octaves),
    ];
    const here = x(Math.log2(choice.r));
    const [top, bottom] = [MARGIN.top, MARGIN.top + inner.y];
    parts.push(svg("line", { class: "here", x1: here, x2: here, y1: top, y2: bottom }));
    const ends = [];
    for (const { role, kind, at } of lines) {
      const style = { class: `${kind} ${role}`, "stroke-dasharray": DASHES[role] };
      parts.push(svg("polyline", { ...style, points: along(at) }));
      const text = kind === "gradient" ? role : kind;
      // Epsilon's lines lie close together: one label stands for all.
      if (!ends.some((end) => end.text === text)) ends.push({ text, at: y(at(2 ** octaves)) });
    }
    for (const { text, at } of spread(ends)) {
      parts.push(svg("text", { x: x(octaves) + 6, y: at + 4 }, text));
    }
    place.replaceChildren(
      svg(
        "svg",
        {
          role: "img",
          "aria-labelledby": "explore-title explore-desc",
          viewBox: `0 0 ${width} ${HEIGHT}`,
          width,
          height: HEIGHT,
        },
        ...parts,
      ),
    );
  }

  function axes(choice, x, y, octaves, width, { low, high, step }) {
    const parts = [];
    for (let decade = high; decade >= low; decade -= step) {
      const at = y(10 ** decade);
      parts.push(svg("line", { class: "grid", x1: x(0), x2: x(octaves), y1: at, y2: at }));
      const label = decade === 0 ? "1" : `1e${minus(String(decade))}`;
      parts.push(svg("text", { x: x(0) - 6, y: at + 4, "text-anchor": "end" }, label));
    }
    const bottom = y(10 ** low);
    for (let k = 0; k <= octaves; k += width < 480 ? 5 : 2) {
      const text = String(choice.base * 2 ** k);
      parts.push(svg("text", { x: x(k), y: bottom + 18, "text-anchor": "middle" }, text));
    }
    const middle = { x: x(octaves / 2), y: bottom + 34, "text-anchor": "middle" };
    return [...parts, svg("text", middle, "width")];
  }

  const dtypeEnds = [
    {
      value: E.dtypes.float16.tiny,
      label: "float16, smallest normal",
      said: "float16's smallest normal number",
    },
    {
      value: Math.sqrt(E.dtypes.float32.tiny),
      label: "float32, bfloat16: squares underflow",
      said: "the size below which squares underflow in float32 and bfloat16",
    },
    {
      value: E.dtypes.float32.tiny,
      label: "float32, bfloat16, smallest normal",
      said: "the smallest normal number of float32 and bfloat16",
    },
  ];

  function dtypeLines(ends, x, y, octaves) {
    return ends.flatMap(({ value, label }) => {
      const at = y(value);
      // Under the line, unless the axis is there.
      const baseline = at + 18 < HEIGHT - MARGIN.bottom ? at + 14 : at - 4;
      return [
        svg("line", { class: "dtype", x1: x(0), x2: x(octaves), y1: at, y2: at }),
        svg("text", { x: x(0) + 4, y: baseline }, label),
      ];
    });
  }

  const withValues = (ends) => ends.map(({ said, value }) => `${said}, ${shown(value)}`).join("; ");

  // What the picture has no room for.
  const belowPicture = (ends) =>
    ends.length ? `Below the picture's lower edge: ${withValues(ends)}.` : "";

  // Labels from top to bottom, none on top of another.
  function spread(labels) {
    const sorted = [...labels].sort((one, other) => one.at - other.at);
    let next = -Infinity;
    return sorted.map(({ text, at }) => {
      next = Math.max(at, next + 14);
      return { text, at: next };
    });
  }

  function inWords(choice, lines, last, seen, below) {
    const said = lines.map(
      ({ role, kind, at }) => `${role}: ${kind} from ${shown(at(1))} to ${shown(at(last))}`,
    );
    const widths = `From width ${choice.base} to ${choice.base * last}`;
    const dotted = seen.length ? [`Dotted: ${withValues(seen)}.`] : [];
    return [`${widths}. ${said.join("; ")}.`, ...dotted, below].join(" ").trim();
  }

  // Code.

  const quoted = (exponents) => exponents.map((x) => `"${E.text(x)}"`).join(", ");

  function pythonCode(choice) {
    const { law, family, alignment, depth, tied } = choice;
    const lines = ["import scalex_eqx as sx", ""];
    const own = !E.parameterizations[law.name];
    if (own) {
      lines.push(
        "mine = sx.Parameterization(",
        '    "mine",',
        `    a=sx.LayerExponents(${quoted(law.a)}),`,
        `    b=sx.LayerExponents(${quoted(law.b)}),`,
        ")",
      );
    }
    const parameterization = own ? "mine" : `sx.${law.name}`;
    const assumption = control("alignment").value;
    const names = { full: "sx.full_alignment", none: "sx.no_alignment", own: "alignment" };
    let rates = names[assumption];
    if (assumption === "own") {
      const fields = SLIDERS.map((name) => `${name}="${E.text(alignment[name])}"`).join(", ");
      lines.push(`alignment = sx.Alignment("explored", ${fields})`);
    }
    if (!E.equal(alignment.omega, E.alignments.full.omega)) {
      lines.push(
        "rates = sx.theory.solve(",
        `    ${tied ? `${parameterization}.tied()` : parameterization}, "${family.name}", ` +
          `alignment, depth=${depth}`,
        ").exponents",
      );
      rates = "rates";
    }
    if (tied) lines.push("# make: a model with a tied readout, such as sx.nn.TiedReadout");
    lines.push(
      "model = sx.parameterize(",
      `    make, width=${choice.width}, base_width=${choice.base}, ` +
        `parameterization=${parameterization}`,
      ")",
      ...optimizerLines(choice, rates),
    );
    return lines.join("\n");
  }

  function optimizerLines({ family, rate, epsilon, scaling }, rates) {
    const plain = `${literal(rate)}, rates=${rates}`;
    const withEpsilon =
      plain +
      (epsilon === 1e-12 ? "" : `, eps=${literal(epsilon)}`) +
      (scaling === "gradient" ? "" : `, eps_scaling="${scaling}"`);
    if (family.name === "sgd") return [`tx = sx.sgd(${plain})`];
    if (family.name === "adam") return [`tx = sx.adam(${withEpsilon})`];
    return [
      `tx = sx.adam_parameter_scaling(${withEpsilon})`,
      "# Adafactor has an epsilon of its own:",
      `# tx = sx.adafactor(${plain})`,
    ];
  }

  function writeCommand({ law, family, alignment, depth, tied }) {
    const text = find(".explore-command-text");
    const block = find(".explore-command");
    const missing = tied ? "tied models" : E.parameterizations[law.name] ? "" : "your own a and b";
    block.parentElement.hidden = missing !== "";
    text.textContent = missing
      ? `The command scalex exponents has no option for ${missing}.`
      : "The command prints the same exponents:";
    const assumption = control("alignment").value;
    const three = SLIDERS.map((name) => E.text(alignment[name])).join(",");
    const words = [
      "scalex exponents",
      `--parameterizations ${law.name}`,
      `--families ${family.name}`,
      `--alignments ${assumption === "own" ? three : assumption}`,
      ...(depth === 1 ? [] : [`--depth ${depth}`]),
    ];
    block.textContent = words.join(" ");
  }

  // All of it.

  let announcing;
  let redraw = () => {};

  function announce(text) {
    clearTimeout(announcing);
    // A slider that is dragged has nothing to say before it stops.
    announcing = setTimeout(() => {
      find(".explore-status").textContent = text;
    }, 500);
  }

  function update(complaints = []) {
    const wrong = [...complaints, ...faults()];
    const errors = find(".explore-errors");
    errors.hidden = wrong.length === 0;
    errors.replaceChildren(...wrong.map((line) => element("p", {}, line)));
    const valid = wrong.length === complaints.length;
    for (const output of results.querySelectorAll(".explore-output")) output.hidden = !valid;
    if (valid) show(read());
  }

  function show(choice) {
    const law = choice.tied ? E.tied(choice.law) : choice.law;
    const solver = choice.tied ? E.solveTied : E.solve;
    const solution = solver(choice.law, choice.family, choice.alignment, choice.depth);
    const name = `${law.name}, ${choice.family.name}`;
    find(".explore-verdict").textContent = `${name}: ${solution.verdict}.`;
    const others = solution.alternatives.map(({ why, solution: { exponents } }) => {
      const rates = Object.entries(exponents).map(([role, c]) => `${role} ${exact(c)}`);
      return `Alternative c: ${rates.join(", ")}; ${why}.`;
    });
    const more = [...others, ...solution.notes].map((line) => element("li", {}, line));
    find(".explore-more").replaceChildren(...more);
    find(".explore-permalink").href = fragment();

    const at = `width ${choice.width}, r = ${choice.r}`;
    fill(
      "roles",
      `The exponent x of r^−x, and in parentheses the factor that it makes, at ${at}`,
      roleRows(choice, law, solution),
    );
    fill("layers", "Layers from the embedding to the readout", layerRows(solution));
    const sizes = gradientSizes(choice, law);
    const caption = `Sizes at ${at}, and what they are in each dtype`;
    fill("gradients", caption, gradientRows(choice, sizes));
    find(".explore-lost").textContent = lostSentence(choice, sizes);
    redraw = () => draw(choice, sizes);
    redraw();
    find(".explore-python").textContent = pythonCode(choice);
    writeCommand(choice);
    announce(`${name}, width ratio ${choice.r}: ${solution.verdict}`);
  }

  function start() {
    find(".explore-without").remove();
    form.hidden = results.hidden = false;
    document.querySelectorAll(".explore-table").forEach(markRoles);
    form.addEventListener("submit", (event) => event.preventDefault());
    document.addEventListener("input", (event) => {
      if (event.target.form !== form) return;
      follow(event.target.name);
      update();
      history.replaceState(null, "", fragment());
    });
    window.addEventListener("hashchange", () => {
      if (location.hash.includes("=")) update(restore(location.hash));
    });
    window.addEventListener("resize", () => redraw());
    const complaints = restore(location.hash);
    follow();
    update(complaints);
  }

  start();
})();
