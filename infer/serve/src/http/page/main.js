// The page: sends an image to the server, and shows its labels over it.

import { readLabels } from "./labels.js";
import { drawScene } from "./scene.js";
import { Problem, ask, segmentAddress, setKey } from "./service.js";
import { highlight, onPoint, setOpacity, showLabels, showImage } from "./stage.js";

const element = (id) => document.getElementById(id);
const make = (name, properties, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

let models = [];
let limits = {};
let current; // { file, blob, counts, pixels } of the image on the stage
let asking = new AbortController();
let repeat = () => {}; // Action of "Try again" and of a new key

const model = () => models.find(({ name }) => name === element("model").value);
const percent = (share) => (share > 0 && share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`);
const say = (text) => {
  if (element("status").textContent !== text) element("status").textContent = text;
};

/** Runs an action that calls the server, and shows its error; `repeat` runs it again. */
async function attempt(action) {
  repeat = () => attempt(action);
  element("problem").hidden = true;
  try {
    await action();
  } catch (error) {
    if (error.name !== "AbortError") complain(error);
  }
}

function complain(error) {
  const wantsKey = error.status === 401;
  element("key-form").hidden = !wantsKey;
  if (wantsKey) element("key").focus();
  const known = error instanceof Problem;
  element("problem-text").textContent = known ? error.message : `The page failed: ${error.message}`;
  element("problem").hidden = error.message === "";
  const again = element("again");
  again.hidden = wantsKey || !error.again;
  again.disabled = error.seconds > 0;
  if (again.disabled) {
    setTimeout(() => {
      again.disabled = false;
    }, 1000 * error.seconds);
  }
}

async function loadModels() {
  const answer = await (await ask("v1/models")).json();
  const before = element("model").value;
  ({ models, ...limits } = answer);
  const option = ({ name, state }) => {
    const ready = state === "READY";
    return make("option", { value: name, textContent: ready ? name : `${name} (not ready)`, disabled: !ready });
  };
  element("model").replaceChildren(...models.map(option));
  const ready = models.filter(({ state }) => state === "READY");
  const chosen = ready.find(({ name }) => name === before) ?? ready[0];
  element("key-form").hidden = true;
  element("model-choice").hidden = models.length === 0;
  if (!chosen) {
    element("limits").textContent = "The model is loading";
    setTimeout(() => attempt(loadModels), 2000);
    return;
  }
  element("model").value = chosen.name;
  const [megapixels, size] = [limits.max_pixels, limits.max_bytes].map((limit) => Math.floor(limit / 1e5) / 10);
  element("limits").textContent = `Up to ${megapixels} megapixels and ${size} MB`;
  nameModel();
}

function nameModel() {
  const address = new URL(segmentAddress(element("model").value, "json"), document.baseURI);
  element("curl").textContent = `curl --data-binary @photo.jpg '${address}'`;
}

/** Labels an image, and cancels the request before. */
async function label(file) {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  element("busy").hidden = false;
  say("Labeling");
  try {
    await show(file, signal);
  } catch (error) {
    if (!signal.aborted) say("");
    throw error;
  } finally {
    if (!signal.aborted) element("busy").hidden = true;
  }
}

/** Sends an image, shows it, and covers it with its labels. */
async function show(file, signal) {
  // The model may have been replaced by one with other classes.
  await loadModels();
  signal.throwIfAborted();
  const asked = model();
  if (!asked) throw new Problem("No model is ready.", { again: true });
  if (file.size > limits.max_bytes) {
    throw new Problem(`The file has ${megabytes(file.size)}, more than the server's limit of ${megabytes(limits.max_bytes)}.`);
  }
  const start = performance.now();
  const answer = ask(segmentAddress(asked.name, "labels"), { method: "POST", body: file, signal });
  // Handled below, when the image is on the stage.
  answer.catch(() => {});
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => undefined);
  try {
    signal.throwIfAborted();
    current = undefined;
    element("side").hidden = true;
    present(bitmap, bitmap);
    const response = await answer;
    const blob = await response.blob();
    const took = performance.now() - start;
    const labels = await readLabels(blob);
    signal.throwIfAborted();
    // The server decodes formats that a browser does not.
    if (bitmap?.width !== labels.width || bitmap.height !== labels.height) present(bitmap, labels);
    current = { file, blob, counts: labels.counts, pixels: labels.width * labels.height };
    showLabels(labels, asked.classes);
    describe(asked, labels, response.headers, took);
  } finally {
    bitmap?.close();
  }
}

/** Shows an image of some size; without a size, the drop zone. */
function present(bitmap, size) {
  element("drop").hidden = Boolean(size);
  element("result").hidden = !size;
  if (!size) return;
  showImage(bitmap, size);
  pointed();
}

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
const milliseconds = (time) => (time < 1000 ? `${Number(time).toFixed(0)} ms` : `${(time / 1000).toFixed(2)} s`);

function swatch(color) {
  const made = make("span", { className: "swatch" });
  made.style.backgroundColor = `rgb(${color.join(" ")})`;
  return made;
}

/** Fills the legend and the times. */
function describe({ classes }, { width, height, counts }, headers, took) {
  const pixels = width * height;
  const found = classes.filter(({ id }) => counts[id] > 0).sort((one, other) => counts[other.id] - counts[one.id]);
  const entry = ({ id, name, color }) => {
    const bar = make("span", {});
    bar.style.width = `${(100 * counts[id]) / counts[found[0].id]}%`;
    const button = make(
      "button",
      { type: "button" },
      swatch(color),
      make("span", { className: "name", textContent: name }),
      make("span", { className: "bar" }, bar),
      make("span", { className: "share", textContent: percent(counts[id] / pixels) }),
    );
    button.dataset.id = id;
    button.ariaPressed = "false";
    return make("li", {}, button);
  };
  element("legend").replaceChildren(...found.map(entry));
  const absent = classes.filter(({ id }) => counts[id] === 0).map(({ name }) => name);
  element("absent").textContent = absent.length > 0 ? `Not found: ${absent.join(", ")}` : "";
  const time = (name) => milliseconds(Number(headers.get(name)));
  const facts = {
    Image: `${width} × ${height}`,
    Megapixels: (pixels / 1e6).toFixed(pixels < 1e6 ? 2 : 1),
    Queue: time("x-queue-time"),
    Network: time("x-inference-time"),
    "Server, total": time("x-total-time"),
    "With transfer": milliseconds(took),
  };
  const line = ([term, fact]) => [make("dt", { textContent: term }), make("dd", { textContent: fact })];
  element("facts").replaceChildren(...Object.entries(facts).flatMap(line));
  element("side").hidden = false;
  const largest = found.slice(0, 3).map(({ id, name }) => `${name} ${percent(counts[id] / pixels)}`);
  say(`Labeled in ${milliseconds(took)}: ${largest.join(", ")}`);
}

/** Shows the class under the pointer. */
function pointed(place) {
  const text = place
    ? `${place.found.name}, ${percent((current?.counts[place.found.id] ?? 0) / (current?.pixels ?? 1))} of the image`
    : "Point at the image to see its classes";
  // Screen readers announce every assignment.
  if (element("under").textContent !== text) element("under").textContent = text;
  element("place").textContent = place ? `x ${place.x}, y ${place.y}` : "";
  element("swatch").hidden = !place;
  if (place) element("swatch").style.backgroundColor = `rgb(${place.found.color.join(" ")})`;
}

async function download({ dataset: { view, ending } }) {
  const { file, blob } = current;
  const asked = segmentAddress(element("model").value, view);
  const given = view === "labels" ? blob : await (await ask(asked, { method: "POST", body: file })).blob();
  const stem = (file.name || "image").replace(/\.[^.]*$/, "");
  const link = make("a", { href: URL.createObjectURL(given), download: `${stem}.${ending}` });
  link.click();
  // The download has begun by then.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function take(files) {
  const [file] = files ?? [];
  if (file) attempt(() => label(file));
}

/** Legend entries highlight their class on hover and focus, and keep it while pressed. */
function connectLegend() {
  const legend = element("legend");
  const entry = (event) => event.target.closest?.("button");
  const pressed = () => legend.querySelector('[aria-pressed="true"]');
  const show = (button) => highlight(button ? Number(button.dataset.id) : undefined);
  for (const kind of ["pointerover", "focusin"]) legend.addEventListener(kind, (event) => show(entry(event) ?? pressed()));
  for (const kind of ["pointerleave", "focusout"]) legend.addEventListener(kind, () => show(pressed()));
  legend.addEventListener("click", (event) => {
    const button = entry(event);
    if (!button) return;
    const isPressed = button.ariaPressed === "true";
    for (const other of legend.querySelectorAll("button")) other.ariaPressed = "false";
    button.ariaPressed = String(!isPressed);
    show(isPressed ? undefined : button);
  });
}

function connectFiles() {
  const file = element("file");
  for (const id of ["choose", "another"]) element(id).addEventListener("click", () => file.click());
  file.addEventListener("change", () => {
    take(file.files);
    // Lets the same file be chosen again.
    file.value = "";
  });
  element("scene").addEventListener("click", () => attempt(async () => label(await drawScene())));
  document.addEventListener("paste", (event) => take(event.clipboardData?.files));
  const dropping = (is) => document.body.classList.toggle("dropping", is);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    dropping(true);
  });
  document.addEventListener("dragleave", (event) => dropping(event.relatedTarget !== null));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    dropping(false);
    take(event.dataTransfer?.files);
  });
}

function connect() {
  connectFiles();
  connectLegend();
  onPoint(pointed);
  element("again").addEventListener("click", () => repeat());
  element("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setKey(element("key").value.trim());
    element("key").value = "";
    element("key-form").hidden = true;
    repeat();
  });
  element("model").addEventListener("change", () => {
    nameModel();
    if (current) {
      const { file } = current;
      attempt(() => label(file));
    }
  });
  const opacity = element("opacity");
  const cover = () => {
    setOpacity(opacity.valueAsNumber / 100);
    element("opacity-value").textContent = `${opacity.value} %`;
  };
  opacity.addEventListener("input", cover);
  // A reload may keep the slider's value.
  cover();
  for (const button of element("downloads").children) {
    button.addEventListener("click", () => {
      button.disabled = true;
      attempt(() => download(button)).finally(() => {
        button.disabled = false;
      });
    });
  }
}

connect();
attempt(loadModels);
