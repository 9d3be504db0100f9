// Decodes a profile, draws it as an icicle on a canvas, and keeps graph, table and search one.
// It is served as it stands here. Names in a profile are untrusted: they are text nodes, no markup.

const $ = (id) => document.getElementById(id);
const on = (target, type, act) => target.addEventListener(type, act);
const [form, scroll, canvas, spacer, hover, tip, crumbs, input, found, table, say, live] =
  ["view", "scroll", "canvas", "spacer", "hover", "tip", "crumbs", "q", "found", "table", "say", "live"].map($);
const body = table.tBodies[0];
const g = canvas.getContext("2d", { alpha: false });
const ROW = 17;
const PAGE = 100;
const NUMBERS = ["self", "total"];

let full = null; // the profile as it was sent
let p = null; // the tree on show: `full`, or `full` with the runtime folded away
let folded = false;
let zoom = 0; // the node that fills the width
let trail = []; // zooms to go back to
let cursor = -1; // the node that the keyboard is on
let picked = ""; // the function that is selected in graph and table
let hits = null; // by string: does the search match it?
let matches = []; // outermost matching nodes, heaviest first
let match = -1;
let literal = false; // the search is no regex
let sort = { key: "self", down: true };
let limit = PAGE;
let theme = {};

// == The wire format, "flame v1" ==

function decode(buffer) {
  const bytes = new Uint8Array(buffer);
  const utf8 = new TextDecoder();
  let at = 4;
  const check = (fine) => {
    if (!fine) throw new Error("The answer is not a profile.");
  };
  // Multiplied, not shifted: values have up to 53 bits and a shift keeps 32.
  const varint = () => {
    let value = 0, scale = 1, byte;
    do {
      byte = bytes[at++];
      value += (byte & 127) * scale;
      scale *= 128;
    } while (byte > 127);
    return value;
  };
  // All that is counted takes a byte or more.
  const count = () => {
    const n = varint();
    check(n <= bytes.length);
    return n;
  };
  const text = () => {
    const n = count();
    at += n;
    return utf8.decode(bytes.subarray(at - n, at));
  };
  check(utf8.decode(bytes.subarray(0, 4)) === "HSF1");
  const meta = JSON.parse(text());
  const strings = Array.from({ length: count() }, text);
  const frames = Array.from({ length: count() }, () => {
    const frame = { name: varint(), file: varint(), line: varint(), crate: varint() };
    check(Math.max(frame.name, frame.file, frame.crate) < strings.length);
    return frame;
  });
  const n = count();
  const depth = new Uint16Array(n), frame = new Uint32Array(n), self = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    depth[i] = varint();
    frame[i] = varint();
    self[i] = varint();
    check(frame[i] < frames.length && (i ? depth[i] > 0 && depth[i] <= depth[i - 1] + 1 : depth[i] === 0));
  }
  check(n > 0 && at === bytes.length);
  return build({ meta, strings, frames, labels: [] }, depth, frame, self);
}

// What drawing needs, in linear passes: totals, offsets, parents, ends of subtrees, rows by depth.
function build(base, depth, frame, self) {
  const { length: n } = depth, { strings, frames } = base;
  const name = Uint32Array.from(frame, (f) => frames[f].name);
  const total = Float64Array.from(self), left = new Float64Array(n), next = new Float64Array(n);
  const parent = new Int32Array(n), end = new Uint32Array(n), key = new Int32Array(n);
  const hashes = Int32Array.from(strings, hash);
  const open = [];
  let deepest = 0;
  for (let i = 0; i < n; i++) {
    const d = depth[i];
    open[d] = i;
    parent[i] = d ? open[d - 1] : -1;
    // The path of names: by it, a node is found again in the next profile.
    key[i] = d ? Math.imul(key[parent[i]] ^ hashes[name[i]], 16777619) + d : 0;
    if (d > deepest) deepest = d;
  }
  end[0] = n;
  for (let i = n - 1; i > 0; i--) {
    end[i] ||= i + 1;
    end[parent[i]] ||= end[i];
    total[parent[i]] += total[i];
  }
  const start = new Uint32Array(deepest + 2), row = new Uint32Array(n);
  start[1] = 1;
  for (let i = 1; i < n; i++) {
    start[depth[i] + 1]++;
    left[i] = next[i] = next[parent[i]];
    next[parent[i]] += total[i];
  }
  for (let d = 0; d <= deepest; d++) start[d + 1] += start[d];
  const fill = start.slice();
  for (let i = 0; i < n; i++) row[fill[depth[i]]++] = i;
  return { ...base, n, depth, frame, self, name, total, left, parent, end, key, deepest, start, row };
}

// FNV-1a.
function hash(text) {
  let h = 2166136261;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 16777619);
  return h;
}

// One entry for each function. A call inside a call of itself counts once: in preorder, it starts
// before the outer one has ended.
function functions(p) {
  const all = new Map();
  for (let i = 1; i < p.n; i++) {
    let f = all.get(p.name[i]);
    if (!f) all.set(p.name[i], (f = { name: p.name[i], self: 0, total: 0, until: 0, best: -1, frame: 0 }));
    f.self += p.self[i];
    if (p.self[i] > f.best) [f.best, f.frame] = [p.self[i], p.frame[i]];
    if (i < f.until) continue;
    f.total += p.total[i];
    f.until = p.end[i];
  }
  return [...all.values()];
}

// Frames of the runtime: they are drawn pale, and "Fold runtime" leaves them out.
const RUNTIME = /^(std|core|alloc|libc|tokio|mio|hyper|h2|http|tower|axum|futures|rayon|crossbeam|tracing|pin_project|parking_lot)([_.-].*)?$|^\W|^$/;
const isRuntime = (p, f) => RUNTIME.test(p.strings[p.frames[f].crate]);

// The tree without the runtime's frames that lead to other code. What the runtime does by itself
// stays; the self value of what is left out goes to its caller.
function fold(p) {
  const glue = Uint8Array.from(p.frames, (_, f) => isRuntime(p, f));
  const leads = new Uint8Array(p.n);
  for (let i = p.n - 1; i > 0; i--) if (leads[i] || !glue[p.frame[i]]) leads[p.parent[i]] = 1;
  const nodes = [], to = [];
  for (let i = 0; i < p.n; i++) {
    const up = nodes[to[p.parent[i]]];
    let j = i && glue[p.frame[i]] && leads[i] ? to[p.parent[i]] : up?.kids.get(p.frame[i]);
    if (j === undefined) {
      j = nodes.length;
      nodes.push({ up, frame: p.frame[i], self: 0, total: 0, kids: new Map() });
      up?.kids.set(p.frame[i], j);
    }
    to[i] = j;
    nodes[j].self += p.self[i];
  }
  for (const node of nodes.toReversed()) {
    node.total += node.self;
    if (node.up) node.up.total += node.total;
  }
  const order = [[], [], []];
  const walk = (j, depth) => {
    const { frame, self, kids } = nodes[j];
    [depth, frame, self].forEach((n, k) => order[k].push(n));
    [...kids.values()].sort((a, b) => nodes[b].total - nodes[a].total).forEach((k) => walk(k, depth + 1));
  };
  walk(0, 0);
  return build(p, ...order);
}

// == Numbers and names for people ==

const SCALES = {
  nanoseconds: [[3.6e12, "h"], [6e10, "min"], [1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]],
  bytes: [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [1024, "KiB"], [1, "B"]],
};
const grouped = (n) => n.toLocaleString("en-US");

function value(n) {
  const unit = full.meta.unit;
  const scale = (SCALES[unit] || []).find(([size]) => n >= size || size === 1);
  if (!scale) return grouped(n) + (unit === "count" ? "" : " " + unit);
  const x = n / scale[0];
  return (scale[0] === 1 ? n : x.toFixed(x < 9.995 ? 2 : x < 99.95 ? 1 : 0)) + " " + scale[1];
}

function percent(part, total) {
  const x = (part / total) * 100;
  if (!part || !total) return "0%";
  return x === 100 ? "100%" : x < 0.01 ? "<0.01%" : x.toFixed(x < 9.995 ? 2 : 1) + "%";
}

// The segments of a path; a `::` inside generic arguments does not part them.
function segments(name) {
  const parts = [""];
  let inside = 0;
  for (const piece of name.split(/(::|->|[<>])/)) {
    if (piece === "<") inside++;
    if (piece === ">") inside--;
    if (piece === "::" && !inside) parts.push("");
    else parts[parts.length - 1] += piece;
  }
  return parts;
}

// The last `n` segments, closures not counted: `{{closure}}` alone names nothing.
function tail(parts, n) {
  let i = parts.length - 1;
  while (i > 0 && (parts[i][0] === "{" || --n > 0)) i--;
  return parts.slice(i).join("::");
}

// Ever shorter: whole, without generics, `Type::method`, `method`.
function shorten(name) {
  let plain = name.replace(/::h[0-9a-f]{16}$/, "").replaceAll("->", "→");
  for (let before; before !== plain; ) {
    before = plain;
    plain = plain.replace(/(\w|::)?<([^<>]*)>/g, (_, pre, body) => {
      const type = body.match(/^impl .* for (.*)$/)?.[1] ?? body.split(" as ")[0];
      return !pre ? type : pre !== "::" ? pre : body.startsWith("impl ") ? "::" + type : "";
    });
  }
  const parts = plain.split("::");
  return [name, plain, tail(parts, 2), tail(parts, 1)];
}

function label(name, room) {
  const forms = (p.labels[name] ||= shorten(p.strings[name]));
  const fit = forms.find((form) => form.length <= room);
  return fit ?? (room < 3 ? "" : forms[3].slice(0, room - 1) + "…");
}

const nameOf = (i) => p.strings[p.name[i]];
function source(f) {
  const { file, line } = p.frames[f];
  return p.strings[file] + (line && p.strings[file] ? ":" + line : "");
}

// == Drawing ==

function readTheme() {
  const style = getComputedStyle(document.documentElement);
  const css = (name) => style.getPropertyValue(name).trim();
  theme = { colors: [] };
  for (const name of "paper ink faint hit hit-ink dust focus bar pale dim none".split(" ")) theme[name] = css("--" + name);
  g.font = theme.font = "12px " + css("--mono");
  theme.char = g.measureText("M").width;
  paint();
}

// A crate keeps its hue everywhere and for ever; the runtime is paler than the code it runs.
function color(f, dim) {
  const { crate } = p.frames[f];
  if (!theme.colors[crate]) {
    const tone = isRuntime(p, f) ? theme[p.strings[crate] ? "pale" : "none"] : theme.bar;
    const hue = ((hash(p.strings[crate]) >>> 0) % 36) * 10;
    theme.colors[crate] = [tone, theme.dim].map((tone) => `oklch(${tone} ${hue})`);
  }
  return theme.colors[crate][dim ? 1 : 0];
}

let queued = 0;
const paint = () => (queued ||= requestAnimationFrame(draw));

function draw() {
  queued = 0;
  if (!p || scroll.hidden) return;
  const width = scroll.clientWidth, height = scroll.clientHeight, dpr = devicePixelRatio || 1;
  const [across, down] = [width, height].map((n) => Math.round(n * dpr));
  if (canvas.width !== across || canvas.height !== down) {
    Object.assign(canvas, { width: across, height: down });
    canvas.style.width = width + "px";
  }
  g.setTransform(dpr, 0, 0, dpr, 0, 0);
  g.font = theme.font;
  g.textBaseline = "middle";
  g.fillStyle = theme.paper;
  g.fillRect(0, 0, width, height);
  const { left, total, name, frame, row, start } = p;
  const origin = left[zoom], scale = width / (total[zoom] || 1), top = scroll.scrollTop;
  const snap = (x) => Math.round(Math.min(width, Math.max(0, (x - origin) * scale)) * dpr) / dpr;
  const bar = (x, end, y, fill) => {
    g.fillStyle = fill;
    g.fillRect(x, y, Math.max(end - x - (end - x > 3 ? 1 : 0), 1 / dpr), ROW - 1);
  };
  const block = (i, x, end, y, dim) => {
    const hit = hits?.[name[i]];
    bar(x, end, y, hit ? theme.hit : color(frame[i], dim));
    const words = label(name[i], Math.floor((end - x - 8) / theme.char));
    if (!words) return;
    g.fillStyle = hit ? theme["hit-ink"] : dim ? theme.faint : theme.ink;
    g.fillText(words, x + 4, y + ROW / 2, end - x - 6);
  };
  const path = pathTo(zoom);
  const last = Math.min(p.deepest, Math.floor((top + height) / ROW));
  for (let d = Math.floor(top / ROW); d <= last; d++) {
    const y = d * ROW - top;
    if (d < path.length - 1) {
      block(path[d], 0, width, y, true);
      continue;
    }
    for (let k = firstRight(d, origin); k < start[d + 1]; k++) {
      let i = row[k];
      const from = left[i];
      if ((from - origin) * scale >= width) break;
      if (total[i] * scale >= 1.5) {
        block(i, snap(from), snap(from + total[i]), y, hits);
        continue;
      }
      // Neighbours too narrow to tell apart become one bar; the search's hits in it stay visible.
      let to = from, marks = [];
      for (; ; i = row[++k]) {
        to = left[i] + total[i];
        if (hits?.[name[i]]) marks.push(left[i], to);
        const near = row[k + 1];
        if (k + 1 >= start[d + 1] || (left[near] - to) * scale > 0.5 || total[near] * scale >= 1.5) break;
      }
      bar(snap(from), snap(to), y, theme.dust);
      for (let m = 0, reached = -1; m < marks.length; m += 2) {
        const edge = Math.max(snap(marks[m + 1]), snap(marks[m]) + 1 / dpr);
        if (edge <= reached) continue;
        bar(Math.max(snap(marks[m]), reached), edge, y, theme.hit);
        reached = edge;
      }
    }
  }
  if (cursor >= 0) {
    const box = rect(cursor);
    g.strokeStyle = theme.focus;
    g.lineWidth = 2;
    g.strokeRect(box.x + 1, box.y + 1, Math.max(box.width - 3, 1), ROW - 3);
  }
}

// The first node of a row that ends right of `x`. Rows are in order of `left`.
function firstRight(d, x) {
  let low = p.start[d], high = p.start[d + 1];
  while (low < high) {
    const middle = (low + high) >> 1, i = p.row[middle];
    if (p.left[i] + p.total[i] <= x) low = middle + 1;
    else high = middle;
  }
  return low;
}

function pathTo(i) {
  const path = [];
  for (; i >= 0; i = p.parent[i]) path.unshift(i);
  return path;
}

const inside = (i, root) => i >= root && i < p.end[root];

// Where a node is on the canvas.
function rect(i) {
  const width = scroll.clientWidth, scale = width / (p.total[zoom] || 1);
  const at = (x) => Math.min(width, Math.max(0, (x - p.left[zoom]) * scale));
  const x = at(p.left[i]);
  return { x, y: p.depth[i] * ROW - scroll.scrollTop, width: at(p.left[i] + p.total[i]) - x };
}

function nodeAt(event) {
  const box = canvas.getBoundingClientRect();
  const d = Math.floor((event.clientY - box.top + scroll.scrollTop) / ROW);
  if (!p || d < 0 || d > p.deepest) return -1;
  if (d < p.depth[zoom]) return pathTo(zoom)[d];
  const x = p.left[zoom] + ((event.clientX - box.left) / box.width) * p.total[zoom];
  const k = firstRight(d, x);
  return k < p.start[d + 1] && p.left[p.row[k]] <= x && inside(p.row[k], zoom) ? p.row[k] : -1;
}

// == Zoom and selection ==

function zoomTo(i, back) {
  hideTip();
  if (i !== zoom && !back) trail.push(zoom);
  zoom = i;
  if (!inside(cursor, i)) cursor = -1;
  fit();
  showCrumbs();
  showFound();
  keepState();
}

// Heights first: they decide on the scroll bar, and that on the width which drawing reads.
function fit() {
  let deepest = 0;
  for (let k = zoom; p && k < p.end[zoom]; k++) if (p.depth[k] > deepest) deepest = p.depth[k];
  const height = scroll.clientHeight;
  canvas.style.height = height + "px";
  spacer.style.height = Math.max(0, (deepest + 1) * ROW - height) + "px";
  paint();
}

function reset() {
  trail = [];
  zoomTo(0, true);
  scroll.scrollTop = 0;
}

const back = () => zoomTo(trail.pop() ?? 0, true);

// Moves the zoom to where a node shows if it is outside, or too narrow to see.
function reveal(i) {
  let root = inside(i, zoom) ? zoom : 0;
  if (p.total[i] / p.total[root] < 12 / scroll.clientWidth)
    for (root = i; root > 0 && p.total[i] / p.total[p.parent[root]] > 0.05; ) root = p.parent[root];
  if (root !== zoom) zoomTo(root);
  mark(i);
}

function mark(i) {
  const y = p.depth[i] * ROW;
  if (y < scroll.scrollTop) scroll.scrollTop = y;
  if (y + ROW > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = y + ROW - scroll.clientHeight;
  cursor = i;
  paint();
}

// Moves the keyboard's cursor, tells a screen reader, selects the function.
function moveTo(i) {
  if (!(i >= 0)) return;
  mark(i);
  pick(nameOf(i));
  const box = rect(i), at = canvas.getBoundingClientRect();
  showTip(i, at.left + box.x + 8, at.top + box.y + ROW);
  say.textContent = `${nameOf(i)}, ${percent(p.total[i], p.total[0])} of the total, self ${percent(p.self[i], p.total[0])}`;
}

function pick(name) {
  picked = name;
  if (exact() && exact() !== name) search("");
  // The graph's picture comes first: the table may have to be made anew.
  requestAnimationFrame(() => setTimeout(showPicked));
}

function showPicked() {
  const row = () => table.querySelector(".picked"), pane = $("pane");
  choose();
  if (!row()) showTable();
  // Only where the table scrolls by itself: the page must not jump.
  if (pane.scrollHeight > pane.clientHeight) row()?.scrollIntoView({ block: "nearest" });
}

// A row of the table was chosen: the search becomes exactly this function, a second time undoes it.
function pickRow(name) {
  const now = exact() !== name && name;
  picked = now || "";
  cursor = -1;
  search(now ? `"${now}"` : "");
  if (matches.length) reveal(matches[0]);
}

function showCrumbs() {
  const path = pathTo(zoom);
  const shown = path.length > 5 ? [path[0], -1, ...path.slice(-3)] : path;
  const hint = folded ? `${grouped(full.n - p.n)} runtime frames folded.` : "Click a frame to zoom in.";
  const parts = shown.map((i) => {
    if (i < 0) return make("span", {}, "…");
    const button = make("button", { title: nameOf(i), onclick: () => zoomTo(i) }, label(p.name[i], 48));
    if (i === zoom) button.setAttribute("aria-current", "true");
    return button;
  });
  crumbs.replaceChildren(...parts, make("small", {}, zoom ? "" : hint));
  $("reset").disabled = !zoom;
}

function make(tag, props, ...kids) {
  const element = Object.assign(document.createElement(tag), props);
  element.append(...kids);
  return element;
}

// == The tip ==

function showTip(i, x, y) {
  const line = (...cells) => make("tr", {}, ...cells.map((cell, at) => make(at ? "td" : "th", {}, cell)));
  const rows = [["Self", p.self[i]], ["Total", p.total[i]]].map(([head, n]) => line(head, value(n), percent(n, p.total[0])));
  if (zoom) rows.push(line("Of zoom", "", percent(p.total[i], p.total[zoom])));
  const where = [p.strings[p.frames[p.frame[i]].crate], source(p.frame[i])].filter(Boolean).join(" · ");
  tip.replaceChildren(make("b", {}, nameOf(i)), make("p", {}, where || "no source known"), make("table", {}, ...rows));
  tip.hidden = hover.hidden = false;
  const box = rect(i);
  hover.style.transform = `translate(${box.x}px, ${p.depth[i] * ROW}px)`;
  hover.style.width = Math.max(box.width - 1, 2) + "px";
  const { clientWidth, clientHeight } = document.documentElement;
  const beside = Math.max(8, Math.min(x + 14, clientWidth - tip.offsetWidth - 8));
  const below = y + 18 + tip.offsetHeight < clientHeight ? y + 18 : Math.max(8, y - tip.offsetHeight - 22);
  tip.style.transform = `translate(${beside}px, ${below}px)`;
}

function hideTip() {
  tip.hidden = hover.hidden = true;
}

// == Search ==

// In quotes, a search is the exact name of a function; a row of the table is chosen so.
const exact = () => input.value.match(/^"(.+)"$/)?.[1];

function search(text) {
  if (text !== undefined) input.value = text;
  text = input.value;
  literal = false;
  const whole = exact();
  let test = (name) => name === whole;
  if (!whole) {
    try {
      const regex = new RegExp(text, "i");
      test = (name) => regex.test(name);
    } catch {
      literal = true;
      test = (name) => name.toLowerCase().includes(text.toLowerCase());
    }
  }
  input.setAttribute("aria-invalid", literal);
  // The regex runs once for each name, not once for each of a hundred thousand frames.
  hits = text ? Uint8Array.from(full.strings, test) : null;
  match = -1;
  matches = text ? outermost(p, 0).nodes.sort((a, b) => p.total[b] - p.total[a]) : [];
  if (whole) picked = whole;
  showFound();
  showTable();
  keepState();
  paint();
}

// Matching nodes under a root that are in no other match, so that their sum counts all once.
function outermost(p, root) {
  const nodes = [];
  let sum = 0;
  for (let i = root; i < p.end[root]; ) {
    if (hits[p.name[i]]) {
      nodes.push(i);
      sum += p.total[i];
      i = p.end[i];
    } else i++;
  }
  return { nodes, sum };
}

function showFound() {
  $("prev").disabled = $("next").disabled = !matches.length;
  found.textContent = "";
  if (!hits) return;
  const parts = [percent(outermost(full, 0).sum, full.total[0]) + " matched"];
  if (zoom) parts.push(percent(outermost(p, zoom).sum, p.total[zoom]) + " of zoom");
  const n = grouped(matches.length);
  parts.push(match >= 0 ? `${match + 1} of ${n}` : n === "1" ? "1 match" : n + " matches");
  if (literal) parts.unshift("not a regex, taken as text");
  found.textContent = parts.join(" · ");
}

function step(by) {
  if (!matches.length) return;
  match = (Math.max(match, by < 0 ? 0 : -1) + by + matches.length) % matches.length;
  reveal(matches[match]);
  moveTo(cursor);
  showFound();
}

// == The table ==

function showTable() {
  if (!full) return;
  const total = full.total[0];
  const text = (f, key) => (key === "name" ? full.strings[f.name] : source(f.frame));
  const { key, down } = sort;
  const rows = full.functions.filter((f) => !hits || exact() || hits[f.name]);
  rows.sort((a, b) => {
    const order = NUMBERS.includes(key) ? a[key] - b[key] || a.total - b.total : text(a, key).localeCompare(text(b, key));
    return (down ? -order : order) || (text(a, "name") < text(b, "name") ? -1 : 1);
  });
  const shown = rows.slice(0, limit);
  shown.push(...rows.slice(limit).filter((f) => text(f, "name") === picked));
  const cell = (className, content, title = "") => make("td", { className, title }, content);
  const share = (n) => {
    const td = cell("num share", percent(n, total));
    td.style.setProperty("--part", n / total);
    return td;
  };
  const lines = shown.map((f) => {
    const name = text(f, "name"), parts = segments(name), two = tail(parts, 2), leaf = two.length < 50 ? two : tail(parts, 1);
    const button = make("button", { title: name },
      make("span", { className: "path" }, name.slice(0, name.length - leaf.length)), make("span", { className: "leaf" }, leaf));
    const [own, all, from] = [value(f.self), value(f.total), text(f, "source")];
    return make("tr", {}, cell("fn", button), cell("num", own), share(f.self), cell("num", all), share(f.total), cell("src", make("bdi", {}, from), from));
  });
  const focus = document.activeElement;
  body.replaceChildren(...lines);
  choose();
  if (!focus.isConnected) [...body.querySelectorAll("button")].find((b) => b.title === focus.title)?.focus({ preventScroll: true });
  for (const th of table.tHead.rows[0].cells) {
    if (th.dataset.key === key) th.ariaSort = down ? "descending" : "ascending";
    else th.removeAttribute("aria-sort");
  }
  const more = rows.length - shown.length;
  $("more").hidden = more <= 0;
  $("more").firstChild.textContent = `${grouped(more)} of ${grouped(rows.length)} functions are not shown. `;
}

function choose() {
  for (const row of body.rows) {
    const button = row.querySelector("button"), on = button?.title === picked;
    row.className = on ? "picked" : "";
    if (button) button.ariaPressed = on;
  }
}

// == The view and its address ==

// The query is what the server shows, the fragment what only this page knows.
const query = () => new URLSearchParams([...new FormData(form)].filter(([, text]) => text));

function keepState() {
  const state = new URLSearchParams();
  if (input.value) state.set("q", input.value);
  if (zoom) state.set("zoom", p.key[zoom]);
  if (folded) state.set("fold", 1);
  history.replaceState(null, "", location.pathname + location.search + (`${state}` && `#${state}`));
}

const iso = (ms) => new Date(ms).toISOString().slice(0, 19);

function show(next) {
  const old = p, root = zoom, at = cursor;
  full = next;
  full.functions = functions(full);
  p = folded ? fold(full) : full;
  theme.colors = [];
  hits = null;
  // Zoom and cursor stay on the same path of names; where it is gone, on what is left of it.
  const again = (i) => {
    for (; i > 0; i = old.parent[i]) {
      const j = p.key.indexOf(old.key[i]);
      if (j > 0) return j;
    }
    return 0;
  };
  zoom = old ? again(root) : Math.max(0, p.key.indexOf(+saved.get("zoom")));
  cursor = old && at > 0 ? again(at) || -1 : -1;
  trail = [];
  const { meta } = full;
  $("empty").hidden = p.total[0];
  scroll.hidden = crumbs.hidden = !p.total[0];
  $("empty").textContent = meta.empty || "No samples in this window.";
  const [from, to] = [meta.from, meta.to].map((ms) => iso(ms).slice(11));
  $("summary").replaceChildren(meta.title, make("small", {},
    `${value(p.total[0])} in ${grouped(meta.samples)} samples, ${from} – ${to} UTC`));
  $("notes").replaceChildren(...(meta.notes || []).map((note) =>
    make("div", { className: note.level }, make("dt", {}, note.label), make("dd", {}, note.value))));
  for (const [id, href] of Object.entries(meta.links || {}))
    for (const link of document.querySelectorAll(`[data-link="${CSS.escape(id)}"]`)) link.href = href;
  scroll.style.height = (p.deepest + 1) * ROW + "px";
  zoomTo(zoom, true);
  search();
}

let pending = null;

async function load() {
  pending?.abort();
  const mine = (pending = new AbortController());
  const timer = setTimeout(() => mine.abort(), 30_000);
  document.body.classList.add("busy");
  const error = $("error");
  try {
    const answer = await fetch($("app").dataset.graph.split("?")[0] + "?" + query(), { signal: mine.signal, cache: "no-store" });
    if (!answer.ok) throw new Error((await answer.text()).slice(0, 400) || `The service answered ${answer.status}.`);
    show(decode(await answer.arrayBuffer()));
    error.hidden = true;
    requestAnimationFrame(() => performance.mark("hsi-drawn"));
  } catch (cause) {
    if (mine !== pending) return;
    const why = { AbortError: "No answer within 30 seconds.", TypeError: `The service cannot be reached (${cause.message}).` }[cause.name] || cause.message;
    error.textContent = why + (full ? " The graph is the one from before." : "");
    error.hidden = false;
  } finally {
    clearTimeout(timer);
    if (mine === pending) {
      pending = null;
      document.body.classList.remove("busy");
    }
  }
}

// A view has its own entry in the history; going back loads its page.
function navigate() {
  history.pushState(null, "", "?" + query() + location.hash);
  load();
}

const setCustom = () => {
  $("custom").hidden = $("apply").hidden = form.elements.range?.value !== "custom";
};

let ticking = 0;

function setLive(on) {
  clearInterval(ticking);
  live.ariaPressed = String(on);
  ticking = on && setInterval(() => document.hidden || pending || load(), 10_000);
  if (on) load();
}

function setFolded(on) {
  folded = on;
  $("fold").ariaPressed = String(on);
  if (full) show(full);
}

// == Events ==

const KEYS = {
  ArrowUp: () => moveTo(p.parent[cursor]),
  ArrowDown: () => moveTo(cursor < 0 ? zoom : pathTo(zoom)[p.depth[cursor] + 1] ?? (p.end[cursor] > cursor + 1 ? cursor + 1 : -1)),
  ArrowLeft: () => sideways(-1),
  ArrowRight: () => sideways(1),
  Enter: () => cursor >= 0 && zoomTo(cursor),
};

const ANYWHERE = {
  "/": () => input.select(),
  Escape: () => (zoom ? reset() : pickRow()),
  Backspace: back,
  n: () => step(1),
  N: () => step(-1),
  h: () => setFolded(!folded),
  r: load,
};

function sideways(by) {
  if (cursor < 0) return moveTo(zoom);
  const d = p.depth[cursor], i = p.row[firstRight(d, p.left[cursor]) + by];
  if (p.depth[i] === d && inside(i, zoom)) moveTo(i);
}

on(window, "keydown", (event) => {
  const typing = event.target.matches("input, select, textarea");
  if (!p || event.ctrlKey || event.metaKey || event.altKey) return;
  const act = (document.activeElement === scroll && KEYS[event.key]) || (!typing && ANYWHERE[event.key]);
  if (!act) return;
  event.preventDefault();
  act();
});
on(input, "keydown", (event) => {
  if (event.key === "Enter") step(event.shiftKey ? -1 : 1);
  if (event.key !== "Escape") return;
  search("");
  scroll.focus();
});
on(input, "input", () => {
  limit = PAGE;
  search();
});
on(canvas, "pointermove", (event) => {
  const i = nodeAt(event);
  if (i < 0) hideTip();
  else showTip(i, event.clientX, event.clientY);
});
on(canvas, "pointerleave", hideTip);
on(canvas, "click", (event) => {
  const i = nodeAt(event);
  if (i < 0) return;
  cursor = i;
  zoomTo(i);
  pick(nameOf(i));
  showTip(i, event.clientX, event.clientY);
});
on(window, "pointerdown", hideTip);
on(scroll, "wheel", hideTip);
on(scroll, "scroll", paint);
on(body, "click", (event) => {
  const name = event.target.closest("tr")?.querySelector("button")?.title;
  if (name && !getSelection().toString()) pickRow(name);
});
on(table.tHead, "click", (event) => {
  const key = event.target.closest("th")?.dataset.key;
  if (!key) return;
  sort = { key, down: sort.key === key ? !sort.down : NUMBERS.includes(key) };
  showTable();
});
on($("more").lastChild, "click", () => {
  limit += 5 * PAGE;
  showTable();
});
on($("prev"), "click", () => step(-1));
on($("next"), "click", () => step(1));
on($("reset"), "click", reset);
on($("fold"), "click", () => setFolded(!folded));
on(live, "click", () => setLive(!ticking));
on($("refresh"), "click", (event) => {
  event.preventDefault();
  load();
});
on(form, "submit", (event) => {
  event.preventDefault();
  navigate();
});
on(form, "change", () => {
  setCustom();
  if ($("custom").hidden) return navigate();
  // A custom range starts as the one on show.
  for (const name of ["from", "to"]) form.elements[name].value ||= full ? iso(full.meta[name]) : "";
});
on(window, "popstate", () => location.reload());
on(document, "visibilitychange", () => document.hidden || !ticking || load());
new ResizeObserver(fit).observe(scroll);
on(matchMedia("(prefers-color-scheme: dark)"), "change", readTheme);

// == Start ==

const saved = new URLSearchParams(location.hash.slice(1));
for (const th of table.tHead.rows[0].cells) th.replaceChildren(make("button", {}, th.textContent));
for (const element of [live, $("tools")]) element.hidden = false;
setCustom();
readTheme();
input.value = saved.get("q") || "";
setFolded(saved.has("fold"));
load();

// For tests.
window.hsiFlame = { rect, nameOf, state: () => ({ nodes: p?.n, zoom, cursor }) };
