// A session with an avatar: audio is sent as PCM, and frames are received, each with its part of the audio.
// Everything is timed by the audio clock: audio is scheduled on it, and a frame is drawn when its audio is played.
"use strict";

const HEADER_BYTES = 28, SPEAKING = 1, FRAME_S = 0.04;
const LEAD_S = 0.12;        // from a frame's arrival until it is drawn, to absorb network jitter
const MAX_LEAD_S = 0.4;     // a longer lead is shortened at the next idle frame
const SEND_AHEAD_S = 10;    // of a file's audio that is sent before it is spoken
const CHUNK_S = 0.02;       // of microphone audio in one message
const MAX_FRAMES = 250;     // queued for drawing; a page in the background draws none
const RETRY_S = [0.5, 1, 2, 4, 8];

const $ = (id) => document.getElementById(id);
const canvas = $("canvas"), pen = canvas.getContext("2d");

class Player {
  // Draws frames and plays their audio.
  constructor(context) {
    this.context = context;
    this.output = context.createGain();
    this.output.connect(context.destination);
    this.reset();
  }

  reset() {
    this.silence();
    this.origin = null;     // when the session's time 0 is played, on the context's clock
    this.oldest = 0;        // the oldest generation that may still be drawn
    this.shownAt = [];
  }

  silence() {
    for (const source of this.sources || []) source.stop();
    this.sources = new Set();
    for (const frame of this.frames || []) frame.image?.close();
    this.frames = [];
  }

  // Drop all frames that are not played yet, including those still to arrive.
  interrupt(generation) {
    this.oldest = Math.max(this.oldest, generation);
    this.silence();
  }

  push(frame) {
    if (frame.generation < this.oldest) return;
    this.align(frame);
    frame.at = this.origin + frame.pts;
    if (frame.samples.length) this.play(frame);
    this.frames.push(frame);
    if (this.frames.length > MAX_FRAMES) this.frames.shift().image?.close();
    createImageBitmap(new Blob([frame.jpeg], { type: "image/jpeg" })).then(
      (image) => { frame.image = image; }, () => { frame.failed = true; });
  }

  // Keep arriving frames slightly ahead of the clock. In silence, a cut or a pause is inaudible.
  align(frame) {
    const now = this.context.currentTime;
    const lead = this.origin === null ? -1 : this.origin + frame.pts - now;
    const isLate = lead < 0.01, isEarly = lead > MAX_LEAD_S && !frame.isSpeaking;
    if (isLate || isEarly) this.origin = now + LEAD_S - frame.pts;
  }

  play(frame) {
    if (!frame.samples.some((value) => value !== 0)) return;
    const rate = this.context.sampleRate, n = frame.samples.length;
    const buffer = this.context.createBuffer(1, n, rate), channel = buffer.getChannelData(0);
    for (let i = 0; i < n; i++) channel[i] = frame.samples[i] / 32768;
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.output);
    // The audio of dropped frames precedes that of this one.
    const starts = frame.at + FRAME_S - n / rate, late = Math.max(this.context.currentTime - starts, 0);
    if (late >= n / rate) return;
    source.start(starts + late, late);
    this.sources.add(source);
    source.onended = () => this.sources.delete(source);
  }

  // Draw the frame whose audio leaves the loudspeaker now.
  show() {
    const played = this.context.currentTime - (this.context.outputLatency || 0);
    let due = null;
    while (this.frames.length && this.frames[0].at <= played && (this.frames[0].image || this.frames[0].failed)) {
      due?.image?.close();
      due = this.frames.shift();
    }
    if (!due?.image) return;
    pen.drawImage(due.image, 0, 0);
    due.image.close();
    this.shownAt.push(performance.now());
    canvas.dispatchEvent(new CustomEvent("shown", { detail: due }));
  }

  fps() {
    const since = performance.now() - 1000;
    this.shownAt = this.shownAt.filter((at) => at > since);
    return this.shownAt.length;
  }
}

class Session {
  // A connection that reopens by itself until it is ended.
  constructor(player, avatar, token) {
    this.player = player;
    this.token = token;
    this.generation = 0;
    this.nFailures = 0;
    this.isEnded = false;
    const address = new URL(`v1/avatars/${encodeURIComponent(avatar)}/session`, location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    address.search = new URLSearchParams({ sample_rate: player.context.sampleRate, frames: "whole" });
    this.address = address;
    this.connect();
  }

  connect() {
    setText("state", this.nFailures ? "reconnecting" : "connecting");
    const protocols = this.token ? ["viseme", `bearer.${base64url(this.token)}`] : ["viseme"];
    const socket = this.socket = new WebSocket(this.address, protocols);
    socket.binaryType = "arraybuffer";
    socket.onmessage = (event) => {
      if (typeof event.data === "string") this.handleEvent(JSON.parse(event.data));
      else this.player.push(readFrame(event.data));
    };
    socket.onclose = (event) => this.handleClose(event);
  }

  handleEvent(event) {
    this.generation = event.generation ?? this.generation;
    if (event.type === "ready") {
      canvas.width = event.width;
      canvas.height = event.height;
      this.nFailures = 0;
      this.player.reset();
      setText("error", "");
      setText("state", "connected");
      this.onready?.();
    } else if (event.type === "error") {
      setText("error", event.message);
    } else if (event.type === "speech_started") {
      setText("state", "speaking");
      this.onspeech?.(event.frame);
    } else if (event.type === "speech_finished" || event.type === "interrupted") {
      setText("state", "connected");
    }
  }

  handleClose(event) {
    if (this.isEnded) return;
    if (this.nFailures >= RETRY_S.length) {
      setText("state", "not connected");
      setText("error", event.reason || "the server cannot be reached, or rejected the connection");
      end();
      return;
    }
    const wait = RETRY_S[this.nFailures++];
    setText("state", "reconnecting");
    this.retry = setTimeout(() => this.connect(), wait * 1000);
  }

  sendCommand(type) {
    if (this.isOpen) this.socket.send(JSON.stringify({ type }));
  }

  push(samples) {
    if (this.isOpen) this.socket.send(samples);
  }

  get isOpen() {
    return this.socket.readyState === WebSocket.OPEN;
  }

  interrupt() {
    this.player.interrupt(this.generation + 1);
    this.sendCommand("interrupt");
  }

  end() {
    this.isEnded = true;
    clearTimeout(this.retry);
    this.sendCommand("close");
    this.socket.close();
  }
}

// Sends a file's audio, at most some seconds ahead of its speech.
class FileSource {
  constructor(session, samples, rate) {
    Object.assign(this, { session, samples, rate, sent: 0, started: performance.now() });
    this.timer = setInterval(() => this.send(), 200);
    this.send();
  }

  send() {
    const spoken = (performance.now() - this.started) / 1000;
    const until = Math.min(Math.round((spoken + SEND_AHEAD_S) * this.rate), this.samples.length);
    if (until > this.sent) this.session.push(this.samples.subarray(this.sent, until));
    this.sent = until;
    if (until === this.samples.length) {
      this.session.sendCommand("flush");
      this.stop();
    }
  }

  stop() {
    clearInterval(this.timer);
  }
}

class MicrophoneSource {
  static async open(session, context) {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: true, channelCount: 1 } });
    const code = `registerProcessor("tap", class extends AudioWorkletProcessor {
      process([[channel]]) { if (channel) this.port.postMessage(channel.slice()); return true; }
    });`;
    const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
    await context.audioWorklet.addModule(address);
    URL.revokeObjectURL(address);
    return new MicrophoneSource(session, context, stream);
  }

  constructor(session, context, stream) {
    this.stream = stream;
    this.tap = new AudioWorkletNode(context, "tap");
    this.input = context.createMediaStreamSource(stream);
    this.input.connect(this.tap);
    let waiting = [], n = 0;
    this.tap.port.onmessage = ({ data }) => {
      waiting.push(data);
      n += data.length;
      if (n < CHUNK_S * context.sampleRate) return;
      session.push(toPcm(waiting, n));
      waiting = [];
      n = 0;
    };
  }

  stop() {
    this.input.disconnect();
    this.tap.port.onmessage = null;
    for (const track of this.stream.getTracks()) track.stop();
  }
}

function readFrame(message) {
  const view = new DataView(message), nJpeg = view.getUint32(24, true);
  const jpegEnd = HEADER_BYTES + nJpeg, nPcm = view.getUint32(jpegEnd, true);
  return {
    isSpeaking: (view.getUint8(1) & SPEAKING) !== 0,
    generation: view.getUint32(4, true),
    frame: view.getUint32(8, true),
    pts: view.getUint32(12, true) / 1000,
    jpeg: new Uint8Array(message, HEADER_BYTES, nJpeg),
    samples: new Int16Array(message.slice(jpegEnd + 4, jpegEnd + 4 + nPcm)),
  };
}

function toPcm(chunks, n) {
  const pcm = new Int16Array(n);
  let at = 0;
  for (const chunk of chunks) {
    for (const value of chunk) pcm[at++] = Math.max(-32768, Math.min(32767, Math.round(value * 32767)));
  }
  return pcm;
}

async function readFile(file, context) {
  const audio = await context.decodeAudioData(await file.arrayBuffer());
  const mixed = new Float32Array(audio.length);
  for (let c = 0; c < audio.numberOfChannels; c++) {
    const channel = audio.getChannelData(c);
    for (let i = 0; i < mixed.length; i++) mixed[i] += channel[i] / audio.numberOfChannels;
  }
  return toPcm([mixed], mixed.length);
}

function base64url(text) {
  const bytes = new TextEncoder().encode(text);
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

function setText(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

const live = window.live = { session: null, player: null, source: null };

async function start() {
  const context = new AudioContext();
  live.player = new Player(context);
  await context.resume();
  const file = $("file").files[0], usesMicrophone = $("microphone").checked;
  const speech = file && !usesMicrophone ? await readFile(file, context) : null;
  const session = live.session = new Session(live.player, $("avatar").value, $("token").value);
  session.onready = async () => {
    live.source?.stop();
    live.source = null;
    const began = performance.now();
    session.onspeech = (frame) => { live.awaited = { frame, began }; };
    if (speech) live.source = new FileSource(session, speech, context.sampleRate);
    else if (usesMicrophone) live.source = await MicrophoneSource.open(session, context);
  };
  $("start").textContent = "Stop";
  $("interrupt").disabled = false;
}

function end() {
  live.source?.stop();
  live.session?.end();
  live.player?.reset();
  live.player?.context.close();
  Object.assign(live, { session: null, player: null, source: null });
  setText("state", "not connected");
  $("start").textContent = "Start";
  $("interrupt").disabled = true;
}

async function listAvatars() {
  const token = $("token").value;
  const response = await fetch("v1/avatars", token ? { headers: { Authorization: `Bearer ${token}` } } : {});
  const body = await response.json();
  if (!response.ok) throw new Error(body.error.message);
  $("avatar").replaceChildren(...body.map(({ name }) => new Option(name, name)));
  setText("error", body.length ? "" : "this server has no avatar");
}

function fail(reason) {
  end();
  setText("error", String(reason.message || reason));
}

$("form").onsubmit = (event) => {
  event.preventDefault();
  if (live.session) end();
  else start().catch(fail);
};
$("interrupt").onclick = () => {
  live.source?.stop();
  live.session?.interrupt();
};
$("token").onchange = () => listAvatars().catch(fail);
canvas.addEventListener("shown", ({ detail }) => {
  if (!live.awaited || detail.frame < live.awaited.frame) return;
  setText("latency", `${Math.round(performance.now() - live.awaited.began)} ms`);
  live.awaited = null;
});
if (!window.isSecureContext || !navigator.mediaDevices) {
  $("microphone").disabled = true;
  setText("hint", "The microphone is unavailable: browsers allow it on localhost or over HTTPS only.");
}

function drawLoop() {
  live.player?.show();
  setText("fps", String(live.player?.fps() ?? 0));
  requestAnimationFrame(drawLoop);
}
requestAnimationFrame(drawLoop);
listAvatars().catch(fail);
