// A live session over WebRTC (docs/live-avatars.md): the avatar as tracks, speech and commands by a data channel. The view
// Live uses it where it can; without it, or if it cannot connect, `onUnavailable` is called, and a WebSocket is used.

import { AvatarSession } from "./avatar_session.js";

const CONNECT_MS = 3000;        // after the answer, for which the server may have loaded the avatar
const MESSAGE_BYTES = 32768;    // of audio: the server accepts twice as much
const TICKS_PER_FRAME = 3600;   // of RTP timestamps, which count at 90 kHz
const LINK = /<([^>]*)>((?:\s*;\s*[a-z-]+="(?:[^"\\]|\\.)*")*)/g, PARAMETER = /([a-z-]+)="((?:[^"\\]|\\.)*)"/g;
let isAvailable = "RTCPeerConnection" in window && "requestVideoFrameCallback" in HTMLVideoElement.prototype;

// Return whether to try: not again once a connection has failed on this page.
export function mayUseWebRtc() {
  return isAvailable;
}

// Shows the video of a connection on a canvas, and plays its audio. It has the part of AvatarPlayer that the view uses; the
// browser keeps video and audio in step. Events "shown" have the number of the frame since the first one.
export class WebRtcPlayer {
  constructor(context, canvas) {
    Object.assign(this, { context, canvas, pen: canvas.getContext("2d"), video: document.createElement("video") });
    this.reset();
  }

  reset() {
    Object.assign(this, { shownAt: [], nLost: 0, frame: -1, timestamp: null });
  }

  attach(stream) {
    if (this.video.srcObject === stream) return;
    this.video.srcObject = stream;
    this.video.play().catch(() => {}); // it is replaced, or the session ends, before it has begun
    this.video.requestVideoFrameCallback((_, metadata) => this.draw(stream, metadata));
  }

  detach() {
    this.video.srcObject = null;
  }

  draw(stream, { rtpTimestamp }) {
    if (this.video.srcObject !== stream) return;
    const n = this.timestamp === null ? 1 : Math.round(((rtpTimestamp - this.timestamp) >>> 0) / TICKS_PER_FRAME);
    this.timestamp = rtpTimestamp;
    this.frame += n;
    this.nLost += Math.max(n - 1, 0);
    this.pen.drawImage(this.video, 0, 0, this.canvas.width, this.canvas.height);
    this.shownAt.push(performance.now());
    this.canvas.dispatchEvent(new CustomEvent("shown", { detail: { frame: this.frame } }));
    this.video.requestVideoFrameCallback((_, metadata) => this.draw(stream, metadata));
  }

  interrupt() {} // the server drops what was not sent

  show() {}

  fps() {
    const since = performance.now() - 1000;
    this.shownAt = this.shownAt.filter((at) => at > since);
    return this.shownAt.length;
  }
}

export class WebRtcSession extends AvatarSession {
  sendAheadS = 2; // of a file's audio: a command waits for what was sent before it

  connect() {
    this.callbacks.onState(this.nFailures ? "reconnecting" : "connecting");
    const connection = this.connection = new RTCPeerConnection();
    addEventListener("pagehide", () => connection.close(), { once: true }); // the server would miss it for 30 s
    connection.onconnectionstatechange = () => {
      if (connection.connectionState === "connected") clearTimeout(this.timer);
      if (connection.connectionState === "failed") this.lose(connection, new Error("the connection was lost"));
    };
    this.open(connection).catch((error) => this.lose(connection, error));
  }

  async open(connection) {
    const channel = this.channel = connection.createDataChannel("viseme");
    channel.onmessage = ({ data }) => {
      if (this.connection === connection) this.handleEvent(JSON.parse(data));
    };
    channel.onclose = () => this.lose(connection, new Error("the connection was closed"));
    connection.ontrack = ({ streams }) => this.player.attach(streams[0]);
    connection.addTransceiver("video", { direction: "recvonly" });
    this.sender = connection.addTransceiver("audio", { direction: "sendrecv" }).sender;
    const offer = await connection.createOffer();
    const path = `v1/avatars/${encodeURIComponent(this.avatar)}/whep?sample_rate=${this.player.context.sampleRate}`;
    const response = await this.api.request(path, { body: offer.sdp, headers: { "Content-Type": "application/sdp" } });
    const resource = { path: response.headers.get("Location"), etag: response.headers.get("ETag") };
    if (this.connection !== connection) { // the session was ended meanwhile
      this.release(resource);
      return;
    }
    this.resource = resource;
    this.timer = setTimeout(() => this.lose(connection, new Error("no connection to the server")), CONNECT_MS);
    const iceServers = readLinks(response.headers.get("Link") ?? "");
    connection.setConfiguration({ iceServers });
    connection.onicecandidate = ({ candidate }) => {
      if (this.connection === connection) this.sendCandidate(candidate);
    };
    await connection.setLocalDescription(offer);
    await connection.setRemoteDescription({ type: "answer", sdp: await response.text() });
  }

  // Send an address that a STUN or TURN server gave. The server finds this machine's own ones by itself.
  sendCandidate(candidate) {
    if (!candidate?.candidate || candidate.type === "host") return;
    const body = `a=mid:${candidate.sdpMid}\r\na=${candidate.candidate}\r\n`;
    const headers = { "Content-Type": "application/trickle-ice-sdpfrag", "If-Match": this.resource.etag };
    this.api.request(this.resource.path, { method: "PATCH", body, headers })
      .catch((error) => console.warn("a candidate was not sent", error));
  }

  lose(connection, error) {
    if (this.connection !== connection) return;
    clearTimeout(this.timer);
    // Before it is closed, by which the server would end the session and no longer know it.
    this.release(this.resource).finally(() => connection.close());
    this.connection = this.resource = null;
    if (this.isEnded) return;
    if (this.isReady) {
      this.handleClose({ reason: error.message });
      return;
    }
    isAvailable = false;
    this.isEnded = true;
    this.callbacks.onUnavailable();
  }

  // End a session of the server, which would otherwise notice it by itself, but later.
  async release(resource) {
    if (resource) await this.api.request(resource.path, { method: "DELETE" }).catch(() => {}); // it may have ended already
  }

  handleEvent(event) {
    if (event.type === "speech_started") event = { ...event, frame: this.player.frame + 1 };
    super.handleEvent(event);
  }

  get isOpen() {
    return this.channel?.readyState === "open";
  }

  sendCommand(type, fields = {}) {
    if (this.isOpen) this.channel.send(JSON.stringify({ type, ...fields }));
  }

  push(samples) {
    const bytes = new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength);
    for (let at = 0; at < bytes.length && this.isOpen; at += MESSAGE_BYTES) {
      this.channel.send(bytes.subarray(at, at + MESSAGE_BYTES));
    }
  }

  // Speak what a microphone records, until its `stop` is called.
  async openMicrophone() {
    const { connection, sender } = this;
    const stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: true, channelCount: 1 } });
    const [track] = stream.getAudioTracks();
    if (this.connection === connection) await sender.replaceTrack(track);
    else track.stop(); // the connection was ended while the user was asked
    return { stop: () => track.stop() };
  }

  end() {
    this.isEnded = true;
    clearTimeout(this.retry);
    this.player.detach();
    if (this.connection) this.lose(this.connection, new Error("ended"));
  }
}

// Parse the Link headers that name STUN and TURN servers.
function readLinks(header) {
  return Array.from(header.matchAll(LINK), ([, urls, text]) => {
    const found = Object.fromEntries(Array.from(text.matchAll(PARAMETER), ([, name, value]) => [name, value.replace(/\\(.)/g, "$1")]));
    return found.rel === "ice-server" ? { urls, username: found.username, credential: found.credential } : null;
  }).filter((server) => server !== null);
}
