// The explorer: what the router says each second, drawn. Everything that a worker names itself goes into
// the page as text, never as markup.

import { Chart, Spark, element } from "./charts.js";

const SAMPLES = 600;
const $ = (id) => document.getElementById(id);
const state = { columns: [], samples: [], now: null, window: 300, group: "device", sort: ["id", 1], worker: null };

// ---- numbers for people ----

function count(v) {
  if (v >= 1e9) return +(v / 1e9).toFixed(2) + " G";
  if (v >= 1e6) return +(v / 1e6).toFixed(2) + " M";
  if (v >= 1e4) return +(v / 1e3).toFixed(1) + " k";
  return Math.round(v).toLocaleString("en");
}
function rate(v) {
  return v > 0 && v < 10 ? v.toFixed(1).replace(/\.0$/, "") : count(v);
}
function time(ms) {
  if (ms >= 1e4) return (ms / 1e3).toFixed(1) + " s";
  if (ms >= 1e3) return (ms / 1e3).toFixed(2) + " s";
  return (ms >= 10 || ms === 0 ? ms.toFixed(0) : ms.toFixed(1)) + " ms";
}
function axisTime(ms) {
  return ms >= 1e3 ? +(ms / 1e3).toFixed(2) + " s" : +ms.toFixed(1) + " ms";
}
function percent(v) {
  return Math.round(v * 100) + " %";
}
function span(s) {
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}
function plural(n, one, many) {
  return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}

// ---- what a worker is ----

const region = (w) => w.labels.region || "";
const device = (w) => w.device || w.kind || "unnamed device";
const use = (w) => Math.min(1, w.running / w.sequences_max);
const kv = (w) => (w.kv_pages ? w.kv_pages_used / w.kv_pages : 0);
const workerHash = (id) => "#/worker/" + encodeURIComponent(id);

// ---- small pieces of page ----

function setText(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

// Children of `parent` by key: kept, made, put in order and removed, so that focus stays where it is.
function sync(parent, items, keyOf, make, update) {
  const wanted = new Set(items.map(keyOf)), focused = document.activeElement;
  for (const e of [...parent.children]) if (!wanted.has(e.dataset.key)) e.remove();
  const old = new Map([...parent.children].map((e) => [e.dataset.key, e]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let e = old.get(key);
    if (!e) { e = make(item); e.dataset.key = key; }
    update(e, item);
    if (e === place) place = place.nextElementSibling;
    else parent.insertBefore(e, place);
  }
  if (document.activeElement !== focused && parent.contains(focused)) focused.focus({ preventScroll: true });
}

function tiles(root, list) {
  sync(root, list, (t) => t.name, (t) => {
    const value = element("span"), unit = element("small");
    const e = element("div", t.past ? {} : { class: "plain" }, element("dt", {}, t.name), element("dd", {}, value, unit));
    e.parts = { value, unit };
    if (t.past) { e.spark = new Spark("c1"); e.append(e.spark.svg); }
    return e;
  }, (e, t) => {
    setText(e.parts.value, t.value);
    setText(e.parts.unit, t.unit || "");
    if (e.spark) e.spark.draw(t.past);
  });
}

// columns: [{key, title, value(row), text(row) or fill(cell, row), number}]
function table(root, columns, rows, keyOf, empty, sort) {
  const head = root.tHead, body = root.tBodies[0];
  if (!head.rows.length) {
    const row = element("tr", { role: "row" });
    for (const c of columns) {
      const th = element("th", { role: "columnheader", scope: "col", class: c.number ? "num" : "" });
      if (sort) {
        const button = element("button", { type: "button" }, c.title);
        button.addEventListener("click", () => { sort(c); render(); });
        th.append(button);
      } else th.append(c.title);
      row.append(th);
    }
    head.append(row);
  }
  if (sort) columns.forEach((c, i) => {
    const direction = state.sort[0] === c.key ? (state.sort[1] > 0 ? "ascending" : "descending") : "none";
    head.rows[0].cells[i].setAttribute("aria-sort", direction);
  });
  const make = () => {
    const row = element("tr", { role: "row" });
    columns.forEach((c, i) => row.append(i === 0
      ? element("th", { role: "rowheader", scope: "row" })
      : element("td", { role: "cell", "data-label": c.title, class: c.number ? "num" : "" })));
    return row;
  };
  const update = (row, item) => columns.forEach((c, i) => {
    if (c.fill) c.fill(row.cells[i], item);
    else setText(row.cells[i], c.text(item));
  });
  if (rows.length) { sync(body, rows, keyOf, make, update); return; }
  body.replaceChildren(element("tr", { role: "row" },
    element("td", { role: "cell", class: "empty", colspan: String(columns.length) }, empty)));
}

// ---- series out of the samples ----

function column(name, seconds) {
  const at = state.columns.indexOf(name);
  return state.samples.slice(-seconds).map((s) => (at < 0 || s[at] === undefined ? null : s[at]));
}
const latest = (name) => column(name, 1)[0] ?? null;
// Of the last n seconds: one second alone jumps too much to be read.
function mean(name, n) {
  const values = column(name, n);
  return values.length ? values.reduce((a, b) => a + b, 0) / values.length : 0;
}
function smooth(values, n) {
  return values.map((_, i) => {
    const part = values.slice(Math.max(0, i - n + 1), i + 1);
    return part.reduce((a, b) => a + b, 0) / part.length;
  });
}

const percentiles = (what) => ["50", "95", "99"].map((p, i) => ({ name: `p${p}`, color: `c${i + 1}`, column: `${what}_p${p}_ms` }));
const poolCharts = [
  { title: "Tokens per second", format: (v) => rate(v), smooth: 3, series: [
    { name: "out", color: "c1", area: true, column: "tokens" },
    { name: "prompt", color: "c2", column: "prompt_tokens" }] },
  { title: "Requests per second", format: (v) => rate(v), smooth: 3, series: [
    { name: "ended", color: "c1", area: true, column: "requests" },
    { name: "failed", color: "c4", column: "failed", rare: true }] },
  { title: "Time to first token", format: (v, axis) => (axis ? axisTime(v) : time(v)), series: percentiles("ttft") },
  { title: "Time between tokens", format: (v, axis) => (axis ? axisTime(v) : time(v)), series: percentiles("itl") },
];
for (const c of poolCharts) { c.chart = new Chart(c); $("charts").append(c.chart.root); }

const workerCharts = [
  { title: "Tokens per second", format: (v) => rate(v), series: [{ name: "out", color: "c1", area: true, at: 0 }] },
  { title: "Streams", format: (v) => rate(v), series: [
    { name: "running", color: "c1", area: true, at: 1 }, { name: "waiting", color: "c2", at: 2 }] },
  { title: "KV cache in use", format: percent, series: [{ name: "pages", color: "c1", area: true, at: 3 }] },
];
for (const c of workerCharts) { c.chart = new Chart(c); $("worker-charts").append(c.chart.root); }

// ---- the pool ----

function headline(now) {
  const n = now.router.workers, kinds = new Set(now.workers.map(device)).size;
  const regions = new Set(now.workers.map(region).filter(Boolean)).size;
  const streams = (latest("running") || 0) + (latest("waiting") || 0);
  const parts = [element("b", {}, plural(n, "machine", "machines"))];
  if (kinds > 1) parts.push(` of ${kinds} kinds`);
  if (regions > 1) parts.push(` in ${regions} regions`);
  parts.push(n === 1 ? " is serving " : " are serving ", element("b", {}, plural(streams, "stream", "streams")), ".");
  if (n === 0) parts.splice(0, parts.length, element("b", {}, "No machine"), " is here yet. The first that joins serves at once.");
  const text = parts.map((p) => p.textContent ?? p).join("");
  if ($("headline").textContent !== text) $("headline").replaceChildren(...parts);
}

function poolTiles(now) {
  const first = latest("ttft_p50_ms"), each = latest("itl_p50_ms");
  const timeParts = (ms) => (ms === null ? ["–", ""] : time(ms).split(" "));
  const [firstValue, firstUnit] = timeParts(first), [eachValue, eachUnit] = timeParts(each);
  tiles($("tiles"), [
    { name: "Tokens out", value: rate(mean("tokens", 5)), unit: "/ s", past: smooth(column("tokens", 60), 3) },
    { name: "Requests", value: rate(mean("requests", 10)), unit: "/ s", past: smooth(column("requests", 60), 5) },
    { name: "First token", value: firstValue, unit: firstUnit, past: column("ttft_p50_ms", 60) },
    { name: "Between tokens", value: eachValue, unit: eachUnit, past: column("itl_p50_ms", 60) },
    { name: "KV cache", value: String(Math.round((latest("kv") || 0) * 100)), unit: "% in use", past: column("kv", 60) },
    { name: "Streams moved", value: count(now.router.moves), unit: "went on elsewhere" },
  ]);
}

function fleet(now) {
  const of = { device, region: (w) => region(w) || "no region", state: (w) => w.state }[state.group];
  const groups = new Map();
  for (const w of [...now.workers].sort((a, b) => a.id.localeCompare(b.id, "en", { numeric: true }))) {
    if (!groups.has(of(w))) groups.set(of(w), []);
    groups.get(of(w)).push(w);
  }
  const list = [...groups].sort((a, b) => (a[0] < b[0] ? -1 : 1));
  sync($("groups"), list, ([name]) => name, ([name]) => {
    const e = element("div", { class: "card group" }, element("h3", {}, name), element("p"), element("ul", { class: "cells" }));
    return e;
  }, (e, [, workers]) => {
    const tokens = workers.reduce((a, w) => a + w.tokens_per_s, 0);
    setText(e.children[1], `${plural(workers.length, "worker", "workers")} · ${rate(tokens)} tokens/s`);
    sync(e.children[2], workers, (w) => w.id, (w) =>
      element("li", {}, element("a", { href: workerHash(w.id) }, element("i"))), (li, w) => {
      const a = li.firstChild, says = `${w.id}: ${w.state}, ${w.running} of ${w.sequences_max} places in use`;
      a.className = w.state;
      if (a.title !== says) { a.title = says; a.setAttribute("aria-label", says); }
      a.firstChild.style.height = 100 * use(w) + "%";
    });
  });
  if (!$("key").children.length)
    $("key").append(element("span", { class: "ready" }, "ready"), element("span", { class: "suspect" }, "silent for a while"),
      element("span", { class: "draining" }, "leaving"), element("span", { class: "plain" }, "The fuller, the more of its places are in use."));
}

const workerColumns = [
  { key: "id", title: "Worker", value: (w) => w.id, fill: (cell, w) => {
    if (!cell.firstChild) cell.append(element("a", { href: workerHash(w.id) }));
    setText(cell.firstChild, w.id);
  } },
  { key: "device", title: "Device", value: device, text: device },
  { key: "region", title: "Region", value: region, text: (w) => region(w) || "–" },
  { key: "state", title: "State", value: (w) => w.state, fill: (cell, w) => { cell.className = "state " + w.state; setText(cell, w.state); } },
  { key: "use", title: "In use", value: use, fill: (cell, w) => {
    if (!cell.firstChild) cell.append(element("span", {}, element("span", { class: "use" }, element("i")), element("span")));
    const [bar, text] = cell.firstChild.children;
    bar.firstChild.style.width = use(w) * 100 + "%";
    setText(text, `${w.running} / ${w.sequences_max}`);
  } },
  { key: "waiting", title: "Waiting", number: true, value: (w) => w.waiting, text: (w) => String(w.waiting) },
  { key: "kv", title: "KV", number: true, value: kv, text: (w) => percent(kv(w)) },
  { key: "tokens", title: "Tokens/s", number: true, value: (w) => w.tokens_per_s, text: (w) => rate(w.tokens_per_s) },
  { key: "price", title: "Price / M", number: true, value: (w) => w.price, text: (w) => (w.price ? w.price.toFixed(2) : "–") },
  { key: "up", title: "Here for", number: true, value: (w) => w.attached_s, text: (w) => span(w.attached_s) },
];

function workers(now) {
  const [key, direction] = state.sort;
  const by = workerColumns.find((c) => c.key === key).value;
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
  const rows = [...now.workers].sort((a, b) => direction * compare(by(a), by(b)) || compare(a.id, b.id));
  table($("workers"), workerColumns, rows, (w) => w.id, "No worker is attached.", (c) => {
    state.sort = state.sort[0] === c.key ? [c.key, -state.sort[1]] : [c.key, c.number || c.key === "use" ? -1 : 1];
  });
  $("left-out").hidden = !now.workers_left_out;
  if (now.workers_left_out) setText($("left-out"), `${plural(now.workers_left_out, "worker", "workers")} more, counted above and not shown.`);
}

const modelColumns = [
  { title: "Model", text: (m) => m.name },
  { title: "Workers", number: true, text: (m) => String(m.ready) },
  { title: "Context", number: true, text: (m) => m.context_tokens.toLocaleString("en") },
  { title: "Running", number: true, text: (m) => String(m.running) },
  { title: "Waiting", number: true, text: (m) => String(m.waiting) },
  { title: "Completed", number: true, text: (m) => count(m.requests) },
  { title: "Prompt tokens", number: true, text: (m) => count(m.prompt_tokens) },
  { title: "From cache", number: true, text: (m) => (m.prompt_tokens ? percent(m.cached_tokens / m.prompt_tokens) : "–") },
  { title: "Tokens out", number: true, text: (m) => count(m.output_tokens) },
];

function drawCharts() {
  const times = column("time", state.window);
  for (const c of poolCharts)
    c.chart.set(times, c.series.map((s) => {
      const values = column(s.column, state.window);
      return c.smooth ? smooth(values, c.smooth) : values;
    }));
}

// ---- one worker ----

async function fetchWorker() {
  const id = state.worker;
  // The router writes down what it does every two seconds.
  if (!state.now?.workers.some((w) => w.id === id && w.attached_s > 3)) return;
  const answer = await ask("explorer/worker/" + encodeURIComponent(id)).catch(() => null);
  if (!answer || !answer.ok || id !== state.worker) return;
  const past = await answer.json();
  const last = latest("time") ?? Date.now() / 1000;
  const times = past.samples.map((_, i) => last - (past.samples.length - 1 - i) * past.period_s);
  for (const c of workerCharts) c.chart.set(times, c.series.map((s) => past.samples.map((row) => row[s.at])));
}

function workerPage(now) {
  const w = now.workers.find((x) => x.id === state.worker);
  setText($("worker-id"), state.worker);
  if (!w) {
    setText($("worker-sub"), "This worker is not attached now.");
    tiles($("worker-tiles"), []);
    return;
  }
  setText($("worker-sub"), [device(w), region(w), w.state].filter(Boolean).join(" · "));
  tiles($("worker-tiles"), [
    { name: "Tokens out", value: rate(w.tokens_per_s), unit: "/ s" },
    { name: "Running", value: String(w.running), unit: `of ${w.sequences_max}` },
    { name: "Waiting", value: String(w.waiting) },
    { name: "KV cache", value: String(Math.round(kv(w) * 100)), unit: "% in use" },
    { name: "Decode, measured", value: w.decode_tokens_per_s ? rate(w.decode_tokens_per_s) : "–", unit: "tokens/s" },
    { name: "Prefill, measured", value: w.prefill_tokens_per_s ? rate(w.prefill_tokens_per_s) : "–", unit: "tokens/s" },
  ]);
  const facts = [
    ["Device", `${device(w)} (${w.kind})`], ["State", w.state], ["Models", w.models.split(",").join(", ")],
    ["Price per million tokens", w.price ? w.price.toFixed(2) : "none is asked"], ["Attached for", span(w.attached_s)],
    ["From this router", `${plural(w.generations, "generation", "generations")}, ${count(w.tokens)} tokens`],
    ["KV pages", `${count(w.kv_pages_used)} of ${count(w.kv_pages)}`],
    ...Object.entries(w.labels).map(([k, v]) => [`Label ${k}`, v]),
  ];
  sync($("facts"), facts, ([name]) => name, ([name]) => element("div", {}, element("dt", {}, name), element("dd")),
    (e, [, value]) => setText(e.lastChild, value));
}

// ---- all of it ----

function render() {
  const now = state.now;
  if (!now) return;
  setText($("about"), `argosy-router ${now.router.version}, ${now.router.state}, up ${span(now.router.up_s)}, ` +
    `${plural(now.router.connections, "connection", "connections")}.`);
  if (state.worker !== null) { workerPage(now); return; }
  headline(now);
  poolTiles(now);
  drawCharts();
  fleet(now);
  workers(now);
  table($("models"), modelColumns, now.models, (m) => m.name, "No model is served.");
}

function route() {
  const match = location.hash.match(/^#\/worker\/(.+)$/);
  const before = state.worker;
  try { state.worker = match ? decodeURIComponent(match[1]) : null; } catch { state.worker = null; }
  $("pool").hidden = state.worker !== null;
  $("worker").hidden = state.worker === null;
  document.title = state.worker === null ? "Argosy" : `${state.worker} · Argosy`;
  render();
  if (state.worker !== null) {
    for (const c of workerCharts) c.chart.set([], c.series.map(() => []));
    fetchWorker();
    $("worker-id").focus();
    scrollTo(0, 0);
  } else if (before !== null) {
    const link = [...document.querySelectorAll("#workers a")].find((a) => a.textContent === before);
    if (link) link.focus();
  }
}

function say(text, on) {
  setText($("live"), text);
  $("live").classList.toggle("on", on);
  document.body.classList.toggle("stale", !on);
}

// ---- what the router says ----

// The key is kept for this tab alone.
function ask(path) {
  const key = sessionStorage.getItem("key");
  return fetch(path, { headers: key ? { Authorization: "Bearer " + key } : {}, cache: "no-store" });
}

function take(name, data) {
  if (name === "history") {
    state.columns = data.columns;
    state.samples = data.samples;
  } else if (name === "tick") {
    const seen = state.samples.length ? state.samples[state.samples.length - 1][0] : 0;
    state.now = data;
    if (data.sample[0] > seen) state.samples.push(data.sample);
    if (state.samples.length > SAMPLES) state.samples.shift();
    say("live", true);
    if (state.worker !== null && data.sample[0] % 2 === 0) fetchWorker();
    if (!document.hidden) render();
  }
}

// Server-sent events, read by hand: EventSource sends no header, and a router may ask for a key.
async function read(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const name = event.match(/^event: (.*)$/m), data = event.match(/^data: (.*)$/m);
      if (name && data) take(name[1], JSON.parse(data[1]));
    }
  }
}

async function listen() {
  let wait_ms = 2000;
  try {
    const answer = await ask("explorer/events");
    if (answer.status === 401 || answer.status === 403) {
      say("a key is wanted", false);
      $("key-form").hidden = false;
      $("key-form").elements[0].focus();
      return;
    }
    $("key-form").hidden = true;
    if (answer.ok) await read(answer);
    else wait_ms = 5000;
  } catch (e) {
    console.info(String(e));
  }
  say("the router does not answer; trying again", false);
  setTimeout(listen, wait_ms);
}

$("key-form").addEventListener("submit", (e) => {
  e.preventDefault();
  say("connecting", false);
  sessionStorage.setItem("key", $("key-form").elements[0].value.trim());
  listen();
});
for (const input of document.querySelectorAll("#window input"))
  input.addEventListener("change", () => { state.window = Number(input.value); render(); });
for (const input of document.querySelectorAll("#grouping input"))
  input.addEventListener("change", () => { state.group = input.value; render(); });
addEventListener("hashchange", route);
document.addEventListener("visibilitychange", () => { if (!document.hidden) render(); });
route();
listen();
