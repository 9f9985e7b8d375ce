// Label maps: decoded from the PNG of train ids, and painted in colors.
//
// Decoded here, as a canvas may change values (color management, tracking protection), and images of 20 megapixels exceed
// its largest size on phones. Yields to the page every few milliseconds.

/** Milliseconds of decoding between yields. */
const TURN = 10;

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];

/** Decodes an 8-bit gray PNG: `width`, `height`, `ids` row by row, and `counts` of pixels by id. */
export async function readLabels(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const { width, height, parts } = chunks(bytes);
  const ids = new Uint8Array(width * height);
  const counts = new Uint32Array(256);
  const row = new Uint8Array(width + 1);
  let [filled, y] = [0, 0];
  const reader = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  let start = performance.now();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (performance.now() - start > TURN) {
      await new Promise((turn) => setTimeout(turn));
      start = performance.now();
    }
    for (let from = 0; from < value.length && y < height; ) {
      const take = Math.min(row.length - filled, value.length - from);
      row.set(value.subarray(from, from + take), filled);
      from += take;
      filled += take;
      if (filled === row.length) {
        const above = y > 0 ? ids.subarray((y - 1) * width, y * width) : new Uint8Array(width);
        const out = ids.subarray(y * width, (y + 1) * width);
        unfilter(row, above, out, counts);
        [filled, y] = [0, y + 1];
      }
    }
  }
  if (y < height) throw new Error("The label map is truncated.");
  return { width, height, ids, counts };
}

/** Returns the size and the compressed chunks of a PNG. */
function chunks(bytes) {
  const view = new DataView(bytes.buffer);
  const isGray = bytes.length > 33 && bytes[24] === 8 && bytes[25] === 0 && bytes[28] === 0;
  if (!isGray || SIGNATURE.some((byte, index) => bytes[index] !== byte)) throw new Error("The label map is not a gray PNG.");
  const parts = [];
  for (let at = 8; at + 12 <= bytes.length; at += 12 + view.getUint32(at)) {
    const isData = view.getUint32(at + 4) === 0x49444154;
    if (isData) parts.push(bytes.subarray(at + 8, at + 8 + view.getUint32(at)));
  }
  return { width: view.getUint32(16), height: view.getUint32(20), parts };
}

/** Reverses the filter named by the first byte of a row (PNG specification, section 9), and counts the ids. */
function unfilter(row, above, out, counts) {
  const predict = PREDICTORS[row[0]];
  let [left, corner] = [0, 0];
  for (let x = 0; x < out.length; x += 1) {
    const up = above[x];
    left = (row[x + 1] + predict(left, up, corner)) & 255;
    corner = up;
    out[x] = left;
    counts[left] += 1;
  }
}

/** Predictors of the filters None, Sub, Up, Average and Paeth, from the bytes to the left, above and above left. */
const PREDICTORS = [() => 0, (left) => left, (_, up) => up, (left, up) => (left + up) >> 1, paeth];

function paeth(left, up, corner) {
  const [byLeft, byUp] = [up - corner, left - corner];
  const [farLeft, farUp, farCorner] = [Math.abs(byLeft), Math.abs(byUp), Math.abs(byLeft + byUp)];
  if (farLeft <= farUp && farLeft <= farCorner) return left;
  return farUp <= farCorner ? up : corner;
}

/** Paints labels over a whole canvas; `colors[id]` is RGBA, red in the lowest byte. */
export function paint(canvas, labels, colors) {
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const columns = Uint32Array.from({ length: width }, (_, x) => Math.floor(((x + 0.5) * labels.width) / width));
  for (let y = 0; y < height; y += 1) {
    const from = Math.floor(((y + 0.5) * labels.height) / height) * labels.width;
    for (let x = 0; x < width; x += 1) pixels[y * width + x] = colors[labels.ids[from + columns[x]]];
  }
  context.putImageData(image, 0, 0);
}

/** Colors for `paint`: of all classes, or of one with the others darkened. */
export function palette(classes, only) {
  const [solid, dark] = [0xff000000, 0xd8000000];
  const colors = new Uint32Array(256).fill(only === undefined ? 0 : dark);
  for (const { id, color } of classes) {
    const [red, green, blue] = color;
    if (only === undefined || only === id) colors[id] = (solid | (blue << 16) | (green << 8) | red) >>> 0;
  }
  return colors;
}
