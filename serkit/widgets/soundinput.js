// Two ways of getting a sound into the kernel: a file as it is, or the microphone as a 16-bit wav.

const PIECE = 4 * 1024 * 1024; // bytes in one message; Jupyter cuts the connection at 10 MiB
const LONGEST_S = 120; // s, then a recording ends by itself
const PATIENCE_MS = 5000; // then the reader is told what is being waited for
const BUTTON = "jupyter-widgets jupyter-button widget-button"; // the theme's own look

// Passes on what the microphone gives, 128 samples at a time; runs beside the page, where no click delays it.
const TAP = `registerProcessor("serkit-tap", class extends AudioWorkletProcessor {
  process([[channel]]) {
    if (channel) this.port.postMessage(channel.slice());
    return true;
  }
})`;

function element(kind, classes, text = "") {
  const made = document.createElement(kind);
  made.className = classes;
  made.textContent = text;
  return made;
}

// One message to the kernel, and its answer. The kernel answers when it has taken the message in, so
// never more than one piece waits, however large the file is.
function ask(model, content, buffers = [], late = () => {}) {
  return new Promise((resolve) => {
    const timer = setTimeout(late, PATIENCE_MS);
    const heard = (answer) => {
      clearTimeout(timer);
      model.off("msg:custom", heard);
      resolve(answer);
    };
    model.on("msg:custom", heard);
    model.send(content, undefined, buffers);
  });
}

async function transfer(model, blob, name, say) {
  const late = () => say("waiting for the kernel: it is at work, or was restarted; then run this cell again");
  let answer = await ask(model, { kind: "begin", name, size: blob.size }, [], late);
  for (let start = 0; start < blob.size && !answer.refused; start += PIECE) {
    say(`sending ${name}, ${Math.round((100 * start) / blob.size)} %`);
    const piece = await blob.slice(start, start + PIECE).arrayBuffer();
    answer = await ask(model, { kind: "piece" }, [piece], late);
  }
  if (!answer.refused) {
    say(`listening to ${name} …`);
    answer = await ask(model, { kind: "end" });
  }
  say(answer.refused ?? "");
}

function wav(blocks, rate) {
  const n = blocks.reduce((sum, block) => sum + block.length, 0);
  const view = new DataView(new ArrayBuffer(44 + 2 * n));
  const text = (at, word) => [...word].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * n, true);
  text(8, "WAVEfmt ");
  [[16, 16, 4], [20, 1, 2], [22, 1, 2], [24, rate, 4], [28, 2 * rate, 4], [32, 2, 2], [34, 16, 2]].forEach(
    ([at, value, bytes]) => (bytes === 4 ? view.setUint32(at, value, true) : view.setUint16(at, value, true)),
  );
  text(36, "data");
  view.setUint32(40, 2 * n, true);
  let at = 44;
  for (const block of blocks) {
    for (const sample of block) {
      view.setInt16(at, Math.round(32767 * Math.max(-1, Math.min(1, sample))), true);
      at += 2;
    }
  }
  return new Blob([view], { type: "audio/wav" });
}

async function openMicrophone() {
  if (!navigator.mediaDevices?.getUserMedia || !window.AudioWorkletNode) {
    throw new Error(
      "no microphone for this page: browsers lend it only over https or on localhost; " +
        "record with an app and choose the file",
    );
  }
  // all helpers of video calls off: they change the level and the sound that is to be judged
  const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
  const context = new AudioContext();
  const code = URL.createObjectURL(new Blob([TAP], { type: "text/javascript" }));
  await context.audioWorklet.addModule(code);
  URL.revokeObjectURL(code);
  const blocks = [];
  const tap = new AudioWorkletNode(context, "serkit-tap", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
  tap.port.onmessage = ({ data }) => blocks.push(data);
  context.createMediaStreamSource(stream).connect(tap);
  return async () => {
    stream.getTracks().forEach((track) => track.stop());
    await context.close();
    return wav(blocks, context.sampleRate);
  };
}

function reason(error) {
  if (error.name === "NotAllowedError") return "the browser was not allowed to use the microphone; allow it beside the address";
  if (error.name === "NotFoundError") return "no microphone found; plug one in, or choose a file";
  return error.message;
}

function render({ model, el }) {
  const choose = element("label", `${BUTTON} serkit-choose`, "Choose a file");
  const input = element("input", "serkit-file");
  Object.assign(input, { type: "file", accept: "audio/*,.wav,.flac,.ogg,.mp3,.aiff", hidden: true });
  choose.append(input);
  const record = element("button", `${BUTTON} serkit-record`, "Record");
  const note = element("span", "serkit-note");
  el.append(choose, record, note);
  const say = (text) => (note.textContent = text);
  let stop = null;
  let timer = null;

  const busy = async (work) => {
    input.disabled = record.disabled = true;
    try {
      await work();
    } catch (error) {
      say(reason(error));
    }
    input.disabled = stop !== null;
    record.disabled = false;
  };

  input.addEventListener("change", () => {
    const [file] = input.files;
    if (file) busy(() => transfer(model, file, file.name, say)).then(() => (input.value = ""));
  });

  const finish = () => busy(async () => {
    clearInterval(timer);
    record.textContent = "Record";
    const take = stop;
    stop = null;
    await transfer(model, await take(), "microphone.wav", say);
  });

  const begin = () => busy(async () => {
    stop = await openMicrophone();
    const start = Date.now();
    record.textContent = "Stop";
    timer = setInterval(() => {
      const seconds = Math.floor((Date.now() - start) / 1000);
      say(`recording, ${seconds} s`);
      if (seconds >= LONGEST_S) finish();
    }, 250);
  });

  record.addEventListener("click", () => (stop ? finish() : begin()));
  return () => {
    clearInterval(timer);
    if (stop) stop(); // the cell was cleared while it recorded: the microphone is let go
  };
}

export default { render };
