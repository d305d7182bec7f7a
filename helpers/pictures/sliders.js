// Sliders that need no kernel. sliders.py puts all of this into a cell's output and calls `begin`.
// Nothing is asked of any host. Where scripts are off, the table or picture in the box stays alone.

const SVG = ["svg", "g", "rect", "line", "path", "circle", "text", "image"];

// An element with attributes and children.
function make(name, attributes = {}, ...children) {
  const element = SVG.includes(name)
    ? document.createElementNS("http://www.w3.org/2000/svg", name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const change = (element, attributes) => {
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
};

// A number for readers, with a true minus.
const digits = (value, count) => value.toFixed(count).replace("-", "\u2212");

// A labelled slider above what it moves. `words(position)` is what stands beside it.
function slider(live, { label, max, start, words, ends }, moved) {
  const about = { type: "range", min: 0, max, step: 1, value: start, "aria-label": label };
  const input = make("input", about);
  const said = make("span", { class: "said", "aria-hidden": "true" }); // aria-valuetext says it
  const heading = make("span", { class: "of-slider" }, make("span", {}, label), said);
  live.append(
    make("label", { class: "slider" }, heading, input),
    make("div", { class: "ends", "aria-hidden": "true" }, ...ends.map((end) => make("span", {}, end))),
  );
  const move = () => {
    const position = Number(input.value);
    said.textContent = words(position);
    input.setAttribute("aria-valuetext", [words(position), moved(position)].filter(Boolean).join(": "));
  };
  input.addEventListener("input", move);
  return move;
}

// Radio buttons, or nothing where there is no choice; returns the number of the one chosen.
function choice(live, legend, names, changed) {
  const group = "of-" + Math.random().toString(36).slice(2);
  const box = make("fieldset", {}, make("legend", {}, legend));
  let chosen = 0;
  names.forEach((name, number) => {
    const button = make("input", { type: "radio", name: group, value: number });
    button.checked = number === 0;
    button.addEventListener("change", () => {
      chosen = number;
      changed();
    });
    box.append(make("label", {}, button, make("span", {}, name)));
  });
  if (names.length > 1) live.append(box);
  return () => chosen;
}

// Figures with a name each; the function that comes back sets them: their value, and its text.
function readouts(live, names) {
  const cells = names.map((name) => {
    const value = make("data");
    return [make("div", {}, make("span", {}, name), value), value];
  });
  live.append(make("div", { class: "readouts" }, ...cells.map(([cell]) => cell)));
  return (...figures) =>
    figures.forEach(([value, text], number) => {
      const cell = cells[number][1];
      cell.value = value;
      cell.textContent = text;
    });
}

// Axes of 320 x 230; x and y bring the figures of their ticks into it.
function axes({ title, across, up, xs, ys, left = 46 }) {
  const [right, top, bottom] = [308, 30, 186];
  const x = (value) => left + ((right - left) * (value - xs[0])) / (xs.at(-1) - xs[0]);
  const y = (value) => bottom + ((top - bottom) * (value - ys[0])) / (ys.at(-1) - ys[0]);
  const svg = make("svg", { viewBox: "0 0 320 230", role: "img", "aria-label": title });
  const words = (text, attributes) => svg.append(make("text", attributes, text));
  words(title, { x: left, y: 16, class: "title" });
  for (const tick of ys) {
    svg.append(make("line", { x1: left, x2: right, y1: y(tick), y2: y(tick), class: "grid" }));
    if (up) words(String(tick), { x: left - 6, y: y(tick) + 4, "text-anchor": "end" });
  }
  for (const tick of across.ticks ? xs : [])
    words(String(tick), { x: x(tick), y: bottom + 17, "text-anchor": "middle" });
  words(across.words, { x: (left + right) / 2, y: bottom + 36, "text-anchor": "middle" });
  if (up) {
    const place = `translate(12 ${(top + bottom) / 2}) rotate(-90)`;
    words(up, { transform: place, "text-anchor": "middle" });
  }
  return { svg, x, y, words, top, bottom, left, right };
}

const kinds = {};

// Every score times one number, and one number added: bars of softmax and of sigmoid.
kinds.scores = (live, { scores, added, times }) => {
  const softmax = (values) => {
    const parts = values.map(Math.exp);
    const whole = parts.reduce((sum, part) => sum + part, 0);
    return parts.map((part) => part / whole);
  };
  const sigmoid = (values) => values.map((value) => 1 / (1 + Math.exp(-value)));
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const number = ({ lowest, step }, position) => lowest + step * position;
  const signed = (value) => (value > 0 ? "+" : "") + digits(value, 1);

  const bars = (title, kind, weigh) => {
    const across = { words: "score of each position" };
    const { svg, y, bottom, left, right, words } = axes({
      title, across, up: "weight", xs: [0, 1], ys: [0, 0.5, 1],
    });
    const wide = (right - left) / scores.length;
    const before = weigh(scores);
    const columns = scores.map((score, number) => {
      const x = left + wide * (number + 0.14);
      const middle = { x: x + wide * 0.36, "text-anchor": "middle" };
      const bar = make("rect", { x, width: wide * 0.72, class: kind });
      const label = make("text", { ...middle, class: "value" });
      const below = make("text", { ...middle, y: bottom + 17 });
      const ghost = { x, width: wide * 0.72, y: y(before[number]), class: "ghost" };
      svg.append(bar, make("rect", { ...ghost, height: bottom - y(before[number]) }), below);
      return { bar, label, below };
    });
    svg.append(...columns.map(({ label }) => label)); // over all that is drawn
    const draw = (by, factor) => {
      const moved = scores.map((score) => factor * score + by);
      const weights = weigh(moved);
      weights.forEach((weight, number) => {
        const { bar, label, below } = columns[number];
        change(bar, { y: y(weight), height: bottom - y(weight) });
        change(label, { y: y(weight) - 4, "data-value": weight });
        label.textContent = digits(weight, 3);
        below.textContent = digits(moved[number], 2);
      });
      return sum(weights);
    };
    return { svg, draw };
  };
  const left = bars("softmax", "blue", softmax);
  const right = bars("sigmoid", "vermilion", sigmoid);
  let set;
  const now = [number(added, added.start), number(times, times.start)];
  const redraw = () => {
    const [one, other] = [left, right].map((half) => half.draw(...now));
    set([one, digits(one, 3)], [other, digits(other, 3)]);
    return `softmax sums to ${digits(one, 3)}, sigmoid to ${digits(other, 3)}`;
  };
  const moves = [
    [added, "added to every score", signed],
    [times, "every score times", (value) => digits(value, 2)],
  ].map(([range, label, words], which) => {
    const said = (position) => words(number(range, position));
    const about = { label, max: range.steps, start: range.start, words: said };
    return slider(live, { ...about, ends: [said(0), said(range.steps)] }, (position) => {
      now[which] = number(range, position);
      return redraw();
    });
  });
  live.append(make("div", { class: "panels" }, left.svg, right.svg));
  set = readouts(live, ["sum, softmax", "sum, sigmoid"]);
  live.append(make("p", {}, "Dashed: the weights before you moved anything."));
  moves.forEach((move) => move());
};

// The threshold from which melanoma is called: a point on the ROC curve, and who changes sides.
kinds.threshold = (live, { targets, probabilities, thresholds, start }) => {
  const last = thresholds.length - 1;
  const total = [0, 1].map((kind) => targets.filter((target) => target === kind).length);
  const called = (threshold, kind) =>
    probabilities.filter((value, number) => targets[number] === kind && value >= threshold).length;
  const points = thresholds.map((threshold) => [0, 1].map((kind) => called(threshold, kind) / total[kind]));
  const chosen = thresholds[start];
  const name = (position) =>
    position === last && position !== start
      ? `above ${digits(thresholds[last], 3)}`
      : digits(thresholds[position], 3);

  const roc = axes({
    title: "ROC curve", across: { words: "1 \u2212 specificity: false alarms", ticks: true },
    up: "sensitivity: found", xs: [0, 0.5, 1], ys: [0, 0.5, 1],
  });
  const path = points.map(([x, y], number) => `${number ? "L" : "M"}${roc.x(x)} ${roc.y(y)}`);
  const place = ([x, y]) => ({ cx: roc.x(x), cy: roc.y(y) });
  const point = make("circle", { r: 6.5, class: "vermilion" });
  roc.svg.append(
    make("path", { d: path.join(""), class: "curve" }),
    make("circle", { ...place(points[start]), r: 6.5, class: "ghost" }),
    point,
  );

  const strip = axes({
    title: "Each photograph", across: { words: "probability of melanoma", ticks: true },
    xs: [0, 0.5, 1], ys: [0, 1], left: 12,
  });
  const { x, top, bottom, right } = strip;
  const half = (bottom - top) / 2;
  const region = make("rect", { y: top, height: bottom - top, class: "region" });
  const line = make("line", { y1: top - 4, y2: bottom + 4, class: "edge" });
  strip.svg.append(region);
  const radius = Math.max(1.5, Math.min(4, 40 / Math.sqrt(targets.length)));
  const dots = probabilities.map((value, number) => {
    const spread = 0.14 + 0.62 * ((number * 0.618034) % 1); // apart, and the same every time
    const kind = targets[number] ? "vermilion" : "blue";
    const y = top + half * (targets[number] ? 0 : 1) + 12 + (half - 12) * spread;
    const dot = make("circle", { cx: x(value), cy: y, r: radius, class: `dot ${kind}` });
    strip.svg.append(dot);
    return dot;
  });
  strip.words("melanomas", { x: right, y: top + 11, "text-anchor": "end" });
  strip.words("benign lesions", { x: right, y: top + half + 11, "text-anchor": "end" });
  strip.svg.append(line);

  const cells = {};
  const cell = (key) => (cells[key] = make("data"));
  const row = (head, ...rest) =>
    make("tr", {}, make("th", { scope: "row" }, head), ...rest.map((one) => make("td", {}, ...one)));
  const heads = ["", "called melanoma", "called benign", "right"];
  const table = make("table", {},
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {},
      row("melanoma", [cell("found"), " found"], [cell("missed"), " missed"],
        [cell("sensitivity"), make("small", {}, " sensitivity")]),
      row("benign", [cell("alarms"), " false alarms"], [cell("cleared"), " cleared"],
        [cell("specificity"), make("small", {}, " specificity")])),
  );
  const changes = make("p", { class: "changes" });
  const show = (key, value, text = String(value)) => {
    cells[key].value = value;
    cells[key].textContent = text;
  };
  const several = (count, one, more) => `${count} ${count === 1 ? one : more}`;
  const move = slider(
    live,
    {
      label: "threshold", max: last, start, words: name,
      ends: ["all are called melanoma", "none is"],
    },
    (position) => {
      const threshold = thresholds[position];
      const [alarms, found] = [0, 1].map((kind) => called(threshold, kind));
      const sensitivity = found / total[1];
      const specificity = (total[0] - alarms) / total[0];
      show("found", found);
      show("missed", total[1] - found);
      show("alarms", alarms);
      show("cleared", total[0] - alarms);
      show("sensitivity", sensitivity, digits(sensitivity, 3));
      show("specificity", specificity, digits(specificity, 3));
      change(point, place(points[position]));
      const edge = Math.min(x(threshold), right + 6);
      change(line, { x1: edge, x2: edge });
      change(region, { x: edge, width: Math.max(0, right + 6 - edge) });
      const turned = [0, 0];
      dots.forEach((dot, number) => {
        const melanoma = probabilities[number] >= threshold;
        const before = probabilities[number] >= chosen;
        dot.classList.toggle("wrong", melanoma !== (targets[number] === 1));
        dot.classList.toggle("turned", melanoma !== before);
        if (melanoma !== before) turned[targets[number]] += 1;
      });
      const by = [
        several(turned[1], "melanoma", "melanomas"),
        several(turned[0], "benign lesion", "benign lesions"),
      ].join(" and ");
      changes.textContent =
        position === start
          ? `This is the run's own threshold, ${name(start)}. Full dots are called rightly, hollow ones wrongly.`
          : `Since the run's own threshold, ${name(start)}, ${by} have changed sides (dots with a black ring).`;
      return `sensitivity ${digits(sensitivity, 3)}, specificity ${digits(specificity, 3)}`;
    },
  );
  live.append(make("div", { class: "panels" }, roc.svg, strip.svg), table, changes);
  move();
};

// A menu of photographs, or nothing where there is one.
function menu(live, titles, changed) {
  const list = make("select", {}, ...titles.map((title, number) => make("option", { value: number }, title)));
  list.addEventListener("change", changed);
  if (titles.length > 1) live.append(make("label", { class: "menu" }, make("span", {}, "photograph"), list));
  return () => Number(list.value);
}

// Which photograph, and which of its maps: two functions that tell the number of the one chosen.
function selectors(live, titles, layers, changed) {
  const controls = make("div", { class: "controls" });
  live.append(controls);
  return [menu(controls, titles, changed), choice(controls, "map", layers.map(({ name }) => name), changed)];
}

// A photograph under a map, which the slider makes more or less opaque.
kinds.opacity = (live, { titles, photographs, layers, colours, start }) => {
  let move;
  const [photograph, layer] = selectors(live, titles, layers, () => move());
  const below = make("img", { alt: "the photograph" });
  const above = make("img", { alt: "the map over it" });
  const ends = [make("span"), make("span")];
  const unit = make("span", { class: "unit" });
  const ramp = { class: "ramp", style: `background: linear-gradient(to right, ${colours.join(", ")})` };
  move = slider(
    live,
    {
      label: "opacity of the map", max: 20, start: start * 20,
      words: (position) => digits(position / 20, 2), ends: ["photograph alone", "map alone"],
    },
    (position) => {
      const { name, unit: of, images, low, high } = layers[layer()];
      const number = photograph();
      below.src = photographs[number];
      above.src = images[number];
      above.style.opacity = position / 20;
      ends[0].textContent = low[number];
      ends[1].textContent = high[number];
      unit.textContent = of;
      return `${name}, ${titles[number]}`;
    },
  );
  live.append(
    make("div", { class: "picture" },
      make("div", { class: "stack" }, below, above),
      make("div", ramp),
      make("div", { class: "ends" }, ends[0], unit, ends[1])),
  );
  move();
};

// A map cut at a level, against the outline of the lesion: what is kept, and how well it fits.
kinds.level = (live, { titles, photographs, side, layers, levels, start }) => {
  const [height, width] = side;
  // of each pixel the last level at which it is kept, and 128 more where the lesion is
  const decoded = layers.map(({ pixels }) =>
    pixels.map((text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))),
  );
  const fit = (pixels, level) => {
    let [kept, both, either] = [0, 0, 0];
    for (const pixel of pixels) {
      const lesion = pixel >= 128;
      const high = pixel % 128 >= level;
      kept += high;
      both += high && lesion;
      either += high || lesion;
    }
    return { area: kept / pixels.length, iou: both / either };
  };
  // the kept pixels, a bar for each run in a row
  const region = (pixels, level) => {
    const runs = [];
    for (let row = 0; row < height; row += 1) {
      let from = -1;
      for (let column = 0; column <= width; column += 1) {
        const high = column < width && pixels[row * width + column] % 128 >= level;
        if (high && from < 0) from = column;
        if (!high && from >= 0) {
          runs.push(`M${from} ${row}h${column - from}v1h${from - column}z`);
          from = -1;
        }
      }
    }
    return runs.join("");
  };
  // the sides between a pixel of the lesion and one beside it
  const outline = (pixels) => {
    const inside = (row, column) =>
      row >= 0 && column >= 0 && row < height && column < width && pixels[row * width + column] >= 128;
    const sides = [];
    for (let row = 0; row <= height; row += 1)
      for (let column = 0; column <= width; column += 1) {
        if (inside(row, column) !== inside(row - 1, column)) sides.push(`M${column} ${row}h1`);
        if (inside(row, column) !== inside(row, column - 1)) sides.push(`M${column} ${row}v1`);
      }
    return sides.join("");
  };

  let move;
  const [photograph, layer] = selectors(live, titles, layers, () => move());
  const view = { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "what is kept of the map" };
  const image = make("image", { width, height, preserveAspectRatio: "none" });
  const kept = make("path", { class: "kept" });
  const borders = ["casing", "lesion"].map((kind) => make("path", { class: kind }));
  const picture = make("svg", view, image, kept, ...borders);
  const plot = axes({
    title: "IoU at each level", across: { words: "level", ticks: true }, up: "IoU",
    xs: [0, 0.5, 1], ys: [0, 0.5, 1],
  });
  const curve = make("path", { class: "curve" });
  const point = make("circle", { r: 6.5, class: "vermilion" });
  plot.svg.append(curve, point);
  let set;
  move = slider(
    live,
    {
      label: "level, as a share of the map's range", max: levels, start,
      words: (position) => digits(position / levels, 2), ends: ["all is kept", "the peak alone"],
    },
    (position) => {
      const number = photograph();
      const pixels = decoded[layer()][number];
      const { area, iou } = fit(pixels, position);
      change(image, { href: photographs[number] });
      change(kept, { d: region(pixels, position) });
      for (const border of borders) change(border, { d: outline(pixels) });
      const fits = Array.from({ length: levels + 1 }, (_, level) => fit(pixels, level).iou);
      const path = fits.map((value, level) => `${level ? "L" : "M"}${plot.x(level / levels)} ${plot.y(value)}`);
      change(curve, { d: path.join("") });
      change(point, { cx: plot.x(position / levels), cy: plot.y(iou) });
      const energy = layers[layer()].energy[number];
      set([iou, digits(iou, 3)], [area, digits(area, 3)], [energy, digits(energy, 3)]);
      return `IoU ${digits(iou, 3)}`;
    },
  );
  const key = make("p", {},
    make("span", { class: "key kept" }), "kept of the map ",
    make("span", { class: "key lesion" }), "outline of lesion");
  live.append(make("div", { class: "panels" }, make("div", { class: "picture" }, picture, key), plot.svg));
  set = readouts(live, ["IoU", "kept, of the area", "energy inside the mask, at every level"]);
  move();
};

// Puts a slider of this kind into the first box of this key that has none yet.
function begin(key, kind, data) {
  const box = document.querySelector(`[data-slider="${key}"]:not([data-moves])`);
  if (!box) return;
  box.setAttribute("data-moves", "");
  const live = make("div", { class: "live" });
  kinds[kind](live, data);
  const still = box.querySelector(".still");
  const folded = make("details", {}, make("summary", {}, still.dataset.name));
  still.replaceWith(live, folded);
  folded.append(still);
  // else JupyterLab takes the arrow keys, to go from cell to cell
  for (const control of box.querySelectorAll("input, select, summary"))
    control.setAttribute("data-lm-suppress-shortcuts", "true");
}
