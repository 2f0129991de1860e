// Elements and numbers: everything that is shown goes in as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

export function byId(id) {
  return document.getElementById(id);
}

export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined).map(asNode));
  return element;
}

function asNode(child) {
  return child instanceof Node ? child : document.createTextNode(String(child));
}

// Sets a text only where it changed, so that a screen reader is not told the same again.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const some = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export function number(value) {
  if (value === null || value === undefined) return "–";
  return Math.abs(value) >= 100 || Number.isInteger(value) ? whole.format(value) : some.format(value);
}

export function short(value) {
  if (value >= 1e6) return `${some.format(value / 1e6)}M`;
  return value >= 1e4 ? `${some.format(value / 1e3)}k` : number(value);
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.001) return value === 0 ? "0ms" : "<1ms";
  if (value < 1) return `${Number((value * 1000).toPrecision(3))}ms`;
  if (value < 100) return `${Number(value.toPrecision(3))}s`;
  const total = Math.round(value);
  const [hours, minutes] = [Math.floor(total / 3600), Math.floor((total % 3600) / 60)];
  return hours ? `${hours}h ${String(minutes).padStart(2, "0")}m` : `${minutes}m ${String(total % 60).padStart(2, "0")}s`;
}

export function bytes(value) {
  if (value < 1024) return `${value} B`;
  return value < 1048576 ? `${some.format(value / 1024)} KiB` : `${some.format(value / 1048576)} MiB`;
}

export function percent(value) {
  if (value > 0 && value < 0.001) return "<0.1%";
  return `${(value * 100).toFixed(value < 0.0995 && value > 0 ? 1 : 0)}%`;
}

export function clock(at) {
  return new Date(at * 1000).toLocaleTimeString([], { hour12: false });
}

export function table(element, caption, columns, rows) {
  const head = make("thead", {}, make("tr", {}, ...columns.map(([name, kind]) => make("th", { scope: "col", class: kind }, name))));
  const body = make("tbody", {}, ...rows.map(({ cells, className }) =>
    make("tr", { class: className || null }, ...cells.map((cell, place) => make("td", { class: columns[place][1] || null }, cell)))));
  element.replaceChildren(make("caption", {}, caption), head, body);
}
