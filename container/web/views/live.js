// The view Live: an avatar that speaks what a microphone or an audio file says, or two that take turns.

import { clearError, dropZone, element, errorBox, field, scrollUpTo, showError } from "../components.js";
import { AvatarPair } from "../avatar_pair.js";
import { choices } from "../avatar_pair_parts.js";
import { AvatarPlayer } from "../avatar_player.js";
import { AvatarSession } from "../avatar_session.js";
import { showStill } from "../avatar_still.js";
import { WebRtcPlayer, WebRtcSession, mayUseWebRtc } from "../webrtc_session.js";
import { FileSource, MicrophoneSource, readAudioFile } from "../audio_sources.js";
import { TextSource } from "../text_source.js";

const IDLE = "not connected";
export const live = { session: null, player: null, source: null, awaited: null };

export function mount(root, context) {
  const parts = build();
  const pair = new AvatarPair(context), controller = new LiveController(context, parts, pair);
  const single = element("div", { class: "columns" }, parts.stage, parts.form);
  const mode = choices("Avatars", "live-mode", { one: "One avatar", two: "Two that take turns" }, (name) => {
    hide();
    single.hidden = name !== "one";
    pair.root.hidden = name !== "two";
    pair.showStills();
  });
  mode.classList.add("live-mode");
  const hide = () => { // a view that cannot be seen must not listen to the microphone
    controller.hide();
    pair.end();
  };
  root.append(mode, single, pair.root);
  return { show: () => controller.show(), hide };
}

function build() {
  const canvas = element("canvas", {
    id: "canvas", class: "media", width: 640, height: 480, role: "img", "aria-label": "The avatar", "data-testid": "canvas",
  });
  const figures = {
    state: element("span", { "data-testid": "state", role: "status" }, IDLE),
    fps: element("span", { "data-testid": "fps" }, "0"),
    latency: element("span", { "data-testid": "latency" }, "–"),
    lost: element("span", { "data-testid": "lost" }, "0"),
  };
  const error = errorBox();
  const labels = { state: "State", fps: "Frames per second", latency: "Answer after", lost: "Lost frames" };
  const list = element("dl", { class: "figures" }, Object.entries(labels).map(
    ([name, label]) => element("div", {}, element("dt", {}, label), element("dd", {}, figures[name]))));
  const empty = element("p", {}, "The avatar appears here.");
  const stage = element("div", { class: "card" }, element("div", { class: "live-stage" }, canvas, empty), list);

  const avatar = element("select", { id: "avatar", "data-testid": "avatar" });
  const audio = { file: null };
  const drop = dropZone({
    label: "Audio file to speak", hint: "Drop it here, or choose one", accept: "audio/*,video/*", testid: "audio-input",
    onFile: (file) => { audio.file = file; },
  });
  const microphone = element("input", { type: "checkbox", id: "microphone", "data-testid": "microphone" });
  const hint = element("p", { class: "hint", id: "hint" }, "Browsers allow the microphone on localhost or over HTTPS only.");
  const start = element("button", { class: "primary", "data-testid": "start", disabled: true }, "Start");
  const interrupt = element("button", { type: "button", "data-testid": "interrupt", disabled: true }, "Interrupt");
  const form = element("form", { class: "card" },
    field("Avatar", avatar), drop.root,
    element("div", { class: "stack" },
      element("label", { class: "check" }, microphone, "Use the microphone"), hint),
    element("div", { class: "row" }, start, interrupt), error);
  return { stage, form, canvas, empty, figures, error, avatar, audio, microphone, hint, start, interrupt };
}

class LiveController {
  // pair: an AvatarPair, which needs the list of avatars, too.
  constructor(context, parts, pair) {
    Object.assign(this, { context, parts, pair });
    this.text = new TextSource(context.api, (fields) => this.say(fields));
    parts.error.before(this.text.root);
    parts.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (live.session) this.end();
      else this.start().catch((error) => this.fail(error));
    });
    parts.interrupt.addEventListener("click", () => {
      live.source?.stop();
      live.session?.interrupt();
    });
    parts.canvas.addEventListener("shown", ({ detail }) => {
      parts.empty.hidden = true;
      this.measureAnswer(detail);
    });
    parts.avatar.addEventListener("change", () => this.showStill());
    context.onTokenChange(() => this.listAvatars());
    if (!window.isSecureContext || !navigator.mediaDevices) {
      parts.microphone.disabled = true;
      parts.hint.textContent = "The microphone is unavailable: browsers allow it on localhost or over HTTPS only.";
    }
  }

  show() {
    if (!this.parts.avatar.options.length) this.listAvatars();
  }

  hide() {
    if (live.session) this.end();
  }

  async listAvatars() {
    const { avatar, start, error } = this.parts;
    this.text.refresh();
    try {
      const found = await this.context.api.json("v1/avatars");
      avatar.replaceChildren(...found.map(({ name }) => new Option(name, name)));
      start.disabled = found.length === 0;
      this.pair.setAvatars(found.map(({ name }) => name));
      clearError(error);
      if (found.length) this.showStill();
      else showError(error, new Error("This server has no avatar."));
    } catch (reason) {
      if (reason.code === "access_denied") this.context.requireToken();
      this.fail(reason);
    }
  }

  async showStill() {
    const { avatar, canvas, empty } = this.parts, name = avatar.value;
    if (live.session) return;
    const isShown = await showStill(this.context.api, name, canvas, () => !live.session && avatar.value === name);
    if (isShown) empty.hidden = true;
  }

  async start() {
    const { parts } = this, file = parts.audio.file, usesMicrophone = parts.microphone.checked;
    clearError(parts.error);
    parts.start.disabled = parts.avatar.disabled = true; // while the file is decoded
    scrollUpTo(parts.stage);
    const audio = new AudioContext();
    live.player = new (mayUseWebRtc() ? WebRtcPlayer : AvatarPlayer)(audio, parts.canvas);
    await audio.resume();
    const speech = file && !usesMicrophone ? await readAudioFile(file, audio) : null;
    this.open(speech, usesMicrophone);
    parts.start.disabled = false;
    parts.start.textContent = "Stop";
    parts.interrupt.disabled = false;
    this.draw();
  }

  // Open a session over WebRTC, or over a WebSocket where that is unavailable.
  open(speech, usesMicrophone) {
    const { parts } = this, { context } = live.player, overWebRtc = mayUseWebRtc();
    if (!overWebRtc && live.player instanceof WebRtcPlayer) live.player = new AvatarPlayer(context, parts.canvas);
    live.session = new (overWebRtc ? WebRtcSession : AvatarSession)(this.context.api, live.player, parts.avatar.value, {
      onState: (state) => setText(parts.figures.state, state),
      onReady: (event) => this.speak(event, speech, usesMicrophone).catch((error) => this.fail(error)),
      onSpeech: (frame) => { if (live.awaited) live.awaited.frame ??= frame; },
      onError: (message) => showError(parts.error, new Error(message)),
      onLost: (reason) => this.fail(new Error(lossOf(live.session, reason))),
      onUnavailable: () => this.open(speech, usesMicrophone),
    });
  }

  async speak({ width, height }, speech, usesMicrophone) {
    const { canvas, error } = this.parts, { player, session } = live;
    Object.assign(canvas, { width, height });
    clearError(error);
    live.source?.stop();
    live.source = null;
    this.text.setConnected(true);
    live.awaited = { began: performance.now(), frame: null };
    if (speech) live.source = new FileSource(session, speech, player.context.sampleRate);
    if (!usesMicrophone) return;
    const source = await (session.openMicrophone?.() ?? MicrophoneSource.open(session, player.context));
    if (live.session === session) live.source = source;
    else source.stop(); // the session was ended while the user was asked
  }

  say(fields) {
    clearError(this.parts.error);
    scrollUpTo(this.parts.stage);
    live.awaited = { began: performance.now(), frame: null };
    live.session.sendCommand("say", fields);
  }

  // From the session's readiness, when the first audio is sent, until its first frame is seen.
  measureAnswer(frame) {
    if (!live.awaited || live.awaited.frame === null || frame.frame < live.awaited.frame) return;
    setText(this.parts.figures.latency, `${Math.round(performance.now() - live.awaited.began)} ms`);
    live.awaited = null;
  }

  draw() {
    live.player?.show();
    setText(this.parts.figures.fps, String(live.player?.fps() ?? 0));
    if (live.player) setText(this.parts.figures.lost, String(live.player.nLost));
    if (live.session) requestAnimationFrame(() => this.draw());
  }

  end() {
    live.source?.stop();
    live.session?.end();
    live.player?.reset();
    live.player?.context.close();
    Object.assign(live, { session: null, player: null, source: null, awaited: null });
    const { parts } = this;
    this.text.setConnected(false);
    setText(parts.figures.state, IDLE);
    setText(parts.figures.fps, "0");
    parts.start.textContent = "Start";
    parts.start.disabled = !parts.avatar.options.length;
    parts.avatar.disabled = false;
    parts.interrupt.disabled = true;
  }

  fail(reason) {
    this.end();
    showError(this.parts.error, reason);
  }
}

function lossOf(session, reason) {
  if (session.isReady) return `The connection was lost, and could not be opened again: ${reason}.`;
  return `The server opened no session. It may be full or about to stop: start again later. Its reason: ${reason}.`;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
