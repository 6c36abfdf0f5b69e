"""A corpus to try everything on: ten synthetic speakers in IEMOCAP's layout.

Nobody has to ask for it or download it: eSpeak NG speaks it on first use, in seconds, and with the
same libraries to the same byte every time. Emotion is in the prosody alone; the words are the same
for all emotions and know nothing of the label. Results on it show that the kit works, and nothing
about people.

What may be changed stands in capitals at the top of `serkit.corpora.screenplay` (speakers, counts,
sentences, seed) and of `serkit.corpora.prosody` (how an emotion sounds, how much it varies).
"""

import hashlib
import json
import os
import shutil
import time
import uuid
from dataclasses import asdict
from pathlib import Path

import numpy as np
import soundfile
from tqdm.auto import tqdm

from serkit.constants import SAMPLE_RATE
from serkit.corpora.espeak import speak
from serkit.corpora.iemocap import read_tree
from serkit.corpora.prosody import ROOM_DB, finish, to_request
from serkit.corpora.screenplay import SEED, SPEAKERS, WORDS, plan
from serkit.corpora.sound_files import name_some
from serkit.errors import CorpusError

STALE_S = 3600  # s, after which an unfinished folder is taken for that of a killed process


def load(root):
    """Read the demo corpus; speak it first if it is not there.

    Parameters
    ----------
    root : path
        Folder of the corpus. Missing or empty: it is filled, in less than half a minute, through a
        folder beside it, so that a kill never leaves half a corpus. Files that went missing later
        are put back.

    Returns
    -------
    pd.DataFrame
        The manifest: 440 utterances, 400 of them in the four-class task.

    Raises
    ------
    CorpusError
        If eSpeak NG can't be loaded, ``root`` can't be written, or ``root`` holds anything else.
        What is there is never deleted.
    """
    root = Path(os.path.realpath(root))
    turns = plan()
    try:
        missing = _missing_files(root, turns)
        if missing:
            _fill(root, turns, missing)
    except OSError as error:
        raise CorpusError(
            f"demo corpus at {root}: can't be written ({error.strerror or error}), expected a writable "
            "disk with 100 MB free; free some space or give another root"
        ) from error
    manifest, problems = read_tree(root, corpus="demo")
    if problems:
        raise CorpusError(
            f"demo corpus at {root}: {name_some(problems)}; delete these files, "
            "or the whole folder, and load it again: what is missing is spoken again"
        )
    return manifest


def _marker(turns):
    """What ``demo.json`` holds: it tells our folder from any other, and these settings from older ones."""
    settings = json.dumps([[asdict(turn) for turn in turns], ROOM_DB], sort_keys=True)
    return {
        "corpus": "demo",
        "utterances": len(turns),
        "settings": hashlib.sha256(settings.encode()).hexdigest()[:16],
    }


def _files(turns):
    """Every file of the tree, relative to its root."""
    dialogues = _dialogues(turns).items()
    labels = [f"Session{s}/dialog/EmoEvaluation/{d}.txt" for d, s in dialogues]
    texts = [f"Session{s}/dialog/transcriptions/{d}.txt" for d, s in dialogues]
    return [_wav(turn) for turn in turns] + labels + texts


def _dialogues(turns):
    """{dialogue: session}, in order."""
    return {turn.dialogue: turn.session for turn in turns}


def _wav(turn):
    return f"Session{turn.session}/sentences/wav/{turn.dialogue}/{turn.utterance_id}.wav"


def _missing_files(root, turns):
    """Files that have to be made; a folder that is not ours is refused."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return _files(turns)
    try:
        marker = json.loads((root / "demo.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        marker = None
    if not isinstance(marker, dict) or marker.get("corpus") != "demo":
        raise CorpusError(
            f"demo corpus: {root} holds something else, expected a missing or empty folder or an "
            "earlier demo corpus; give another root, nothing was changed"
        )
    if marker != _marker(turns):
        raise CorpusError(
            f"demo corpus at {root} was spoken with other settings ({marker.get('settings')}, expected "
            f"{_marker(turns)['settings']}); delete the folder and load it again, or give another root"
        )
    return [name for name in _files(turns) if not (root / name).is_file()]


def _fill(root, turns, missing):
    """Make the whole tree beside ``root``; move it there, or from it what is missing."""
    root.parent.mkdir(parents=True, exist_ok=True)
    for stale in root.parent.glob(f".{root.name}.partial-*"):
        if time.time() - stale.stat().st_mtime > STALE_S:
            shutil.rmtree(stale, ignore_errors=True)
    partial = root.with_name(f".{root.name}.partial-{uuid.uuid4().hex}")
    try:
        write_tree(partial, turns)
        if (root / "demo.json").exists():
            for name in missing:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(partial / name, root / name)
        else:
            if root.exists():
                root.rmdir()
            partial.rename(root)
    except OSError:
        # another process may have made it in the meantime: then all is well
        if _missing_files(root, turns):
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_tree(folder, turns):
    """Speak turns into a new folder, laid out like IEMOCAP.

    Parameters
    ----------
    folder : Path
        Made here; ``demo.json`` is written into it last.
    turns : list of Turn

    Raises
    ------
    CorpusError
        If eSpeak NG fails.
    OSError
        If the disk does.
    """
    for name in ["demo.json", *_files(turns)]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    rooms = np.random.default_rng([SEED, 0, 2]).uniform(*ROOM_DB, size=10)  # [session]
    requests = [to_request(turn.text, SPEAKERS[turn.speaker], turn.delivery) for turn in turns]
    spoken_turns = zip(turns, speak(requests), strict=True)
    progress = tqdm(spoken_turns, "speaking the demo corpus", len(turns), unit="utt", mininterval=2.0)
    lengths_s = {}
    for number, (turn, spoken) in enumerate(progress):
        if not np.any(spoken):
            raise CorpusError(
                f"demo corpus: eSpeak NG is silent on {turn.utterance_id}; reinstall espeakng-loader"
            )
        rng = np.random.default_rng([SEED, number, 1])  # [SEED, number] drew the delivery
        waveform = finish(spoken, turn.delivery, rooms[int(turn.session)], rng)
        lengths_s[turn.utterance_id] = len(waveform) / SAMPLE_RATE
        _write_wav(folder / _wav(turn), waveform)
    for dialogue, session in _dialogues(turns).items():
        _write_dialogue(folder / f"Session{session}/dialog", dialogue, turns, lengths_s)
    (folder / "demo.json").write_text(json.dumps(_marker(turns), indent=2) + "\n", encoding="utf-8")


def _write_wav(path, waveform):
    try:
        soundfile.write(path, waveform, SAMPLE_RATE, subtype="PCM_16")
    except RuntimeError as error:  # libsndfile's; on a full disk too
        raise OSError(f"{path}: {error}") from error


def _write_dialogue(folder, dialogue, turns, lengths_s):
    """Evaluation file and transcription; turns follow each other half a second apart."""
    labels = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n"]
    texts = []
    start = 5.0
    for turn in (turn for turn in turns if turn.dialogue == dialogue):
        end = start + lengths_s[turn.utterance_id]
        means = ", ".join(f"{np.mean(values):.4f}" for values in zip(*turn.ratings, strict=True))
        lines = [f"[{start:.4f} - {end:.4f}]\t{turn.utterance_id}\t{turn.emotion}\t[{means}]"]
        lines += [f"C-E{k}:\t{WORDS[vote]};\t()" for k, vote in enumerate(turn.votes, start=1)]
        lines += [
            f"A-E{k}:\tval {v}; act {a}; dom  {d};\t()" for k, (v, a, d) in enumerate(turn.ratings, start=1)
        ]
        labels.append("\n".join(lines) + "\n")
        texts.append(f"{turn.utterance_id} [{start:08.4f}-{end:08.4f}]: {turn.text}\n")
        start = end + 0.5
    (folder / f"EmoEvaluation/{dialogue}.txt").write_text("\n".join(labels), encoding="utf-8", newline="\n")
    (folder / f"transcriptions/{dialogue}.txt").write_text("".join(texts), encoding="utf-8", newline="\n")
