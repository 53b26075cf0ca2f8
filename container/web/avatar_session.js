// A live session with an avatar: a connection that reopens by itself until it is ended.

import { readFrame } from "./avatar_player.js";

const RETRY_S = [0.5, 1, 2, 4, 8];

export class AvatarSession {
  // callbacks: onState("connecting" | "connected" | "speaking" | "reconnecting"), onReady(event) after each connection,
  // onSpeech(frame) with the number of the first frame that speaks, onError(message), onLost(reason) after all retries. A
  // session that was never opened is not retried: the server has refused it, or is not there.
  // mayReconnect: whether a lost connection is reopened. isReady: whether the server has ever opened the session.
  constructor(api, player, avatar, callbacks, { mayReconnect = true } = {}) {
    Object.assign(this, { api, player, avatar, callbacks, mayReconnect, generation: 0, nFailures: 0, isReady: false, isEnded: false });
    this.connect();
  }

  connect() {
    this.callbacks.onState(this.nFailures ? "reconnecting" : "connecting");
    const query = { sample_rate: this.player.context.sampleRate, frames: "whole" };
    const socket = this.socket = this.api.webSocket(`v1/avatars/${encodeURIComponent(this.avatar)}/session`, query);
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
      this.nFailures = 0;
      this.isReady = true;
      this.player.reset();
      this.callbacks.onState("connected");
      this.callbacks.onReady(event);
    } else if (event.type === "error") {
      this.callbacks.onError(event.message);
    } else if (event.type === "speech_started") {
      this.callbacks.onState("speaking");
      this.callbacks.onSpeech(event.frame);
    } else if (event.type === "speech_finished" || event.type === "interrupted") {
      this.callbacks.onState("connected");
    }
  }

  handleClose(event) {
    if (this.isEnded) return;
    if (!this.mayReconnect || !this.isReady || this.nFailures >= RETRY_S.length) {
      this.callbacks.onLost(event.reason || "the server cannot be reached, or rejected the connection");
      return;
    }
    const wait = RETRY_S[this.nFailures++];
    this.callbacks.onState("reconnecting");
    this.retry = setTimeout(() => this.connect(), wait * 1000);
  }

  sendCommand(type, fields = {}) {
    if (this.isOpen) this.socket.send(JSON.stringify({ type, ...fields }));
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
