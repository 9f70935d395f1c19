"use strict";
// The page holds no state of its own but the selection: every change is an operation that the server keeps.
const token = document.querySelector("meta[name=retell-token]").content;
const $ = (id) => document.getElementById(id);
let state = null, wave = null, curve = null, selection = [0, 1], drag = null;

async function call(path, body, raw) {
  const options = { headers: { "X-Retell-Token": token } };
  if (body !== undefined) {
    options.method = "POST";
    options.body = raw ? body : JSON.stringify(body);
  }
  const response = await fetch(path, options);
  const answer = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (answer.error && !response.ok) throw new Error(answer.error);
  return answer;
}

function say(text, error = false) {
  $("status").textContent = text;
  $("status").className = error ? "error" : "";
}

async function act(work) {
  try {
    say("Working");
    const answer = await work();
    if (answer && answer.tokens) { state = answer; await refresh(); }
    say("Ready");
  } catch (error) { say(error.message, true); }
}

const edit = (op) => act(() => call("/api/edit", op));

async function refresh() {
  selection = [Math.min(selection[0], state.tokens.length - 1), Math.min(selection[1], state.tokens.length)];
  if (selection[1] <= selection[0]) selection[1] = selection[0] + 1;
  [wave, curve] = await Promise.all([call("/api/wave"), call(`/api/curve?parameter=${$("parameter").value || 0}`)]);
  show();
}

function show() {
  const words = $("words");
  words.replaceChildren(...state.tokens.map((t, i) => {
    const word = document.createElement("button");
    word.textContent = t.text;
    word.className = `word ${t.kind}${t.refined ? " refined" : ""}${i >= selection[0] && i < selection[1] ? " selected" : ""}`;
    word.dataset.number = i;
    word.addEventListener("click", (event) => {
      selection = event.shiftKey ? [Math.min(selection[0], i), Math.max(selection[1], i + 1)] : [i, i + 1];
      show();
    });
    return word;
  }));
  $("undo").disabled = !state.undo;
  $("redo").disabled = !state.redo;
  $("notes").replaceChildren(...state.notes.map((n) => Object.assign(document.createElement("li"), { textContent: n })));
  draw();
}

// What the two drawings show: the selected words and half a second around them.
function view() {
  const timed = state.tokens.slice(...selection).filter((t) => t.start !== null && t.start !== undefined);
  if (!timed.length) return [0, Math.min(3, state.seconds)];
  return [Math.max(timed[0].start - 0.5, 0), Math.min(timed.at(-1).end + 0.5, state.seconds)];
}
const toX = (t, canvas) => ((t - view()[0]) / (view()[1] - view()[0])) * canvas.width;
const toTime = (x, canvas) => view()[0] + (x / canvas.width) * (view()[1] - view()[0]);

function draw() {
  const canvas = $("wave"), g = canvas.getContext("2d"), [from, to] = view();
  g.clearRect(0, 0, canvas.width, canvas.height);
  g.fillStyle = "#8ab";
  for (let i = Math.floor(from * wave.rate); i < to * wave.rate && i < wave.peaks.length; i++) {
    const height = wave.peaks[i] * 0.45;
    g.fillRect(toX(i / wave.rate, canvas), 50 - height, Math.max(canvas.width / ((to - from) * wave.rate) - 1, 1), 2 * height);
  }
  g.font = "14px sans-serif";
  for (const t of state.tokens) for (const p of t.phones || []) {
    if (p.end < from || p.start > to) continue;
    g.strokeStyle = "#555"; g.fillStyle = "#222";
    g.strokeRect(toX(p.start, canvas), 104, toX(p.end, canvas) - toX(p.start, canvas), 30);
    g.fillText(p.phone, toX(p.start, canvas) + 3, 124);
  }
  if (drag && drag.kind === "phone") { g.fillStyle = "#c60"; g.fillRect(drag.x - 1, 0, 2, canvas.height); }
  drawCurve(from, to);
}

function drawCurve(from, to) {
  const canvas = $("curve"), g = canvas.getContext("2d");
  g.clearRect(0, 0, canvas.width, canvas.height);
  const one = state.tokens[selection[0]];
  if (one.start !== null && one.start !== undefined) {
    g.fillStyle = "#eef4fd";
    g.fillRect(toX(one.start, canvas), 0, toX(one.end, canvas) - toX(one.start, canvas), canvas.height);
  }
  g.strokeStyle = "#1a5fb4"; g.beginPath();
  for (let i = Math.floor(from * curve.rate); i <= to * curve.rate && i < curve.values.length; i++) {
    const x = toX((i + 0.5) / curve.rate, canvas), y = 70 - curve.values[i] * 18;
    g.lineTo(x, y);
  }
  g.stroke();
  if (drag && drag.kind === "curve") { g.fillStyle = "#c60"; g.beginPath(); g.arc(drag.x, drag.y, 5, 0, 7); g.fill(); }
}

function place(event) {
  const box = event.target.getBoundingClientRect();
  return [(event.clientX - box.left) * event.target.width / box.width, (event.clientY - box.top) * event.target.height / box.height];
}

$("wave").addEventListener("pointerdown", (event) => {
  const [x] = place(event);
  let best = null;
  state.tokens.forEach((t, at) => (t.kind === "gesture" ? [] : t.phones || []).forEach((p, phone) => {
    const distance = Math.abs(toX(p.start, event.target) - x);
    if (distance < 10 && (!best || distance < best.distance)) best = { kind: "phone", at, phone, start: p.start, x, distance };
  }));
  drag = best;
  if (drag) event.target.setPointerCapture(event.pointerId);
});
$("wave").addEventListener("pointermove", (event) => { if (drag) { drag.x = place(event)[0]; draw(); } });
$("wave").addEventListener("pointerup", (event) => {
  if (!drag || drag.kind !== "phone") return;
  const moved = drag, seconds = toTime(place(event)[0], event.target) - moved.start;
  drag = null;
  edit({ op: "shift", at: moved.at, phone: moved.phone, seconds: Math.max(-1, Math.min(1, seconds)) });
});

$("curve").addEventListener("pointerdown", (event) => {
  const one = state.tokens[selection[0]], [x, y] = place(event);
  if (one.kind === "gesture" || one.start === null || toTime(x, event.target) < one.start || toTime(x, event.target) > one.end) return;
  drag = { kind: "curve", at: selection[0], x, y, from: y, place: (toTime(x, event.target) - one.start) / (one.end - one.start) };
  event.target.setPointerCapture(event.pointerId);
});
$("curve").addEventListener("pointermove", (event) => { if (drag) { drag.y = place(event)[1]; draw(); } });
$("curve").addEventListener("pointerup", (event) => {
  if (!drag || drag.kind !== "curve") return;
  const { at, from, place: middle } = drag, value = Math.max(-4, Math.min(4, (from - place(event)[1]) / 18));
  drag = null;
  const points = [[Math.max(middle - 0.3, 0), 0], [middle, value], [Math.min(middle + 0.3, 1), 0]];
  edit({ op: "curve", at, parameter: Number($("parameter").value), points });
});

async function withSound(op) {
  const file = $("sound").files[0];
  if (file) {
    op.sound = (await call("/api/sound", await file.arrayBuffer(), true)).sound;
    $("sound").value = "";
  }
  const answer = await call("/api/edit", op);
  $("text").value = "";
  return answer;
}
const put = (first, last) => act(() => withSound({ op: "replace", first, last, text: $("text").value }));
$("replace").addEventListener("click", () => put(selection[0], selection[1]));
$("insert").addEventListener("click", () => put(selection[0], selection[0]));
$("append").addEventListener("click", () => put(selection[1], selection[1]));
$("delete").addEventListener("click", () => edit({ op: "delete", first: selection[0], last: selection[1] }));
document.querySelectorAll(".gesture").forEach((b) => b.addEventListener("click", () =>
  edit({ op: "replace", first: selection[0], last: selection[0], text: `[${b.dataset.name}]` })));
for (const name of ["energy", "smooth"]) $(name).addEventListener("input", () => { $(`${name}-value`).textContent = $(name).value; });
const perform = (energy, smooth) => edit({ op: "perform", first: selection[0], last: selection[1], energy, smooth });
$("perform").addEventListener("click", () => perform(Number($("energy").value), Number($("smooth").value)));
$("mumble").addEventListener("click", () => perform(0.5, 1));
$("energetic").addEventListener("click", () => perform(1.4, 0));
$("undo").addEventListener("click", () => act(() => call("/api/undo", {})));
$("redo").addEventListener("click", () => act(() => call("/api/redo", {})));
$("parameter").addEventListener("change", () => act(refresh));

$("render").addEventListener("click", async () => {
  $("render").disabled = true;
  try {
    await call("/api/render", {});
    for (;;) {
      const job = await call("/api/progress");
      $("progress").value = job.part;
      $("stage").textContent = job.stage;
      if (!job.running && job.stage !== "plan") {
        if (job.error) throw new Error(job.error);
        $("after").src = `/video/after?version=${job.version}`;
        say(`Rendered in ${job.result.seconds.total.toFixed(1)} s, ${job.result.frames} frames new`);
        break;
      }
      await new Promise((done) => setTimeout(done, 200));
    }
  } catch (error) { say(error.message, true); }
  $("render").disabled = false;
});
$("compare").addEventListener("click", () => {
  const one = state.tokens[selection[0]];
  for (const video of [$("before"), $("after")]) {
    video.currentTime = Math.max((one.start || 0) - 1, 0);
    video.play();
  }
  $("before").muted = true;
});

act(async () => {
  const first = await call("/api/state");
  $("parameter").replaceChildren(...first.parameters.map((name, i) => Object.assign(document.createElement("option"), { value: i, textContent: name })));
  if (first.job.version) $("after").src = `/video/after?version=${first.job.version}`;
  return first;
});
