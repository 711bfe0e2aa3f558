// SVG chart of a few curves over images shown. The legend has the values at the pointer, or else the newest.

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { right: 10, top: 10, bottom: 22 };
const DIGIT = 6.5; // Width of a digit of a tick in pixels.
const UNITS = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];

// A count in full: where there is room for it.
export function count(value) {
  return value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en");
}

// A measured value to three digits.
export function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e15 || (size !== 0 && size < 1e-3)) return value.toExponential(1);
  if (size >= 1e3 && size < 1e4) return count(value);
  const [unit, name] = UNITS.find(([each]) => size >= Math.max(each, 1e4)) ?? [1, ""];
  return Number((value / unit).toPrecision(3)) + name;
}

// The step of about so many ticks from low to high.
function stepOf(low, high, wanted) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  return Number((power * [1, 2, 5, 10].find((factor) => factor * power >= rough * (1 - 1e-9))).toPrecision(1));
}

// The multiples of a step from low to high.
function multiples(low, high, step) {
  const found = [];
  const last = Math.floor(high / step + 1e-9);
  for (let at = Math.ceil(low / step - 1e-9); at <= last; at++) found.push(Number((at * step).toPrecision(15)) || 0);
  return found;
}

// An axis of counts: its ticks and their step. A single count is the only tick.
export function countAxis(low, high, wanted) {
  if (low === high) return { found: [low], step: 1 };
  const step = Math.max(stepOf(low, high, wanted), 1);
  return { found: multiples(low, high, step), step };
}

// An axis of values, which ends at ticks.
export function valueAxis(values, fromZero) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (low > 0 && (low < high / 2 || fromZero)) low = 0;
  const least = Math.max(Math.abs(low), Math.abs(high)) * 1e-9; // Closer ones are equal, but for rounding.
  if (high - low <= least) [low, high] = [low - (Math.abs(low) || 1) / 10, high + (Math.abs(high) || 1) / 10];
  const step = stepOf(low, high, 4);
  const found = multiples(Math.floor(low / step + 1e-9) * step, Math.ceil(high / step - 1e-9) * step, step);
  return { found, step, low: found[0], high: found.at(-1) };
}

// The shortest labels that tell the ticks apart.
export function labels({ found, step }) {
  const largest = Math.max(...found.map(Math.abs), step);
  const digits = (unit) => Math.max(0, -Math.floor(Math.log10(step / unit) + 1e-9));
  if (largest >= 1e15 || step < 1e-4) {
    const exponent = Math.floor(Math.log10(largest) + 1e-9);
    return found.map((at) => (at === 0 ? "0" : at.toExponential(Math.max(0, Math.floor(Math.log10(Math.abs(at)) + 1e-9) - exponent + digits(10 ** exponent)))));
  }
  const [unit, name] = UNITS.find(([each]) => largest >= Math.max(each, 1e4) && largest < each * 1e4 && digits(each) < 2) ?? [1, ""];
  const text = (at) => (at / unit).toLocaleString("en", { minimumFractionDigits: digits(unit), maximumFractionDigits: digits(unit) });
  return found.map((at) => (at === 0 ? "0" : text(at) + name));
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
    const [width, height] = [this.svg.clientWidth, this.svg.clientHeight];
    if (!width || !this.points.length) return;
    const images = this.points.map((point) => point.images);
    const values = this.points.flatMap((point) => this.names.map(([key]) => point[key])).filter((value) => value !== undefined);
    const rows = valueAxis(values, this.names.length === 1);
    const names = labels(rows);
    const left = 12 + DIGIT * Math.max(4, ...names.map((name) => name.length));
    const [first, last] = [Math.min(...images), Math.max(...images)];
    // A single point stands in the middle.
    const x = (at) => left + (first === last ? 0.5 : (at - first) / (last - first)) * (width - left - MARGIN.right);
    const y = (at) => height - MARGIN.bottom - ((at - rows.low) / (rows.high - rows.low)) * (height - MARGIN.top - MARGIN.bottom);
    this.svg.replaceChildren();
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    rows.found.forEach((at, index) => {
      this.svg.append(make("line", { class: "grid", x1: left, x2: width - MARGIN.right, y1: y(at), y2: y(at) }));
      this.svg.append(make("text", { x: left - 6, y: y(at) + 4, "text-anchor": "end" }, names[index]));
    });
    const columns = countAxis(first, last, Math.max(2, Math.floor(width / 110)));
    labels(columns).forEach((name, index) => {
      const at = x(columns.found[index]);
      const anchor = at > width - 24 ? "end" : at < left + 10 ? "start" : "middle";
      this.svg.append(make("text", { x: at, y: height - 5, "text-anchor": anchor }, name));
    });
    this.names.forEach(([key], index) => this.line(key, index, x, y));
    this.tell(pointer, x, height);
  }

  line(key, index, x, y) {
    const there = this.points.filter((point) => point[key] !== undefined);
    const path = there.map((point) => `${x(point.images).toFixed(1)},${y(point[key]).toFixed(1)}`).join(" ");
    if (there.length > 1) this.svg.append(make("polyline", { class: `curve s${index % 5}`, points: path }));
    if (there.length && there.length < 16) {
      for (const point of there) this.svg.append(make("circle", { class: `s${index % 5}`, cx: x(point.images), cy: y(point[key]), r: 2.5 }));
    }
  }

  tell(pointer, x, height) {
    let point = this.points[this.points.length - 1];
    if (pointer !== undefined) {
      for (const each of this.points) if (Math.abs(x(each.images) - pointer) < Math.abs(x(point.images) - pointer)) point = each;
      this.svg.append(make("line", { class: "cursor", x1: x(point.images), x2: x(point.images), y1: MARGIN.top, y2: height - MARGIN.bottom }));
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
    this.legend.append(`at ${count(point.images)}`);
    if (pointer === undefined) this.svg.setAttribute("aria-label", `${this.title}: ${told.join(", ")} at ${count(point.images)} images`);
  }
}
