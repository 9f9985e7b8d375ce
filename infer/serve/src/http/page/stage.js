// The stage: an image, its labels over it, and a pointer or cursor.

import { paint, palette } from "./labels.js";

/** Pixels of a canvas; larger images are scaled down, and pointed at in their own pixels all the same. */
const MAX_PIXELS = 4e6;

const element = (id) => document.getElementById(id);
const stage = element("stage");
const [image, overlay, cursor] = [element("image"), element("overlay"), element("cursor")];

let shown; // { labels, classes } while there are labels
let at; // Cursor, in pixels of the image
let only; // The highlighted class
let [opacity, tell] = [0.6, () => {}];

/** Calls `listener` with the class and position under the pointer or cursor, and with nothing once it has left. */
export function onPoint(listener) {
  tell = listener;
}

/** Shows an image without labels; without a bitmap, an empty stage. */
export function showImage(bitmap, { width, height }) {
  shown = undefined;
  at = undefined;
  cursor.hidden = true;
  const scale = Math.min(1, Math.sqrt(MAX_PIXELS / (width * height)));
  for (const canvas of [image, overlay]) {
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
  }
  stage.style.setProperty("--ratio", width / height);
  overlay.style.imageRendering = image.width < stage.clientWidth / 2 ? "pixelated" : "auto";
  image.style.imageRendering = overlay.style.imageRendering;
  if (!bitmap) return;
  // Better smoothing of 20 megapixels would block the page, and the browser smooths what it shows anyway.
  image.getContext("2d").drawImage(bitmap, 0, 0, image.width, image.height);
}

/** Covers the image with labels in the colors of their classes. */
export function showLabels(labels, classes) {
  shown = { labels, classes };
  only = undefined;
  repaint();
}

/** Highlights one class, or none. */
export function highlight(id) {
  if (only === id || !shown) return;
  only = id;
  repaint();
}

/** Sets the opacity of the labels, from 0 to 1. */
export function setOpacity(value) {
  opacity = value;
  cover();
}

function cover() {
  // A highlighted class is seen even at opacity 0.
  overlay.style.opacity = only === undefined ? opacity : Math.max(opacity, 0.6);
}

function repaint() {
  paint(overlay, shown.labels, palette(shown.classes, only));
  cover();
}

function point(x, y) {
  const { labels, classes } = shown;
  const id = labels.ids[y * labels.width + x];
  tell({ x, y, found: classes.find((known) => known.id === id) ?? { id, name: `id ${id}`, color: [0, 0, 0] } });
}

function follow(event) {
  if (!shown) return;
  const { left, top, width, height } = stage.getBoundingClientRect();
  const { labels } = shown;
  const inside = (share, size) => Math.min(size - 1, Math.max(0, Math.floor(share * size)));
  const x = inside((event.clientX - left) / width, labels.width);
  const y = inside((event.clientY - top) / height, labels.height);
  at = [x, y];
  cursor.hidden = true;
  point(x, y);
}

stage.addEventListener("pointermove", follow);
stage.addEventListener("pointerdown", follow);
stage.addEventListener("pointerleave", (event) => {
  // A lifted finger keeps its position.
  if (event.pointerType === "mouse") tell();
});

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function moveCursor([dx, dy], step) {
  const { labels } = shown;
  const inside = (value, size) => Math.min(size - 1, Math.max(0, value));
  const [x, y] = at ?? [labels.width >> 1, labels.height >> 1];
  at = [inside(x + dx * step, labels.width), inside(y + dy * step, labels.height)];
  cursor.hidden = false;
  cursor.style.left = `${(100 * (at[0] + 0.5)) / labels.width}%`;
  cursor.style.top = `${(100 * (at[1] + 0.5)) / labels.height}%`;
  point(...at);
}

stage.addEventListener("keydown", (event) => {
  const move = MOVES[event.key];
  if (!move || !shown || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  const { width, height } = shown.labels;
  moveCursor(move, event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(width, height) / 40)));
});
stage.addEventListener("focus", () => {
  if (shown && stage.matches(":focus-visible")) moveCursor([0, 0], 0);
});
stage.addEventListener("blur", () => {
  cursor.hidden = true;
});
