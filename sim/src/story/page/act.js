// The details under the lanes, and what keys, mouse, buttons and the address do.

// ---- details ----

function cells(row, tag, list) {
  for (const value of list) {
    const cell = document.createElement(tag);
    cell.textContent = value;
    row.append(cell);
  }
}

function showState() {
  const t = view.cursor;
  $("state-title").textContent = "Machines at the cursor, " + seconds(t);
  const table = $("state");
  table.replaceChildren();
  const head = table.createTHead().insertRow();
  cells(head, "th", ["machine", "stands", "term", "leader", "last", "committed", "applied",
    "faults"]);
  const body = table.createTBody();
  for (let host = 0; host < HOSTS; host++) {
    if (hidden.has(host)) continue;
    const row = body.insertRow();
    cells(row, "th", [name(host)]);
    const s = spanAt(host, t);
    if (!s) cells(row, "td", ["not known", "", "", "", "", ""]);
    else if (s.kind !== "S") cells(row, "td", [s.kind === "D" ? "down" : "up", "", "", "", "", ""]);
    else {
      const i = s.states[Math.max(0, findAt(s.states, t + 0.5) - 1)];
      const p = D.p.slice(off[i], off[i] + 6);
      const leader = p[2] < 0 ? "none" : name(p[2]);
      cells(row, "td", [ROLES[p[0]], p[1], leader, index(p[3]), index(p[4]), index(p[5])]);
      row.cells[1].className = ROLES[p[0]];
    }
    const held = faults.filter((f) => f.touched.has(host) && f.from <= t && t < f.to);
    cells(row, "td", [held.map((f) => f.label).join("; ")]);
  }
  const general = faults.filter((f) => !f.touched.size && f.from <= t && t < f.to);
  if (general.length) {
    const row = body.insertRow();
    cells(row, "th", ["all"]);
    cells(row, "td", ["", "", "", "", "", "", general.map((f) => f.label).join("; ")]);
  }
}

function isNear(i) {
  const host = D.h[i];
  if (D.k[i] === "M" && quiet.has(D.p[off[i] + 1])) return false;
  return host < 0 || !hidden.has(host);
}

function showNear() {
  const list = view.messages ? every : told;
  const low = findAt(list, view.cursor);
  const before = [];
  const after = [];
  for (let j = low - 1; j >= 0 && before.length < NEAR_MAX / 2; j--) {
    if (isNear(list[j])) before.push(list[j]);
  }
  for (let j = low; j < list.length && after.length < NEAR_MAX / 2; j++) {
    if (isNear(list[j])) after.push(list[j]);
  }
  const body = document.createElement("tbody");
  for (const i of before.reverse()) body.append(nearRow(i));
  const line = body.insertRow();
  line.className = "cursor";
  line.insertCell().colSpan = 4;
  for (const i of after) body.append(nearRow(i));
  $("near").replaceChildren(body);
  $("near-title").textContent = "Moments near the cursor, by their distance from it"
    + (view.messages ? "" : " (messages with m)");
  const box = $("near-box");
  box.scrollTop = line.offsetTop - box.clientHeight / 2;
}

const CLASS = { F: "fault", X: "violation", D: "down" };

function nearRow(i) {
  const row = document.createElement("tr");
  row.className = CLASS[D.k[i]] || "";
  const link = document.createElement("a");
  link.href = "#t=" + seconds(at[i]);
  link.textContent = seconds(at[i]);
  row.insertCell().append(link);
  cells(row, "td", [since(at[i] - view.cursor)]);
  cells(row, "th", [D.k[i] === "C" && D.h[i] < 0 ? "client" : name(D.h[i])]);
  cells(row, "td", [say(i)]);
  return row;
}

// ---- moving ----

let saving = 0;
function save() {
  clearTimeout(saving);
  saving = setTimeout(() => {
    const hash = "#t=" + seconds(view.cursor) + "&w=" + ((view.to - view.from) / 1e6).toFixed(6)
      + (view.messages ? "&messages=1" : "");
    try {
      history.replaceState(null, "", hash);
    } catch (_) {
      // Some browsers refuse that to a file; then the address stays as it is.
    }
  }, 250);
}

function show(from, to) {
  const whole = (end - start) * 1.04;
  const length = Math.min(whole, Math.max(50, to - from));
  const middle = (from + to) / 2;
  const low = start - (end - start) * 0.02;
  view.from = Math.max(low, Math.min(middle - length / 2, low + whole - length));
  view.to = view.from + length;
  draw();
  save();
}

function zoom(factor, around) {
  const pivot = around === undefined ? middleOrCursor() : around;
  show(pivot - (pivot - view.from) * factor, pivot + (view.to - pivot) * factor);
}

function middleOrCursor() {
  const inside = view.cursor >= view.from && view.cursor <= view.to;
  return inside ? view.cursor : (view.from + view.to) / 2;
}

function pan(share) {
  const by = (view.to - view.from) * share;
  show(view.from + by, view.to + by);
}

function setCursor(t) {
  view.cursor = Math.max(start, Math.min(end, t));
  showState();
  showNear();
  draw();
  save();
}

// Puts the cursor there, and shows it if it is out of sight.
function go(t) {
  const length = view.to - view.from;
  if (t < view.from + length * 0.05 || t > view.to - length * 0.05) {
    show(t - length / 2, t + length / 2);
  }
  setCursor(t);
}

const fit = () => show(start - (end - start) * 0.02, end + (end - start) * 0.02);

// The next of some times after the cursor, or the one before it; then round again.
function next(times, forward) {
  const c = view.cursor;
  const found = forward ? times.find((t) => t > c + 0.5)
    : [...times].reverse().find((t) => t < c - 0.5);
  if (found !== undefined) return found;
  return forward ? times[0] : times[times.length - 1];
}

function toViolation(forward) {
  if (!violations.length) return;
  const t = next(violations.map(timeOf), forward);
  if (view.to - view.from > 8e6) show(t - 3e6, t + 1e6);
  go(t);
}

function toFault(forward) {
  if (faults.length) go(next(faults.map((f) => f.from), forward));
}

function toMoment(forward) {
  const list = told.filter(isNear);
  if (forward) {
    const j = findAt(list, view.cursor + 0.5);
    if (j < list.length) go(at[list[j]]);
  } else {
    const j = findAt(list, view.cursor - 0.5);
    if (j > 0) go(at[list[j - 1]]);
  }
}

function setMessages(on) {
  view.messages = on;
  $("messages").checked = on;
  showLabels();
  showNear();
  draw();
  save();
}

const KEYS = {
  ArrowLeft: (e) => pan(e.shiftKey ? -0.8 : -0.15),
  ArrowRight: (e) => pan(e.shiftKey ? 0.8 : 0.15),
  "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1 / 0.6), _: () => zoom(1 / 0.6),
  0: fit, Home: fit,
  v: () => toViolation(true), V: () => toViolation(false),
  f: () => toFault(true), F: () => toFault(false),
  n: () => toMoment(true), p: () => toMoment(false),
  m: () => setMessages(!view.messages),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = KEYS[event.key];
  const near = $("near-box").contains(document.activeElement);
  if (!key || (near && event.key.startsWith("Arrow"))) return;
  event.preventDefault();
  key(event);
});

// ---- mouse ----

const inside = (event) => {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};

canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const lines = event.deltaMode === 1 ? 16 : 1;
  if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
    pan(((event.deltaX || event.deltaY) * lines) / width);
  } else {
    zoom(Math.exp(event.deltaY * lines * 0.0018), timeAt(Math.max(GUTTER, inside(event)[0])));
  }
}, { passive: false });

let drag = null;
canvas.addEventListener("pointerdown", (event) => {
  drag = { px: event.clientX, from: view.from, to: view.to, moved: false };
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  if (!drag) {
    tip(event);
    return;
  }
  const by = event.clientX - drag.px;
  if (Math.abs(by) > 3) drag.moved = true;
  if (!drag.moved) return;
  $("tip").hidden = true;
  const t = (by / (width - GUTTER)) * (drag.to - drag.from);
  show(drag.from - t, drag.to - t);
});
canvas.addEventListener("pointerup", (event) => {
  const [px] = inside(event);
  if (drag && !drag.moved && px >= GUTTER) setCursor(timeAt(px));
  drag = null;
});
canvas.addEventListener("pointercancel", () => { drag = null; });
canvas.addEventListener("dblclick", (event) => zoom(0.35, timeAt(inside(event)[0])));
canvas.addEventListener("pointerleave", () => { $("tip").hidden = true; });

function tip(event) {
  const [px, py] = inside(event);
  const found = [];
  for (let j = hits.length - 1; j >= 0 && found.length < 3; j--) {
    const h = hits[j];
    if (px >= h.x1 && px <= h.x2 && py >= h.y1 && py <= h.y2) found.push(h.what());
  }
  const box = $("tip");
  box.hidden = px < GUTTER;
  box.textContent = [seconds(timeAt(px)) + " s", ...new Set(found)].join("\n");
  const left = px + 14 + box.offsetWidth > width ? px - 14 - box.offsetWidth : px + 14;
  box.style.left = Math.max(0, left) + "px";
  box.style.top = py + 34 + 16 + "px";
}

const stripTime = (event) => {
  const px = event.clientX - strip.getBoundingClientRect().left;
  return start + ((px - GUTTER) / (width - GUTTER - 4)) * (end - start);
};
let sliding = false;
const slide = (event) => {
  const half = (view.to - view.from) / 2;
  show(stripTime(event) - half, stripTime(event) + half);
};
strip.addEventListener("pointerdown", (event) => {
  sliding = true;
  strip.setPointerCapture(event.pointerId);
  slide(event);
});
strip.addEventListener("pointermove", (event) => { if (sliding) slide(event); });
strip.addEventListener("pointerup", () => { sliding = false; });

// ---- buttons ----

function check(label, on, change) {
  const box = document.createElement("label");
  const input = document.createElement("input");
  input.type = "checkbox";
  input.checked = on;
  input.addEventListener("change", () => change(input.checked));
  box.append(input, " " + label);
  return box;
}

function toggle(set, key, on) {
  if (on) set.delete(key);
  else set.add(key);
  layout();
  showState();
  showNear();
  draw();
}

function showLabels() {
  const list = view.messages ? [...labelNames.keys()] : [];
  list.sort((a, b) => labelNames.get(b) - labelNames.get(a));
  $("labels").replaceChildren(...list.slice(0, 16).map((label) => {
    const box = check(text(label), !quiet.has(label), (on) => toggle(quiet, label, on));
    box.style.color = messageColour(label);
    return box;
  }));
}

$("zoom-in").addEventListener("click", () => zoom(0.6));
$("zoom-out").addEventListener("click", () => zoom(1 / 0.6));
$("fit").addEventListener("click", fit);
$("to-violation").addEventListener("click", () => toViolation(true));
$("to-violation").disabled = !violations.length;
$("to-fault").addEventListener("click", () => toFault(true));
$("to-fault-before").addEventListener("click", () => toFault(false));
$("to-fault").disabled = $("to-fault-before").disabled = !faults.length;
$("messages").disabled = !sent.length;
if (!sent.length) $("messages").parentElement.title = "This story holds no messages";
$("messages").addEventListener("change", (event) => setMessages(event.target.checked));
for (let host = 0; host < HOSTS; host++) {
  $("machines").append(check(name(host), true, (on) => toggle(hidden, host, on)));
}
if ($("copy") && navigator.clipboard) {
  $("copy").hidden = false;
  $("copy").addEventListener("click", () => {
    navigator.clipboard.writeText($("command").textContent)
      .then(() => { $("copy").textContent = "Copied"; }, () => { $("copy").hidden = true; });
  });
}

// ---- the address ----

function fromAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const t = Number.parseFloat(wanted.get("t")) * 1e6;
  const w = Number.parseFloat(wanted.get("w")) * 1e6;
  if (wanted.has("messages")) setMessages(wanted.get("messages") === "1" && sent.length > 0);
  if (!Number.isFinite(t)) return false;
  if (Number.isFinite(w)) show(t - w / 2, t + w / 2);
  go(t);
  return true;
}

// Without an address: the last seconds before the first violation, or the whole run.
function begin() {
  fit();
  if (!violations.length) {
    setCursor(end);
    return;
  }
  const t = at[violations[0]];
  if (end - start > 15e6) show(t - 8e6, t + 2e6);
  setCursor(t);
}

window.addEventListener("hashchange", fromAddress);
window.addEventListener("resize", () => {
  layout();
  draw();
});
dark.addEventListener("change", () => {
  readColours();
  showLabels();
  draw();
});

$("live").hidden = false;
readColours();
layout();
const wanted = location.hash;
begin();
if (wanted) {
  if (/[#&]t=/.test(wanted) && !/[#&]w=/.test(wanted)) {
    const t = Number.parseFloat(new URLSearchParams(wanted.slice(1)).get("t")) * 1e6;
    if (Number.isFinite(t)) show(t - 1e6, t + 1e6);
  }
  fromAddress();
}
