// Colours of a picture.

const STEP = 0xe0; // Colours that agree in these bits count as one.

export const hex = (pixel) => `#${[...pixel].map((level) => level.toString(16).padStart(2, "0")).join("")}`;

// Pixels of layers over each other on white, at a size: 4 bytes each.
export function pixels(size, layers) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, size, size);
  for (const layer of layers) if (layer) context.drawImage(layer, 0, 0, size, size);
  return context.getImageData(0, 0, size, size).data;
}

// The colours of pixels, the most frequent first.
export function frequent(data) {
  const counts = new Map();
  for (let at = 0; at < data.length; at += 4) {
    const key = hex([data[at] & STEP, data[at + 1] & STEP, data[at + 2] & STEP]);
    const found = counts.get(key) ?? [0, hex(data.slice(at, at + 3))];
    counts.set(key, [found[0] + 1, found[1]]);
  }
  return [...counts.values()].sort((a, b) => b[0] - a[0]).map(([, value]) => value);
}
