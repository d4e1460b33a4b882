// The webcam: frames are encoded and sent while the machine keeps up, and left out while it does not.
// What is shown is the frame that the boxes belong to, so that nobody walks out of a box; the camera itself is ahead of it.

const AHEAD = 2; // frames on their way at once: one being looked at, one travelling
const KEY_EVERY = 60; // frames between two that need no other
const find = (selector) => element.querySelector(selector);
const camera = find("video");

let run = null; // what belongs to one stretch between start and stop

element.addEventListener("click", (event) => {
  if (!event.target.closest("[data-action=start]")) return;
  if (run) stop();
  else start();
});

async function start() {
  say("");
  run = { sent: 0, answered: 0, seen: 0, left: 0, answers: [], delays: [], captured: new Map() };
  find(".kt-start").textContent = "Stop the camera";
  try {
    if (!navigator.mediaDevices) throw new Error("This page needs https:// to use the camera.");
    const wanted = { width: { ideal: 640 }, height: { ideal: 480 }, facingMode: "user" };
    run.stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
  } catch (error) {
    const text = error.name === "NotAllowedError" ? "The camera was not allowed. Allow it in your browser and start again."
      : error.name === "NotFoundError" ? "There is no camera on this machine." : error.message;
    return stop(text);
  }
  camera.srcObject = run.stream;
  await camera.play();
  find(".kt-camera").style.aspectRatio = `${camera.videoWidth} / ${camera.videoHeight}`;
  find(".kt-camera-off").hidden = true;
  connect(run);
}

function stop(text) {
  const old = run;
  run = null;
  old?.socket?.close();
  old?.stream?.getTracks().forEach((track) => track.stop());
  if (old?.encoder && old.encoder.state !== "closed") old.encoder.close();
  camera.srcObject = null;
  find(".kt-start").textContent = "Start the camera";
  find(".kt-camera-off").hidden = false;
  find(".kt-action").textContent = "";
  find(".kt-live-people").replaceChildren();
  const canvas = find(".kt-overlay");
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  if (text) say(text);
}

function say(text) {
  const place = find(".kt-live-error");
  place.textContent = text;
  place.hidden = !text;
}

async function connect(mine) {
  mine.codec = await chooseCodec();
  const address = new URL("live", window.location.href);
  address.protocol = address.protocol.replace("http", "ws");
  address.search = address.hash = "";
  const socket = (mine.socket = new WebSocket(address));
  socket.onopen = () => socket.send(JSON.stringify({ codec: mine.codec }));
  socket.onmessage = (message) => {
    if (run !== mine) return;
    const answer = JSON.parse(message.data);
    if (answer.error) return stop(answer.error);
    if (answer.ready) return watchCamera(mine);
    take(mine, answer);
  };
  socket.onclose = () => run === mine && stop("The connection to the server ended. Start the camera again.");
}

async function chooseCodec() {
  if (!("VideoEncoder" in window)) return "mjpeg";
  const { supported } = await VideoEncoder.isConfigSupported(encoderSettings());
  return supported ? "vp8" : "mjpeg";
}

const encoderSettings = () => ({
  codec: "vp8",
  width: camera.videoWidth,
  height: camera.videoHeight,
  bitrate: 1_500_000,
  latencyMode: "realtime",
});

function watchCamera(mine) {
  const next = () =>
    camera.requestVideoFrameCallback(() => {
      if (run !== mine) return;
      mine.seen += 1;
      if (mine.sent - mine.answered < AHEAD && !mine.encoding) send(mine);
      else mine.left += 1;
      next();
    });
  next();
}

async function send(mine) {
  mine.encoding = true;
  const now = performance.now();
  const picture = await createImageBitmap(camera);
  const encoded = mine.codec === "vp8" ? await encode(mine, picture, now) : await photograph(picture);
  mine.encoding = false;
  if (!encoded || run !== mine || mine.socket.readyState !== WebSocket.OPEN) return picture.close();
  const message = new Uint8Array(12 + encoded.byteLength);
  const header = new DataView(message.buffer);
  mine.sent += 1;
  header.setUint32(0, mine.sent, true);
  header.setFloat64(4, now, true);
  message.set(encoded, 12);
  mine.captured.set(mine.sent, { now, picture });
  mine.socket.send(message);
}

function encode(mine, picture, now) {
  return new Promise((done) => {
    mine.done = done;
    if (!mine.encoder) {
      mine.encoder = new VideoEncoder({
        output: (chunk) => {
          const bytes = new Uint8Array(chunk.byteLength);
          chunk.copyTo(bytes);
          mine.done(bytes);
        },
        error: () => mine.done(null),
      });
      mine.encoder.configure(encoderSettings());
    }
    const frame = new VideoFrame(picture, { timestamp: Math.round(1000 * now) });
    mine.encoder.encode(frame, { keyFrame: mine.sent % KEY_EVERY === 0 });
    frame.close();
  });
}

async function photograph(picture) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: picture.width, height: picture.height });
  canvas.getContext("2d").drawImage(picture, 0, 0);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.8));
  return new Uint8Array(await blob.arrayBuffer());
}

function take(mine, answer) {
  const now = performance.now();
  mine.answered = answer.number;
  mine.left += answer.skipped;
  const seen = mine.captured.get(answer.number);
  if (seen) mine.delays.push(now - seen.now);
  for (const [number, { picture }] of mine.captured)
    if (number <= answer.number) {
      if (picture !== seen?.picture) picture.close();
      mine.captured.delete(number);
    }
  if (!answer.tracks) return seen?.picture.close();
  mine.answers.push(now);
  while (mine.answers.length > 2 && now - mine.answers[0] > 2000) mine.answers.shift();
  while (mine.delays.length > 20) mine.delays.shift();
  draw(answer.tracks, seen.picture);
  seen.picture.close();
  show(mine, answer, now);
}

function show(mine, answer, now) {
  const figure = (name, text) => (find(`[data-figure=${name}]`).textContent = text);
  const span = mine.answers.at(-1) - mine.answers[0];
  figure("rate", span > 0 ? ((1000 * (mine.answers.length - 1)) / span).toFixed(1) : "–");
  const delays = [...mine.delays].sort((a, b) => a - b);
  figure("delay", `${Math.round(delays[Math.floor(delays.length / 2)])} ms`);
  figure("model", `${Math.round(answer.model_ms)} ms`);
  figure("dropped", `${Math.round((100 * mine.left) / Math.max(1, mine.seen))} %`);
  find(".kt-action").textContent = `What happens: ${answer.action}`;
  find(".kt-live-people").replaceChildren(
    ...answer.tracks.map((track) => {
      const item = document.createElement("li");
      const badge = document.createElement("span");
      badge.className = "kt-badge";
      badge.style.background = track.color;
      badge.style.color = track.ink;
      badge.textContent = `#${track.id}`;
      item.append(badge, ` ${track.label}`);
      return item;
    }),
  );
  if (now - (mine.spoken ?? 0) < 4000) return;
  mine.spoken = now;
  const count = answer.tracks.length;
  find(".kt-spoken").textContent = count === 1 ? "1 person in view" : `${count} people in view`;
}

function draw(tracks, picture) {
  const canvas = find(".kt-overlay");
  const density = Math.min(2, window.devicePixelRatio || 1);
  const [width, height] = [canvas.clientWidth * density, canvas.clientHeight * density];
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0, width, height);
  context.lineWidth = 3 * density;
  context.font = `600 ${13 * density}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  for (const track of tracks) {
    const [x1, y1, x2, y2] = track.box.map((value, index) => value * (index % 2 ? height : width));
    context.strokeStyle = track.color;
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    const text = `#${track.id} ${track.sure ? track.label : "?"}`; // the list beside the picture has all of it
    const room = context.measureText(text).width + 12 * density;
    const left = Math.max(0, Math.min(x1, width - room));
    const top = Math.max(0, y1 - 22 * density);
    context.fillStyle = track.color;
    context.fillRect(left, top, room, 22 * density);
    context.fillStyle = track.ink;
    context.fillText(text, left + 6 * density, top + 11 * density);
  }
}

window.addEventListener("pagehide", () => run && stop());
