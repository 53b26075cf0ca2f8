// The body of a lip sync job (docs/http-api.md, "Lip sync").
//
//     await syncBody(face, audio, { fps: 25 })   -> Blob of JSON; face, audio: Blobs, which become base64
//     parseSegments("2-5, 7.5-")                 -> [{ start_s: 2, end_s: 5 }, { start_s: 7.5 }]; throws Error

const SLICE_BYTES = 3 << 20; // a multiple of 3, so that the slices' base64 can be joined
const SEGMENT = /^(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)?$/;

// In slices: one string of a long video would be over what a browser allows, and block the page.
export async function syncBody(face, audio, options) {
  const head = JSON.stringify({ task: "lipsync", ...options }).slice(0, -1);
  const parts = [head, ',"face":"', ...await base64Of(face), '","audio":"', ...await base64Of(audio), '"}'];
  return new Blob(parts, { type: "application/json" });
}

async function base64Of(blob) {
  const parts = [];
  for (let start = 0; start < blob.size; start += SLICE_BYTES) {
    parts.push(await readBase64(blob.slice(start, start + SLICE_BYTES)));
  }
  return parts;
}

function readBase64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error("A file cannot be read any more. Choose it again."));
    reader.readAsDataURL(blob);
  });
}

export function parseSegments(text) {
  return text.split(/[,;\n]/).map((part) => part.trim()).filter(Boolean).map((part) => {
    const found = SEGMENT.exec(part);
    if (!found) throw new Error(`Parts that speak: found “${part}”; expected seconds such as 2-5, 7.5-9`);
    const [, start, end] = found;
    return { start_s: Number(start), ...(end === undefined ? {} : { end_s: Number(end) }) };
  });
}
