// The page: one pipeline at a time, kept up to date by the stream of events.

import { call, follow, remember } from "./api.js";
import { Graph } from "./graph.js";
import { Letters } from "./letters.js";
import { byId, bytes, clock, make, number, percent, seconds, setText, short, table } from "./page.js";
import { Plot } from "./plot.js";

const KEPT = 300;
const LOGGED = 100;
const ENDED = { written: "written", filtered: "filtered", skipped: "skipped", collected: "collected", dead_lettered: "dead-lettered", unsettled: "unsettled" };

const page = { overview: null, name: "", series: new Map(), plots: {}, lag: 0 };
const graph = new Graph(byId("graph"));
const letters = new Letters(() => page.name, say, confirmed);

// --- what comes ---

function status(overview) {
  page.overview = overview;
  if (!overview.pipelines.some((each) => each.name === page.name)) choose(wanted());
  for (const pipeline of overview.pipelines) note(pipeline, overview.at);
  show();
}

function note(pipeline, at) {
  const points = page.series.get(pipeline.name);
  if (!points || !["running", "paused", "draining"].includes(pipeline.state)) return;
  const batchers = pipeline.stages.filter((stage) => stage.batcher);
  if (points.length && at - points.at(-1).at < 0.5) return;
  points.push({
    at,
    ...pipeline.rates,
    unsettled: pipeline.account.unsettled,
    sizes: Object.fromEntries(batchers.map((stage) => [stage.name, stage.batcher.last])),
    latencies: Object.fromEntries(batchers.map((stage) => [stage.name, stage.batcher.p95_latency])),
  });
  if (points.length > KEPT) points.splice(0, points.length - KEPT);
}

function log(entry) {
  if (entry.event === "resize" && entry.pipeline !== page.name) return;
  const text = sentence(entry);
  if (!text) return;
  const level = ["dead_letter", "retry", "warning", "alert", "breaker", "restart"].includes(entry.event) ? "warning" : entry.fields.state === "failed" ? "error" : "";
  const line = make("li", { class: level }, make("time", {}, clock(entry.at)), page.overview?.pipelines.length > 1 ? `${entry.pipeline}: ${text}` : text);
  const list = byId("log");
  list.prepend(line);
  while (list.children.length > LOGGED) list.lastChild.remove();
  if (entry.event === "dead_letter" && entry.pipeline === page.name) letters.stale();
}

function sentence({ event, fields }) {
  switch (event) {
    case "state": return fields.error ? `${fields.state}: ${fields.error}` : `${fields.state}`;
    case "started": return `run ${fields.run} ${fields.resumed ? "goes on from its last checkpoint" : "begins at the start"}`;
    case "resize": return `${fields.stage}: batches of ${number(fields.limit)}, were ${number(fields.before)} (${fields.reason})`;
    case "dead_letter": return `dead letter at ${fields.stage}: ${fields.error_type}: ${fields.error}`;
    case "retry": return `${fields.stage}: attempt ${fields.attempt} failed, again in ${seconds(fields.wait)}: ${fields.error}`;
    case "warning": return fields.text;
    case "restart": return `restart: ${fields.error}`;
    case "breaker": return `${fields.stage}: breaker ${fields.state}`;
    case "alert": return `alert: ${fields.text ?? fields.name}`;
    default: return "";
  }
}

function connection(state, reason) {
  const line = byId("connection");
  line.className = state === "open" ? "" : "lost";
  setText(line, state === "open" ? "live" : `not live: ${reason}`);
  if (state === "token" && !byId("sign-in").open) {
    setText(byId("sign-in-wrong"), sessionStorage.getItem("pipeline-token") ? "That is not the token." : "");
    byId("sign-in").showModal();
  }
}

// --- what is shown ---

function show() {
  const { pipelines } = page.overview;
  byId("empty").hidden = pipelines.length > 0;
  byId("main").hidden = pipelines.length === 0;
  showNames(pipelines);
  const pipeline = pipelines.find((each) => each.name === page.name);
  if (!pipeline) return;
  document.title = `${pipeline.name}: ${pipeline.state}`;
  setText(byId("name"), pipeline.name);
  const badge = byId("state");
  badge.className = `badge ${pipeline.state}`;
  setText(badge, pipeline.state);
  setText(byId("since"), since(pipeline));
  showActions(pipeline);
  showAlerts(pipeline.alerts);
  showFigures(pipeline);
  const slowest = pipeline.stages.reduce((most, stage) => (stage.busy > (most?.busy ?? 0.5) ? stage : most), null);
  setText(byId("bottleneck"), pipeline.bottleneck ? `What ${pipeline.rates.seconds ? "holds" : "held"} it up: ${pipeline.bottleneck}` : "");
  graph.show(pipeline.stages, slowest?.name);
  showStages(pipeline.stages);
  showPlots(pipeline);
  showAccount(pipeline.account);
  letters.count(pipeline.dead_letters, pipeline.stages);
}

function since(pipeline) {
  const run = pipeline.run ? `run ${pipeline.run}, ` : "";
  if (["running", "paused", "draining"].includes(pipeline.state)) return `${run}for ${seconds(pipeline.uptime)}`;
  return `${run}since ${clock(pipeline.since)}`;
}

function showNames(pipelines) {
  const nav = byId("pipelines");
  const key = JSON.stringify([page.name, pipelines.map((each) => [each.name, each.state])]);
  if (nav.dataset.key === key) return;
  nav.dataset.key = key;
  const focused = nav.contains(document.activeElement) ? document.activeElement.textContent : null;
  nav.replaceChildren(...pipelines.map((each) => make("a", {
    href: `#${encodeURIComponent(each.name)}`, class: each.state, title: each.state,
    "aria-current": each.name === page.name ? "page" : null, "aria-label": `${each.name}, ${each.state}`,
  }, each.name)));
  if (focused) [...nav.children].find((link) => link.textContent === focused)?.focus();
}

function showActions({ state }) {
  const possible = {
    start: ["stopped", "finished", "failed"].includes(state),
    pause: state === "running",
    resume: state === "paused",
    flush: ["running", "paused"].includes(state),
    drain: ["running", "paused", "starting"].includes(state),
  };
  for (const button of document.querySelectorAll("[data-action]")) {
    const here = possible[button.dataset.action];
    // A button that loses its use under the focus hands it on, so that the keyboard is not lost.
    const focused = button === document.activeElement && !here;
    button.disabled = !here;
    if (focused) byId("main").focus();
  }
}

function showAlerts(alerts) {
  const list = byId("alerts");
  const key = JSON.stringify(alerts);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...alerts.map((alert) => make("li", { class: alert.level }, make("strong", {}, alert.name), alert.text)));
}

function showFigures(pipeline) {
  const { rates, account } = pipeline;
  const batcher = pipeline.stages.find((stage) => stage.batcher)?.batcher;
  const late = batcher?.target && batcher.p95_latency > batcher.target;
  const failed = account.dead_lettered + account.skipped + account.collected;
  const figures = [
    ["throughput", `${short(rates.settled)}/s`, `${short(rates.read)}/s read`],
    ["settled", short(account.read - account.unsettled), `${short(account.unsettled)} under way`],
    batcher && ["batch", number(batcher.last), batcher.limit ? `of ${number(batcher.limit)} at most, ${number(batcher.average)} on average` : ""],
    batcher && ["p95 latency", seconds(batcher.p95_latency), batcher.target ? `target ${seconds(batcher.target)}, ${percent(batcher.over_target)} over` : "of the last batches", late && batcher.over_target > 0.1],
    ["failed", number(failed), `${percent(rates.error_rate)} of the last seconds`, rates.error_rate > 0],
    ["dead letters", number(pipeline.dead_letters), "in the state file"],
    ["memory held", bytes(pipeline.bytes_held), `loop late by ${seconds(pipeline.loop_lag)}`],
    ["checkpoint", seconds(pipeline.checkpoint_age), `${pipeline.checkpoint_age === null ? "" : "ago, "}${number(pipeline.checkpoints)} in this run`],
  ].filter(Boolean);
  const list = byId("figures");
  if (list.children.length !== figures.length)
    list.replaceChildren(...figures.map(() => make("div", {}, make("dt"), make("dd", {}, make("span"), make("small")))));
  figures.forEach(([name, value, more, bad], index) => {
    const box = list.children[index];
    box.className = bad ? "bad" : "";
    setText(box.querySelector("dt"), name);
    setText(box.querySelector("dd span"), value);
    setText(box.querySelector("small"), more);
  });
}

function showStages(stages) {
  if (!byId("stages-details").open) return;
  const n = "number";
  table(byId("stages"), "", [["stage"], ["role"], ["kind"], ["state"], ["reads from"], ["in", n], ["out", n], ["in/s", n], ["out/s", n], ["filtered", n],
    ["failed", n], ["retries", n], ["batches", n], ["mean", n], ["p95", n], ["busy", n], ["waits in", n], ["waits out", n], ["inbox", n], ["on failure"]],
  stages.map((stage) => ({ cells: [stage.name, stage.role, stage.kind, stage.state, stage.inputs.join(", "), number(stage.records_in), number(stage.records_out),
    short(stage.rate_in), short(stage.rate_out), number(stage.filtered), number(Object.values(stage.failed).reduce((sum, count) => sum + count, 0)),
    number(stage.retries), number(stage.batches), seconds(stage.mean_seconds), seconds(stage.p95_seconds), percent(stage.busy), percent(stage.waiting_in),
    percent(stage.waiting_out), stage.channel ? `${number(stage.channel.records)} (${percent(stage.channel.fill)})` : "–", stage.on_failure] })));
}

function showPlots(pipeline) {
  const points = page.series.get(pipeline.name) ?? [];
  const now = ["running", "paused", "draining"].includes(pipeline.state) ? page.overview.at : points.at(-1)?.at ?? page.overview.at;
  const batchers = pipeline.stages.filter((stage) => stage.batcher);
  const key = JSON.stringify([pipeline.name, batchers.map((stage) => stage.name)]);
  if (page.plots.key !== key) {
    page.plots = {
      key,
      rates: new Plot("Records a second", short),
      sizes: batchers.length ? new Plot("Records in a batch", short) : null,
      latencies: batchers.length ? new Plot("p95 latency of batches", seconds) : null,
      unsettled: new Plot("Records under way", short),
    };
    byId("plots").replaceChildren(...["rates", "sizes", "latencies", "unsettled"].map((name) => page.plots[name]?.element).filter(Boolean));
  }
  const line = (name, value) => ({ name, values: points.map((point) => [point.at, value(point) ?? null]) });
  const failing = points.some((point) => point.failed > 0) ? [line("failed", (point) => point.failed)] : [];
  page.plots.rates.show([line("settled", (point) => point.settled), ...failing], null, now);
  page.plots.sizes?.show(batchers.map((stage) => line(stage.name, (point) => point.sizes[stage.name])), null, now);
  const targets = batchers.map((stage) => stage.batcher.target).filter((target) => target !== null);
  page.plots.latencies?.show(batchers.map((stage) => line(stage.name, (point) => point.latencies[stage.name])), targets.length ? Math.min(...targets) : null, now);
  page.plots.unsettled.show([line("unsettled", (point) => point.unsettled)], null, now);
}

async function showBatches() {
  if (!page.name || document.hidden) return;
  const name = page.name;
  const { batches } = await call(`/api/pipelines/${encodeURIComponent(name)}/batches?limit=40`);
  if (name !== page.name) return;
  const targets = new Map(page.overview.pipelines.find((each) => each.name === name)?.stages.map((stage) => [stage.name, stage.batcher?.target]));
  const n = "number";
  table(byId("batches"), batches.length ? "" : "None yet.", [["at"], ["batcher"], ["records", n], ["limit", n], ["cut because of"], ["took", n], ["waited", n]],
    batches.map((batch) => ({
      cells: [clock(batch.at), batch.stage, number(batch.size), batch.limit ? number(batch.limit) : "–",
        `${batch.reason || "–"}${batch.smooth ? "" : " (retried)"}`, seconds(batch.seconds), seconds(batch.waited)],
      className: !batch.smooth ? "rough" : targets.get(batch.stage) && batch.seconds + batch.waited > targets.get(batch.stage) ? "late" : "",
    })));
}

function showAccount(account) {
  const place = byId("account");
  if (!place.firstChild) {
    place.append(make("div", { class: "stack", "aria-hidden": "true" }, ...Object.keys(ENDED).map((name) => make("span", { class: name }))),
      make("dl", { class: "facts account" }, make("dt", {}, "read"), make("dd"), ...Object.entries(ENDED).flatMap(([name, text]) => [make("dt", {}, make("i", { class: name }), text), make("dd")])));
  }
  const values = place.querySelectorAll("dd");
  setText(values[0], `${number(account.read)} =`);
  Object.keys(ENDED).forEach((name, index) => {
    place.querySelector(`.stack .${name}`).style.width = `${account.read ? (account[name] / account.read) * 100 : 0}%`;
    setText(values[index + 1], `${index ? "+ " : "\u2007 "}${number(account[name])}`);
  });
}

// --- what is done ---

function wanted() {
  const name = decodeURIComponent(location.hash.slice(1));
  const names = page.overview.pipelines.map((each) => each.name);
  return names.includes(name) ? name : names[0] ?? "";
}

function choose(name) {
  if (name === page.name) return;
  page.name = name;
  byId("account").replaceChildren();
  say("");
  if (!name) return;
  if (!page.series.has(name)) {
    page.series.set(name, []);
    attempt(async () => {
      const { points } = await call(`/api/pipelines/${encodeURIComponent(name)}/series`);
      const newer = page.series.get(name).filter((point) => point.at > (points.at(-1)?.at ?? 0));
      page.series.set(name, [...points, ...newer]);
    });
  }
  letters.fresh();
  attempt(showBatches);
}

function say(text, bad = false) {
  const line = byId("said");
  line.className = bad ? "said bad" : "said";
  setText(line, text);
}

async function attempt(action) {
  try {
    await action();
  } catch (error) {
    if (error.status === 401) connection("token", error.message);
    else if (error.status) say(error.message, true);
  }
}

async function steer(action) {
  const name = page.name;
  if (action === "drain" && !(await confirmed(`Drain ${name}? It finishes what is under way and stops.`, "Drain"))) return;
  await attempt(async () => {
    const pipeline = await call(`/api/pipelines/${encodeURIComponent(name)}/${action}`, {});
    const done = { start: "starting", pause: "paused: nothing more is read", resume: "reading on", flush: "batches were sent on", drain: "finishing what is under way" };
    say(`${name}: ${done[action]}`);
    const place = page.overview.pipelines.findIndex((each) => each.name === name);
    page.overview.pipelines[place] = pipeline;
    show();
  });
}

function confirmed(question, word) {
  const dialog = byId("confirm");
  setText(byId("confirm-title"), question);
  setText(byId("confirm-yes"), word);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((go) => dialog.addEventListener("close", () => go(dialog.returnValue === "yes"), { once: true }));
}

// --- the theme ---

const THEMES = ["system", "light", "dark"];

function theme(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  setText(byId("theme"), `Theme: ${name}`);
  localStorage.setItem("pipeline-theme", name);
}

// --- the start ---

theme(THEMES.includes(localStorage.getItem("pipeline-theme")) ? localStorage.getItem("pipeline-theme") : "system");
byId("theme").addEventListener("click", () => theme(THEMES[(THEMES.indexOf(localStorage.getItem("pipeline-theme")) + 1) % 3]));
for (const button of document.querySelectorAll("[data-action]")) button.addEventListener("click", () => steer(button.dataset.action));
byId("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  remember(byId("token").value.trim());
  byId("token").value = "";
  byId("sign-in").close();
  begin();
});
byId("stages-details").addEventListener("toggle", () => page.overview && show());
addEventListener("hashchange", () => { if (page.overview) { choose(wanted()); show(); } });
addEventListener("resize", () => page.overview && show());

function begin() {
  follow({ status, log, state: connection, lost: (count) => { page.lag += count; setText(byId("connection"), `live (${number(page.lag)} events were too many to show)`); } });
}

setInterval(() => attempt(showBatches), 2000);
setInterval(() => page.name && attempt(() => letters.refresh()), 2000);
begin();
