"""What the page of `view` adds to the shell of pages: its style, its body, its script."""

STYLE = """
:root{--plus:#1f6fb4;--minus:#d03030;--mark:#e8a33d}
@media (prefers-color-scheme:dark){:root{--plus:#6db3f2;--minus:#ff7b72}}
body{font:15px/1.45 system-ui,sans-serif;margin:1rem auto;padding:0 1rem;max-width:80rem}
h1{font-size:1.15rem;font-weight:600;margin:.2rem 0}
.bar{display:flex;flex-wrap:wrap;gap:.4rem 1.4rem;align-items:center;margin:.5rem 0}
.grid{display:inline-grid;gap:2px;margin:.2rem 0}
.grid button{width:1.7rem;height:1.3rem;padding:0;border:1px solid var(--line);border-radius:3px;font-size:.68rem;
 background:color-mix(in srgb,var(--plus) calc(var(--heat)*100%),transparent);color:inherit;cursor:pointer}
.grid button[aria-selected=true]{outline:3px solid var(--mark);outline-offset:0}
.grid span{font-size:.7rem;opacity:.8;text-align:right;padding-right:.3rem}
#grids{overflow-x:auto}
.maps{display:flex;flex-wrap:wrap;gap:1.5rem}
figure{margin:0;flex:1 1 22rem;min-width:18rem;max-width:38rem}figcaption{font-weight:600}
svg{width:100%;overflow:visible}svg text{font-size:12px;fill:currentColor;cursor:pointer}
svg text.on{font-weight:700;fill:var(--mark)}
svg text:focus{outline:2px solid var(--mark)}
.plus{stroke:var(--plus)}.minus{stroke:var(--minus);stroke-dasharray:5 3}
.note{opacity:.8;font-size:.86rem}kbd{border:1px solid var(--line);border-radius:3px;padding:0 .3em}
"""

BODY = """
<div class="bar"><strong id="name" aria-live="polite"></strong><span id="facts" class="note"></span></div>
<div id="grids"></div>
<div class="bar"><label>strongest links of a word <input id="links" type="range" min="1" value="3"> <output id="count"></output></label>
<label>weakest shown <input id="least" type="range" min="0" max="90" value="5"> <output id="floor"></output></label></div>
<div class="maps" id="maps"></div>
<p class="note"><kbd>&larr;</kbd> <kbd>&rarr;</kbd> head, <kbd>&uarr;</kbd> <kbd>&darr;</kbd> layer, <kbd>p</kbd> part,
<kbd>j</kbd> <kbd>k</kbd> next and previous word, <kbd>Esc</kbd> all words, <kbd>+</kbd> <kbd>-</kbd> links. Words that attend
stand left, words attended to right. Solid: positive; dashed: negative (mixed weights may be). A link's strength is
relative to its map's largest weight. <span id="heat"></span></p>"""

SCRIPT = """
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer;
for (const panel of data.panels) for (const map of Object.values(panel.maps)) {
  map.memory = new Uint16Array(bytes(map.memory));
  map.weight = new Int8Array(bytes(map.weight));
  map.scale = new Float32Array(bytes(map.scale));
}
const state = {part: 0, layer: 0, head: 0, word: -1, side: "queries"};
const panel = () => data.panels[state.part];
const fullName = () => `${panel().part}.${state.layer}:${state.head}`;
const make = (tag, attributes, text) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
};
function read(name) {
  const found = /^(\\w+)\\.(\\d+):(\\d+)$/.exec(name);
  const part = found ? data.panels.findIndex(p => p.part === found[1]) : -1;
  if (part < 0 || +found[2] >= data.panels[part].layers || !(+found[3] < data.panels[part].counts[+found[2]])) return false;
  Object.assign(state, {part, layer: +found[2], head: +found[3]});
  return true;
}
function grids() {
  data.panels.forEach((p, part) => {
    const grid = document.createElement("div");
    grid.className = "grid"; grid.setAttribute("role", "grid"); grid.setAttribute("aria-label", `heads of ${p.part}`);
    grid.style.gridTemplateColumns = `auto repeat(${p.heads}, 1.7rem)`;
    const heat = data.talking ? p.change : p.peak, most = Math.max(...heat.flat(), 1e-9);
    for (let layer = 0; layer < p.layers; layer++) {
      const label = document.createElement("span"); label.textContent = `${p.part}.${layer}`; grid.append(label);
      for (let head = 0; head < p.heads; head++) {
        if (head >= p.counts[layer]) { grid.append(document.createElement("span")); continue; }
        const button = document.createElement("button");
        button.textContent = head; button.tabIndex = -1; button.dataset.name = `${p.part}.${layer}:${head}`;
        button.style.setProperty("--heat", (0.75 * heat[layer][head] / most).toFixed(3));
        button.setAttribute("role", "gridcell"); button.setAttribute("aria-label", button.dataset.name);
        button.onclick = () => { Object.assign(state, {part, layer, head}); draw(); };
        grid.append(button);
      }
    }
    $("grids").append(grid);
  });
}
function links(map) {
  const p = panel(), n = p.queries.length, k = p.links, place = state.layer * p.heads + state.head;
  const found = [], most = Math.min(k, +$("links").value), least = +$("least").value / 100;
  for (let query = 0; query < n; query++) for (let i = 0; i < most; i++) {
    const at = (place * n + query) * k + i, weight = map.weight[at] / 127;
    if (Math.abs(weight) < least || weight === 0) continue;
    const memory = map.memory[at];
    if (state.word >= 0 && (state.side === "queries" ? query : memory) !== state.word) continue;
    found.push([query, memory, weight, weight * map.scale[place]]);
  }
  return found;
}
function column(svg, words, side, x, anchor) {
  words.forEach((word, place) => {
    const on = state.side === side && state.word === place;
    const text = make("text", {x, y: 18 * place + 14, "text-anchor": anchor, "class": on ? "on" : "", tabindex: -1}, word);
    text.onclick = () => { state.word = on ? -1 : place; state.side = side; draw(); };
    svg.append(text);
  });
}
function figure(name, map) {
  const p = panel(), rows = Math.max(p.queries.length, p.memories.length);
  const holder = document.createElement("figure"), caption = document.createElement("figcaption");
  caption.textContent = name === "softmax" ? "softmax weights" : "mixed weights (after talking)";
  const svg = make("svg", {viewBox: `0 0 460 ${18 * rows + 6}`, role: "img", "data-map": name});
  const shown = links(map);
  svg.setAttribute("aria-label", `${caption.textContent} of ${fullName()}: ${shown.length} links`);
  for (const [query, memory, weight, real] of shown) {
    const line = make("line", {x1: 160, y1: 18 * query + 10, x2: 300, y2: 18 * memory + 10,
      "class": weight > 0 ? "plus" : "minus", "stroke-width": (0.6 + 2.6 * Math.abs(weight)).toFixed(2),
      "stroke-opacity": Math.max(0.08, Math.abs(weight)).toFixed(2)});
    line.append(make("title", {}, `${p.queries[query]} \\u2192 ${p.memories[memory]}: ${real.toFixed(3)}`));
    svg.append(line);
  }
  column(svg, p.queries, "queries", 154, "end");
  column(svg, p.memories, "memories", 306, "start");
  holder.append(caption, svg);
  return holder;
}
function draw() {
  const p = panel();
  state.head = Math.min(state.head, p.counts[state.layer] - 1);
  $("links").max = p.links; $("count").textContent = Math.min(p.links, +$("links").value);
  $("floor").textContent = `${$("least").value} % of the largest`;
  $("name").textContent = fullName();
  const special = (100 * p.special[state.layer][state.head]).toFixed(0);
  const change = p.change[state.layer][state.head].toFixed(2);
  $("facts").textContent = `${special} % of its softmax attention goes to special tokens, which are not drawn` +
    (!data.talking ? "" : p.mixes[state.layer] ? `; mixing takes ${p.mixes[state.layer]}` : `; talking moved ${change} of weight a word`);
  for (const button of document.querySelectorAll(".grid button")) {
    const on = button.dataset.name === fullName();
    button.setAttribute("aria-selected", on); button.tabIndex = on ? 0 : -1;
  }
  $("maps").replaceChildren(...Object.entries(p.maps).map(([name, map]) => figure(name, map)));
  history.replaceState(null, "", "#" + fullName());
}
const turn = (value, by, size) => (value + by + size) % size;
const keys = {
  ArrowLeft: () => { state.head = turn(state.head, -1, panel().counts[state.layer]); },
  ArrowRight: () => { state.head = turn(state.head, 1, panel().counts[state.layer]); },
  ArrowUp: () => { state.layer = turn(state.layer, -1, panel().layers); },
  ArrowDown: () => { state.layer = turn(state.layer, 1, panel().layers); },
  p: () => { Object.assign(state, {part: turn(state.part, 1, data.panels.length), layer: 0, head: 0, word: -1}); },
  j: () => { state.word = turn(state.word, 1, panel()[state.side].length); },
  k: () => { state.word = state.word < 0 ? panel()[state.side].length - 1 : turn(state.word, -1, panel()[state.side].length); },
  Escape: () => { state.word = -1; },
  "+": () => { $("links").value = +$("links").value + 1; },
  "-": () => { $("links").value = +$("links").value - 1; },
};
document.addEventListener("keydown", event => {
  const act = keys[event.key];
  if (!act || event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "INPUT") return;
  event.preventDefault(); act(); draw();
  if (event.key.startsWith("Arrow")) document.querySelector(".grid button[aria-selected=true]").focus({preventScroll: true});
});
for (const id of ["links", "least"]) $(id).addEventListener("input", draw);
$("heat").textContent = data.talking ? "A head is the bluer, the more talking changed it." : "A head is the bluer, the more it attends to single words.";
if (!read(decodeURIComponent(location.hash.slice(1)))) read(data.first);
grids(); draw();
"""
