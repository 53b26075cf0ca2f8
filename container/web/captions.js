// Captions from timed words, as inference/lip_reading/captions.py cuts them: a test compares both.

const LINE_WIDTH = 42, MAX_LINES = 2;      // characters per line, lines per caption
const PAUSE_S = 0.8;                       // seconds of silence that end a caption
const MAX_DURATION_S = 6, MIN_DURATION_S = 0.8;
const READING_RATE = 17;                   // characters per second that viewers read

// words: [{ word, start, end }], in seconds or null. Returns [{ start, end, lines }].
export function cutCaptions(words) {
  const groups = groupWords(words);
  return groups.map((group, i) => {
    const start = group[0].start ?? 0;
    const latest = i + 1 < groups.length ? groups[i + 1][0].start ?? 0 : Infinity;
    const reading = Math.max(MIN_DURATION_S, Math.min(join(group).length / READING_RATE, MAX_DURATION_S));
    return { start, end: Math.max(group.at(-1).end ?? 0, Math.min(start + reading, latest)), lines: wrap(join(group)) };
  });
}

export function toSrt(words) {
  return cutCaptions(words).map(({ start, end, lines }, i) => (
    `${i + 1}\n${clock(start, ",")} --> ${clock(end, ",")}\n${lines.join("\n")}\n`)).join("\n");
}

export function toVtt(words) {
  const cues = cutCaptions(words).map(({ start, end, lines }, i) => (
    `${i + 1}\n${clock(start, ".")} --> ${clock(end, ".")}\n${lines.join("\n")}\n`));
  return ["WEBVTT\n", ...cues].join("\n");
}

function groupWords(words) {
  const groups = [];
  for (const word of words) {
    const current = groups.at(-1);
    if (current && !startsCaption(current, word)) current.push(word);
    else groups.push([word]);
  }
  return groups;
}

function startsCaption(current, word) {
  const isTooWide = wrap(join([...current, word])).length > MAX_LINES;
  const isAfterPause = (word.start ?? 0) - (current.at(-1).end ?? 0) >= PAUSE_S;
  const isTooLong = (word.end ?? 0) - (current[0].start ?? 0) > MAX_DURATION_S;
  return isTooWide || isAfterPause || isTooLong;
}

function join(words) {
  return words.map(({ word }) => word).join(" ");
}

function wrap(text) {
  const lines = [];
  for (const word of text.split(" ")) {
    if (lines.length && lines.at(-1).length + 1 + word.length <= LINE_WIDTH) lines.push(`${lines.pop()} ${word}`);
    else lines.push(word);
  }
  return lines;
}

function clock(seconds, separator) {
  const ms = Math.round(seconds * 1000), pad = (value, n) => String(value).padStart(n, "0");
  const whole = Math.floor(ms / 1000);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60].map((value) => pad(value, 2));
  return `${parts.join(":")}${separator}${pad(ms % 1000, 3)}`;
}
