// The walk between two results.

const PICTURES = 17; // As many as the slider has places.
const $ = (selector) => document.querySelector(selector);

export class Walk {
  #ends = { from: null, to: null };
  #pictures = [];

  // show(image, png) shows a picture; now() returns the result that is shown; fail(error) tells of an error.
  constructor(server, show, now, fail) {
    for (const id of ["from", "to"]) {
      $(`#${id}`).onclick = () => {
        this.#ends[id] = now();
        show($(`#${id}`).parentNode.querySelector("img"), now().image);
        this.#ask(server).then(() => this.#shown(show)).catch(fail);
      };
    }
    $("#way").oninput = () => this.#shown(show);
  }

  async #ask(server) {
    const { from, to } = this.#ends;
    if (!from || !to) return;
    const [begin, end] = [from, to].map(({ latent, label }) => ({ latent, label }));
    this.#pictures = (await server.post("/walk", { begin, end, steps: PICTURES })).images;
    $("#way").disabled = false;
  }

  #shown(show) {
    show($("#between"), this.#pictures[Number($("#way").value)]);
  }
}
