// The canvas that is drawn on: transparent where nothing is drawn, over the picture that is edited.

const LEAST = 512; // Pixels a side; a multiple of the run's size, so that the server can average them exactly.

export class Pad {
  // events: begin() before a change, stroke(ended) while and after it, pick(x, y) with both in [0, 1).
  constructor(canvas, size, events) {
    this.canvas = canvas;
    this.events = events;
    canvas.width = canvas.height = size * Math.ceil(LEAST / size);
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.tool = "brush";
    this.colour = "#000000";
    this.width = 30; // In 512ths of the side.
    this.last = null;
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => this.#end());
  }

  // PNG in base64.
  png() {
    return this.canvas.toDataURL("image/png").split(",")[1];
  }

  isEmpty() {
    const { data } = this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    for (let at = 3; at < data.length; at += 4) if (data[at]) return false;
    return true;
  }

  copy() {
    return this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
  }

  paste(copy) {
    this.context.putImageData(copy, 0, 0);
  }

  clear() {
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  // Lays a picture of the run's size over everything.
  lay(image) {
    this.clear();
    this.context.imageSmoothingEnabled = false;
    this.context.drawImage(image, 0, 0, this.canvas.width, this.canvas.height);
  }

  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  #begin(event) {
    if (event.button !== 0 || this.last) return;
    event.preventDefault();
    const place = this.#place(event);
    if (this.tool === "pick") {
      this.events.pick(...place);
      return;
    }
    try {
      this.canvas.setPointerCapture(event.pointerId);
    } catch {} // The pointer has gone already.
    this.events.begin();
    this.last = place;
    this.#line(place);
    this.events.stroke(false);
  }

  #move(event) {
    if (!this.last) return;
    const passed = event.getCoalescedEvents?.() ?? [];
    for (const each of passed.length ? passed : [event]) this.#line(this.#place(each));
    this.events.stroke(false);
  }

  #end() {
    if (!this.last) return;
    this.last = null;
    this.events.stroke(true);
  }

  #line(place) {
    const side = this.canvas.width;
    const context = this.context;
    context.globalCompositeOperation = this.tool === "eraser" ? "destination-out" : "source-over";
    context.strokeStyle = this.colour;
    context.lineWidth = (this.width * side) / LEAST;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(this.last[0] * side, this.last[1] * side);
    context.lineTo(place[0] * side, place[1] * side);
    context.stroke();
    context.globalCompositeOperation = "source-over";
    this.last = place;
  }
}
