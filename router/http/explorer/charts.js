// Lines over time, as SVG. A chart is a slider too: arrow keys, a finger or a mouse move a cursor over
// the samples, and the legend says what they were.

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 44, BOTTOM = 20, TOP = 8;

export function element(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  e.append(...children);
  return e;
}

function shape(tag, attributes) {
  const e = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  return e;
}

// A round number, at least `value`.
function niceCeiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10].map((m) => m * power).find((v) => v >= value * 0.9999);
}

// Path data of the points that are there; a hole lifts the pen.
function pathOf(values, x, y) {
  let d = "", down = false;
  values.forEach((v, i) => {
    if (v === null) { down = false; return; }
    d += `${down ? "L" : "M"}${x(i).toFixed(1)} ${y(v).toFixed(1)}`;
    down = true;
  });
  return d;
}

// The same as closed areas down to the base, one for each unbroken stretch.
function areaOf(values, x, y, base) {
  let d = "", from = -1;
  for (let i = 0; i <= values.length; i++) {
    const there = i < values.length && values[i] !== null;
    if (there && from < 0) from = i;
    if (!there && from >= 0) {
      d += `M${x(from).toFixed(1)} ${base}`;
      for (let k = from; k < i; k++) d += `L${x(k).toFixed(1)} ${y(values[k]).toFixed(1)}`;
      d += `L${x(i - 1).toFixed(1)} ${base}Z`;
      from = -1;
    }
  }
  return d;
}

export class Spark {
  constructor(className) {
    this.svg = shape("svg", { viewBox: "0 0 100 38", preserveAspectRatio: "none", "aria-hidden": "true", class: className });
    this.fill = shape("path", { class: "fill" });
    this.line = shape("path", { class: "stroke thin", "vector-effect": "non-scaling-stroke" });
    this.svg.append(this.fill, this.line);
  }

  draw(values) {
    const max = Math.max(1e-9, ...values.filter((v) => v !== null)) * 1.15;
    const x = (i) => (values.length > 1 ? (100 * i) / (values.length - 1) : 100);
    const y = (v) => 36 - (30 * v) / max;
    this.line.setAttribute("d", pathOf(values, x, y));
    this.fill.setAttribute("d", areaOf(values, x, y, 38));
  }
}

export class Chart {
  // series: [{name, color: "c1", area: true, rare: true: no line while it is zero}], format: number to text
  constructor({ title, series, format }) {
    this.title = title;
    this.series = series;
    this.format = format;
    this.times = [];
    this.rows = series.map(() => []);
    this.cursor = null;
    this.build();
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  build() {
    this.legend = element("ul", { class: "legend" });
    this.values = this.series.map((s) => {
      const value = element("b");
      this.legend.append(element("li", { class: s.color }, element("span", {}, s.name + " "), value));
      return value;
    });
    this.when = element("li", { class: "when" });
    this.legend.append(this.when);
    this.plot = element("div", { class: "plot", tabindex: "0", role: "slider", "aria-label": this.title,
      "aria-valuemin": "0", "aria-roledescription": "chart" });
    this.svg = shape("svg", { "aria-hidden": "true" });
    this.plot.append(this.svg);
    this.root = element("figure", { class: "card chart" },
      element("figcaption", {}, element("h3", {}, this.title), this.legend), this.plot);
    this.plot.addEventListener("pointermove", (e) => this.point(e));
    this.plot.addEventListener("pointerleave", () => this.move(null));
    this.plot.addEventListener("blur", () => this.move(null));
    this.plot.addEventListener("keydown", (e) => this.key(e));
  }

  // times: seconds since 1970; rows: for each series as many numbers or nulls
  set(times, rows) {
    if (this.cursor !== null) {
      const at = times.indexOf(this.times[this.cursor]);
      this.cursor = at < 0 ? null : at;
    }
    this.times = times;
    this.rows = rows;
    this.draw();
  }

  point(e) {
    const box = this.plot.getBoundingClientRect();
    const share = (e.clientX - box.left - LEFT) / (box.width - LEFT);
    this.move(Math.round(share * (this.times.length - 1)));
  }

  key(e) {
    const last = this.times.length - 1, at = this.cursor ?? last;
    const to = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, PageDown: at - 10,
      PageUp: at + 10, Home: 0, End: last, Escape: null }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    this.move(to);
  }

  move(to) {
    const last = this.times.length - 1;
    this.cursor = to === null || last < 0 ? null : Math.min(last, Math.max(0, to));
    this.draw();
  }

  say() {
    const at = this.cursor ?? this.times.length - 1;
    const texts = this.rows.map((row) => (row[at] === null || row[at] === undefined ? "–" : this.format(row[at])));
    texts.forEach((text, i) => { if (this.values[i].textContent !== text) this.values[i].textContent = text; });
    const when = this.times.length ? new Date(this.times[at] * 1000).toLocaleTimeString() : "";
    this.when.textContent = this.cursor === null ? "" : when;
    this.plot.setAttribute("aria-valuemax", String(Math.max(0, this.times.length - 1)));
    this.plot.setAttribute("aria-valuenow", String(Math.max(0, at)));
    this.plot.setAttribute("aria-valuetext", `${when}: ` + this.series.map((s, i) => `${s.name} ${texts[i]}`).join(", "));
  }

  draw() {
    const width = this.plot.clientWidth, height = this.plot.clientHeight;
    this.say();
    if (!width) return;
    const n = this.times.length, base = height - BOTTOM;
    const top = niceCeiling(Math.max(0, ...this.rows.flat().filter((v) => v !== null)));
    const x = (i) => LEFT + (n > 1 ? ((width - LEFT - 2) * i) / (n - 1) : width - LEFT - 2);
    const y = (v) => base - ((base - TOP) * v) / top;
    this.svg.replaceChildren();
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.axes(width, base, top, y);
    if (!this.rows.some((row) => row.some((v) => v !== null))) {
      const none = shape("text", { x: (width + LEFT) / 2, y: (TOP + base) / 2 + 4, class: "none" });
      none.textContent = "nothing yet";
      this.svg.append(none);
      return;
    }
    this.series.forEach((s, i) => {
      if (s.area) this.svg.append(shape("path", { class: `fill ${s.color}`, d: areaOf(this.rows[i], x, y, base) }));
    });
    for (let i = this.series.length - 1; i >= 0; i--)
      if (!this.series[i].rare || this.rows[i].some((v) => v > 0))
        this.svg.append(shape("path", { class: `stroke ${this.series[i].color}`, d: pathOf(this.rows[i], x, y) }));
    if (this.cursor !== null) this.mark(x, y, base);
  }

  axes(width, base, top, y) {
    for (const share of [0, 0.5, 1]) {
      const at = Math.round(y(top * share)) + 0.5;
      this.svg.append(shape("line", { class: "grid", x1: LEFT, x2: width, y1: at, y2: at }));
      const text = shape("text", { x: LEFT - 8, y: at + 4, "text-anchor": "end" });
      text.textContent = this.format(top * share, true);
      this.svg.append(text);
    }
    if (this.times.length < 2) return;
    const past = this.times[this.times.length - 1] - this.times[0];
    const ago = past < 120 ? `${Math.round(past)} s ago` : `${Math.round(past / 60)} min ago`;
    for (const [words, x, anchor] of [[ago, LEFT, "start"], ["now", width, "end"]]) {
      const text = shape("text", { x, y: base + 15, "text-anchor": anchor });
      text.textContent = words;
      this.svg.append(text);
    }
  }

  mark(x, y, base) {
    const at = x(this.cursor);
    this.svg.append(shape("line", { class: "cursor", x1: at, x2: at, y1: TOP, y2: base }));
    this.rows.forEach((row, i) => {
      if (row[this.cursor] === null || row[this.cursor] === undefined) return;
      this.svg.append(shape("circle", { class: this.series[i].color, fill: "currentColor", r: 3.5, cx: at, cy: y(row[this.cursor]) }));
    });
  }
}
