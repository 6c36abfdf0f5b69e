// Two ways of getting a sound into the kernel: a file as it is, or the samples of the microphone.

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
  return Object.assign(document.createElement(kind), { className: classes, textContent: text });
}

// One piece to the kernel, and its answer: never more than one waits, however large the file is.
function ask(model, content, piece, say) {
  return new Promise((resolve) => {
    const late = () => say("waiting for the kernel: it is at work, or was restarted; then run this cell again");
    const timer = setTimeout(late, PATIENCE_MS);
    const heard = (answer) => {
      clearTimeout(timer);
      model.off("msg:custom", heard);
      resolve(answer);
    };
    model.on("msg:custom", heard);
    model.send(content, undefined, [piece]);
  });
}

// A blob in pieces; the answer to the last one comes when the model has spoken.
async function transfer(model, blob, about, say) {
  let refused;
  for (let start = 0; (start === 0 || start < blob.size) && !refused; start += PIECE) {
    say(`sending ${about.name}, ${Math.round((100 * start) / Math.max(1, blob.size))} %`);
    const piece = await blob.slice(start, start + PIECE).arrayBuffer();
    if (start + PIECE >= blob.size) say(`listening to ${about.name} …`);
    ({ refused } = await ask(model, { ...about, size: blob.size, start }, piece, say));
  }
  say(refused ?? "");
}

async function openMicrophone() {
  if (!navigator.mediaDevices?.getUserMedia || !window.AudioWorkletNode) {
    throw new Error("no microphone for this page: browsers lend it only over https or on localhost; use a file");
  }
  // all helpers of video calls off: they change the level and the sound that is to be judged
  const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
  const context = new AudioContext();
  await context.audioWorklet.addModule(URL.createObjectURL(new Blob([TAP], { type: "text/javascript" })));
  const blocks = [];
  const mono = { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" };
  const tap = new AudioWorkletNode(context, "serkit-tap", mono);
  tap.port.onmessage = ({ data }) => blocks.push(data);
  context.createMediaStreamSource(stream).connect(tap);
  return async () => {
    stream.getTracks().forEach((track) => track.stop());
    await context.close();
    return [new Blob(blocks), { name: "microphone.wav", rate: context.sampleRate }];
  };
}

function reason(error) {
  if (error.name === "NotAllowedError") return "the browser was not allowed to use the microphone; allow it beside the address";
  return error.name === "NotFoundError" ? "no microphone found; plug one in, or choose a file" : error.message;
}

function render({ model, el }) {
  const choose = element("label", `${BUTTON} serkit-choose`, "Choose a file");
  const input = element("input", "serkit-file");
  Object.assign(input, { type: "file", accept: "audio/*,.wav,.flac,.ogg,.mp3,.aiff", hidden: true });
  choose.append(input);
  const [record, note] = [element("button", `${BUTTON} serkit-record`, "Record"), element("span", "serkit-note")];
  el.append(choose, record, note);
  const say = (text) => (note.textContent = text);
  let stop = null; // ends the recording that is going on, and gives it
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
    if (file) busy(() => transfer(model, file, { name: file.name }, say)).then(() => (input.value = ""));
  });
  const finish = () => busy(async () => {
    clearInterval(timer);
    record.textContent = "Record";
    const take = stop;
    stop = null;
    await transfer(model, ...(await take()), say);
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
