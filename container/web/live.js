// A session with an avatar: sound goes out as PCM, frames come back with the sound that belongs to each.
// The sound card's clock rules: sound is scheduled on it, and a frame is shown when its sound is heard.
"use strict";

const HEAD_BYTES = 28, SPEAKING = 1, FRAME_S = 0.04;
const LEAD_S = 0.12;        // between a frame's arrival and its showing, to even out the network
const MOST_LEAD_S = 0.4;    // above it, what lies between is skipped in the next silence
const AHEAD_S = 10;         // of a file's sound is sent before it is spoken
const CHUNK_S = 0.02;       // of the microphone's sound in one message
const MOST_FRAMES = 250;    // that wait to be shown: a page in the background shows none
const RETRY_S = [0.5, 1, 2, 4, 8];

const $ = (id) => document.getElementById(id);
const canvas = $("canvas"), pen = canvas.getContext("2d");

class Player {
  // Shows frames and plays their sound.
  constructor(context) {
    this.context = context;
    this.output = context.createGain();
    this.output.connect(context.destination);
    this.reset();
  }

  reset() {
    this.silence();
    this.origin = null;     // when the session's time 0 is heard, on the context's clock
    this.oldest = 0;        // the generation that may still be shown
    this.shownAt = [];
  }

  silence() {
    for (const source of this.sources || []) source.stop();
    this.sources = new Set();
    for (const frame of this.frames || []) frame.picture?.close();
    this.frames = [];
  }

  // Forget what was not heard yet, and whatever of it is still on its way.
  interrupt(generation) {
    this.oldest = Math.max(this.oldest, generation);
    this.silence();
  }

  take(frame) {
    if (frame.generation < this.oldest) return;
    this.align(frame);
    frame.at = this.origin + frame.pts;
    if (frame.samples.length) this.play(frame);
    this.frames.push(frame);
    if (this.frames.length > MOST_FRAMES) this.frames.shift().picture?.close();
    createImageBitmap(new Blob([frame.jpeg], { type: "image/jpeg" })).then(
      (picture) => { frame.picture = picture; }, () => { frame.failed = true; });
  }

  // Keep arrivals a little ahead of the clock. In silence nobody hears that the time between is cut or stretched.
  align(frame) {
    const now = this.context.currentTime;
    const lead = this.origin === null ? -1 : this.origin + frame.pts - now;
    const isLate = lead < 0.01, isEarly = lead > MOST_LEAD_S && !frame.isSpeaking;
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
    // Sound of frames that were dropped comes before this one's own.
    const starts = frame.at + FRAME_S - n / rate, late = Math.max(this.context.currentTime - starts, 0);
    if (late >= n / rate) return;
    source.start(starts + late, late);
    this.sources.add(source);
    source.onended = () => this.sources.delete(source);
  }

  // Draw the frame whose sound leaves the loudspeaker now.
  show() {
    const heard = this.context.currentTime - (this.context.outputLatency || 0);
    let due = null;
    while (this.frames.length && this.frames[0].at <= heard && (this.frames[0].picture || this.frames[0].failed)) {
      due?.picture?.close();
      due = this.frames.shift();
    }
    if (!due?.picture) return;
    pen.drawImage(due.picture, 0, 0);
    due.picture.close();
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
  // The connection; it comes back by itself until it is ended.
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
    tell("state", this.nFailures ? "connecting again" : "connecting");
    const protocols = this.token ? ["viseme", `bearer.${base64url(this.token)}`] : ["viseme"];
    const socket = this.socket = new WebSocket(this.address, protocols);
    socket.binaryType = "arraybuffer";
    socket.onmessage = (event) => {
      if (typeof event.data === "string") this.hearOf(JSON.parse(event.data));
      else this.player.take(readFrame(event.data));
    };
    socket.onclose = (event) => this.lost(event);
  }

  hearOf(event) {
    this.generation = event.generation ?? this.generation;
    if (event.type === "ready") {
      canvas.width = event.width;
      canvas.height = event.height;
      this.nFailures = 0;
      this.player.reset();
      tell("error", "");
      tell("state", "connected");
      this.onready?.();
    } else if (event.type === "error") {
      tell("error", event.message);
    } else if (event.type === "speech_started") {
      tell("state", "speaking");
      this.onspeech?.(event.frame);
    } else if (event.type === "speech_finished" || event.type === "interrupted") {
      tell("state", "connected");
    }
  }

  lost(event) {
    if (this.isEnded) return;
    if (this.nFailures >= RETRY_S.length) {
      tell("state", "not connected");
      tell("error", event.reason || "the server cannot be reached, or does not let you in");
      end();
      return;
    }
    const wait = RETRY_S[this.nFailures++];
    tell("state", "connecting again");
    this.retry = setTimeout(() => this.connect(), wait * 1000);
  }

  say(type) {
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
    this.say("interrupt");
  }

  end() {
    this.isEnded = true;
    clearTimeout(this.retry);
    this.say("close");
    this.socket.close();
  }
}

// A file's sound, no more than some seconds ahead of its speaking.
class FileSource {
  constructor(session, samples, rate) {
    Object.assign(this, { session, samples, rate, sent: 0, started: performance.now() });
    this.timer = setInterval(() => this.send(), 200);
    this.send();
  }

  send() {
    const spoken = (performance.now() - this.started) / 1000;
    const until = Math.min(Math.round((spoken + AHEAD_S) * this.rate), this.samples.length);
    if (until > this.sent) this.session.push(this.samples.subarray(this.sent, until));
    this.sent = until;
    if (until === this.samples.length) {
      this.session.say("flush");
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
  const behind = HEAD_BYTES + nJpeg, nPcm = view.getUint32(behind, true);
  return {
    isSpeaking: (view.getUint8(1) & SPEAKING) !== 0,
    generation: view.getUint32(4, true),
    frame: view.getUint32(8, true),
    pts: view.getUint32(12, true) / 1000,
    jpeg: new Uint8Array(message, HEAD_BYTES, nJpeg),
    samples: new Int16Array(message.slice(behind + 4, behind + 4 + nPcm)),
  };
}

function toPcm(pieces, n) {
  const pcm = new Int16Array(n);
  let at = 0;
  for (const piece of pieces) {
    for (const value of piece) pcm[at++] = Math.max(-32768, Math.min(32767, Math.round(value * 32767)));
  }
  return pcm;
}

async function readFile(file, context) {
  const sound = await context.decodeAudioData(await file.arrayBuffer());
  const mixed = new Float32Array(sound.length);
  for (let c = 0; c < sound.numberOfChannels; c++) {
    const channel = sound.getChannelData(c);
    for (let i = 0; i < mixed.length; i++) mixed[i] += channel[i] / sound.numberOfChannels;
  }
  return toPcm([mixed], mixed.length);
}

function base64url(text) {
  const bytes = new TextEncoder().encode(text);
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

function tell(id, text) {
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
  tell("state", "not connected");
  $("start").textContent = "Start";
  $("interrupt").disabled = true;
}

async function listAvatars() {
  const token = $("token").value;
  const answer = await fetch("v1/avatars", token ? { headers: { Authorization: `Bearer ${token}` } } : {});
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error.message);
  $("avatar").replaceChildren(...body.map(({ name }) => new Option(name, name)));
  tell("error", body.length ? "" : "this server has no avatar");
}

function fail(reason) {
  end();
  tell("error", String(reason.message || reason));
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
  tell("latency", `${Math.round(performance.now() - live.awaited.began)} ms`);
  live.awaited = null;
});
if (!window.isSecureContext || !navigator.mediaDevices) {
  $("microphone").disabled = true;
  tell("hint", "No microphone here: browsers give it to pages on localhost or over HTTPS only.");
}

function turn() {
  live.player?.show();
  tell("fps", String(live.player?.fps() ?? 0));
  requestAnimationFrame(turn);
}
requestAnimationFrame(turn);
listAvatars().catch(fail);
