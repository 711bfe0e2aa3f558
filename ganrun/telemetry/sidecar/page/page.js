// The page: polls /runs and shows its runs.

import { Chart, count, number } from "./chart.js";
import { AT, CHARTED, OF_GAMES, PAIRED, VERSION } from "./constants.js";

const EVERY = 3000; // Milliseconds between two polls.
const $ = (selector) => document.querySelector(selector);
const key = (run) => (run.trial ? `${run.run}/${run.trial}` : run.run);
let shown = null; // { key, charts, curve, first, latest }

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function share(run) {
  return run.target_images ? Math.min((run.images ?? 0) / run.target_images, 1) : 0;
}

function percent(run) {
  return `${Math.floor(share(run) * 100)} %`;
}

function isSearch(run) {
  return Object.keys(run.trials).length > 0;
}

function span(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleString([], { dateStyle: "short", timeStyle: "short" });
}

function list(runs, chosen) {
  $("#runs").hidden = runs.length < 2;
  const rows = runs.map((run) => {
    const row = element("tr");
    const link = element("a", key(run));
    link.href = `#${encodeURIComponent(key(run))}`;
    if (run === chosen) link.setAttribute("aria-current", "true");
    row.append(element("td"), element("td"));
    row.cells[0].append(link);
    row.cells[1].append(element("span", run.state, `state ${run.state}`));
    row.append(element("td", undefined, run.health[0].level));
    row.cells[2].append({ good: "good", warning: "look", bad: "trouble" }[run.health[0].level]);
    row.append(element("td", run.target_images ? percent(run) : "–", "number"));
    row.append(element("td", run.state === "running" ? count(run.images_per_second) : "–", "number"));
    row.append(element("td", run.score === null ? "–" : run.score.toFixed(2), "number"));
    return row;
  });
  const focused = document.activeElement?.closest("#runs a")?.getAttribute("href");
  $("#runs tbody").replaceChildren(...rows);
  if (focused) [...document.querySelectorAll("#runs a")].find((link) => link.getAttribute("href") === focused)?.focus();
}

function figures(run) {
  if (isSearch(run)) return Object.entries(run.trials).map(([state, trials]) => [`Trials ${state}`, count(trials)]);
  const running = run.state === "running";
  const left = running && run.images_per_second ? (run.target_images - run.images) / run.images_per_second : NaN;
  return [
    ["Images", `${count(run.images ?? 0)} of ${count(run.target_images)} (${percent(run)})`],
    ["Images/s", count(run.images_per_second)],
    ["Time left", span(left)],
    [run.score_name || "Score", run.score === null ? "–" : run.score.toFixed(2)],
    ["Waiting for data", run.data_wait_ratio === null ? "–" : `${Math.round(run.data_wait_ratio * 100)} %`],
    ["Skipped turns", count(run.nonfinite)],
    ["Workers", count(run.workers)],
  ];
}

function showFigures(run) {
  $(".figures").replaceChildren(
    ...figures(run).map(([name, value]) => {
      const pair = element("div");
      pair.append(element("dt", name), element("dd", value));
      return pair;
    }),
  );
}

function words(run) {
  const found = run.health.map((word) => {
    const item = element("li", undefined, word.level);
    if (word.level !== "good") item.append(element("strong", word.level === "bad" ? "Trouble: " : "Look: "));
    item.append(word.text);
    return item;
  });
  $(".words").replaceChildren(...found);
  $(".notes").hidden = !run.notes.length;
  $(".notes ul").replaceChildren(
    ...run.notes.toReversed().map((note) => {
      const item = element("li");
      item.append(element("time", clock(note.time)), element("span", note.text));
      if (note.count > 1) item.lastChild.append(" ", element("em", `${count(note.count)} times since ${clock(note.first_time)}`));
      return item;
    }),
  );
}

function part(run, name) {
  const query = new URLSearchParams({ run: run.run, trial: run.trial, part: name, digest: run.parts[name] });
  return `part?${query}`;
}

function pictures(run) {
  for (const name of ["first", "latest"]) {
    const image = $(`img.${name}`);
    if (run.parts[name] && shown[name] !== run.parts[name]) {
      shown[name] = run.parts[name];
      image.src = part(run, name);
    }
  }
  $(".pictures").hidden = !run.parts.latest && !run.parts.first;
  $("img.latest").parentElement.hidden = !run.parts.latest || run.parts.latest === run.parts.first;
}

function charts(points, run) {
  const parts = (prefix) => [...new Set(points.flatMap((point) => Object.keys(point)))].filter((name) => name.startsWith(prefix)).sort();
  const named = (prefix) => parts(prefix).map((name) => [name, name.slice(prefix.length)]);
  const isPoints = points.some((point) => CHARTED.mode_distance in point);
  const score = isPoints ? CHARTED.mode_distance : CHARTED.frechet_distance;
  const beside = (name, alone) => [[name, named(name + AT).length ? "this run" : alone], ...named(name + AT)];
  const wanted = [
    ["Losses", named(CHARTED.loss)],
    [run.score_name || "Score (lower is better)", beside(score, "lower is better")],
    ...PAIRED.filter((name) => parts(name + AT).length).map((name) => [`${name} beside baselines`, beside(name)]),
    ...OF_GAMES.filter((name) => points.some((point) => name in point)).map((name) => [name.replaceAll("_", " "), [[name, "lower is better"]]]),
    ["Discriminator's mean output", named(CHARTED.logit)],
    ["Gradient norms", named(CHARTED.gradient_norm)],
    ["Images/s", [[CHARTED.images_per_second, "images/s"]]],
  ];
  const signature = JSON.stringify(wanted);
  if (shown.signature !== signature) {
    shown.signature = signature;
    for (const chart of document.querySelectorAll(".chart")) chart.remove();
    shown.charts = wanted.map(([title, names]) => new Chart(title, names, $(".charts")));
  }
  for (const chart of shown.charts) chart.show(points);
  $(".curves .empty").hidden = points.length > 0;
}

async function detail(run) {
  $("#run").hidden = false;
  if (shown?.key !== key(run)) {
    shown = { key: key(run) };
    for (const image of document.querySelectorAll(".pictures img")) image.removeAttribute("src");
    charts([], run);
  }
  set($(".title h2"), key(run));
  set($(".title .state"), run.state);
  $(".title .state").className = `state ${run.state}`;
  set($(".place"), run.place);
  $("progress").value = share(run);
  $("progress").hidden = $(".curves").hidden = isSearch(run); // Each trial has its own.
  showFigures(run);
  words(run);
  pictures(run);
  document.title = `${isSearch(run) ? "" : `${percent(run)} `}${key(run)} – ganrun`;
  if (run.parts.curve && shown.curve !== run.parts.curve) {
    const now = shown;
    const answer = await fetch(part(run, "curve"));
    if (answer.ok && shown === now) {
      shown.curve = run.parts.curve;
      charts(await answer.json(), run);
    }
  }
}

async function look() {
  try {
    const answer = await fetch("runs", { signal: AbortSignal.timeout(2 * EVERY) });
    const { version, runs } = await answer.json();
    if (version !== VERSION) {
      $("#link").className = "lost";
      set($("#link"), `This page is of version ${VERSION}, the sidecar of version ${version}: reload the page.`);
      return;
    }
    const asked = decodeURIComponent(location.hash.slice(1));
    const chosen = runs.find((run) => key(run) === asked) ?? runs[0];
    $("#none").hidden = runs.length > 0;
    list(runs, chosen);
    if (chosen) await detail(chosen);
    else $("#run").hidden = true;
    $("#link").className = "";
    set($("#link"), "Live: this page updates itself");
  } catch {
    $("#link").className = "lost";
    set($("#link"), "The sidecar does not answer. The values below are old.");
  }
}

async function forever() {
  for (;;) {
    if (!document.hidden) await look();
    await new Promise((resolve) => setTimeout(resolve, EVERY));
  }
}

addEventListener("hashchange", look);
document.addEventListener("visibilitychange", () => document.hidden || look());
forever();
