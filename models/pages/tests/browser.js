// Runs in a report page, after its script. The title tells the test what happened.
"use strict";

const failures = [];
const check = (condition, text) => condition || failures.push(text);
const equal = (found, expected, text) =>
  check(JSON.stringify(found) === JSON.stringify(expected), `${text}: ${JSON.stringify(found)}`);
const labels = (axis) => axis.ticks.map(axis.label);

// Ticks are round numbers.
equal(labels(linearAxis(0, 1.37, 4)), ["0.0", "0.5", "1.0", "1.5"], "tenths");
equal(labels(linearAxis(0, 0.02, 4)), ["0.000", "0.005", "0.010", "0.015", "0.020"], "thousandths");
equal(labels(linearAxis(31, 48.2, 4)), ["30", "35", "40", "45", "50"], "fives");
equal(labels(linearAxis(-0.3, 0.9, 3)), ["\u22120.5", "0.0", "0.5", "1.0"], "negative");
equal(labels(linearAxis(0, 100, 2)), ["0", "50", "100"], "percent");
equal(labels(countAxis(720, 4)), ["0", "200", "400", "600"], "steps");
equal(labels(countAxis(100000, 2)), ["0", "50\u202f000", "100\u202f000"], "thousands");
equal(labels(countAxis(0, 5)), ["0", "1"], "no steps");
equal(labels(linearAxis(0, 4e-9, 2)), ["0e0", "2e-9", "4e-9"], "tiny");
const two = ["0.05", "0.1", "0.2", "0.5", "1", "2", "5", "10", "20", "50"];
equal(labels(logarithmicAxis(0.08, 30, 12)), two, "logarithmic");
equal(labels(logarithmicAxis(35, 450, 5)), ["20", "50", "100", "200", "500"], "logarithmic, one decade");
equal([0, 12, 1234, 12345, 0.123456, 41.2345, -3].map(readOut), ["0", "12", "1234", "12\u202f345", "0.1235", "41.23", "\u22123"], "read-out");

// Any range gives an axis that holds it.
const values = [0, 1, -1, 1e-300, 1e100, -1e100, 0.1 + 0.2, 12345.678, 1e9 + 1];
for (const low of values) {
  for (const high of values.filter((value) => value >= low)) {
    const found = linearAxis(low, high, 4);
    const text = `${low} to ${high}: ${found.low} to ${found.high}, ${labels(found)}`;
    const slack = 1e-5 * (found.high - found.low);
    check(found.low < found.high && Number.isFinite(found.high), text);
    check(found.low <= low + slack && high <= found.high + slack, text);
    check(found.ticks.length >= 2 && found.ticks.length <= 8, text);
    check(labels(found).every((label) => label.length < 24), text);
  }
}
for (const [low, high] of [[0, 0], [3, 3], [40, 390], [0.001, 1e6], [1e-300, 1e300], [-1, 5], [1, 1.5]]) {
  const found = logarithmicAxis(low, high, 5);
  const text = `logarithmic, ${low} to ${high}: ${found.low} to ${found.high}, ${labels(found)}`;
  const along = found.ticks.map(found.percent);
  check(found.low < found.high && found.ticks.length >= 2 && found.ticks.length <= 9, text);
  check(low < MIN_LOGARITHMIC || found.low <= low * 1.001, text);
  check(high > MAX_MAGNITUDE || high <= found.high * 1.001, text);
  check(along.every((percent, index) => percent > -1e-6 && percent < 100.0001 && !(percent < along[index - 1])), text);
}
for (const last of [0, 1, 7, 99999, 2 ** 64]) {
  const { ticks } = countAxis(last, 5);
  check(ticks.length >= 2 && ticks.length <= 6, `${last} steps: ${ticks}`);
}

// Every block is drawn, and texts are text.
const all = (selector) => [...document.querySelectorAll(selector)];
const texts = (selector) => all(selector).map((element) => element.textContent);
const text = "<img src=x onerror=alert(1)> & more";
equal(texts("h1"), [text], "title");
equal(texts("nav a"), ["Blocks", "Charts"], "navigation");
equal(texts("h2"), ["Blocks", "Charts"], "sections");
equal(texts("h3"), [text, "single-stream: UNSTABLE"], "headings");
equal(texts(".note, .warning"), [text, text], "notes");
equal(texts(".verdict li"), [text], "reasons");
equal(texts(".tile"), ["mIoU61.3 %step 180"], "tiles");
equal(texts(".facts dt, .facts dd"), ["device", text], "facts");
equal(all("thead th").map((cell) => cell.textContent + (cell.className && ` ${cell.className}`)), ["IoU, %", "teacher", "student\nstep 180", "run", "scenario text", "verdict text"], "columns");
equal(texts("tbody tr").concat(texts("tfoot tr")), ["road72.9absent", `${text}clients 4STABLE`, "mIoU31.1none"], "rows");
equal(all(".meter").map((cell) => cell.style.getPropertyValue("--share")), ["72.9%"], "meters");
equal(all("table a").map((link) => link.getAttribute("href")), ["#charts"], "links");
equal(texts(".stack i").concat(all(".stack i").map((part) => part.style.width)), ["compute", "", "95%", "5%"], "stages");
equal(all("img").map((image) => image.alt), [`truth of ${text}`], "images");
check(texts(".views")[0].includes("neither PNG nor JPEG: prediction"), "unknown image format");
equal(texts("pre").at(-1), text, "code");
equal(all(".swatch").map((swatch) => getComputedStyle(swatch).backgroundColor), ["rgb(128, 64, 128)", "rgb(128, 64, 128)"], "class colors");

// Every mark is drawn where its values are.
const drawn = (selector) => all(selector).map((path) => path.getAttribute("d"));
equal(drawn(".line.c2"), ["M250.0 0.0h0M750.0 750.0L1000.0 500.0"], "a line with a gap");
equal(drawn(".dot.c2"), ["M250.0 0.0h0M750.0 750.0h0M1000.0 500.0h0"], "dots");
equal(drawn(".band"), ["M0.0 500.0L1000.0 0.0L1000.0 500.0L0.0 1000.0Z"], "a band from the least to the greatest");
equal(drawn(".bars"), ["M0.0 1000.0L0.0 500.0L500.0 500.0L500.0 1000.0ZM500.0 1000.0L500.0 250.0L1000.0 250.0L1000.0 1000.0Z"], "bars on a logarithmic axis");
equal(drawn(".vertical"), ["M500.0 1000.0V0"], "percentiles");
equal(drawn(".interval"), ["M0.0 500.0L500.0 500.0"], "intervals");
equal(drawn(".level"), ["M0.0 500.0H1000"], "levels");
equal(drawn(".spot"), ["M500.0 500.0h0"], "spots");
equal(texts(".name"), ["p50 10.0"], "names");
equal(texts(".load"), ["1. 40 UNSTABLE"], "loads");
equal(drawn(".cell").filter(Boolean), ["M0.0 0h500.0v.9h-500.0z", "M0.0 1h500.0v.9h-500.0zM500.0 1h500.0v.9h-500.0z"], "heat map");
check(all("svg").every((svg) => svg.getAttribute("aria-label")), "charts have a description");

// Pointer and keys read out values.
const plot = all(".plot")[0];
const tip = () => plot.querySelector(".tip")?.innerText.replaceAll(/\s+/g, " ").trim();
const box = plot.getBoundingClientRect();
plot.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + 0.7 * box.width, clientY: box.top + 5 }));
equal(tip(), "step 30 loss 0.25", "pointer");
plot.dispatchEvent(new PointerEvent("pointerleave"));
equal(tip(), undefined, "pointer has left");
plot.focus();
const press = (key) => plot.dispatchEvent(new KeyboardEvent("keydown", { key }));
for (const [key, expected] of [["ArrowRight", "10 loss 1"], ["ArrowRight", "30 loss 0.25"], ["End", "40 loss 0.5"], ["ArrowRight", "40 loss 0.5"], ["ArrowLeft", "30 loss 0.25"], ["Home", "10 loss 1"]]) {
  press(key);
  equal(tip(), `step ${expected}`, key);
}
press("Escape");
equal(tip(), undefined, "Escape");

// The page fits the window.
check(document.documentElement.scrollWidth <= innerWidth, `${document.documentElement.scrollWidth} wide in ${innerWidth}`);

document.title = failures.length === 0 ? "passed" : `failed: ${failures.join("; ")}`;
