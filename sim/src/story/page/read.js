// The run as the page holds it, and words for it. What the data mean is written in ../data.rs.
// The scripts of the page stand in one function, in the order read.js, draw.js, act.js.

// ---- data ----

const D = JSON.parse(document.getElementById("story").textContent);
const N = D.k.length;
const HOSTS = D.hosts.length;
const PARTS = { U: 1, D: 1, S: 6, F: 1, E: 1, P: 2, C: 2, M: 3, X: 2 };
const ROLES = ["leader", "candidate", "follower", "learner"];
const MESSAGES_MAX = 4000; // drawn at once
const LABELS_MAX = 60; // messages with their label beside them
const NEAR_MAX = 120; // moments in the list
const LOOK_BACK_MAX = 2000; // messages that were sent before the window and may arrive in it

const at = new Float64Array(N);
const off = new Int32Array(N);
const every = Int32Array.from({ length: N }, (_, i) => i); // all moments
const told = []; // moments that are no messages
const sent = []; // messages
const violations = [];
const asked = []; // clients
const byHost = Array.from({ length: HOSTS }, () => []); // marks of each lane
const spans = Array.from({ length: HOSTS }, () => []); // how each machine stands
const labelNames = new Map(); // labels of messages: how many
let start = 0;
let end = 1;

function read() {
  let time = 0;
  let part = 0;
  for (let i = 0; i < N; i++) {
    time += D.t[i];
    at[i] = time;
    off[i] = part;
    const kind = D.k[i];
    const host = D.h[i];
    if (kind === "M") {
      sent.push(i);
      labelNames.set(D.p[part + 1], (labelNames.get(D.p[part + 1]) || 0) + 1);
    } else {
      told.push(i);
    }
    part += PARTS[kind];
    if (kind === "X") violations.push(i);
    if (kind === "C") asked.push(i);
    if (host < 0 || host >= HOSTS) continue;
    if (kind === "U" || kind === "D" || kind === "S") stand(i, kind, host);
    if ("UDEP".includes(kind)) byHost[host].push(i);
  }
  start = N ? at[0] : 0;
  end = N ? Math.max(at[N - 1], start + 1000) : 1e6;
  for (const lane of spans) if (lane.length) lane[lane.length - 1].to = end;
}

// Opens a span of a lane. What changes only indexes goes on with the same one.
function stand(i, kind, host) {
  const lane = spans[host];
  const last = lane[lane.length - 1];
  const next = { from: at[i], to: end, kind, first: i, states: [i] };
  if (kind === "S") {
    next.role = D.p[off[i]];
    next.term = D.p[off[i] + 1];
    next.leader = D.p[off[i] + 2];
  }
  if (last && last.kind === kind && kind === "S" && last.role === next.role
    && last.term === next.term && last.leader === next.leader) {
    last.states.push(i);
    return;
  }
  if (last) last.to = at[i];
  lane.push(next);
}

read();

const faults = D.f.map((f) => {
  const touched = new Map();
  for (let j = 4; j + 1 < f.length; j += 2) touched.set(f[j], f[j + 1]);
  const to = f[1] === -1 ? f[0] : f[1] === -2 ? end : f[1];
  const mended = f[3] < 0 ? "" : D.texts[f[3]];
  return { from: f[0], to, once: f[1] === -1, open: f[1] === -2, label: D.texts[f[2]], mended,
    touched };
});

// ---- words ----

const name = (host) => (host < 0 ? "all" : host < HOSTS ? D.hosts[host] : "#" + host);
const text = (n) => D.texts[n];
const seconds = (t) => (t / 1e6).toFixed(6);
const index = (n) => (n < 0 ? "-" : String(n));

function since(us) {
  const sign = us < 0 ? "\u2212" : "+";
  const a = Math.abs(us);
  if (a < 1000) return sign + a.toFixed(0) + " \u00b5s";
  if (a < 1e6) return sign + (a / 1e3).toFixed(a < 1e4 ? 3 : 1) + " ms";
  return sign + (a / 1e6).toFixed(3) + " s";
}

function standing(i) {
  const [role, term, leader] = [D.p[off[i]], D.p[off[i] + 1], D.p[off[i] + 2]];
  if (role === 0) {
    if (leader === D.h[i]) return "leads term " + term;
    return "leader of term " + term + (leader < 0 ? ", lease over" : ", names " + name(leader));
  }
  if (role === 1) return "asks for votes, term " + term;
  const verb = role === 2 ? "follows " : "learns from ";
  return verb + (leader < 0 ? "nobody" : name(leader)) + ", term " + term;
}

function say(i) {
  const p = off[i];
  switch (D.k[i]) {
    case "U": return "boots, start " + D.p[p];
    case "D": return "down: " + text(D.p[p]);
    case "S": return standing(i) + " \u00b7 log " + index(D.p[p + 3]) + ", committed "
      + index(D.p[p + 4]) + ", applied " + index(D.p[p + 5]);
    case "F": return "FAULT " + text(D.p[p]);
    case "M": return text(D.p[p + 1]) + " to " + name(D.p[p])
      + (D.p[p + 2] < 0 ? ", lost" : ", arrives " + since(D.p[p + 2]));
    case "X": return "VIOLATION of " + text(D.p[p]) + ": " + text(D.p[p + 1]);
    default: return text(D.p[p]);
  }
}

// The first place in `list` whose time, by `key`, is not before `t`.
function find(list, t, key) {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const mid = (low + high) >> 1;
    if (key(list[mid]) < t) low = mid + 1;
    else high = mid;
  }
  return low;
}
const timeOf = (i) => at[i];
const findAt = (list, t) => find(list, t, timeOf);

// The span of a machine that holds at `t`.
function spanAt(host, t) {
  const lane = spans[host];
  const next = find(lane, t + 0.5, (s) => s.from);
  return next > 0 ? lane[next - 1] : null;
}
