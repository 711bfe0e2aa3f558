// SVG chart of a few curves over images shown. The legend has the values at the pointer, or else the newest.

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { left: 46, right: 10, top: 10, bottom: 22 };
const HEIGHT = 190;

export function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e9) return trim(value / 1e9) + "G";
  if (size >= 1e6) return trim(value / 1e6) + "M";
  if (size >= 1e4) return trim(value / 1e3) + "k";
  if (size !== 0 && size < 1e-3) return value.toExponential(1);
  return trim(value);
}

function trim(value) {
  return String(Number(value.toPrecision(3)));
}

function ticks(low, high, wanted) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(Math.abs(at) < step / 1e6 ? 0 : at);
  return found;
}

function make(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

export class Chart {
  // names: [[key in a point, label], ...]
  constructor(title, names, parent) {
    this.names = names;
    this.points = [];
    this.box = parent.appendChild(document.createElement("div"));
    this.box.className = "chart";
    const heading = this.box.appendChild(document.createElement("h4"));
    heading.textContent = title;
    this.legend = this.box.appendChild(document.createElement("div"));
    this.legend.className = "legend";
    this.svg = this.box.appendChild(make("svg", { role: "img" }));
    this.title = title;
    this.svg.addEventListener("pointermove", (event) => this.draw(event.offsetX));
    this.svg.addEventListener("pointerleave", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  show(points) {
    this.points = points.filter((point) => this.names.some(([key]) => point[key] !== undefined));
    this.box.hidden = this.points.length === 0;
    this.draw();
  }

  draw(pointer) {
    const width = this.svg.clientWidth;
    if (!width || !this.points.length) return;
    const images = this.points.map((point) => point.images);
    const values = this.points.flatMap((point) => this.names.map(([key]) => point[key])).filter((value) => value !== undefined);
    let [low, high] = [Math.min(...values), Math.max(...values)];
    if (low > 0 && (low < high / 2 || this.names.length === 1)) low = 0;
    if (low === high) [low, high] = [low - Math.abs(low || 1) / 10, high + Math.abs(high || 1) / 10];
    const [first, last] = [Math.min(...images), Math.max(...images, Math.min(...images) + 1)];
    const x = (at) => MARGIN.left + ((at - first) / (last - first)) * (width - MARGIN.left - MARGIN.right);
    const y = (at) => HEIGHT - MARGIN.bottom - ((at - low) / (high - low)) * (HEIGHT - MARGIN.top - MARGIN.bottom);
    this.svg.replaceChildren();
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    for (const at of ticks(low, high, 4)) {
      this.svg.append(make("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(at), y2: y(at) }));
      this.svg.append(make("text", { x: MARGIN.left - 6, y: y(at) + 4, "text-anchor": "end" }, number(at)));
    }
    for (const at of ticks(first, last, Math.max(2, Math.floor(width / 110)))) {
      const anchor = x(at) > width - 24 ? "end" : x(at) < MARGIN.left + 10 ? "start" : "middle";
      this.svg.append(make("text", { x: x(at), y: HEIGHT - 5, "text-anchor": anchor }, number(at)));
    }
    this.names.forEach(([key], index) => this.line(key, index, x, y));
    this.tell(pointer, x);
  }

  line(key, index, x, y) {
    const there = this.points.filter((point) => point[key] !== undefined);
    const path = there.map((point) => `${x(point.images).toFixed(1)},${y(point[key]).toFixed(1)}`).join(" ");
    if (there.length > 1) this.svg.append(make("polyline", { class: `curve s${index % 5}`, points: path }));
    if (there.length && there.length < 16) {
      for (const point of there) this.svg.append(make("circle", { class: `s${index % 5}`, cx: x(point.images), cy: y(point[key]), r: 2.5 }));
    }
  }

  tell(pointer, x) {
    let point = this.points[this.points.length - 1];
    if (pointer !== undefined) {
      for (const each of this.points) if (Math.abs(x(each.images) - pointer) < Math.abs(x(point.images) - pointer)) point = each;
      this.svg.append(make("line", { class: "cursor", x1: x(point.images), x2: x(point.images), y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }));
    }
    this.legend.replaceChildren();
    const told = [];
    this.names.forEach(([key, label], index) => {
      if (!this.points.some((each) => each[key] !== undefined)) return;
      const entry = this.legend.appendChild(document.createElement("span"));
      const sample = entry.appendChild(make("svg", { viewBox: "0 0 18 8", "aria-hidden": "true" }));
      sample.append(make("line", { class: `s${index % 5}`, x1: 0, x2: 18, y1: 4, y2: 4, "stroke-width": 2 }));
      entry.append(`${label} `);
      entry.appendChild(document.createElement("b")).textContent = number(point[key]);
      told.push(`${label} ${number(point[key])}`);
    });
    this.legend.append(`at ${number(point.images)}`);
    if (pointer === undefined) this.svg.setAttribute("aria-label", `${this.title}: ${told.join(", ")} at ${number(point.images)} images`);
  }
}
