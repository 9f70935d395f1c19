"""What the page of `view` adds to the shell of pages: its style, its body, its script."""

STYLE = """
:root{--plus:#1f6fb4;--minus:#d03030;--mark:#b86f00}
@media (prefers-color-scheme:dark){:root{--plus:#6db3f2;--minus:#ff7b72;--mark:#f0b04a}}
body{font:15px/1.45 system-ui,sans-serif;margin:1rem auto;padding:0 1rem;max-width:80rem}body>div{max-width:none}
h1{font-size:1.15rem;font-weight:600;margin:.2rem 0;overflow-wrap:anywhere}
.bar{display:flex;flex-wrap:wrap;gap:.4rem 1.2rem;align-items:center;margin:.5rem 0}
.bar fieldset{border:1px solid var(--line);border-radius:4px;margin:0;padding:.1rem .5rem;display:flex;flex-wrap:wrap;gap:.2rem .8rem}
input[type=search]{width:9rem;font:inherit}
.grid{display:inline-grid;gap:2px;margin:.2rem 0}.grid>div{display:contents}
.grid button{width:1.7rem;height:1.3rem;padding:0;border:1px solid var(--line);border-radius:3px;font-size:.68rem;
 background:color-mix(in srgb,var(--plus) calc(var(--heat)*100%),transparent);color:inherit;cursor:pointer}
.grid button[aria-selected=true]{outline:3px solid var(--mark);outline-offset:0}
.grid span{font-size:.7rem;opacity:.8;text-align:right;padding-right:.3rem;align-self:center}
.thumbs .grid button{width:4.2rem;height:4.7rem;background:none;border-color:color-mix(in srgb,var(--plus) calc(var(--heat)*100%),var(--line))}
.grid canvas{display:none}.thumbs .grid canvas{display:block;width:100%;height:3.6rem}
#grids{overflow:auto;max-height:60vh}
#maps{display:flex;flex-wrap:wrap;gap:1.5rem;overflow:auto;max-height:85vh;border-top:1px solid var(--line);scroll-padding:3rem}
figure{margin:0;flex:1 1 18rem;min-width:16rem;max-width:38rem}
figcaption{font-weight:600;position:sticky;top:0;background:Canvas;opacity:1;padding:.2rem 0;z-index:1}
svg{width:100%;overflow:visible}svg text{font-size:12px;fill:currentColor;cursor:pointer}
svg text.on{font-weight:700;fill:var(--mark)}svg text.hit{text-decoration:underline;fill:var(--mark)}
svg text.special{opacity:.6}svg text.b{font-style:italic}
svg.over line{opacity:.06}svg.over line.lit{opacity:1}
:focus-visible{outline:2px solid var(--mark);outline-offset:1px}
.plus{stroke:var(--plus)}.minus{stroke:var(--minus);stroke-dasharray:5 3}
.note{opacity:.85;font-size:.86rem}kbd{border:1px solid var(--line);border-radius:3px;padding:0 .3em}
#said{min-height:1.4em}[hidden]{display:none!important}
@media print{body{max-width:none}.bar.controls,.keys{display:none}#maps,#grids{max-height:none;overflow:visible}
 figcaption{position:static}figure{max-width:48%;break-inside:auto}*{print-color-adjust:exact}}
"""

BODY = """
<div class="bar"><strong id="name" aria-live="polite"></strong><span id="facts" class="note"></span></div>
<div class="bar controls"><label><input id="small" type="checkbox"> all heads as thumbnails</label>
<label><span>find a <span class="unit">word</span></span> <input id="find" type="search" autocomplete="off"></label><span id="hits" class="note" role="status"></span></div>
<div id="grids"></div>
<div class="bar controls"><label id="most">links of a word <input id="links" type="range" min="1" value="3"> <output id="count"></output></label>
<label>weakest shown <input id="least" type="range" min="0" max="90" value="5"> <output id="floor"></output></label>
<fieldset id="hides" aria-label="what is hidden"><label><input id="special" type="checkbox"> hide special tokens</label>
<label><input id="sink" type="checkbox"> hide the first, the attention sink</label></fieldset>
<label id="texts" hidden>texts <select id="between"><option value="">all</option><option value="ab">first to second</option>
<option value="ba">second to first</option><option value="aa">first to itself</option><option value="bb">second to itself</option></select></label></div>
<p id="said" class="note" aria-live="polite"></p>
<div id="maps" tabindex="0" role="region" aria-label="the head's links" aria-describedby="keys"></div>
<p class="note keys" id="keys"><kbd>&larr;</kbd> <kbd>&rarr;</kbd> head, <kbd>&uarr;</kbd> <kbd>&darr;</kbd> layer, <kbd>p</kbd> part,
<kbd>j</kbd> <kbd>k</kbd> next and previous <span class="unit">word</span>, <kbd>Esc</kbd> all <span class="unit">words</span>, <kbd>+</kbd> <kbd>-</kbd> links, <kbd>t</kbd> thumbnails,
<kbd>/</kbd> find a <span class="unit">word</span>.</p>
<p id="legend" class="note">Words that attend stand left, words attended to right. Solid: positive; dashed: negative (mixed weights
may be). A link's strength is relative to its map's largest weight.</p>
<p id="heat" class="note"></p>"""

SCRIPT = r"""
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer;
for (const panel of data.panels) for (const map of Object.values(panel.maps)) {
  map.memory = new (panel.memories.length > 256 ? Uint16Array : Uint8Array)(bytes(map.memory));
  map.weight = new Int8Array(bytes(map.weight));
  map.scale = new Float32Array(bytes(map.scale));
}
const state = {part: 0, layer: 0, head: 0, word: -1, side: "queries"};
const panel = () => data.panels[state.part];
const nameOf = (p, layer, head) => `${p.part}.${p.numbers[layer]}:${head}`;
const fullName = () => nameOf(panel(), state.layer, state.head);
const make = (tag, attributes, text) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
};
function read(name) {
  const found = /^(\w+)\.(\d+):(\d+)$/.exec(name);
  const part = found ? data.panels.findIndex(p => p.part === found[1]) : -1;
  const layer = part < 0 ? -1 : data.panels[part].numbers.indexOf(+found[2]);
  if (layer < 0 || !(+found[3] < data.panels[part].counts[layer])) return false;
  Object.assign(state, {part, layer, head: +found[3]});
  return true;
}
function grids() {
  data.panels.forEach((p, part) => {
    const grid = document.createElement("div");
    grid.className = "grid"; grid.setAttribute("role", "grid"); grid.setAttribute("aria-label", `heads of ${p.part}`);
    grid.style.gridTemplateColumns = `auto repeat(${p.heads}, auto)`;
    const heat = data.talking ? p.change : p.peak, most = Math.max(...heat.flat(), 1e-9);
    for (let layer = 0; layer < p.layers; layer++) {
      const row = document.createElement("div"); row.setAttribute("role", "row"); grid.append(row);
      const label = document.createElement("span"); label.textContent = `${p.part}.${p.numbers[layer]}`;
      label.setAttribute("role", "rowheader"); row.append(label);
      for (let head = 0; head < p.heads; head++) {
        if (head >= p.counts[layer]) { row.append(document.createElement("span")); continue; }
        const button = document.createElement("button");
        button.textContent = head; button.tabIndex = -1; button.dataset.name = nameOf(p, layer, head);
        Object.assign(button.dataset, {part, layer, head});
        button.style.setProperty("--heat", (0.75 * heat[layer][head] / most).toFixed(3));
        button.setAttribute("role", "gridcell"); button.setAttribute("aria-label", button.dataset.name);
        button.onclick = () => { Object.assign(state, {part, layer, head, word: part === state.part ? state.word : -1}); draw(); };
        row.append(button);
      }
    }
    $("grids").append(grid);
  });
}
// [query, memory, weight relative to the map's largest, weight] of the strongest links that are not hidden.
function links(p, map, layer, head, most) {
  const n = p.queries.length, k = p.links, place = layer * p.heads + head, found = [];
  const least = +$("least").value / 100, between = $("between").value, [from, to] = p.tags;
  for (let query = 0; query < n; query++) {
    if (hidden(from, query) || (between && from[query] !== between[0])) continue;
    let kept = 0;
    for (let i = 0; i < k && kept < most; i++) {
      const at = (place * n + query) * k + i, weight = map.weight[at] / 127, memory = map.memory[at];
      if (Math.abs(weight) < least || weight === 0) continue;
      if (hidden(to, memory) || (between && to[memory] !== between[1])) continue;
      kept++;
      found.push([query, memory, weight, weight * map.scale[place]]);
    }
  }
  return found;
}
const hidden = (tags, place) => ($("special").checked && tags[place] === "s") || ($("sink").checked && place === 0);
const ofWord = shown => state.word < 0 ? shown : shown.filter(x => x[state.side === "queries" ? 0 : 1] === state.word);
const short = word => word.length > 20 ? word.slice(0, 19) + "\u2026" : word;
const hit = word => { const wanted = $("find").value.trim().toLowerCase(); return wanted !== "" && word.toLowerCase().includes(wanted); };
function column(svg, words, side, x, anchor) {
  const tags = panel().tags[side === "queries" ? 0 : 1];
  words.forEach((word, place) => {
    if (hidden(tags, place)) return;
    const on = state.side === side && state.word === place, kind = {s: " special", b: " b"}[tags[place]] || "";
    const text = make("text", {x, y: 18 * place + 14, "text-anchor": anchor, "class": (on ? "on" : "") + (hit(word) ? " hit" : "") + kind,
      "data-place": place, "data-side": side}, short(word));
    if (word.length > 20) text.append(make("title", {}, word));
    text.onclick = () => { state.word = on ? -1 : place; state.side = side; draw(); };
    text.onmouseenter = () => over(side, place);
    text.onmouseleave = () => over();
    svg.append(text);
  });
}
function over(side, place) {
  for (const svg of document.querySelectorAll("#maps svg")) {
    svg.classList.toggle("over", side !== undefined);
    for (const line of svg.querySelectorAll("line")) line.classList.toggle("lit", line.dataset[side] === String(place));
  }
}
function figure(name, map) {
  const p = panel(), rows = Math.max(p.queries.length, p.memories.length);
  const holder = document.createElement("figure"), caption = document.createElement("figcaption");
  caption.textContent = data.names[name];
  const wide = words => 14 + 7 * Math.max(...words.map(word => short(word).length)), left = wide(p.queries);
  const width = left + 150 + wide(p.memories);
  const svg = make("svg", {viewBox: `0 0 ${width} ${18 * rows + 6}`, role: "img", "data-map": name});
  svg.style.maxWidth = `${1.3 * width}px`;
  const shown = ofWord(links(p, map, state.layer, state.head, +$("links").value));
  svg.setAttribute("aria-label", `${caption.textContent}, ${fullName()}: ${shown.length} links`);
  for (const [query, memory, weight, real] of shown) {
    const line = make("line", {x1: left + 6, y1: 18 * query + 10, x2: left + 144, y2: 18 * memory + 10, "data-queries": query, "data-memories": memory,
      "class": weight > 0 ? "plus" : "minus", "stroke-width": (0.6 + 2.6 * Math.abs(weight)).toFixed(2),
      "stroke-opacity": Math.max(0.08, Math.abs(weight)).toFixed(2)});
    line.append(make("title", {}, `${p.queries[query]} \u2192 ${p.memories[memory]}: ${real.toFixed(3)}`));
    svg.append(line);
  }
  column(svg, p.queries, "queries", left, "end");
  column(svg, p.memories, "memories", left + 150, "start");
  holder.append(caption, svg);
  return holder;
}
// What a selected word's links are, in words, for those who hear the page.
function say() {
  const p = panel(), word = state.word < 0 ? "" : p[state.side][state.word];
  if (!word) { $("said").textContent = ""; return; }
  const parts = Object.entries(p.maps).map(([name, map]) => {
    const shown = ofWord(links(p, map, state.layer, state.head, +$("links").value)).sort((a, b) => Math.abs(b[2]) - Math.abs(a[2]));
    const told = shown.slice(0, 8).map(([query, memory, , real]) => `${state.side === "queries" ? p.memories[memory] : p.queries[query]} ${real.toFixed(2)}`);
    return `${data.names[name]}: ${told.join(", ") || "no link shown"}`;
  });
  $("said").textContent = `\u201c${word}\u201d ${state.side === "queries" ? "attends to" : "is attended to by"}; ${parts.join("; ")}.`;
}
function thumbnails() {
  const on = $("small").checked;
  $("grids").classList.toggle("thumbs", on);
  if (!on) return;
  const style = getComputedStyle(document.documentElement), scale = Math.min(3, devicePixelRatio || 1);
  const colours = [style.getPropertyValue("--plus"), style.getPropertyValue("--minus")];
  for (const button of document.querySelectorAll(".grid button")) {
    const canvas = button.querySelector("canvas") || document.createElement("canvas");
    if (!canvas.parentNode) button.append(canvas);
    const {part, layer, head} = button.dataset, p = data.panels[part], maps = Object.values(p.maps);
    canvas.width = 64 * scale; canvas.height = 56 * scale;
    const pen = canvas.getContext("2d"), rows = Math.max(p.queries.length, p.memories.length), y = place => (place + 0.5) * canvas.height / rows;
    pen.lineWidth = scale;
    if (data.picture) { heatOf(pen, canvas, p, maps[data.talking ? 1 : 0], +layer, +head); continue; }
    for (const [query, memory, weight] of links(p, maps[data.talking ? 1 : 0], +layer, +head, 2)) {
      pen.strokeStyle = colours[weight > 0 ? 0 : 1]; pen.globalAlpha = Math.max(0.1, Math.abs(weight)) * Math.min(1, 60 / rows);
      pen.beginPath(); pen.moveTo(2, y(query)); pen.lineTo(canvas.width - 2, y(memory)); pen.stroke();
    }
  }
}
function draw() {
  const p = panel();
  state.head = Math.min(state.head, p.counts[state.layer] - 1);
  $("links").max = p.links; $("count").textContent = Math.min(p.links, +$("links").value);
  $("floor").textContent = `${$("least").value} % of the largest`;
  $("name").textContent = fullName();
  const special = (100 * p.special[state.layer][state.head]).toFixed(0), drawn = p.tags[1].includes("s");
  const change = p.change[state.layer][state.head].toFixed(2);
  $("facts").textContent = `${special} % of its softmax attention goes to special tokens${drawn ? "" : ", which are not drawn"}` +
    (!data.talking ? "" : p.mixes[state.layer] ? `; mixing takes ${p.mixes[state.layer]}` : `; talking moved ${change} of weight a word`);
  for (const button of document.querySelectorAll(".grid button")) {
    const on = button.dataset.name === fullName();
    button.setAttribute("aria-selected", on); button.tabIndex = on ? 0 : -1;
  }
  const place = $("maps").scrollTop;
  $("maps").replaceChildren(...Object.entries(p.maps).map(([name, map]) => (data.picture ? patches : figure)(name, map)));
  $("maps").scrollTop = place;
  say();
  try { history.replaceState(null, "", "#" + fullName()); } catch { /* a frame without an address, in a notebook */ }
}
const reveal = () => {
  const text = document.querySelector("svg text.on");
  if (text) text.scrollIntoView({block: "nearest"});
};
// The next word, from the selected one on, that has what is sought.
function seek() {
  const found = [];
  for (const side of data.picture ? ["queries"] : ["queries", "memories"]) panel()[side].forEach((word, place) => { if (hit(word)) found.push([side, place]); });
  $("hits").textContent = $("find").value.trim() === "" ? "" : data.picture ? `${found.length} found` : `${found.filter(x => x[0] === "queries").length} among words that attend, ${found.filter(x => x[0] === "memories").length} among those attended to`;
  return found;
}
const turn = (value, by, size) => (value + by + size) % size;
const step = by => {
  const size = panel()[state.side].length, tags = panel().tags[state.side === "queries" ? 0 : 1];
  state.word = state.word < 0 && by < 0 ? size - 1 : turn(state.word, by, size);
  for (let i = 0; i < size && hidden(tags, state.word); i++) state.word = turn(state.word, by, size);
};
const keys = {
  ArrowLeft: () => { state.head = turn(state.head, -1, panel().counts[state.layer]); },
  ArrowRight: () => { state.head = turn(state.head, 1, panel().counts[state.layer]); },
  ArrowUp: () => { state.layer = turn(state.layer, -1, panel().layers); },
  ArrowDown: () => { state.layer = turn(state.layer, 1, panel().layers); },
  p: () => { Object.assign(state, {part: turn(state.part, 1, data.panels.length), layer: 0, head: 0, word: -1}); },
  j: () => step(1),
  k: () => step(-1),
  Escape: () => { state.word = -1; },
  "+": () => { $("links").value = +$("links").value + 1; },
  "-": () => { $("links").value = +$("links").value - 1; },
  t: () => { $("small").checked = !$("small").checked; thumbnails(); },
  "/": () => { $("find").focus(); },
};
document.addEventListener("keydown", event => {
  const act = keys[event.key];
  if (!act || event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT)$/.test(event.target.tagName)) return;
  event.preventDefault(); act(); draw();
  if (event.key.startsWith("Arrow")) {
    const button = document.querySelector(".grid button[aria-selected=true]");
    button.focus({preventScroll: true}); button.scrollIntoView({block: "nearest", inline: "nearest"});
  }
  if (event.key === "j" || event.key === "k") reveal();
});
for (const id of ["links", "least", "special", "sink", "between"]) $(id).addEventListener("input", () => { draw(); thumbnails(); });
$("small").addEventListener("input", thumbnails);
$("find").addEventListener("input", () => {
  const found = seek();
  if (found.length) [state.side, state.word] = found[0]; else state.word = -1;
  draw(); reveal();
});
$("find").addEventListener("keydown", event => {
  if (event.key === "Escape") { $("find").value = ""; seek(); state.word = -1; draw(); $("find").blur(); }
  if (event.key !== "Enter") return;
  const found = seek();
  if (!found.length) return;
  const now = found.findIndex(x => x[0] === state.side && x[1] === state.word);
  [state.side, state.word] = found[turn(now, event.shiftKey ? -1 : 1, found.length)];
  draw(); reveal();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", thumbnails);
$("heat").textContent = data.talking ? "A head is the bluer, the more talking changed it." : `A head is the bluer, the more it attends to single ${data.picture ? "patches" : "words"}.`;
const tags = data.panels.flatMap(p => p.tags).join("");
$("texts").hidden = !tags.includes("b");
$("special").parentNode.hidden = !tags.includes("s");
if (!read(decodeURIComponent(location.hash.slice(1)))) read(data.first);
if (data.picture) pictured();
grids(); draw(); thumbnails();
"""
