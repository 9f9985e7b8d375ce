// A random synthetic street scene, for a first try.

/** Draws a scene, and returns it as a PNG file. */
export async function drawScene() {
  const [width, height] = [1024, 640];
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  const between = (low, high) => low + Math.random() * (high - low);
  const fill = (color, ...corners) => {
    context.fillStyle = color;
    context.beginPath();
    corners.forEach(([x, y]) => context.lineTo(x * width, y * height));
    context.fill();
  };
  const box = (color, x, y, w, h) => fill(color, [x, y], [x + w, y], [x + w, y + h], [x, y + h]);
  const disc = (color, x, y, radius) => {
    context.fillStyle = color;
    context.beginPath();
    context.arc(x * width, y * height, radius * height, 0, 7);
    context.fill();
  };

  const sky = context.createLinearGradient(0, 0, 0, height / 2);
  sky.addColorStop(0, "#7fb2de");
  sky.addColorStop(1, "#dfe9ee");
  box(sky, 0, 0, 1, 0.55);
  const horizon = 0.52;
  for (let x = -0.05; x < 1; ) {
    const [w, h] = [between(0.09, 0.2), between(0.16, 0.42)];
    const tone = between(95, 175);
    box(`rgb(${tone} ${tone - 12} ${tone - 24})`, x, horizon - h, w, h + 0.1);
    for (let row = 0.03; row < h - 0.03; row += 0.06) {
      for (let column = 0.015; column < w - 0.025; column += 0.035) {
        box("#46525c", x + column, horizon - h + row, 0.018, 0.033);
      }
    }
    x += w;
  }
  fill("#a8a39b", [0, horizon + 0.06], [1, horizon + 0.06], [1, 1], [0, 1]);
  const middle = between(0.44, 0.56);
  fill("#5d5d61", [middle - 0.06, horizon + 0.05], [middle + 0.06, horizon + 0.05], [1.06, 1], [-0.06, 1]);
  for (let step = 0; step < 6; step += 1) {
    const y = horizon + 0.08 + 0.07 * step;
    box("#e4e2da", middle - 0.002 * (step + 1), y, 0.004 * (step + 1), 0.02 + 0.005 * step);
  }
  for (const x of [between(0.02, 0.12), between(0.2, 0.28), between(0.76, 0.84), between(0.9, 0.98)]) {
    const base = horizon + 0.1;
    box("#5b4636", x - 0.006, base - 0.16, 0.012, 0.17);
    for (let leaf = 0; leaf < 14; leaf += 1) {
      const green = between(85, 125);
      disc(`rgb(${green - 40} ${green} 48)`, x + between(-0.035, 0.035), base - between(0.14, 0.27), between(0.03, 0.055));
    }
  }
  for (const [x, size] of [[middle - 0.16, 0.13], [middle + between(0.04, 0.12), 0.18]]) {
    const y = horizon + 0.08 + size / 2;
    const color = `hsl(${between(0, 360)} 55% 40%)`;
    box("rgb(0 0 0 / 0.35)", x, y + 0.4 * size, size, 0.1 * size);
    fill(color, [x + 0.16 * size, y - 0.3 * size], [x + 0.84 * size, y - 0.3 * size], [x + size, y + 0.05 * size], [x, y + 0.05 * size]);
    box(color, x, y, size, 0.4 * size);
    fill("#26313b", [x + 0.2 * size, y - 0.25 * size], [x + 0.8 * size, y - 0.25 * size], [x + 0.92 * size, y], [x + 0.08 * size, y]);
    for (const side of [0.14, 0.86]) disc("#1b1b1d", x + side * size, y + 0.42 * size, 0.14 * size);
  }
  const blob = await new Promise((give) => canvas.toBlob(give, "image/png"));
  return new File([blob], "street.png", { type: "image/png" });
}
