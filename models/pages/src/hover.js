// Shows the values at the place under the pointer. The page says all it has to say without it.
const written = (place, logarithmic) => {
  // A power of ten has been rounded to five digits itself.
  const value = Number(logarithmic ? (10 ** place).toPrecision(3) : Number.isInteger(place) ? place : place.toPrecision(4));
  return Math.abs(value) < 1000 ? String(value) : value.toLocaleString("en").replaceAll(",", "\u202f");
};
for (const plot of document.querySelectorAll(".plot[data-axis]")) {
  let lines, cursor, tip;
  const leave = () => { cursor?.remove(); tip?.remove(); cursor = tip = undefined; };
  const read = (path) => ({
    name: path.dataset.name,
    color: [...path.classList].find((name) => /^c\d/.test(name)),
    points: path.getAttribute("d").split(/[ML]/).slice(1).map((point) => point.replace("h0", "").split(" ").map(Number)),
  });
  const move = (event) => {
    lines ??= [...plot.querySelectorAll("path[data-name]")].map(read);
    const frame = plot.getBoundingClientRect();
    const [left, right] = [plot.dataset.left, plot.dataset.right].map(Number);
    const wanted = left + (event.clientX - frame.left) / frame.width * (right - left);
    const distance = (point) => Math.abs(point[0] - wanted);
    const nearest = (points) => points.reduce((best, point) => distance(point) < distance(best) ? point : best);
    const place = nearest(lines.map((line) => nearest(line.points)))[0];
    const along = 100 * (place - left) / (right - left);
    leave();
    cursor = document.createElement("div");
    cursor.className = "cursor";
    cursor.style.left = `${along}%`;
    tip = document.createElement("div");
    tip.className = "tip";
    tip.append(`${plot.dataset.axis} ${written(place, "logarithmicX" in plot.dataset)}`);
    for (const line of lines) {
      const point = line.points.find((point) => point[0] === place);
      if (!point) continue;
      const row = document.createElement("div");
      const key = document.createElement("i");
      key.className = `key ${line.color}`;
      row.append(key, `${line.name} ${written(point[1], "logarithmicY" in plot.dataset)}`);
      tip.append(row);
    }
    tip.style[along < 50 ? "left" : "right"] = `calc(${Math.min(along, 100 - along)}% + 8px)`;
    plot.append(cursor, tip);
    const box = tip.getBoundingClientRect();
    const width = document.documentElement.clientWidth;
    tip.style.translate = `${Math.max(4 - box.left, Math.min(0, width - 4 - box.right))}px`;
  };
  plot.addEventListener("pointermove", move);
  plot.addEventListener("pointerdown", move);
  plot.addEventListener("pointerleave", leave);
}
