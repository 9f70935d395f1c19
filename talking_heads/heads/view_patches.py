"""What the page of `view` adds for a picture: its patches, coloured by the attention from the one chosen."""

PATCHES_STYLE = """
:root{--heat-plus:#ff5a1f;--heat-minus:#2f7bff}
svg .patch{fill:var(--heat-plus);fill-opacity:0;stroke:#8888;stroke-width:.4;cursor:pointer}
svg .patch.minus{fill:var(--heat-minus)}svg .patch.hit{stroke:var(--mark);stroke-width:1.6}
svg .patch.from{stroke:var(--mark);stroke-width:2.6;stroke-dasharray:none}
svg image{filter:grayscale(1) contrast(.8)}svg .label{font-size:9px;pointer-events:none;text-anchor:middle}
#seen{width:8rem;min-width:0}#seen img{width:100%;display:block}
@media (min-width:50rem){#seen{float:right;width:12rem}}
@media print{#seen{float:right}#maps figure{break-inside:avoid}}
"""

PATCHES = r"""
"use strict";
const CELL = 20;
// [place, weight] of what a place attends to; of none (-1) the mean of all patches.
function attended(p, map, place) {
  const n = p.memories.length, at = state.layer * p.heads + state.head, tokens = p.tokens;
  const row = place < 0 ? 0 : 1 + tokens.indexOf(place);
  if (place >= 0 && row === 0) {
    const start = (at * n + place) * p.links;
    return Array.from({length: p.links}, (_, i) => [map.memory[start + i], map.weight[start + i] / 127 * map.scale[at]]);
  }
  const start = (at * (1 + tokens.length) + row) * n, peak = map.peaks[at * (1 + tokens.length) + row];
  return Array.from({length: n}, (_, i) => [i, map.whole[start + i] / 127 * peak]);
}
// Those that are shown, and the largest of them.
function visible(p, found) {
  const shown = found.filter(([place, weight]) => weight !== 0 && !hidden(p.tags[1], place));
  const most = Math.max(...shown.map(x => Math.abs(x[1])), 1e-9);
  return [shown.filter(x => Math.abs(x[1]) >= most * $("least").value / 100), most];
}
function paint(svg, map, place) {
  const p = panel(), [shown, most] = visible(p, attended(p, map, place)), weights = new Map(shown);
  for (const patch of svg.querySelectorAll(".patch")) {
    const at = +patch.dataset.place, weight = weights.get(at) || 0;
    patch.style.fillOpacity = (0.9 * Math.abs(weight) / most).toFixed(3);
    patch.classList.toggle("minus", weight < 0);
    patch.classList.toggle("from", at === place);
    patch.classList.toggle("hit", hit(p.queries[at]));
    patch.firstChild.textContent = `${p.queries[at]}: ${weights.has(at) ? weight.toFixed(4) : "not shown"}`;
  }
}
// Where a place is drawn: [x, y, width]. Tokens that are no patches stand above the picture.
function spot(p, place, wide) {
  const {columns, first, rows} = data.picture, number = place - first;
  if (number >= 0 && number < rows * columns) return [number % columns * CELL, Math.floor(number / columns) * CELL, CELL];
  const order = number < 0 ? place : place - rows * columns, across = Math.max(1, Math.floor(columns * CELL / wide));
  return [order % across * wide, -CELL * (1 + Math.floor(order / across)) - 4, wide];
}
function patches(name, map) {
  const p = panel(), {rows, columns, uri} = data.picture, width = columns * CELL, height = rows * CELL;
  const others = p.queries.length - rows * columns, wide = others * CELL > width ? CELL : Math.min(64, width / Math.max(1, others));
  const above = others ? CELL * Math.ceil(others / Math.max(1, Math.floor(width / wide))) + 6 : 0;
  const holder = document.createElement("figure"), caption = document.createElement("figcaption");
  caption.textContent = data.names[name];
  const svg = make("svg", {viewBox: `-2 ${-above - 2} ${width + 4} ${height + above + 4}`, role: "img", "data-map": name});
  svg.style.maxWidth = "30rem";
  svg.setAttribute("aria-label", `${caption.textContent}, ${fullName()}, from ${state.word < 0 ? "all patches" : p.queries[state.word]}`);
  const image = make("image", {width, height, preserveAspectRatio: "none"});
  image.setAttribute("href", uri);
  svg.append(image);
  p.queries.forEach((word, place) => {
    const [x, y, across] = spot(p, place, wide);
    const patch = make("rect", {x, y, width: across, height: CELL, "class": "patch", "data-place": place});
    patch.append(make("title", {}));
    patch.onclick = () => { state.word = state.word === place ? -1 : place; state.side = "queries"; draw(); };
    patch.onmouseenter = () => hovered(place);
    svg.append(patch);
    if (across > 40) svg.append(make("text", {x: x + across / 2, y: y + 13, "class": "label"}, word));
  });
  svg.onmouseleave = () => hovered(state.word);
  paint(svg, map, state.word);
  holder.append(caption, svg);
  return holder;
}
const hovered = place => { for (const svg of document.querySelectorAll("#maps svg")) paint(svg, panel().maps[svg.dataset.map], place); };
// A head's thumbnail: the mean of all patches' attention.
function heatOf(pen, canvas, p, map, layer, head) {
  const {rows, columns, first} = data.picture, n = p.memories.length;
  const start = (layer * p.heads + head) * (1 + p.tokens.length) * n + first, values = map.whole.slice(start, start + rows * columns);
  const most = Math.max(...values.map(Math.abs), 1), wide = canvas.width / columns, high = canvas.height / rows;
  pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--heat-plus");
  values.forEach((value, i) => {
    pen.globalAlpha = Math.abs(value) / most;
    pen.fillRect(i % columns * wide, Math.floor(i / columns) * high, wide + 0.5, high + 0.5);
  });
}
// Called once, before the first drawing.
function pictured() {
  for (const p of data.panels) for (const map of Object.values(p.maps)) {
    map.whole = new Int8Array(bytes(map.whole));
    map.peaks = new Float32Array(bytes(map.peaks));
  }
  const p = data.panels[0], {rows, columns, uri} = data.picture;
  $("links").value = $("links").max = p.links;
  $("most").hidden = true;
  for (const unit of document.querySelectorAll(".unit")) unit.textContent = unit.textContent === "words" ? "patches" : "patch";
  $("legend").textContent = `The picture's ${rows} x ${columns} patches, named by row and column from 0; above it the model's other tokens. ` +
    "Colours: attention from the patch under the mouse, else from the one chosen (click, j, k), else the mean of all patches; relative to the strongest shown; " +
    (p.links < p.memories.length ? `of a patch the ${p.links} strongest of ${p.memories.length} links are kept, ${(100 * p.kept).toFixed(0)} % of its softmax attention.` : "every link is kept.") +
    (data.talking ? " Blue: negative." : "");
  const holder = document.createElement("figure"), image = document.createElement("img"), caption = document.createElement("figcaption");
  holder.id = "seen"; image.src = uri; image.alt = `${document.title}, as the model sees it`; caption.textContent = "what the model sees";
  holder.append(caption, image);
  $("grids").before(holder);
}
"""
