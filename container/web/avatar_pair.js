// Two live avatars that take turns. Each has a session of its own, and speaks its own channel of a conversation: while the
// other one speaks, it is sent the silence of its channel.

import { readAudioFile, readStereoFile, FileSource } from "./audio_sources.js";
import { buildPair, SIDES } from "./avatar_pair_parts.js";
import { AvatarSession } from "./avatar_session.js";
import { showStill } from "./avatar_still.js";
import { clearError, element, scrollUpTo, showError } from "./components.js";
import { SharedTimeline, TimelinePlayer } from "./shared_timeline.js";

const LOUD = 0.01 * 32768; // root mean square of a frame's samples from which it counts as speech
const HOLD_MS = 500;       // that an avatar counts as speaking after its last loud frame
const STATES = { connecting: "Connecting", connected: "Listening", speaking: "Listening" };
export const pair = { players: [], timeline: null };

export class AvatarPair {
  constructor(context) {
    const parts = buildPair();
    Object.assign(this, { context, parts, conversation: null });
    this.root = element("div", { class: "columns", hidden: true, "data-testid": "pair" }, parts.stage, parts.controls);
    parts.controls.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.conversation) this.end();
      else this.start().catch((error) => this.fail(error));
    });
    for (const side of SIDES) {
      parts.sides[side].canvas.addEventListener("shown", ({ detail }) => this.follow(side, detail));
      parts.sides[side].avatar.addEventListener("change", () => this.showStill(side));
    }
  }

  // names: of the server's avatars.
  setAvatars(names) {
    for (const side of SIDES) {
      const { avatar } = this.parts.sides[side];
      avatar.replaceChildren(...names.map((name) => new Option(name, name)));
    }
    if (names.length > 1) this.parts.sides.right.avatar.selectedIndex = 1;
    this.parts.start.disabled = !names.length;
    this.showStills();
  }

  // Show the avatars' first frames, once they can be seen.
  showStills() {
    if (!this.root.hidden) for (const side of SIDES) this.showStill(side);
  }

  async showStill(side) {
    const { avatar, canvas } = this.parts.sides[side], name = avatar.value;
    if (this.conversation || !name) return;
    await showStill(this.context.api, name, canvas, () => !this.conversation && avatar.value === name);
  }

  async start() {
    const { parts } = this;
    clearError(parts.error);
    const audio = new AudioContext();
    const timeline = new SharedTimeline(audio);
    const conversation = this.conversation = { audio, timeline, sides: {}, sources: [], began: null };
    parts.start.textContent = "Stop both";
    for (const side of SIDES) parts.sides[side].avatar.disabled = true;
    scrollUpTo(parts.stage);
    await audio.resume();
    const channels = await this.readChannels(audio);
    if (this.conversation !== conversation) return; // stopped while the files were decoded
    for (const side of SIDES) this.open(side, conversation, channels);
    Object.assign(pair, { players: timeline.players, timeline });
    this.draw(conversation);
  }

  // Return the samples of the left and the right avatar, of one length.
  async readChannels(audio) {
    const { files, apart, inTurn } = this.parts;
    if (apart.hidden) {
      if (!files.both) throw new Error("Choose an audio file with two channels.");
      return readStereoFile(files.both, audio);
    }
    if (!files.left || !files.right) throw new Error("Choose an audio file for each avatar.");
    const [left, right] = await Promise.all([files.left, files.right].map((file) => readAudioFile(file, audio)));
    return onOneTimeline(left, right, inTurn.checked);
  }

  open(side, conversation, channels) {
    const { canvas, state, avatar } = this.parts.sides[side];
    const player = new TimelinePlayer(conversation.audio, canvas, conversation.timeline);
    const own = conversation.sides[side] = { player, isReady: false, loudAt: -Infinity, hasAnswered: false };
    own.session = new AvatarSession(this.context.api, player, avatar.value, {
      onState: (name) => { own.state = STATES[name] ?? state.textContent; },
      onReady: ({ width, height }) => {
        Object.assign(canvas, { width, height });
        own.isReady = true;
        this.speakIfReady(conversation, channels);
      },
      onSpeech: () => {},
      onError: (message) => this.fail(new Error(`The ${side} avatar: ${message}`)),
      onLost: (reason) => this.fail(new Error(lossOf(side, own.session, reason))),
    }, { mayReconnect: false }); // a session that starts again would not be in step
  }

  // Send both channels once both sessions are open, so that both are sent in the same time.
  speakIfReady(conversation, channels) {
    const owns = SIDES.map((side) => conversation.sides[side]);
    if (!owns.every((own) => own?.isReady)) return;
    conversation.began = performance.now();
    conversation.sources = owns.map(({ session }, i) => new FileSource(session, channels[i], conversation.audio.sampleRate));
  }

  follow(side, frame) {
    const own = this.conversation?.sides[side];
    if (!own) return;
    if (loudness(frame.samples) > LOUD) own.loudAt = performance.now();
    if (!frame.isSpeaking || own.hasAnswered) return;
    own.hasAnswered = true;
    setText(this.parts.sides[side].latency, `${Math.round(performance.now() - this.conversation.began)} ms`);
  }

  draw(conversation) {
    if (this.conversation !== conversation) return;
    for (const side of SIDES) {
      const { player, state, loudAt } = conversation.sides[side], parts = this.parts.sides[side];
      player.show();
      setText(parts.fps, String(player.fps()));
      setText(parts.lost, String(player.nLost));
      const isSpeaking = performance.now() - loudAt < HOLD_MS;
      this.mark(side, isSpeaking ? "Speaking" : state ?? "Connecting", isSpeaking);
    }
    requestAnimationFrame(() => this.draw(conversation));
  }

  mark(side, text, isSpeaking) {
    const { root, state } = this.parts.sides[side];
    setText(state, text);
    state.classList.toggle("busy", isSpeaking);
    root.classList.toggle("is-speaking", isSpeaking);
  }

  end() {
    const { conversation, parts } = this;
    this.conversation = null;
    if (conversation) {
      for (const source of conversation.sources) source.stop();
      for (const { session, player } of Object.values(conversation.sides)) {
        session?.end();
        player.reset();
      }
      conversation.audio.close();
    }
    Object.assign(pair, { players: [], timeline: null });
    parts.start.textContent = "Start both";
    for (const side of SIDES) {
      this.mark(side, "Not connected", false);
      parts.sides[side].avatar.disabled = false;
      setText(parts.sides[side].fps, "0");
    }
  }

  fail(reason) {
    if (!this.conversation) return; // both sessions fail at once if the server is gone
    this.end();
    showError(this.parts.error, reason);
  }
}

// Return two recordings as channels of one length, with silence before or after them.
function onOneTimeline(left, right, isInTurn) {
  const n = isInTurn ? left.length + right.length : Math.max(left.length, right.length);
  return [[left, 0], [right, isInTurn ? left.length : 0]].map(([samples, at]) => {
    const channel = new Int16Array(n);
    channel.set(samples, at);
    return channel;
  });
}

function lossOf(side, session, reason) {
  if (session.isReady) return `The connection of the ${side} avatar was lost (${reason}). Both were stopped.`;
  return `The server opened no session for the ${side} avatar. It may be overloaded, or allow fewer than two sessions for `
    + `each client (VISEME_MAX_SESSIONS_PER_CLIENT). Its reason: ${reason}.`;
}

function loudness(samples) {
  return Math.sqrt(samples.reduce((sum, value) => sum + value * value, 0) / Math.max(samples.length, 1));
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
