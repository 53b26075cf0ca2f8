// Where the audio of a live session comes from. Both sources push s16le PCM at the rate of the audio context.

const SEND_AHEAD_S = 10;    // of a file's audio that is sent before it is spoken
const SEND_EVERY_MS = 200;
const CHUNK_S = 0.02;       // of microphone audio in one message

// Sends a file's audio, at most some seconds ahead of its speech.
export class FileSource {
  constructor(session, samples, rate) {
    Object.assign(this, { session, samples, rate, sent: 0, started: performance.now() });
    this.timer = setInterval(() => this.send(), SEND_EVERY_MS);
    this.send();
  }

  send() {
    const spoken = (performance.now() - this.started) / 1000;
    const until = Math.min(Math.round((spoken + (this.session.sendAheadS ?? SEND_AHEAD_S)) * this.rate), this.samples.length);
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

export class MicrophoneSource {
  static async open(session, context) {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: true, channelCount: 1 } });
    try {
      await context.audioWorklet.addModule(new URL("microphone.js", import.meta.url));
      return new MicrophoneSource(session, context, stream);
    } catch (error) {
      for (const track of stream.getTracks()) track.stop();
      throw error;
    }
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

// Decode a file to mono PCM at the rate of the context. Throws an Error in words if it has no audio.
export async function readAudioFile(file, context) {
  const audio = await decode(file, context);
  const mixed = new Float32Array(audio.length);
  for (let c = 0; c < audio.numberOfChannels; c++) {
    const channel = audio.getChannelData(c);
    for (let i = 0; i < mixed.length; i++) mixed[i] += channel[i] / audio.numberOfChannels;
  }
  return toPcm([mixed], mixed.length);
}

// Decode both channels of a stereo file, each to PCM as above. Throws an Error in words if it has not two.
export async function readStereoFile(file, context) {
  const audio = await decode(file, context), n = audio.numberOfChannels;
  if (n !== 2) throw new Error(`${file.name}: found ${n} ${n === 1 ? "channel" : "channels"}; expected two, one for each avatar`);
  return [0, 1].map((c) => toPcm([audio.getChannelData(c)], audio.length));
}

async function decode(file, context) {
  try {
    return await context.decodeAudioData(await file.arrayBuffer());
  } catch (error) {
    throw new Error(`${file.name}: this browser finds no audio in it; expected WAV, MP3, Ogg, M4A or similar`, { cause: error });
  }
}

function toPcm(chunks, n) {
  const pcm = new Int16Array(n);
  let at = 0;
  for (const chunk of chunks) {
    for (const value of chunk) pcm[at++] = Math.max(-32768, Math.min(32767, Math.round(value * 32767)));
  }
  return pcm;
}
