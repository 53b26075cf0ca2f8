// The audio worklet that passes microphone audio to the page: see audio_sources.js.

registerProcessor("tap", class extends AudioWorkletProcessor {
  process([[channel]]) {
    if (channel) this.port.postMessage(channel.slice());
    return true;
  }
});
