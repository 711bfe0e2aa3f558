// The page: what is drawn goes to the run, and what the run makes of it comes back.

import { Pad } from "./pad.js";
import { Palette } from "./palette.js";
import { Server } from "./server.js";
import { Walk } from "./walk.js";

const $ = (selector) => document.querySelector(selector);
const LONGER = 5; // Seconds of a longer search.
const UNDOS = 30;
const server = new Server();
const about = await server.about().catch((error) => say(error.message, true));
const searches = about?.kind === "latent";
let now = null; // The result that is shown: { image, latent, label }.
let base = null; // The result that the strokes are laid over, which a search begins with.
let shown = []; // Candidates.
let seed = 0;
let wanted = false; // Another edit is due once that in progress is done.
let busy = null; // AbortController of the edit in progress.
const before = []; // For undo.
let palette = null;

if (about) start();

function say(text, lost = false) {
  $("#status").textContent = text;
  $("#status").classList.toggle("lost", lost);
}

function show(image, png) {
  image.hidden = !png;
  if (png) image.src = `data:image/png;base64,${png}`;
}

function start() {
  $("#run").textContent = about.run;
  document.title = `${about.run}: ganrun paint`;
  window.pad = new Pad($("#pad"), about.size, { begin, stroke, pick: (x, y) => palette.pick(x, y) });
  palette = new Palette(about, window.pad);
  for (const each of document.querySelectorAll("[name=tool]")) each.onchange = () => (window.pad.tool = each.value);
  $("#width").oninput = () => (window.pad.width = Number($("#width").value));
  $("#undo").onclick = undo;
  $("#clear").onclick = () => {
    remember();
    window.pad.clear();
    base = now;
    if (!searches) send();
  };
  $("#file").onchange = () => bring($("#file").files[0]);
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "z") {
      event.preventDefault();
      undo();
    }
  });
  $("#save").onclick = () => save(`${about.run}.png`, `data:image/png;base64,${now.image}`);
  $("#saveLatent").onclick = () => {
    const { run, space, label, latent } = now;
    save(`${about.run}.json`, URL.createObjectURL(new Blob([JSON.stringify({ run, space, label, latent })])));
  };
  for (const id of ["sliders", "choice", "walking", "saveLatent"]) $(`#${id}`).hidden = !searches;
  if (about.kind === "fill") $("#pad").parentNode.classList.add("holes");
  $("#hint").textContent = {
    latent: "Draw here. The strokes lie over the picture that is edited.",
    translate: "Draw here. The drawing is translated as you draw.",
    fill: "Bring a picture, and erase what is to be filled.",
  }[about.kind];
  if (searches) startSearching();
  say("ready");
}

function startSearching() {
  $("#realistic").hidden = !about.realism;
  for (const each of document.querySelectorAll("#sliders input")) {
    const tell = () => (each.nextElementSibling.value = each.value);
    each.oninput = tell;
    each.onchange = () => send();
    tell();
  }
  $("#class").hidden = !about.classes;
  const options = ["any", ...Array(about.classes).keys()].map((name) => new Option(name, name === "any" ? "" : name));
  $("#class select").append(...options);
  $("#class select").onchange = () => (window.pad.isEmpty() ? sample() : send());
  $("#longer").onclick = () => send({ seconds: LONGER });
  $("#others").onclick = sample;
  $("#white").onclick = () => {
    remember();
    window.pad.clear();
    take(null);
  };
  new Walk(server, show, () => now, (error) => say(error.message, true));
  sample();
}

function label() {
  const value = $("#class select").value;
  return value === "" ? null : Number(value);
}

async function sample() {
  try {
    candidates((await server.post("/sample", { seed: seed++, label: label() })).candidates, "Begin with one of these, or draw on white");
  } catch (error) {
    say(error.message, true);
  }
}

function candidates(found, words) {
  shown = found;
  $("#choices").textContent = words;
  $("#candidates").replaceChildren(
    ...found.map((each, number) => {
      const button = document.createElement("button");
      const image = document.createElement("img");
      button.type = "button";
      image.alt = `Candidate ${number + 1}`;
      show(image, each.image);
      button.append(image);
      button.onclick = () => {
        remember();
        take(each, window.pad.isEmpty());
      };
      return button;
    }),
  );
  press();
}

function press() {
  for (const [number, button] of [...$("#candidates").children].entries())
    button.setAttribute("aria-pressed", String(shown[number] === now));
}

// Shows a result. Strokes are laid over it from now on if `fresh`.
function take(result, fresh = true) {
  now = result;
  if (fresh) base = result;
  show($("#result"), now?.image);
  show($("#backdrop"), searches ? now?.image : null);
  const known = now?.error !== undefined;
  $("#found").textContent = known ? `Distance from the strokes: ${now.error.toFixed(3)}` : now ? "" : "Nothing yet";
  for (const id of ["save", "saveLatent", "from", "to"]) $(`#${id}`).disabled = !now;
  press();
  palette.offer();
}

function remember() {
  before.push({ strokes: window.pad.copy(), now, base, shown, words: $("#choices").textContent });
  if (before.length > UNDOS) before.shift();
  $("#undo").disabled = false;
}

// A stroke is laid over what is shown: a search begins there.
function begin() {
  remember();
  base = now;
}

function undo() {
  const last = before.pop();
  if (!last) return;
  busy?.abort();
  wanted = false;
  window.pad.paste(last.strokes);
  take(last.now, false);
  base = last.base;
  if (searches) candidates(last.shown, last.words);
  $("#undo").disabled = !before.length;
  say("undone");
}

// While one draws, a translation follows; a search begins when the stroke ends.
function stroke(ended) {
  if (!searches) {
    wanted = true;
    if (!busy) send();
  } else if (ended) {
    send();
  }
}

async function send(more = {}) {
  if (searches && window.pad.isEmpty()) return;
  busy?.abort();
  const mine = (busy = new AbortController());
  wanted = false;
  const edit = { drawing: window.pad.png(), ...(searches ? terms() : {}), ...more };
  const begun = performance.now();
  try {
    say(searches ? "searching ..." : "translating ...");
    const found = await server.edit(edit, mine.signal, follow);
    if (mine.signal.aborted) return;
    if (searches) candidates(found.candidates, "Candidates, the nearest first");
    take(found.candidates[0], false);
    $("#longer").disabled = !searches;
    say(`done in ${((performance.now() - begun) / 1000).toFixed(1)} s${searches ? `, ${found.made} steps` : ""}`);
    return found;
  } catch (error) {
    if (!mine.signal.aborted) say(error.message, true);
  } finally {
    if (busy === mine) {
      busy = null;
      $("#progress").classList.remove("shown");
      if (wanted) send();
    }
  }
}

function terms() {
  const edit = { candidates: 6, label: label() };
  for (const id of ["strokes", "keep", "realism"]) edit[id] = Number($(`#${id}`).value);
  if (base) edit.start = { latent: base.latent, label: base.label };
  return edit;
}

function follow(line) {
  if (line.waits) say("waiting for others who paint ...");
  if (line.image === undefined) return;
  show($("#result"), line.image);
  $("#progress").value = line.share;
  $("#progress").classList.add("shown");
}

// One's own picture, or a latent that was saved.
async function bring(file) {
  $("#file").value = "";
  if (!file) return;
  try {
    if (file.name.endsWith(".json")) return await open(file);
    if (file.size > about.picture_bytes) throw new Error(`${file.name}: more than ${about.picture_bytes / 2 ** 20} MiB`);
    say("reading the picture ...");
    const { picture } = await server.picture(file);
    remember();
    const image = new Image();
    image.src = `data:image/png;base64,${picture}`;
    await image.decode();
    window.pad.lay(image);
    palette.offer(image);
    if (searches) {
      base = null;
      const found = await send({ seconds: LONGER, perceptual: about.perceptual ? 0.1 : 0 });
      if (!found) return;
      remember(); // The picture itself is one step back.
      window.pad.clear();
      base = now;
      say("this is the nearest picture that the run makes; draw on it");
    } else {
      send();
    }
  } catch (error) {
    say(error.message, true);
  }
}

async function open(file) {
  const point = JSON.parse(await file.text().then((text) => (text.length < 2 ** 22 ? text : "")));
  const { latent, label: of } = point;
  const end = { latent, label: of ?? null };
  const found = await server.post("/walk", { begin: end, end, steps: 1 });
  remember();
  window.pad.clear();
  take({ ...end, run: about.run, space: point.space, image: found.images[0] });
  say(`${file.name} is opened`);
}

function save(name, url) {
  const link = document.createElement("a");
  Object.assign(link, { href: url, download: name });
  link.click();
}
