// Records a few seconds of the user's face with the webcam.

export const MIN_S = 3, MAX_S = 30; // of a recording
const TYPES = ["video/mp4;codecs=avc1", "video/webm;codecs=vp8", "video/webm", "video/mp4"];
const WANTED = { video: { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 25 }, facingMode: "user" }, audio: true };
const BITS_PER_SECOND = 2_500_000;
const TICK_MS = 100;

// Return why this browser cannot record here, or null if it can.
export function recordingFault() {
  if (!window.isSecureContext || !navigator.mediaDevices) return "Browsers allow the camera on localhost or over HTTPS only.";
  if (typeof MediaRecorder === "undefined") return "This browser cannot record video.";
  return null;
}

export class CameraRecorder {
  // Ask for the camera, with the microphone if there is one: lip reading needs no audio. Throws an Error in words.
  static async open() {
    try {
      return new CameraRecorder(await openDevices());
    } catch (error) {
      throw new Error(reasonOf(error), { cause: error });
    }
  }

  constructor(stream) {
    this.stream = stream;
  }

  // Begin. onTick(seconds) is called several times a second. Returns a promise of the recorded File: it is fulfilled
  // after stop(), or after MAX_S, and is null after cancel().
  record(onTick) {
    const type = TYPES.find((one) => MediaRecorder.isTypeSupported(one));
    const recorder = this.recorder = new MediaRecorder(this.stream, { mimeType: type, videoBitsPerSecond: BITS_PER_SECOND });
    const chunks = [], began = performance.now();
    const timer = setInterval(() => {
      const seconds = (performance.now() - began) / 1000;
      onTick(Math.min(seconds, MAX_S));
      if (seconds >= MAX_S) this.stop();
    }, TICK_MS);
    recorder.ondataavailable = ({ data }) => chunks.push(data);
    recorder.start();
    return new Promise((resolve, reject) => {
      recorder.onerror = ({ error }) => reject(new Error(reasonOf(error), { cause: error }));
      recorder.onstop = () => {
        clearInterval(timer);
        this.close();
        const container = recorder.mimeType.split(";")[0];
        const name = `recording.${container === "video/mp4" ? "mp4" : "webm"}`;
        resolve(this.isCanceled ? null : new File(chunks, name, { type: container }));
      };
    });
  }

  stop() {
    if (this.recorder?.state === "recording") this.recorder.stop();
    else this.close();
  }

  cancel() {
    this.isCanceled = true;
    this.stop();
  }

  close() {
    for (const track of this.stream.getTracks()) track.stop();
  }
}

async function openDevices() {
  try {
    return await navigator.mediaDevices.getUserMedia(WANTED);
  } catch (error) {
    if (error.name !== "NotFoundError") throw error;
    return navigator.mediaDevices.getUserMedia({ video: WANTED.video });
  }
}

function reasonOf(error) {
  const reasons = {
    NotAllowedError: "The camera was not allowed. Allow it in the browser's address bar, then try again.",
    NotFoundError: "No camera was found.",
    NotReadableError: "Another program uses the camera.",
  };
  return reasons[error?.name] ?? `The camera cannot record: ${error?.message || error?.name}`;
}
