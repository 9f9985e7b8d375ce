// Draws the report that the page holds as JSON; `document.rs` describes its format. Strings are set as text, never as
// markup, and nothing is requested.
"use strict";

const MAX_MAGNITUDE = 1e100;
// Start of a logarithmic axis whose data begin at 0 or below.
const MIN_LOGARITHMIC = 1e-99;
const LINE_COLORS = 9;
// Shades of a heat map: least share and opacity.
const SHADES = [[0.001, 0.1], [0.05, 0.22], [0.1, 0.36], [0.2, 0.52], [0.35, 0.68], [0.5, 0.84], [0.75, 1]];
// Parts of a stack from this share on have room for their name.
const NAMED_SHARE = 0.12;

// Elements

const html = (name, classes, ...children) => {
  const element = document.createElement(name);
  if (classes) element.className = classes;
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
};

const svg = (name, attributes, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
};

const styled = (element, style) => {
  for (const [property, value] of Object.entries(style)) element.style.setProperty(property, value);
  return element;
};

const lineColor = (index) => `c${index % LINE_COLORS}`;
const rgb = (color) => styled(html("i", "swatch"), { background: `rgb(${color.join(" ")})` });
const status = (stable) => html("b", stable ? "good" : "bad", stable ? "STABLE" : "UNSTABLE");
const grid = (size, children) => html("div", `grid ${size}`, ...children);
const legend = (entries) => html("ul", "legend", ...entries.map((entry) => html("li", "", ...entry)));
const figure = (classes, title, note, ...children) =>
  html("figure", classes, html("figcaption", "", title, html("span", "", note)), ...children);

// Numbers

const fixed = (value, decimals) => {
  const [whole, fraction] = Math.abs(value).toFixed(decimals).split(".");
  const grouped = whole.length > 4 ? whole.replace(/\B(?=(\d{3})+$)/g, "\u202f") : whole;
  const text = fraction ? `${grouped}.${fraction}` : grouped;
  return value < 0 && /[1-9]/.test(text) ? `\u2212${text}` : text;
};

const exponential = (value, digits) => value.toExponential(digits).replace("e+", "e").replace(/^-/, "\u2212");

// A value under the pointer: all digits of whole numbers, four of others.
const readOut = (value) => {
  const rounded = Number.isInteger(value) ? value : Number(value.toPrecision(4));
  if (Math.abs(rounded) >= 1e15) return exponential(rounded, 3);
  return Math.abs(rounded) < 1000 ? String(rounded).replace(/^-/, "\u2212") : fixed(rounded, 0);
};

const tickLabel = (tick, spacing) => {
  const decimals = -Math.floor(Math.log10(spacing));
  if (decimals <= 6 && Math.abs(tick) < 1e9) return fixed(tick, Math.max(decimals, 0));
  const digits = Math.floor(Math.log10(Math.max(Math.abs(tick), spacing) / spacing));
  return exponential(tick, Math.min(digits, 6));
};

// Axes

const powerOfTen = (exponent) => Number(`1e${exponent}`);

// An axis from `low` to `high`; `place` makes a value linear.
const axis = (low, high, ticks, label, place = (value) => value) => {
  const [start, end] = [place(low), place(high)];
  return { low, high, ticks, label, place, percent: (value) => (100 * (place(value) - start)) / (end - start) };
};

// The least of 1, 2 and 5 times a power of ten that is at least `raw`.
const roundSpacing = (raw) => {
  const power = powerOfTen(Math.floor(Math.log10(raw)));
  return power * ([1, 2, 5].find((factor) => factor * power >= raw * (1 - 1e-9)) ?? 10);
};

const multiples = (first, last, spacing) =>
  Array.from({ length: Math.min(Math.max(last - first, 0), 50) + 1 }, (_, index) => (first + index) * spacing);

// From a round number at or below `low` to one at or above `high`, with about `most` ticks.
const linearAxis = (low, high, most) => {
  const magnitude = Math.max(Math.abs(low), Math.abs(high));
  // A single value gets room on both sides; so do two that differ by rounding only.
  const room = high - low > magnitude * 1e-9 ? 0 : Math.max(Math.abs(high) * 0.1, 1e-9);
  const spacing = roundSpacing((high - low + 2 * room) / most);
  const first = Math.floor((low - room) / spacing + 1e-6);
  const last = Math.ceil((high + room) / spacing - 1e-6);
  const label = (tick) => tickLabel(tick, spacing);
  return axis(first * spacing, last * spacing, multiples(first, last, spacing), label);
};

// Whole numbers from 0 to `last`, which need not be round.
const countAxis = (last, most) => {
  const high = Math.max(last, 1);
  const spacing = Math.max(roundSpacing(high / most), 1);
  const ticks = multiples(0, Math.floor(high / spacing), spacing);
  return axis(0, high, ticks, (tick) => tickLabel(tick, spacing));
};

// Ticks, about `most`, are 1, 2 and 5 or 1 and 3 times powers of ten, or powers of ten alone.
const logarithmicAxis = (least, greatest, most) => {
  const low = least > 0 ? Math.min(Math.max(least, MIN_LOGARITHMIC), MAX_MAGNITUDE) : MIN_LOGARITHMIC;
  const high = Math.max(Math.min(greatest, MAX_MAGNITUDE), 2 * low);
  const decades = Math.log10(high / low);
  const factors = most / decades >= 3 ? [1, 2, 5] : most / decades >= 2 ? [1, 3] : [1];
  const stride = Math.max(Math.ceil(decades / most), 1);
  const round = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)) + stride; power += stride) {
    round.push(...factors.map((factor) => factor * powerOfTen(power)));
  }
  const below = round.findLastIndex((tick) => tick <= low * (1 + 1e-9));
  const above = round.findIndex((tick) => tick >= high * (1 - 1e-9));
  const ticks = round.slice(Math.max(below, 0), above < 0 ? round.length : above + 1);
  const place = (value) => Math.log10(Math.max(value, MIN_LOGARITHMIC));
  return axis(ticks[0], ticks.at(-1), ticks, (tick) => tickLabel(tick, tick), place);
};

// The axis of these values, or of the range that `spec` names.
const axisOf = (spec, values, most) => {
  let [low, high] = spec.range ?? [Math.min(...values), Math.max(...values)];
  if (!Number.isFinite(low) || !Number.isFinite(high)) [low, high] = [0, 1];
  if (spec.scale === "counts") return countAxis(high, most);
  if (spec.scale === "logarithmic") return logarithmicAxis(low, high, most);
  if (spec.scale === "from_zero") [low, high] = low === 0 && high === 0 ? [0, 1] : [Math.min(low, 0), Math.max(high, 0)];
  return linearAxis(low, high, most);
};

// Charts: SVG in permille of the plot, stretched to its size, with HTML for the texts

// A line through points; a single one gets a line without length, which round caps show as a dot.
const path = (points) => (points.length === 1 ? `M${points[0]}h0` : `M${points.join("L")}`);

// Indices of neighboring values that are not missing.
const stretches = (values) => {
  const runs = [];
  values.forEach((value, index) => {
    if (value === null) return;
    if (runs.at(-1)?.at(-1) === index - 1) runs.at(-1).push(index);
    else runs.push([index]);
  });
  return runs;
};

// One function per kind of mark: draws by `plot.shape` and `plot.text`, and names what the pointer reads out.
const marks = {
  line({ name, color, dashed, dots, x, y, band }, plot) {
    const runs = stretches(y);
    const through = (run, values) => run.map((index) => plot.at(x[index], values[index]));
    if (band) {
      const outline = (run) => `${path([...through(run, band[1]), ...through(run.toReversed(), band[0])])}Z`;
      plot.shape(`band ${lineColor(color)}`, runs.map(outline));
    }
    plot.shape(`line ${lineColor(color)}${dashed ? " dashed" : ""}`, runs.map((run) => path(through(run, y))));
    if (dots) plot.shape(`dot ${lineColor(color)}`, through(runs.flat(), y).map((point) => path([point])));
    plot.series.push({ name, color, points: runs.flat().map((index) => [x[index], y[index]]) });
  },
  points({ name, color, large, x, y }, plot) {
    const known = stretches(y).flat().map((index) => [x[index], y[index]]);
    plot.shape(`${large ? "spot" : "sample"} ${lineColor(color)}`, known.map((point) => path([plot.at(...point)])));
    plot.series.push({ name, color, points: known });
  },
  bars({ name, centers, edges, counts }, plot) {
    const bar = (count, index) => {
      const [left, right] = [edges[index], edges[index + 1]];
      const corners = [[left, 0], [left, count], [right, count], [right, 0]];
      return count > 0 ? `${path(corners.map((corner) => plot.at(...corner)))}Z` : "";
    };
    plot.shape("bars c0", counts.map(bar));
    plot.series.push({ name, color: 0, points: counts.map((count, index) => [centers[index], count]) });
  },
  intervals({ low, high, y }, plot) {
    plot.shape("interval", y.map((value, index) => path([plot.at(low[index], value), plot.at(high[index], value)])));
  },
  verticals({ x, texts }, plot) {
    plot.shape("vertical", x.map((value) => `M${plot.at(value, plot.y.low)}V0`));
    x.forEach((value, index) => {
      const left = plot.x.percent(value);
      // Each text has a row of its own, so that none covers another.
      const style = { left: `${left}%`, top: `${14 * index}px` };
      plot.text(left > 60 ? "name left" : "name", style, texts[index]);
    });
  },
  levels({ y }, plot) {
    plot.shape("level", y.map((value) => `M${plot.at(plot.x.low, value)}H1000`));
  },
  labels({ x, y, labels }, plot) {
    labels.forEach(({ strong, text, unstable }, index) => {
      const style = { left: `${plot.x.percent(x[index])}%`, top: `${100 - plot.y.percent(y[index])}%` };
      const parts = [strong && html("b", "", strong), text, unstable && status(false)].filter(Boolean);
      if (parts.length > 0) plot.text("load", style, ...parts.flatMap((part) => [part, " "]).slice(0, -1));
    });
  },
};

// The texts below an x axis.
const xLabels = (name, x) => [
  ...x.ticks.map((tick) => styled(html("span", "x", x.label(tick)), { left: `${x.percent(tick)}%` })),
  html("span", "axis", name),
];

const chart = (size) => ({ title, unit, x: xSpec, y: ySpec, marks: drawn }) => {
  const most = size === "small" ? 2 : 5;
  const all = (key) => drawn.flatMap((mark) => Object.values(mark)[0][key] ?? []).filter((value) => value !== null);
  const [x, y] = [axisOf(xSpec, all("x"), most), axisOf(ySpec, all("y"), most)];
  const [shapes, texts] = [[], []];
  const shape = (classes, parts) => shapes.push(svg("path", { class: classes, d: parts.join("") }));
  const at = (left, up) => `${(10 * x.percent(left)).toFixed(1)} ${(1000 - 10 * y.percent(up)).toFixed(1)}`;
  const text = (classes, style, ...parts) => texts.push(styled(html("span", classes, ...parts), style));
  const plot = { x, y, at, shape, text, series: [] };
  shape("rule", y.ticks.map((tick) => `M${at(x.low, tick)}H1000`));
  for (const mark of drawn) {
    const [kind, value] = Object.entries(mark)[0];
    marks[kind](value, plot);
  }
  const series = plot.series.filter(({ points }) => points.length > 0);
  const label = `${title}: ${unit} against ${xSpec.name} (${series.map(({ name }) => name).join(", ")})`;
  const labels = y.ticks.map((tick) => styled(html("span", "y", y.label(tick)), { top: `${100 - y.percent(tick)}%` }));
  const view = { viewBox: "0 0 1000 1000", preserveAspectRatio: "none", role: "img", "aria-label": label };
  const frame = html("div", "plot", svg("svg", view, ...shapes), ...xLabels(xSpec.name, x), ...labels, ...texts);
  if (series.length > 0) readOutAtPointer(frame, xSpec.name, x, series);
  return figure("", title, unit, frame);
};

// Shows the values at the x that is nearest to the pointer, or that the arrow keys lead to.
const readOutAtPointer = (frame, name, x, series) => {
  const places = [...new Set(series.flatMap(({ points }) => points.map(([value]) => value)))].sort((a, b) => a - b);
  const [cursor, tip] = [html("div", "cursor"), html("div", "tip")];
  tip.setAttribute("role", "status");
  let current = null;
  const show = (index) => {
    current = Math.min(Math.max(index, 0), places.length - 1);
    const value = places[current];
    const along = x.percent(value);
    const row = (line) => {
      const point = line.points.find(([place]) => place === value);
      return point && html("div", "", html("i", `key ${lineColor(line.color)}`), `${line.name} ${readOut(point[1])}`);
    };
    tip.replaceChildren(`${name} ${readOut(value)}`, ...series.map(row).filter(Boolean));
    tip.removeAttribute("style");
    styled(cursor, { left: `${along}%` });
    styled(tip, { [along < 50 ? "left" : "right"]: `calc(${Math.min(along, 100 - along)}% + 8px)` });
    frame.append(cursor, tip);
    const box = tip.getBoundingClientRect();
    const shift = Math.max(4 - box.left, Math.min(0, document.documentElement.clientWidth - 4 - box.right));
    styled(tip, { translate: `${shift}px` });
  };
  const hide = () => {
    cursor.remove();
    tip.remove();
    current = null;
  };
  const point = ({ clientX }) => {
    const box = frame.getBoundingClientRect();
    const wanted = (100 * (clientX - box.left)) / box.width;
    const distance = (value) => Math.abs(x.percent(value) - wanted);
    show(places.reduce((best, value, index) => (distance(value) < distance(places[best]) ? index : best), 0));
  };
  const keys = {
    ArrowLeft: () => show((current ?? places.length) - 1),
    ArrowRight: () => show((current ?? -1) + 1),
    Home: () => show(0),
    End: () => show(places.length - 1),
    Escape: hide,
  };
  frame.tabIndex = 0;
  frame.setAttribute("role", "group");
  frame.setAttribute("aria-label", "Chart; arrow keys read out its values");
  frame.addEventListener("pointermove", point);
  frame.addEventListener("pointerdown", point);
  frame.addEventListener("pointerleave", hide);
  frame.addEventListener("blur", hide);
  frame.addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    keys[event.key]();
  });
};

const heatMap = ({ title, rows, row_name, last_step, steps, shares }) => {
  const x = countAxis(last_step, 2);
  const paths = SHADES.map(() => "");
  shares.forEach((column, index) => {
    const left = 10 * x.percent(index === 0 ? 0 : steps[index - 1]);
    const width = 10 * x.percent(steps[index]) - left;
    column.forEach((share, row) => {
      const shade = SHADES.findLastIndex(([least]) => share >= least);
      if (shade >= 0) paths[shade] += `M${left.toFixed(1)} ${row}h${width.toFixed(1)}v.9h-${width.toFixed(1)}z`;
    });
  });
  const shaded = paths.map((d, shade) => svg("path", { class: "cell", "fill-opacity": SHADES[shade][1], d }));
  const label = `${title}: share of each of ${rows} ${row_name} against steps`;
  const view = { viewBox: `0 0 1000 ${rows}`, preserveAspectRatio: "none", role: "img", "aria-label": label };
  const frame = html("div", "plot heat", svg("svg", view, ...shaded), ...xLabels("step", x));
  return figure("", title, `${rows} ${row_name}`, styled(frame, { height: `${Math.min(12 * rows, 240)}px` }));
};

const shadeLegend = () => legend(SHADES.map(([least, opacity], index) => {
  const most = SHADES[index + 1]?.[0] ?? 1;
  return [styled(html("i", "key block"), { opacity }), `${readOut(100 * least)}–${readOut(100 * most)} %`];
}));

// Tables

const cells = {
  number: (text) => [text],
  text: (text) => [text, "text"],
  absent: (text) => [text, "absent"],
  meter: ({ text }) => [text, "meter"],
  class: ([name, color]) => [html("span", "", color && rgb(color), name)],
  link: ({ text, section }) => [Object.assign(html("a", "", text), { href: `#${section}` })],
  stable: (stable) => [status(stable), "text"],
};

const header = (scope, classes, content) => Object.assign(html("th", classes, content), { scope });

const row = (values) => html("tr", "", ...values.map((cell, index) => {
  const [kind, value] = Object.entries(cell)[0];
  const [content, classes] = cells[kind](value);
  const element = index === 0 ? header("row", classes, content) : html("td", classes, content);
  if (kind === "meter") styled(element, { "--share": `${Math.min(Math.max(value.percent, 0), 100)}%` });
  return element;
}));

const table = ({ caption, wide, columns, rows, footer }) => {
  // Columns of texts have their heading on the left, too.
  const isText = (index) => rows.some((cells) => "text" in cells[index] || "stable" in cells[index]);
  const head = columns.map((column, index) => header("col", isText(index) ? "text" : "", column));
  const parts = [caption && html("caption", "", caption), html("thead", "", html("tr", "", ...head))];
  parts.push(html("tbody", "", ...rows.map(row)));
  if (footer.length > 0) parts.push(html("tfoot", "", ...footer.map(row)));
  const scrolled = html("div", "scroll", html("table", wide ? "wide" : "", ...parts));
  scrolled.tabIndex = 0;
  scrolled.setAttribute("role", "group");
  scrolled.setAttribute("aria-label", caption ?? "Table");
  return scrolled;
};

// Blocks, one function per kind

const stack = ({ title, note, parts }) => {
  const bar = ({ name, share, color, value }) => {
    const part = html("i", lineColor(color), share >= NAMED_SHARE ? name : null);
    part.title = `${name}: ${value}`;
    return styled(part, { width: `${100 * share}%` });
  };
  const entry = ({ name, color, value, percent }) =>
    [html("i", `key square ${lineColor(color)}`), `${name} `, html("b", "", value), " ", html("span", "", percent)];
  return figure("stages", title, note, html("div", "stack", ...parts.map(bar)), legend(parts.map(entry)));
};

const image = ({ name, note, views }) => {
  const view = ([what, source]) => {
    if (source === null) return html("div", "", `neither PNG nor JPEG: ${what}`);
    return html("div", "", Object.assign(html("img"), { alt: `${what} of ${name}`, src: source }), what);
  };
  return figure("image", name, note, html("div", "views", ...views.map(view)));
};

const list = (items) => html("ul", "", ...items.map((item) => html("li", "", item)));
const swatch = (color) => ("rgb" in color ? rgb(color.rgb) : html("i", `key ${lineColor(color.line)}`));

const blocks = {
  heading: ({ text, stable }) =>
    [stable === null ? html("h3", "", text) : html("h3", "point", `${text}: `, status(stable))],
  note: (text) => [html("p", "note", text)],
  warning: (text) => [html("p", "warning", text)],
  list: (items) => [list(items)],
  verdict: ({ text, stable, reasons }) => {
    const words = [html("b", stable ? "good" : "bad", text), reasons.length > 0 ? list(reasons) : null];
    return [html("div", `verdict ${stable ? "good" : "bad"}`, ...words)];
  },
  tiles: (tiles) => [html("div", "tiles", ...tiles.map(({ label, value, details }) => {
    const below = details.map((detail) => html("span", "detail", detail));
    return html("div", "tile", html("span", "", label), html("b", "", value), ...below);
  }))],
  facts: (facts) =>
    [html("dl", "facts", ...facts.map(([name, text]) => html("div", "", html("dt", "", name), html("dd", "", text))))],
  tables: (tables) => [grid("large", tables.map(table))],
  legend: (entries) => [legend(entries.map(([text, color]) => [swatch(color), text]))],
  charts: ([size, charts]) => [grid(size, charts.map(chart(size)))],
  heat_maps: (maps) => [shadeLegend(), grid("small", maps.map(heatMap))],
  stacks: (stacks) => stacks.map(stack),
  images: (images) => images.map(image),
  code: (text) => [html("pre", "", text)],
};

const draw = (list) => list.flatMap((block) => {
  const [kind, value] = Object.entries(block)[0];
  return blocks[kind](value);
});

const report = JSON.parse(document.getElementById("report").textContent);
const section = ({ id, title, blocks: content }) => {
  const element = html("section", "", html("h2", "", title), ...draw(content));
  element.id = id;
  return element;
};
const link = ({ id, title }) => Object.assign(html("a", "", title), { href: `#${id}` });
document.body.append(
  html("header", "", html("h1", "", report.title), ...draw(report.head)),
  html("nav", "", ...report.sections.map(link)),
  html("main", "", ...report.sections.map(section)),
);
// The browser looked for the fragment before its section was there.
if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
