// Records the microphone into a file.
//
//     const recorder = await AudioRecorder.open();   // asks the user; throws Error with words for the page
//     const file = await recorder.stop();            // File; call it once
//     recorder.seconds                               // since it was opened
//
//     microphoneProblem()   -> why this page cannot record, or null

const TYPES = { "audio/webm;codecs=opus": "webm", "audio/mp4": "m4a", "audio/ogg;codecs=opus": "ogg" };

export function microphoneProblem() {
  if (!window.isSecureContext || !navigator.mediaDevices) {
    return "Browsers allow the microphone on localhost or over HTTPS only.";
  }
  return window.MediaRecorder ? null : "This browser cannot record.";
}

export class AudioRecorder {
  static async open() {
    try {
      return new AudioRecorder(await navigator.mediaDevices.getUserMedia({ audio: true }));
    } catch (error) {
      if (error.name === "NotAllowedError") throw new Error("The browser was not allowed to use the microphone.", { cause: error });
      if (error.name === "NotFoundError") throw new Error("There is no microphone.", { cause: error });
      throw error;
    }
  }

  constructor(stream) {
    const type = Object.keys(TYPES).find((one) => MediaRecorder.isTypeSupported(one));
    this.stream = stream;
    this.name = `microphone.${TYPES[type] ?? "webm"}`;
    this.chunks = [];
    this.opened = performance.now();
    this.recorder = new MediaRecorder(stream, type ? { mimeType: type } : {});
    this.recorder.ondataavailable = ({ data }) => { if (data.size) this.chunks.push(data); };
    this.recorder.start();
  }

  get seconds() {
    return (performance.now() - this.opened) / 1000;
  }

  async stop() {
    const stopped = new Promise((resolve) => { this.recorder.onstop = resolve; });
    if (this.recorder.state !== "inactive") {
      this.recorder.stop();
      await stopped;
    }
    for (const track of this.stream.getTracks()) track.stop();
    return new File(this.chunks, this.name, { type: this.recorder.mimeType });
  }
}
