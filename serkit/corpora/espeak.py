"""Speech from eSpeak NG, reproducible to the byte.

eSpeak NG is a C library with global state, and not all of it can be reset: the phase of the
oscillator and of the flutter run on from one utterance to the next. The same sentence therefore
sounds minutely different depending on what was said before. So every list of requests is spoken
in order by a process of its own, and the same list gives the same samples, always.
"""

import ctypes
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from serkit.errors import CorpusError

ESPEAK_RATE = 22_050  # Hz, of everything eSpeak NG synthesises

# from speak_lib.h
_SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: samples go to the callback, nothing is played
_DONT_EXIT = 0x8000  # return an error instead of ending the process
_CHARS_UTF8_SSML = 1 | 0x10
_PARAMETERS = {
    "rate": 1,
    "volume": 2,
    "pitch": 3,
    "pitch_range": 4,
    "punctuation": 5,
    "capitals": 6,
    "gap": 7,
}
_SYNTH_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)

# this file as a program, without the rest of the package: it starts in a fraction of a second
_WORKER = "import runpy, sys; sys.path.insert(0, {!r}); runpy.run_path({!r}, run_name='__main__')"


@dataclass(frozen=True)
class Request:
    """One utterance as eSpeak NG wants it."""

    ssml: str  # text with SSML marks, without the <speak> around it
    voice: str  # language and variant, for example en-us+f2
    rate: int = 175  # words per minute, 80 to 450
    pitch: int = 50  # 0 to 100, two octaves; 50 is the voice's own
    pitch_range: int = 50  # 0 (monotone) to 99; 50 is the voice's own
    gap: int = 0  # extra pause between words, in 10 ms at the default rate


def speak(requests):
    """Speak requests one after the other.

    Parameters
    ----------
    requests : list of Request

    Yields
    ------
    np.ndarray, shape (num_samples,), float32 in [-1, 1), 22,050 Hz
        One for each request, in order. They depend on the whole list before them (see the
        module's text), never on what the calling process did.

    Raises
    ------
    CorpusError
        If eSpeak NG can't be loaded, lacks a voice, or ends before the last request.
    """
    command = [sys.executable, "-c", _WORKER.format(str(Path(__file__).parents[2]), __file__)]
    with tempfile.TemporaryFile() as log:
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        try:
            _send(worker.stdin, requests)
            for _ in requests:
                head = worker.stdout.read(4)
                size = int.from_bytes(head, "little")
                data = worker.stdout.read(size)
                if len(head) < 4 or len(data) < size:
                    worker.wait()
                    raise CorpusError(_complaint(log, worker.returncode))
                yield np.frombuffer(data, dtype="<i2").astype(np.float32) / 32768
        finally:
            worker.kill()
            worker.stdout.close()
            worker.wait()


def _send(pipe, requests):
    try:
        pipe.write(json.dumps([asdict(request) for request in requests]).encode())
        pipe.close()
    except BrokenPipeError:
        pass  # the worker died before it read: its complaint is in the log


def _complaint(log, code):
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    reason = lines[-1] if lines else f"it ended with code {code}"
    return (
        f"eSpeak NG can't speak: {reason}; reinstall it with "
        "`python -m pip install --force-reinstall espeakng-loader` and try again"
    )


def _serve():
    """Worker: requests as JSON on stdin; on stdout, for each, its size in bytes and its PCM16."""
    requests = [Request(**fields) for fields in json.load(sys.stdin)]
    library = _load_library()
    chunks = []

    @_SYNTH_CALLBACK
    def collect(samples, count, _events):
        if samples and count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    library.espeak_SetSynthCallback(collect)  # `collect` lives as long as this function runs
    for request in requests:
        chunks.clear()
        _synthesise(library, request)
        pcm = b"".join(chunks)
        sys.stdout.buffer.write(len(pcm).to_bytes(4, "little") + pcm)
    sys.stdout.buffer.flush()


def _load_library():
    import espeakng_loader  # only the worker needs it, so only the worker can fail on it

    data_path = espeakng_loader.get_data_path()
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, str(data_path).encode(), _DONT_EXIT)
    if rate != ESPEAK_RATE:
        # its buffer for the path holds 160 characters; a longer one looks like missing data
        sys.exit(f"no usable data in {data_path} ({len(str(data_path))} characters, expected under 140)")
    return library


def _synthesise(library, request):
    """All that can be reset is reset: voice, every parameter, the seed of the breath noise."""
    if library.espeak_SetVoiceByName(request.voice.encode()) != 0:
        sys.exit(f"there is no voice {request.voice!r}")
    values = {"rate": request.rate, "pitch": request.pitch, "pitch_range": request.pitch_range}
    values |= {"volume": 100, "punctuation": 0, "capitals": 0, "gap": request.gap}
    for name, value in values.items():
        library.espeak_SetParameter(_PARAMETERS[name], value, 0)
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    text = f"<speak>{request.ssml}</speak>".encode()
    if library.espeak_Synth(text, ctypes.c_size_t(len(text) + 1), 0, 1, 0, _CHARS_UTF8_SSML, None, None) != 0:
        sys.exit(f"it refused {request.ssml!r}")
    library.espeak_Synchronize()


if __name__ == "__main__":
    _serve()
