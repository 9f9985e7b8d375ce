// Shows the values at the step under the pointer. The page says all it has to say without it.
for (const plot of document.querySelectorAll(".plot[data-last]")) {
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
    const last = Number(plot.dataset.last);
    const wanted = (event.clientX - frame.left) / frame.width * last;
    const distance = (point) => Math.abs(point[0] - wanted);
    const nearest = (points) => points.reduce((best, point) => distance(point) < distance(best) ? point : best);
    const step = nearest(lines.map((line) => nearest(line.points)))[0];
    leave();
    cursor = document.createElement("div");
    cursor.className = "cursor";
    cursor.style.left = `${100 * step / last}%`;
    tip = document.createElement("div");
    tip.className = "tip";
    tip.append(`step ${step.toLocaleString("en").replaceAll(",", "\u202f")}`);
    for (const line of lines) {
      const point = line.points.find((point) => point[0] === step);
      if (!point) continue;
      const row = document.createElement("div");
      const key = document.createElement("i");
      key.className = `key ${line.color}`;
      row.append(key, `${line.name} ${Number(point[1].toPrecision(4))}`);
      tip.append(row);
    }
    tip.style[step < last / 2 ? "left" : "right"] = `calc(${100 * (step < last / 2 ? step : last - step) / last}% + 8px)`;
    plot.append(cursor, tip);
    const box = tip.getBoundingClientRect();
    const width = document.documentElement.clientWidth;
    tip.style.translate = `${Math.max(4 - box.left, Math.min(0, width - 4 - box.right))}px`;
  };
  plot.addEventListener("pointermove", move);
  plot.addEventListener("pointerdown", move);
  plot.addEventListener("pointerleave", leave);
}
