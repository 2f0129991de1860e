// The stages as a picture: drawn once for a plan and a width, its numbers changed as they come.

import { draw, number, percent, seconds, setText, short } from "./page.js";

const WIDE = { width: 190, height: 106, gapX: 46, gapY: 18 };
const NARROW = { width: 158, height: 106, gapX: 10, gapY: 34 };
const BAR = 84;

export class Graph {
  constructor(place) {
    this.place = place;
    this.key = "";
    this.parts = new Map();
  }

  show(stages, slowest) {
    const upright = this.place.clientWidth < 620;
    const key = JSON.stringify([upright, stages.map((stage) => [stage.name, stage.inputs, stage.kind, stage.when])]);
    if (key !== this.key) {
      this.key = key;
      this.build(stages, upright);
    }
    for (const stage of stages) this.update(stage, stage.name === slowest);
  }

  build(stages, upright) {
    const { places, width, height } = layout(stages, upright);
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "list", "aria-label": "Stages in the order of the data" });
    svg.append(draw("defs", {}, draw("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" },
      draw("path", { class: "arrow", d: "M0 0L8 4L0 8z" }))));
    this.parts.clear();
    for (const stage of stages)
      for (const input of stage.inputs) svg.append(edge(places.get(input), places.get(stage.name), upright), ...label(stage, places.get(input), places.get(stage.name), upright));
    for (const stage of stages) svg.append(this.stage(stage, places.get(stage.name)));
    this.place.replaceChildren(svg);
  }

  stage(stage, { x, y, width, height }) {
    const text = (row, kind) => draw("text", { x: 12, y: row, class: kind });
    const lines = { name: text(20, "stage-name"), kind: text(36, "small"), rates: text(56, ""), more: text(72, "small") };
    const inbox = gauge("inbox", 80, width);
    const busy = gauge("busy", 92, width);
    const title = draw("title");
    const group = draw("g", { transform: `translate(${x} ${y})`, role: "listitem", tabindex: 0, class: `stage ${stage.role}` },
      title, draw("rect", { class: "box", width, height, rx: 10 }), ...Object.values(lines), ...busy.parts);
    if (stage.role !== "source") group.append(...inbox.parts);
    lines.name.textContent = cut(stage.name, 20);
    lines.kind.textContent = cut(`${stage.role} ${stage.kind}${stage.concurrency > 1 ? ` ×${stage.concurrency}` : ""}`, 27);
    this.parts.set(stage.name, { group, title, lines, inbox, busy, width });
    return group;
  }

  update(stage, slowest) {
    const { group, title, lines, inbox, busy, width } = this.parts.get(stage.name);
    const failed = Object.values(stage.failed).reduce((sum, count) => sum + count, 0);
    group.setAttribute("class", `stage ${stage.role} ${stage.state === "failed" ? "ailing" : ""} ${slowest ? "slowest" : ""}`);
    setText(lines.rates, stage.role === "source" ? `${short(stage.rate_out)}/s` : stage.role === "sink" ? `${short(stage.rate_in)}/s`
      : `${short(stage.rate_in)}/s → ${short(stage.rate_out)}/s`);
    setText(lines.more, cut(detail(stage, failed), Math.floor((width - 20) / 5.9)));
    lines.more.setAttribute("class", failed || stage.retries ? "small failing" : "small");
    const fill = stage.channel ? stage.channel.fill : 0;
    inbox.set(fill);
    busy.set(stage.busy);
    const words = `${stage.role} ${stage.name}, ${stage.state}: ${number(stage.records_in)} in, ${number(stage.records_out)} out, ` +
      `busy ${percent(stage.busy)}, inbox ${percent(fill)} full${failed ? `, ${number(failed)} failed` : ""}`;
    setText(title, words);
    group.setAttribute("aria-label", words);
  }
}

function detail(stage, failed) {
  if (stage.batcher) {
    const { last, limit, p95_latency: late, target } = stage.batcher;
    const size = `${short(last)}${limit ? ` of ${short(limit)}` : ""}`;
    return late === null ? `batch ${size}` : `${short(last)} · p95 ${seconds(late)}${target && late > target ? " late" : ""}`;
  }
  if (failed) return `${number(failed)} failed${stage.retries ? `, ${number(stage.retries)} retries` : ""}`;
  if (stage.retries) return `${number(stage.retries)} retries`;
  if (stage.role === "sink") return stage.guarantee;
  return stage.p95_seconds ? `p95 ${seconds(stage.p95_seconds)} a batch` : "";
}

function gauge(name, y, width) {
  const track = width - BAR;
  const text = draw("text", { x: 12, y: y + 7, class: "small" });
  const value = draw("text", { x: width - 12, y: y + 7, class: "small", "text-anchor": "end" });
  const bar = draw("rect", { class: "fill", x: 48, y, width: 0, height: 7, rx: 3 });
  text.textContent = name;
  return {
    parts: [text, draw("rect", { class: "track", x: 48, y, width: track - 10, height: 7, rx: 3 }), bar, value],
    set(share) {
      bar.setAttribute("width", Math.max(0, Math.min(1, share)) * (track - 10));
      if (name === "inbox") bar.setAttribute("class", `fill ${share >= 0.95 ? "full" : share >= 0.7 ? "high" : ""}`);
      setText(value, `${Math.round(share * 100)}%`);
    },
  };
}

function layout(stages, upright) {
  const size = upright ? NARROW : WIDE;
  const depth = new Map();
  for (const stage of stages) depth.set(stage.name, Math.max(-1, ...stage.inputs.map((input) => depth.get(input) ?? 0)) + 1);
  const rows = [];
  for (const stage of stages) (rows[depth.get(stage.name)] ??= []).push(stage.name);
  const most = Math.max(...rows.map((row) => row.length));
  const places = new Map();
  const step = upright ? size.width + size.gapX : size.height + size.gapY;
  rows.forEach((row, level) => row.forEach((name, index) => {
    const across = (index + (most - row.length) / 2) * step + 4;
    const along = level * (upright ? size.height + size.gapY : size.width + size.gapX) + 4;
    places.set(name, { x: upright ? across : along, y: upright ? along : across, width: size.width, height: size.height });
  }));
  const all = [...places.values()];
  return { places, width: Math.max(...all.map((each) => each.x)) + size.width + 4, height: Math.max(...all.map((each) => each.y)) + size.height + 4 };
}

function ends(from, to, upright) {
  return upright
    ? [from.x + from.width / 2, from.y + from.height, to.x + to.width / 2, to.y]
    : [from.x + from.width, from.y + from.height / 2, to.x, to.y + to.height / 2];
}

function edge(from, to, upright) {
  const [x1, y1, x2, y2] = ends(from, to, upright);
  const bend = (upright ? y2 - y1 : x2 - x1) / 2;
  const path = upright ? `M${x1} ${y1}C${x1} ${y1 + bend} ${x2} ${y2 - bend} ${x2} ${y2}` : `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
  return draw("path", { class: "edge", d: path, "marker-end": "url(#arrow)" });
}

function label(stage, from, to, upright) {
  if (!stage.when) return [];
  const [x1, y1, x2, y2] = ends(from, to, upright);
  const text = draw("text", { class: "edge-label", x: upright ? x2 + 6 : x2 - 4, y: upright ? (y1 + y2) / 2 + 4 : y2 - 8, "text-anchor": upright ? "start" : "end" });
  text.textContent = cut(stage.when, upright ? 20 : 8);
  text.append(draw("title", {}, stage.when));
  return [text];
}

function cut(text, length) {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`;
}
