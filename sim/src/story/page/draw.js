// The lanes, drawn on a canvas.

// ---- what is shown ----

const $ = (id) => document.getElementById(id);
const view = { from: start, to: end, cursor: start, messages: false };
const hidden = new Set();
const quiet = new Set(); // labels of messages that are not drawn

let GUTTER = 104; // as wide as the longest name, within bounds
const AXIS = 24;
const FAULT_ROW = 17;
const FAULT_ROWS = Math.min(5, rowsNeeded());
const SERVER = 50;
const AGENT = 38;
const CLIENTS = 46;
// Colours of terms. All are dark enough for white letters; red and amber are taken.
const TERMS = ["#2563b8", "#8a3fa8", "#0b7468", "#a23b72", "#4a6b12", "#3f3fa6", "#7a5230",
  "#156f93"];
const termColour = (term) => TERMS[term % TERMS.length];
const dark = window.matchMedia("(prefers-color-scheme: dark)");

// A colour of TERMS, lighter if the page is dark.
function onPanel(colour) {
  if (!dark.matches) return colour;
  const parts = [1, 3, 5].map((j) => Number.parseInt(colour.slice(j, j + 2), 16));
  return "rgb(" + parts.map((part) => Math.round(part + (255 - part) * 0.45)).join(",") + ")";
}

// How many faults hold at once at most, and one row more for the labels of short ones.
function rowsNeeded() {
  let most = 0;
  const held = [];
  for (const f of faults) {
    for (let j = held.length - 1; j >= 0; j--) if (held[j].to <= f.from) held.splice(j, 1);
    held.push(f);
    most = Math.max(most, held.length);
  }
  return faults.length > most ? most + 1 : most;
}

let colours = {};
let lanes = []; // {host, y, h}; host -1: clients
let height = 0;
let width = 0;
let hits = []; // what lies under the pointer: {x1, x2, y1, y2, say}
const canvas = $("lanes");
const strip = $("strip");
const ctx = canvas.getContext("2d");
const sctx = strip.getContext("2d");

function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const key of ["bg", "panel", "text", "soft", "line", "lane", "bad", "fault", "fault-bg",
    "hatch", "ok", "refused", "unknown", "cursor"]) {
    colours[key] = style.getPropertyValue("--" + key).trim();
  }
  colours.gone = hatch(colours.hatch);
}

function hatch(colour) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const c = tile.getContext("2d");
  c.strokeStyle = colour;
  c.lineWidth = 1.2;
  c.beginPath();
  for (const d of [-8, 0, 8]) {
    c.moveTo(d, 8);
    c.lineTo(d + 8, 0);
  }
  c.stroke();
  return ctx.createPattern(tile, "repeat");
}

// The first servers, agents, then spare servers.
const isServer = (host) => host < D.servers || host >= D.servers + D.agents;
const kindOf = (host) => (host < D.servers ? "server" : isServer(host) ? "spare server" : "agent");

function layout() {
  ctx.font = "600 13px system-ui, sans-serif";
  const longest = Math.max(0, ...D.hosts.map((host) => ctx.measureText(host).width));
  GUTTER = Math.round(Math.min(200, Math.max(96, longest + 24)));
  let y = AXIS + FAULT_ROWS * FAULT_ROW + 8;
  lanes = [];
  for (let host = 0; host < HOSTS; host++) {
    if (hidden.has(host)) continue;
    if (host === D.servers && host > 0) y += 6;
    const h = isServer(host) ? SERVER : AGENT;
    lanes.push({ host, y, h });
    y += h + 3;
  }
  if (asked.length) {
    lanes.push({ host: -1, y: y + 3, h: CLIENTS });
    y += CLIENTS + 6;
  }
  height = y + 4;
  width = canvas.clientWidth;
  for (const [c, h] of [[canvas, height], [strip, 34]]) {
    const scale = window.devicePixelRatio || 1;
    c.style.height = h + "px";
    c.width = Math.round(width * scale);
    c.height = Math.round(h * scale);
    c.getContext("2d").setTransform(scale, 0, 0, scale, 0, 0);
  }
}

const x = (t) => GUTTER + ((t - view.from) / (view.to - view.from)) * (width - GUTTER);
const timeAt = (px) => view.from + ((px - GUTTER) / (width - GUTTER)) * (view.to - view.from);
const laneOf = (host) => lanes.find((lane) => lane.host === host);

let due = false;
function draw() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    paint();
  });
}

// ---- lanes ----

function paint() {
  hits = [];
  ctx.clearRect(0, 0, width, height);
  ctx.font = "12px system-ui, sans-serif";
  ctx.textBaseline = "middle";
  paintAxis();
  ctx.save();
  ctx.beginPath();
  ctx.rect(GUTTER, 0, width - GUTTER, height);
  ctx.clip();
  for (const lane of lanes) {
    ctx.fillStyle = colours.lane;
    ctx.fillRect(GUTTER, lane.y, width - GUTTER, lane.h);
  }
  paintFaults();
  for (const lane of lanes) {
    if (lane.host < 0) paintClients(lane);
    else paintLane(lane);
  }
  const note = view.messages ? paintMessages() : "";
  for (const lane of lanes) if (lane.host >= 0) paintMarks(lane);
  paintViolations();
  paintCursor();
  ctx.restore();
  paintGutter();
  paintStrip();
  $("note").textContent = note;
}

function step(span) {
  const raw = span / Math.max(2, (width - GUTTER) / 110);
  const ten = Math.pow(10, Math.floor(Math.log10(raw)));
  return [1, 2, 5, 10].map((m) => m * ten).find((s) => s >= raw);
}

function paintAxis() {
  const by = Math.max(1, step(view.to - view.from));
  const digits = Math.max(0, Math.min(6, -Math.floor(Math.log10(by / 1e6) + 1e-9)));
  ctx.textAlign = "left";
  for (let t = Math.ceil(view.from / by) * by; t <= view.to; t += by) {
    const px = Math.round(x(t)) + 0.5;
    ctx.strokeStyle = colours.line;
    ctx.beginPath();
    ctx.moveTo(px, 4);
    ctx.lineTo(px, height);
    ctx.stroke();
    ctx.fillStyle = colours.soft;
    ctx.fillText((t / 1e6).toFixed(digits) + " s", px + 4, 12);
  }
}

function paintGutter() {
  ctx.textAlign = "left";
  if (FAULT_ROWS) {
    ctx.fillStyle = colours.fault;
    ctx.fillText("faults", 10, AXIS + FAULT_ROW / 2);
  }
  for (const lane of lanes) {
    ctx.fillStyle = colours.text;
    ctx.font = "600 13px system-ui, sans-serif";
    const label = lane.host < 0 ? "clients" : name(lane.host);
    ctx.fillText(cutFront(label, GUTTER - 16), 10, lane.y + 14);
    ctx.font = "11px system-ui, sans-serif";
    ctx.fillStyle = colours.soft;
    ctx.fillText(lane.host < 0 ? "" : kindOf(lane.host), 10, lane.y + 30);
  }
  ctx.font = "12px system-ui, sans-serif";
}

// A text that is no wider than `room`; empty if there is no room for three letters.
function cut(label, room) {
  if (room < 14) return "";
  const full = ctx.measureText(label).width;
  if (full <= room) return label;
  const n = Math.floor((label.length * room) / full) - 1;
  return n < 3 ? "" : label.slice(0, n) + "\u2026";
}

function words(label, x1, x2, y, colour) {
  const left = Math.max(x1, GUTTER) + 5;
  const shown = cut(label, Math.min(x2, width) - left - 3);
  if (!shown) return;
  ctx.fillStyle = colour;
  ctx.textAlign = "left";
  ctx.fillText(shown, left, y);
}

// As `cut`, but keeps the end, which tells names apart.
function cutFront(label, room) {
  const full = ctx.measureText(label).width;
  if (full <= room) return label;
  return "\u2026" + label.slice(-Math.max(1, Math.floor((label.length * room) / full) - 1));
}

function paintFaults() {
  const ends = new Array(FAULT_ROWS).fill(-Infinity);
  const shown = faults.filter((f) => f.to >= view.from && f.from <= view.to);
  for (const f of shown) {
    const x1 = Math.max(x(f.from), GUTTER - 2);
    const x2 = f.once ? x1 : Math.min(x(f.to), width + 2);
    const label = f.label;
    const need = ctx.measureText(label).width + 16;
    const right = Math.max(x2, x1 + (f.once ? 6 : 3));
    const within = !f.once && right - x1 >= need;
    const left = !within && right + need > width; // where its label stands
    const from = left ? x1 - need : x1;
    let row = ends.findIndex((e) => e <= from);
    if (row < 0) row = ends.findIndex((e) => e <= x1);
    const crowded = row < 0 || ends[row] > from;
    if (row < 0) row = FAULT_ROWS - 1;
    const y = AXIS + row * FAULT_ROW;
    if (f.once) diamond(x1, y + 7, colours.fault);
    else bar(x1, y, right - x1, 14);
    if (!crowded) {
      const px = within ? x1 : left ? from : right;
      words(label, px, px + need + 10, y + 7.5, colours.fault);
    }
    ends[row] = Math.max(ends[row], crowded || within || left ? right + 2 : right + need + 6);
    hit(x1 - 4, Math.max(right, x1 + 5), y, y + 15, () => faultText(f));
    for (const [host, side] of f.touched) paintTouched(f, host, side, row % 2, x1, right);
  }
}

// A fault on the lane of a machine that it touches. Sides of a partition differ.
function paintTouched(f, host, side, row, x1, right) {
  const lane = laneOf(host);
  if (!lane) return;
  const y = lane.y + lane.h - 10 + row * 5;
  if (f.once) {
    diamond(x1, y + 2, colours.fault);
  } else {
    ctx.globalAlpha = 0.85;
    ctx.fillStyle = colours.fault;
    if (side % 2 === 0) ctx.fillRect(x1, y, right - x1, 4);
    else for (let px = x1; px < right; px += 8) ctx.fillRect(px, y, Math.min(5, right - px), 4);
    ctx.globalAlpha = 1;
  }
  hit(x1 - 4, Math.max(right, x1 + 5), y - 2, y + 8, () => faultText(f));
}

function faultText(f) {
  const until = f.once ? "" : f.open ? ", never mended" : " until " + seconds(f.to);
  return "FAULT " + f.label + "\n" + seconds(f.from) + until
    + (f.mended ? "\nmended by: " + f.mended : "");
}

function bar(px, y, w, h) {
  ctx.fillStyle = colours["fault-bg"];
  ctx.fillRect(px, y, w, h);
  ctx.strokeStyle = colours.fault;
  ctx.lineWidth = 1;
  ctx.strokeRect(px + 0.5, y + 0.5, Math.max(1, w - 1), h - 1);
}

function diamond(px, y, colour) {
  ctx.fillStyle = colour;
  ctx.beginPath();
  ctx.moveTo(px, y - 5);
  ctx.lineTo(px + 5, y);
  ctx.lineTo(px, y + 5);
  ctx.lineTo(px - 5, y);
  ctx.fill();
}

function hit(x1, x2, y1, y2, what) {
  if (hits.length < 20000) hits.push({ x1, x2, y1, y2, what });
}

function paintLane(lane) {
  const list = spans[lane.host];
  const first = Math.max(0, find(list, view.from, (s) => s.from) - 1);
  let drawn = -Infinity; // spans narrower than a pixel are drawn once per pixel
  for (let j = first; j < list.length && list[j].from <= view.to; j++) {
    const s = list[j];
    const x1 = Math.max(x(s.from), GUTTER - 2);
    const x2 = Math.min(x(s.to), width + 2);
    if (x2 < GUTTER || (x2 < drawn && x2 - x1 < 1)) continue;
    drawn = x1 + 1;
    paintSpan(lane, s, x1, Math.max(x2, x1 + 1));
  }
}

function paintSpan(lane, s, x1, x2) {
  const [y, h] = [lane.y + 3, 20];
  const w = x2 - x1;
  hit(x1, x2, y, y + h, () => name(lane.host) + ": " + spanText(s) + "\n" + seconds(s.from)
    + " to " + seconds(s.to) + ", " + since(s.to - s.from).slice(1));
  if (s.kind === "D") {
    ctx.fillStyle = colours.gone;
    ctx.fillRect(x1, y, w, h);
    ctx.strokeStyle = colours.hatch;
    ctx.strokeRect(x1 + 0.5, y + 0.5, w - 1, h - 1);
    plate("down: " + text(D.p[off[s.first]]), x1, x2, y + h / 2);
    return;
  }
  if (s.kind === "U") {
    ctx.fillStyle = colours.line;
    ctx.fillRect(x1, y, w, h);
    words("up", x1, x2, y + h / 2, colours.soft);
    return;
  }
  const colour = termColour(s.term);
  const light = onPanel(colour);
  const label = w > 74 ? ROLES[s.role] + " " + s.term : "LCFN"[s.role] + s.term;
  const lame = s.leader < 0 && s.role !== 1;
  if (s.role === 0 && !lame) {
    ctx.fillStyle = colour;
    ctx.fillRect(x1, y, w, h);
    words(label, x1, x2, y + h / 2, "#ffffff");
    return;
  }
  ctx.fillStyle = ctx.strokeStyle = light;
  ctx.globalAlpha = s.role === 1 ? 0.4 : s.role === 0 ? 0.5 : lame ? 0.1 : 0.27;
  if (s.role === 1) for (let px = x1; px < x2; px += 6) ctx.fillRect(px, y, Math.min(3, x2 - px), h);
  else ctx.fillRect(x1, y, w, h);
  ctx.globalAlpha = 1;
  if (lame || s.role === 1) {
    ctx.setLineDash(s.role === 1 ? [] : [4, 3]);
    ctx.lineWidth = 1.5;
    ctx.strokeRect(x1 + 1, y + 1, Math.max(0.5, w - 2), h - 2);
    ctx.setLineDash([]);
    ctx.lineWidth = 1;
  }
  const more = s.role === 0 && lame ? ", lease over" : lame && w > 150 ? ", no leader" : "";
  if (s.role === 1) plate(label, x1, x2, y + h / 2);
  else words(label + more, x1, x2, y + h / 2, colours.text);
}

// A label on a pattern, with a plate beneath it so that it can be read.
function plate(label, x1, x2, y) {
  const left = Math.max(x1, GUTTER) + 5;
  const shown = cut(label, Math.min(x2, width) - left - 5);
  if (!shown) return;
  ctx.fillStyle = colours.lane;
  ctx.fillRect(left - 2, y - 7, ctx.measureText(shown).width + 4, 14);
  ctx.fillStyle = colours.text;
  ctx.textAlign = "left";
  ctx.fillText(shown, left, y);
}

const momentText = (i) => name(D.h[i]) + " at " + seconds(at[i]) + "\n" + say(i);

function spanText(s) {
  if (s.kind === "D") return "down: " + text(D.p[off[s.first]]);
  if (s.kind === "U") return "up, start " + D.p[off[s.first]];
  return standing(s.first);
}

// Processes, boots and what nodes say. One mark per pixel and kind, however many there are.
function paintMarks(lane) {
  const list = byHost[lane.host];
  const seen = {};
  const y = lane.y + (lane.h > AGENT ? 33 : 28);
  for (let j = findAt(list, view.from); j < list.length && at[list[j]] <= view.to; j++) {
    const i = list[j];
    const px = x(at[i]);
    const starts = D.k[i] === "P" && D.p[off[i] + 1] === 1;
    const kind = D.k[i] + (starts ? "+" : "");
    if (px - (seen[kind] === undefined ? -9 : seen[kind]) < 1.5) continue;
    seen[kind] = px;
    mark(kind, px, y);
    hit(px - 4, px + 4, y - 6, y + 6, () => momentText(i));
  }
}

function mark(kind, px, y) {
  ctx.fillStyle = kind[0] === "P" ? colours.ok : kind === "D" ? colours.bad : colours.soft;
  ctx.beginPath();
  if (kind === "P+") {
    ctx.moveTo(px - 3, y - 5);
    ctx.lineTo(px + 5, y);
    ctx.lineTo(px - 3, y + 5);
  } else if (kind === "P") {
    ctx.rect(px - 3, y - 3, 6, 6);
  } else if (kind === "U") {
    ctx.moveTo(px - 5, y + 4);
    ctx.lineTo(px, y - 5);
    ctx.lineTo(px + 5, y + 4);
  } else if (kind === "D") {
    ctx.moveTo(px - 5, y - 4);
    ctx.lineTo(px, y + 5);
    ctx.lineTo(px + 5, y - 4);
  } else if (kind === "E") {
    ctx.arc(px, y, 2.2, 0, 7);
  }
  ctx.fill();
}

// What clients were told, in columns four pixels wide.
function paintClients(lane) {
  const sums = new Map();
  const total = [0, 0, 0, 0];
  for (let j = findAt(asked, view.from); j < asked.length && at[asked[j]] <= view.to; j++) {
    const answer = D.p[off[asked[j]] + 1];
    total[answer]++;
    if (answer === 0) continue;
    const column = Math.floor((x(at[asked[j]]) - GUTTER) / 4);
    if (!sums.has(column)) sums.set(column, [0, 0, 0, 0]);
    sums.get(column)[answer]++;
  }
  let most = 1;
  for (const s of sums.values()) most = Math.max(most, s[1] + s[2] + s[3]);
  const room = lane.h - 18;
  for (const [column, s] of sums) {
    let y = lane.y + lane.h;
    for (const [answer, colour] of [[1, colours.ok], [2, colours.refused], [3, colours.unknown]]) {
      const h = s[answer] ? Math.max(2, (s[answer] / most) * room) : 0;
      ctx.fillStyle = colour;
      ctx.fillRect(GUTTER + column * 4, y - h, 3, h);
      y -= h;
    }
    const px = GUTTER + column * 4;
    hit(px, px + 4, lane.y + 16, lane.y + lane.h, () => s[1] + " acknowledged, " + s[2]
      + " refused, " + s[3] + " unknown");
  }
  let px = GUTTER + 6;
  for (const [n, label, colour] of [[total[1], "acknowledged", colours.ok],
    [total[2], "refused", colours.refused], [total[3], "unknown", colours.unknown]]) {
    ctx.fillStyle = colour;
    ctx.fillRect(px, lane.y + 4, 9, 9);
    ctx.fillStyle = colours.text;
    const label2 = n.toLocaleString("en") + " " + label;
    ctx.fillText(label2, px + 13, lane.y + 9);
    px += ctx.measureText(label2).width + 28;
  }
}

// ---- messages ----

const labelColours = new Map();
[...labelNames.keys()].sort((a, b) => (text(a) < text(b) ? -1 : 1)).forEach((label, n) => {
  labelColours.set(label, TERMS[(n * 3 + 2) % TERMS.length]);
});

function visibleMessages() {
  const list = [];
  let first = findAt(sent, view.from);
  for (let j = first - 1; j >= 0 && first - j < LOOK_BACK_MAX; j--) consider(sent[j], list);
  for (let j = first; j < sent.length && at[sent[j]] <= view.to; j++) consider(sent[j], list);
  return list;
}

function consider(i, list) {
  const delay = D.p[off[i] + 2];
  if (at[i] + Math.max(0, delay) < view.from) return;
  if (quiet.has(D.p[off[i] + 1]) || hidden.has(D.h[i]) || hidden.has(D.p[off[i]])) return;
  list.push(i);
}

function paintMessages() {
  const list = visibleMessages();
  const stride = Math.ceil(list.length / MESSAGES_MAX);
  ctx.lineWidth = 1;
  const alpha = list.length > width ? 0.35 : 0.8;
  const labels = [];
  for (const i of list) {
    // Which are drawn is as good as random, or the sample would be in step with heartbeats.
    if (Math.imul(i, 0x9e3779b1) >>> 0 >= 0x100000000 / stride) continue;
    const label = paintMessage(i, alpha);
    if (label && list.length <= LABELS_MAX) labels.push(label);
  }
  ctx.globalAlpha = 1;
  paintLabels(labels);
  const all = list.length.toLocaleString("en") + " messages in sight";
  return stride > 1 ? all + ", one in " + stride + " drawn: zoom in" : all;
}

// The labels of messages, but for those that would cover another.
function paintLabels(labels) {
  const placed = [];
  ctx.textAlign = "left";
  for (const { label, colour, px, y } of labels) {
    const w = ctx.measureText(label).width + 4;
    const covers = (o) => px < o.px + o.w && o.px < px + w && Math.abs(y - o.y) < 14;
    if (placed.some(covers)) continue;
    placed.push({ px, w, y });
    ctx.fillStyle = colours.panel;
    ctx.fillRect(px, y - 7, w, 14);
    ctx.fillStyle = colour;
    ctx.fillText(label, px + 2, y);
  }
}

const centre = (lane) => lane.y + 13;

function paintMessage(i, alpha) {
  const [from, to] = [laneOf(D.h[i]), laneOf(D.p[off[i]])];
  if (!from || !to) return null;
  const delay = D.p[off[i] + 2];
  const lost = delay < 0;
  const down = to.y > from.y;
  const edge = down ? 10 : -10;
  let [x1, y1] = [x(at[i]), centre(from) + edge];
  let [x2, y2] = [x(at[i] + Math.max(0, delay)), centre(to) - edge];
  if (lost) [x2, y2] = [x1 + 10, y1 + (y2 - y1) * 0.4];
  const colour = lost ? colours.bad : messageColour(D.p[off[i] + 1]);
  ctx.globalAlpha = alpha;
  ctx.strokeStyle = ctx.fillStyle = colour;
  ctx.setLineDash(lost ? [4, 3] : []);
  ctx.beginPath();
  ctx.moveTo(x1, y1);
  ctx.lineTo(x2, y2);
  ctx.stroke();
  ctx.setLineDash([]);
  if (lost) cross(x2, y2);
  else arrow(x1, y1, x2, y2);
  const [mx, my] = [(x1 + x2) / 2, (y1 + y2) / 2];
  hit(mx - 8, mx + 8, my - 6, my + 6, () => momentText(i));
  hit(x2 - 5, x2 + 5, y2 - 5, y2 + 5, () => momentText(i));
  return { label: text(D.p[off[i] + 1]), colour, px: mx + 4, y: my };
}

// The colours are made for white letters on them; as lines on black they need more light.
const messageColour = (label) => onPanel(labelColours.get(label));

function arrow(x1, y1, x2, y2) {
  const angle = Math.atan2(y2 - y1, x2 - x1);
  ctx.beginPath();
  ctx.moveTo(x2, y2);
  ctx.lineTo(x2 - 7 * Math.cos(angle - 0.4), y2 - 7 * Math.sin(angle - 0.4));
  ctx.lineTo(x2 - 7 * Math.cos(angle + 0.4), y2 - 7 * Math.sin(angle + 0.4));
  ctx.fill();
}

function cross(px, y) {
  ctx.beginPath();
  ctx.moveTo(px - 4, y - 4);
  ctx.lineTo(px + 4, y + 4);
  ctx.moveTo(px + 4, y - 4);
  ctx.lineTo(px - 4, y + 4);
  ctx.stroke();
}

// ---- violations, cursor, the whole run ----

function paintViolations() {
  let last = -Infinity;
  let flagged = -Infinity; // where the last label ends
  for (const i of violations) {
    const px = x(at[i]);
    if (px < GUTTER - 60 || px > width + 2 || px - last < 2) continue;
    last = px;
    ctx.strokeStyle = colours.bad;
    ctx.lineWidth = 2;
    ctx.beginPath();
    ctx.moveTo(px, 0);
    ctx.lineTo(px, height);
    ctx.stroke();
    ctx.lineWidth = 1;
    const lane = laneOf(D.h[i]);
    if (lane) {
      ctx.strokeStyle = colours.bad;
      ctx.lineWidth = 3;
      ctx.strokeRect(px - 7, lane.y - 1, 14, lane.h + 2);
      ctx.lineWidth = 1;
    }
    hit(px - 6, px + 6, 0, height, () => momentText(i));
    ctx.font = "600 12px system-ui, sans-serif";
    const label = "violation: " + text(D.p[off[i]]);
    const w = ctx.measureText(label).width + 10;
    const left = px + w > width ? px - w : px;
    if (left >= flagged) {
      flagged = left + w + 2;
      ctx.fillStyle = colours.bad;
      ctx.fillRect(left, 2, w, 18);
      ctx.fillStyle = colours.panel;
      ctx.textAlign = "left";
      ctx.fillText(label, left + 5, 11.5);
      hit(left, left + w, 0, 20, () => momentText(i));
    }
    ctx.font = "12px system-ui, sans-serif";
  }
}

function paintCursor() {
  const px = Math.round(x(view.cursor)) + 0.5;
  ctx.strokeStyle = colours.cursor;
  ctx.setLineDash([2, 2]);
  ctx.beginPath();
  ctx.moveTo(px, AXIS - 4);
  ctx.lineTo(px, height);
  ctx.stroke();
  ctx.setLineDash([]);
}

const stripX = (t) => GUTTER + ((t - start) / (end - start)) * (width - GUTTER - 4);

// The whole run: who leads, faults, violations, and the window.
function paintStrip() {
  sctx.clearRect(0, 0, width, 34);
  sctx.font = "11px system-ui, sans-serif";
  sctx.textBaseline = "middle";
  sctx.fillStyle = colours.soft;
  sctx.fillText("whole run", 10, 12);
  const row = 16 / Math.max(1, HOSTS - D.agents);
  for (let host = 0; host < HOSTS; host++) {
    if (!isServer(host)) continue;
    const place = host < D.servers ? host : host - D.agents;
    for (const s of spans[host]) {
      if (s.kind !== "S" || s.role !== 0 || s.leader < 0) continue;
      sctx.fillStyle = termColour(s.term);
      const px = stripX(s.from);
      sctx.fillRect(px, 3 + place * row, Math.max(1, stripX(s.to) - px), Math.max(2, row));
    }
  }
  sctx.fillStyle = colours.fault;
  for (const f of faults) {
    const px = stripX(f.from);
    sctx.globalAlpha = f.once ? 1 : 0.55;
    sctx.fillRect(px, 22, Math.max(2, stripX(f.to) - px), 8);
  }
  sctx.globalAlpha = 1;
  sctx.fillStyle = colours.bad;
  for (const i of violations) sctx.fillRect(stripX(at[i]) - 1, 0, 3, 34);
  const [a, b] = [stripX(Math.max(start, view.from)), stripX(Math.min(end, view.to))];
  sctx.fillStyle = colours.text;
  sctx.globalAlpha = 0.12;
  sctx.fillRect(GUTTER, 0, a - GUTTER, 34);
  sctx.fillRect(b, 0, width - b, 34);
  sctx.globalAlpha = 1;
  sctx.strokeStyle = colours.text;
  sctx.lineWidth = 1.5;
  sctx.strokeRect(a, 1, Math.max(3, b - a), 32);
}
