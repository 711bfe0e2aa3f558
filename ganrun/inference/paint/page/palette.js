// The colours to paint with: those of the picture, and any other.

const $ = (selector) => document.querySelector(selector);
const MOST = 11; // Swatches.
const STEP = 0xe0; // Colours that agree in these bits count as one.

const hex = (pixel) => `#${[...pixel].map((level) => level.toString(16).padStart(2, "0")).join("")}`;

// Pixels of layers over each other on white, at a size: 4 bytes each.
function pixels(size, layers) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, size, size);
  for (const layer of layers) if (layer) context.drawImage(layer, 0, 0, size, size);
  return context.getImageData(0, 0, size, size).data;
}

// The colours of pixels, the most frequent first.
function frequent(data) {
  const counts = new Map();
  for (let at = 0; at < data.length; at += 4) {
    const key = hex([data[at] & STEP, data[at + 1] & STEP, data[at + 2] & STEP]);
    const found = counts.get(key) ?? [0, hex(data.slice(at, at + 3))];
    counts.set(key, [found[0] + 1, found[1]]);
  }
  return [...counts.values()].sort((a, b) => b[0] - a[0]).map(([, value]) => value);
}

export class Palette {
  // about says the size and the channels of the run's pictures; pad is what is drawn on.
  constructor(about, pad) {
    this.about = about;
    this.pad = pad;
    $("#colour").oninput = () => this.choose($("#colour").value);
    this.choose("#000000");
    this.offer();
  }

  choose(value) {
    this.pad.colour = value;
    $("#colour").value = value;
    for (const each of $("#swatches").children) each.setAttribute("aria-pressed", String(each.title === value));
  }

  // Takes the colour of a place, both coordinates in [0, 1), and the brush.
  async pick(x, y) {
    const { size } = this.about;
    const data = pixels(size, [await this.#backdrop(), this.pad.canvas]);
    const at = 4 * (Math.floor(y * size) * size + Math.floor(x * size));
    this.choose(hex(data.slice(at, at + 3)));
    $("[value=brush]").click();
  }

  // Offers black, white and the most frequent colours of the picture: of `image`, or of what lies below the strokes.
  async offer(image = null) {
    const { size, channels } = this.about;
    const often = frequent(pixels(size, [image ?? (await this.#backdrop()), this.pad.canvas]));
    const greys = channels === 1 ? ["#404040", "#808080", "#c0c0c0"] : ["#d32f2f", "#f9a825", "#388e3c", "#1976d2"];
    const all = [...new Set(["#000000", "#ffffff", ...greys, ...often])].slice(0, MOST);
    $("#swatches").replaceChildren(
      ...all.map((value) => {
        const button = document.createElement("button");
        Object.assign(button, { type: "button", title: value, onclick: () => this.choose(value) });
        button.style.background = value;
        button.setAttribute("aria-label", `Colour ${value}`);
        return button;
      }),
    );
    this.choose(this.pad.colour);
  }

  async #backdrop() {
    if ($("#backdrop").hidden) return null;
    await $("#backdrop").decode();
    return $("#backdrop");
  }
}
