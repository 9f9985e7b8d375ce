// The picture on the page: drawn, covered with its labels, and pointed at.

import { paint, palette } from "./labels.js";

/** Most pixels of the canvases; larger pictures are shown smaller, and pointed at in their own pixels all the same. */
const MOST_PIXELS = 4e6;

const element = (id) => document.getElementById(id);
const stage = element("stage");
const [picture, overlay, cursor] = [element("picture"), element("overlay"), element("cursor")];

let shown; // { labels, classes } while there are labels
let at; // The cursor, in pixels of the picture
let only; // The one class that is shown
let [opacity, tell] = [0.6, () => {}];

/** Calls `listener` with the class and place under the pointer or cursor, and with nothing where it has left. */
export function onPoint(listener) {
  tell = listener;
}

/** Shows a picture without labels; where the browser cannot draw it, an empty field. */
export function showPicture(bitmap, { width, height }) {
  shown = undefined;
  at = undefined;
  cursor.hidden = true;
  const scale = Math.min(1, Math.sqrt(MOST_PIXELS / (width * height)));
  for (const canvas of [picture, overlay]) {
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
  }
  stage.style.setProperty("--ratio", width / height);
  overlay.style.imageRendering = picture.width < stage.clientWidth / 2 ? "pixelated" : "auto";
  picture.style.imageRendering = overlay.style.imageRendering;
  if (!bitmap) return;
  // With better smoothing, 20 megapixels would hold up the page; the browser smooths what it shows once more.
  picture.getContext("2d").drawImage(bitmap, 0, 0, picture.width, picture.height);
}

/** Covers the picture with labels in the colours of their classes. */
export function showLabels(labels, classes) {
  shown = { labels, classes };
  only = undefined;
  repaint();
}

/** Shows one class alone, or all. */
export function highlight(id) {
  if (only === id || !shown) return;
  only = id;
  repaint();
}

/** How much the labels cover, from 0 to 1. */
export function setOpacity(value) {
  opacity = value;
  cover();
}

function cover() {
  // A class that is pointed out is seen even where labels are not.
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
  // A finger that is lifted has not left.
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
