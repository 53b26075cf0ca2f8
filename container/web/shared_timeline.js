// Plays the speech of several sessions in step: audio that was sent to them at the same time is played at the same time.
//
// Each session has a clock of its own, but speaks all audio that it is sent, in order. So the timeline counts the audio that
// has arrived from each, and starts once all of them have begun to speak.

import { AvatarPlayer, FRAME_S, LEAD_S } from "./avatar_player.js";

const MIN_LEAD_S = 0.01; // from a frame's arrival until its audio is played; if there is less, all players are delayed

export class SharedTimeline {
  // context: the AudioContext of all players.
  constructor(context) {
    Object.assign(this, { context, players: [], startedAt: null }); // startedAt: when the speech starts, on the context's clock
  }

  // Make room for a frame that has arrived; return whether all frames were placed again.
  admit(frame) {
    const now = this.context.currentTime;
    const begins = frame.end - frame.samples.length / this.context.sampleRate;
    if (this.startedAt === null) {
      if (!this.players.every((one) => one.nSpoken > 0)) return false;
      this.moveTo(now + LEAD_S);
      return true;
    }
    if (this.startedAt + begins >= now + MIN_LEAD_S) return false;
    this.moveTo(now + LEAD_S - begins);
    return true;
  }

  moveTo(startedAt) {
    this.startedAt = startedAt;
    for (const player of this.players) player.placeSpeech();
  }
}

// A player whose speech is timed by a SharedTimeline; its idle frames are drawn as they arrive.
export class TimelinePlayer extends AvatarPlayer {
  constructor(context, canvas, timeline) {
    super(context, canvas);
    this.timeline = timeline;
    timeline.players.push(this);
  }

  reset() {
    super.reset();
    this.nSpoken = 0; // samples of speech that have arrived
  }

  place(frame) {
    if (!frame.isSpeaking) {
      const before = this.frames.at(-2);
      if (before?.isSpeaking) this.origin = before.at + FRAME_S - frame.pts; // so that it does not overtake the speech
      super.place(frame);
      return;
    }
    this.nSpoken += frame.samples.length;
    frame.end = this.nSpoken / this.context.sampleRate; // of its audio, on the timeline
    if (!this.timeline.admit(frame)) this.schedule(frame);
  }

  schedule(frame) {
    const { startedAt } = this.timeline;
    frame.at = startedAt === null ? Infinity : startedAt + frame.end - FRAME_S;
    if (startedAt !== null && frame.samples.length) this.play(frame);
  }

  // Place all speech that was not drawn yet again, because the timeline has moved.
  placeSpeech() {
    for (const source of this.sources) source.stop();
    this.sources = new Set();
    for (const frame of this.frames) if (frame.isSpeaking) this.schedule(frame);
  }
}
