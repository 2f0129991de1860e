// Lines over time: an SVG that is stretched to its place, with words for the scale around it.

import { draw, make, setText } from "./page.js";

const [WIDTH, HEIGHT, SPAN] = [300, 100, 300];
const COLOURS = ["a", "b", "c", "d"];

export class Plot {
  constructor(title, format) {
    this.format = format;
    this.caption = make("figcaption");
    this.title = title;
    this.svg = draw("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    this.top = make("span");
    this.middle = make("span");
    this.from = make("span");
    this.element = make("figure", {}, this.caption,
      make("div", { class: "plot-row" }, make("div", { class: "plot-axis", "aria-hidden": "true" }, this.top, this.middle, make("span", {}, "0")), this.svg),
      make("div", { class: "plot-time", "aria-hidden": "true" }, this.from, make("span", {}, "now")));
  }

  // `lines` are {name, values: [[at, value or null]]}; `target` is a line across, or null.
  show(lines, target, now) {
    const values = lines.flatMap((line) => line.values.map(([, value]) => value)).filter((value) => value !== null);
    const top = nice(Math.max(...values, target ?? 0, 0));
    const first = Math.min(...lines.flatMap((line) => line.values.map(([at]) => at)), now);
    const span = Math.min(SPAN, Math.max(now - first, 30));
    setText(this.top, this.format(top));
    setText(this.middle, this.format(top / 2));
    setText(this.from, `${Math.round(span)}s ago`);
    const y = (value) => HEIGHT - 2 - (Math.min(value, top) / top) * (HEIGHT - 6);
    const x = (at) => WIDTH * (1 - (now - at) / span);
    const shapes = [0, 0.5, 1].map((share) => draw("line", { class: "grid", x1: 0, x2: WIDTH, y1: y(share * top), y2: y(share * top) }));
    if (target) shapes.push(draw("line", { class: "target", x1: 0, x2: WIDTH, y1: y(target), y2: y(target) }));
    lines.forEach((line, index) => {
      for (const run of runs(line.values)) {
        const points = run.map(([at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
        shapes.push(draw("polyline", { class: COLOURS[index % 4], points }));
      }
    });
    this.svg.replaceChildren(...shapes);
    this.say(lines, target);
  }

  say(lines, target) {
    const keys = lines.map((line, index) => {
      const last = line.values.findLast(([, value]) => value !== null);
      const now = last ? this.format(last[1]) : "–";
      return [`key ${COLOURS[index % 4]}`, `${line.name} ${now}`];
    });
    if (target) keys.push(["key target", `target ${this.format(target)}`]);
    const words = `${this.title}: ${keys.map(([, text]) => text).join(", ")}`;
    if (this.words === words) return;
    this.words = words;
    this.svg.setAttribute("aria-label", words);
    this.caption.replaceChildren(make("b", {}, this.title), ...keys.map(([kind, text]) => make("span", { class: kind }, text)));
  }
}

function runs(values) {
  const found = [[]];
  for (const value of values) {
    if (value[1] === null) found.push([]);
    else found.at(-1).push(value);
  }
  return found.filter((run) => run.length);
}

function nice(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((step) => step * power >= value * 1.02) * power || 10 * power;
}
