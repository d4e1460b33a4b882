// What a result does: attention over the video, jumping by clicks, sorting and filtering the table.
// Gradio runs this once for the component; `watch` tells when another result has been put into it.

// One entry for each result on show: {root, view, sheet, chosen}.
//   view: view.json, with times, boxes of tracks and the layout of the attention sheet
//   sheet: attention.png, loaded when it is first wanted
//   chosen: identity that is pointed out in the video
let results = new Map();
const following = new WeakSet();

const find = (result, selector) => result.root.querySelector(selector);
const video = (result) => find(result, ".kt-screen video");
const resultOf = (node) => results.get(node.closest(".kt-result"));

function setUp() {
  results = new Map();
  for (const root of element.querySelectorAll(".kt-result")) {
    const result = { root, view: null, sheet: null, chosen: null };
    results.set(root, result);
    fetch(find(result, ".kt-player").dataset.view)
      .then((answer) => answer.json())
      .then((loaded) => {
        result.view = loaded;
        find(result, '[data-action="attention"]').hidden = find(result, ".kt-scale").hidden = !loaded.attention;
        paint(result, video(result).currentTime);
      });
    follow(video(result));
  }
  keepTogether();
  if (results.size && window.innerWidth < 768) element.scrollIntoView({ behavior: "smooth" });
}

function follow(player) {
  if (following.has(player)) return;
  following.add(player);
  const repaint = (time) => {
    const result = resultOf(player);
    if (result) paint(result, time);
  };
  for (const event of ["seeked", "timeupdate", "loadeddata", "pause"])
    player.addEventListener(event, () => repaint(player.currentTime));
  if (player.requestVideoFrameCallback) {
    const next = () =>
      player.requestVideoFrameCallback((now, frame) => {
        repaint(frame.mediaTime);
        next();
      });
    next();
  }
  new ResizeObserver(() => repaint(player.currentTime)).observe(player);
}

// Two results side by side play, stop and jump together.
function keepTogether() {
  const pair = [...results.values()].map(video);
  if (pair.length !== 2) return;
  for (const [one, other] of [pair, [...pair].reverse()]) {
    one.onplay = () => other.play();
    one.onpause = () => other.pause();
    one.onratechange = () => (other.playbackRate = one.playbackRate);
    one.onseeking = () => {
      if (Math.abs(other.currentTime - one.currentTime) > 0.15) other.currentTime = one.currentTime;
    };
  }
}

function frameAt(view, time) {
  let low = 0;
  let high = view.times.length - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (view.times[middle] <= time + 0.002) low = middle;
    else high = middle - 1;
  }
  return low;
}

function paint(result, time) {
  const timeline = find(result, ".kt-timeline");
  const view = result.view;
  if (!timeline || !video(result)) return;
  timeline.style.setProperty("--now", Math.min(1, time / Number(timeline.dataset.end)));
  const shown = isAttentionOn(result);
  const index = view ? frameAt(view, time) : 0;
  let words = time < 60 ? `${time.toFixed(1)} s` : `${Math.floor(time / 60)}:${(time % 60).toFixed(1).padStart(4, "0")}`;
  if (shown && view?.strongest?.[index]) {
    const [place, times] = view.strongest[index];
    words += ` · attention strongest ${place}, ${times}× average`;
  }
  find(result, ".kt-now").textContent = words;
  draw(result, index, shown);
}

function draw(result, index, withAttention) {
  const { view, sheet, chosen } = result;
  const player = video(result);
  const canvas = find(result, ".kt-overlay");
  const density = Math.min(2, window.devicePixelRatio || 1);
  const width = Math.round(canvas.clientWidth * density);
  const height = Math.round(canvas.clientHeight * density);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  if (!view) return;
  if (withAttention && sheet?.complete && sheet.naturalWidth) {
    const { columns, width: w, height: h } = view.attention;
    context.imageSmoothingQuality = "high";
    context.drawImage(sheet, (index % columns) * w, Math.floor(index / columns) * h, w, h, 0, 0, width, height);
  }
  const box = chosen && view.tracks[chosen]?.find((row) => row[0] === index);
  if (box) {
    const [sx, sy] = [width / player.videoWidth, height / player.videoHeight];
    const [x, y, w, h] = [box[1] * sx, box[2] * sy, (box[3] - box[1]) * sx, (box[4] - box[2]) * sy];
    context.fillStyle = `rgba(0, 0, 0, ${withAttention ? 0.15 : 0.4})`;
    context.beginPath();
    context.rect(0, 0, width, height);
    context.rect(x, y, w, h);
    context.fill("evenodd");
    context.strokeStyle = "#fff";
    context.lineWidth = 2 * density;
    context.strokeRect(x, y, w, h);
  }
}

const isAttentionOn = (result) => find(result, '[data-action="attention"]')?.getAttribute("aria-pressed") === "true";

function toggleAttention(result, button) {
  const on = !isAttentionOn(result);
  button.setAttribute("aria-pressed", String(on));
  button.lastChild.textContent = on ? "Hide attention" : "Show attention";
  find(result, ".kt-player").classList.toggle("kt-attended", on);
  if (on && !result.sheet) {
    result.sheet = new Image();
    result.sheet.onload = () => paint(result, video(result).currentTime);
    result.sheet.src = find(result, ".kt-player").dataset.attention;
  }
  paint(result, video(result).currentTime);
}

function jump(result, time, track) {
  const player = video(result);
  result.chosen = track ?? null;
  for (const row of result.root.querySelectorAll(".kt-lane, .kt-people tbody tr"))
    row.classList.toggle("kt-chosen", row.dataset.track === result.chosen);
  player.currentTime = Math.max(0, Math.min(time, (player.duration || time) - 0.01));
  const screen = find(result, ".kt-screen").getBoundingClientRect();
  if (screen.bottom < 80 || screen.top > window.innerHeight - 80)
    find(result, ".kt-screen").scrollIntoView({ behavior: "smooth", block: "center" });
}

function timeUnder(area, event) {
  const box = area.getBoundingClientRect();
  return ((event.clientX - box.left) / box.width) * Number(area.closest(".kt-timeline").dataset.end);
}

element.addEventListener("click", (event) => {
  const target = event.target;
  const result = resultOf(target);
  if (!result) return;
  const button = target.closest("button, a");
  if (button?.dataset.action === "attention") return toggleAttention(result, button);
  if (button?.dataset.sort) return sort(button);
  if (button?.dataset.copy !== undefined) return copy(button, button.dataset.copy);
  if (button?.dataset.copyLink !== undefined)
    return copy(button, new URL(button.dataset.copyLink, window.location.href).href);
  const area = target.closest("[data-seek]");
  // A key press on a bar has no place; it goes to where the bar begins.
  if (area && event.detail > 0) return jump(result, timeUnder(area, event), area.dataset.track);
  if (button?.dataset.time) return jump(result, Number(button.dataset.time), button.dataset.track);
});

element.addEventListener("pointermove", (event) => {
  const area = event.target.closest("[data-seek]");
  const timeline = event.target.closest(".kt-timeline");
  if (!timeline) return;
  timeline.style.setProperty("--hover", area ? timeUnder(area, event) / Number(timeline.dataset.end) : -1);
});

element.addEventListener("change", (event) => {
  if (event.target.dataset.action === "speed") video(resultOf(event.target)).playbackRate = Number(event.target.value);
});

function sort(button) {
  const head = button.closest("th");
  const now = head.getAttribute("aria-sort");
  const order = now === "none" ? button.dataset.first : now === "ascending" ? "descending" : "ascending";
  for (const other of head.parentElement.children) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", order);
  const key = button.dataset.sort;
  const sign = order === "ascending" ? 1 : -1;
  const body = head.closest("table").tBodies[0];
  const value = (row) => row.dataset[key];
  const compare =
    key === "action"
      ? (a, b) => value(a).localeCompare(value(b))
      : (a, b) => Number(value(a)) - Number(value(b));
  body.append(...[...body.rows].sort((a, b) => sign * compare(a, b)));
}

element.addEventListener("input", (event) => {
  if (!event.target.classList.contains("kt-filter")) return;
  const wanted = event.target.value.trim().toLowerCase();
  const atLeast = wanted.match(/^([<>])\s*(\d+)\s*%?$/);
  const { root } = resultOf(event.target);
  const rows = [...root.querySelectorAll(".kt-people tbody tr")];
  let shown = 0;
  for (const row of rows) {
    const sure = 100 * Number(row.dataset.confidence);
    const words = row.dataset.words.split(" ");
    const fits = atLeast
      ? atLeast[1] === ">" ? sure >= Number(atLeast[2]) : sure <= Number(atLeast[2])
      : wanted.startsWith("#") ? !wanted.slice(1) || words[0] === wanted : row.dataset.words.includes(wanted);
    row.hidden = !fits;
    shown += fits;
  }
  root.querySelector(".kt-shown").textContent = `${shown} of ${rows.length}`;
});

async function copy(button, text) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select it and copy by hand";
  }
  setTimeout(() => (button.textContent = before), 2000);
}

watch("value", setUp);
setUp();
