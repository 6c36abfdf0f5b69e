"""Corpus trees for tests: the shape of a release on disk, with sound that costs nothing."""

import struct
from pathlib import Path

import numpy as np

SHORT = 800  # samples; long enough to be a sound file, short enough to write thousands
HEAD = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]"
WORDS = {
    "ang": "Anger", "sad": "Sadness", "neu": "Neutral", "hap": "Happiness", "exc": "Excited",
    "fru": "Frustration", "sur": "Surprise", "fea": "Fear", "dis": "Disgust", "oth": "Other",
}  # fmt: skip
RESOURCE_FORK = b"\x00\x05\x16\x07not a sound"


def wav_bytes(waveform, sample_rate=16_000):
    """A mono PCM16 wav file as bytes.

    Parameters
    ----------
    waveform : np.ndarray, shape (num_samples,)
        Amplitude in [-1, 1].
    sample_rate : int
        Hz.
    """
    sound = np.round(np.clip(waveform, -1, 1) * 32767).astype("<i2").tobytes()
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    body = b"WAVE" + fmt + struct.pack("<4sI", b"data", len(sound)) + sound
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def noise(num_samples, seed=0):
    """Quiet white noise, shape (num_samples,)."""
    return 0.1 * np.random.default_rng(seed).uniform(-1, 1, num_samples)


def cut(path, num_bytes):
    """Truncate a file by a number of bytes, as a broken download would."""
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[:-num_bytes])


def write_iemocap_tree(root, index, audio="noise", *, exact_lengths=False, warts=True):
    """Write ``Session1`` ... as the IEMOCAP release has them.

    Parameters
    ----------
    root : path
        Made if need be.
    index : pd.DataFrame
        Columns ``utterance_id``, ``emotion`` (released tag), ``num_samples`` (at 16 kHz).
    audio : "noise" or callable
        Noise, the same in all files; or ``audio(utterance_id, num_samples)`` -> waveform at 16 kHz.
    exact_lengths : bool
        Whether noise is as long as the index says, instead of ``SHORT``. Callables always get the
        index' length.
    warts : bool
        Also what real trees hold: resource forks and ``.DS_Store``; CRLF and a Windows-1252
        apostrophe in session 2; transcript lines that name no utterance; and in each dialogue, on
        top of the index, turns tagged fru and xxx, a wav without label (``_F998``) and a label
        without wav (``_M999``, sur).

    Returns
    -------
    Path
        ``root``.
    """
    root = Path(root)
    short = wav_bytes(noise(SHORT))
    index = index.assign(dialogue=index["utterance_id"].str.rsplit("_", n=1).str[0])
    for dialogue, turns in index.groupby("dialogue"):
        session = root / f"Session{dialogue[4]}"
        wavs = session / "sentences" / "wav" / dialogue
        wavs.mkdir(parents=True)
        for turn in turns.itertuples():
            if callable(audio):
                content = wav_bytes(audio(turn.utterance_id, turn.num_samples))
            else:
                content = wav_bytes(noise(turn.num_samples)) if exact_lengths else short
            (wavs / f"{turn.utterance_id}.wav").write_bytes(content)
        pairs = list(zip(turns["utterance_id"], turns["emotion"], strict=True))
        if warts:
            pairs += [(f"{dialogue}_{turn}", tag) for turn, tag in [("F996", "fru"), ("M997", "xxx")]]
            for turn in ("F996", "M997", "F998"):
                (wavs / f"{dialogue}_{turn}.wav").write_bytes(short)
            (wavs / f"._{dialogue}_F996.wav").write_bytes(RESOURCE_FORK)
            pairs.append((f"{dialogue}_M999", "sur"))
        _write_texts(session / "dialog", dialogue, pairs, warts)
    return root


def _write_texts(folder, dialogue, pairs, warts):
    """Evaluation and transcription file of a dialogue."""
    line_end = "\r\n" if warts and dialogue.startswith("Ses02") else "\n"
    evaluation, transcription = [HEAD, ""], []
    for number, (utterance, tag) in enumerate(pairs):
        evaluation += evaluation_lines(utterance, tag, number)
        transcription.append(f"{utterance} [{number:08.4f}-{number + 1:08.4f}]: It\u2019s turn {number}.")
    if warts:
        transcription += [f"{dialogue}_FXX0 [000.0000-000.5000]: Hm.", "F: (laughs)"]
    contents = {"EmoEvaluation": evaluation, "transcriptions": transcription}
    for name, lines in contents.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        encoding = "cp1252" if line_end == "\r\n" else "utf-8"
        (folder / name / f"{dialogue}.txt").write_bytes((line_end.join(lines) + line_end).encode(encoding))
        if warts:
            (folder / name / f"._{dialogue}.txt").write_bytes(RESOURCE_FORK)
            (folder / name / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1")


def evaluation_lines(utterance, tag, number=0):
    """Summary and annotator lines: two of three annotators agree, one of them with a second choice.

    The actors' own lines all say Other, so that counting them by mistake shows.
    """
    word = WORDS.get(tag, "Neutral")
    other = "Surprise" if word != "Surprise" else "Fear"
    return [
        f"[{number:.4f} - {number + 1:.4f}]\t{utterance}\t{tag}\t[2.5000, 3.0000, 3.5000]",
        f"C-E2:\t{word};\t()",
        f"C-E3:\t{other}; {word};\t(quiet; then loud)",
        f"C-E4:\t{other};\t()",
        "C-F1:\tOther;\t(curious)",
        "C-M1:\tOther;\t()",
        "A-E3:\tval 3; act 2; dom  2;\t()",
        "A-F1:\tval 3; act ; dom  2;\t()",
        "",
    ]
