"""A corpus to try everything on: ten synthetic speakers in IEMOCAP's layout.

Nobody has to ask for it or download it: eSpeak NG speaks it on first use, in seconds, and with the
same libraries to the same byte every time. Emotion is in the prosody alone; the words are the same
for all emotions and know nothing of the label. Results on it show that the kit works, and nothing
about people.

What may be changed: ``demo.toml`` says who speaks, which emotions, and how they sound, ``demo_sentences.txt`` what is
said; counts and seed stand in capitals below, how much an emotion varies in `serkit.corpora.voices`.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import soundfile
from tqdm.auto import tqdm

from serkit.constants import SAMPLE_RATE
from serkit.corpora.iemocap import read_tree
from serkit.corpora.sound_files import name_some
from serkit.corpora.voices import DEMO, ROOM_DB, Delivery, draw_delivery, finish, speak, to_request
from serkit.errors import CorpusError, reported_as
from serkit.files import filling

SEED = 20220523  # of every draw; another one gives another corpus

SPEAKERS, EMOTIONS = DEMO["speakers"], DEMO["emotions"]
SCENES = ("impro01", "impro02", "script01_1", "script01_2")
DIALOGUES = tuple(f"{first}_{scene}" for first, scene in product("FM", SCENES))  # in every session
TURNS = 11  # per dialogue; the speaker in the dialogue's name begins, so each says all lines of a script
# a ninth dialogue: both speakers say this sentence once with each of these tags, from the same random draws
PARALLEL_DIALOGUE, PARALLEL_SENTENCE = "F_script02_1", "The last train has gone."
PARALLEL_TAGS = ("neu", "ang", "sad", "exc")
# a comma is a pause; the first 11 are script01_1, the next 11 script01_2, improvised scenes draw from all
SENTENCES = tuple(Path(__file__).with_name("demo_sentences.txt").read_text(encoding="utf-8").splitlines())

ANNOTATORS = 3
RATING_SD = 0.6  # between annotators; ratings go from 1 to 5


def load(root, *, skip_broken=False):
    """Read the demo corpus; speak it first if it is not there.

    Parameters
    ----------
    root : path
        Folder of the corpus. Missing or empty: it is filled, in less than half a minute, through a
        folder beside it, so that a kill never leaves half a corpus.
    skip_broken : bool
        Go on with what is whole of it.

    Returns
    -------
    pd.DataFrame
        The manifest: 480 utterances, 440 of them in the four-class task.

    Raises
    ------
    CorpusError
        If eSpeak NG can't be loaded, ``root`` can't be written, or ``root`` holds anything else or
        only a part of the corpus. What is there is never deleted.
    """
    root = Path(os.path.realpath(root))
    turns = plan()
    full = OSError, soundfile.SoundFileError  # libsndfile's too on a full disk
    cure = "expected a writable disk with 100 MB free; free some space or give another root"
    with reported_as(CorpusError, f"demo corpus at {root}: can't be written", cure, full):
        if not _is_there(root, turns):
            with filling(root) as partial:
                if not _is_there(root, turns):  # another process may have been faster
                    write_tree(partial, turns)
    manifest, problems = read_tree(root, corpus="demo")
    if (problems or len(manifest) < len(turns)) and not skip_broken:
        about = f"demo corpus at {root}: {len(manifest)} of {len(turns)} utterances are whole"
        cure = "delete the folder and load it again, it is spoken anew"
        raise CorpusError(f"{about}: {name_some(problems or ['the others are gone'])}; {cure}")
    return manifest


def _is_there(root, turns):
    """Whether the corpus is at ``root``; a folder of something else is refused."""
    if not root.exists() or not any(root.iterdir()):
        return False
    marker = root / "demo.json"
    if not (marker.is_file() and marker.read_bytes() == _marker(turns)):
        about = f"demo corpus: {root} holds something else, or was spoken with other settings"
        expected = "expected a missing or empty folder or this demo corpus"
        raise CorpusError(f"{about}; {expected}; give another root, nothing was changed")
    return True


def _marker(turns):
    """Content of ``demo.json``: it tells our folder from any other, and these settings from older ones."""
    settings = json.dumps([[asdict(turn) for turn in turns], ROOM_DB], sort_keys=True)
    digest = hashlib.sha256(settings.encode()).hexdigest()[:16]
    marker = {"corpus": "demo", "utterances": len(turns), "settings": digest}
    return (json.dumps(marker, indent=2) + "\n").encode()


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
    OSError, soundfile.SoundFileError
        If the disk does.
    """
    rooms = np.random.default_rng([SEED, 0, 2]).uniform(*ROOM_DB, size=10)  # [session]
    spoken = speak([to_request(turn.text, SPEAKERS[turn.speaker], turn.delivery) for turn in turns])
    dialogues = {}  # (session, dialogue) -> [(turn, length in s)]
    pairs = zip(turns, spoken, strict=True)
    for turn, samples in tqdm(pairs, "the demo corpus", len(turns), unit="utt", mininterval=2):
        rng = np.random.default_rng([SEED, turn.number, 1])  # [SEED, number] drew the delivery
        waveform = finish(samples, turn.delivery, rooms[int(turn.speaker[0])], rng)
        wavs = folder / f"Session{turn.speaker[0]}/sentences/wav/{turn.dialogue}"
        wavs.mkdir(parents=True, exist_ok=True)
        soundfile.write(wavs / f"{turn.utterance_id}.wav", waveform, SAMPLE_RATE, subtype="PCM_16")
        lengths = dialogues.setdefault((turn.speaker[0], turn.dialogue), [])
        lengths.append((turn, len(waveform) / SAMPLE_RATE))
    for (session, dialogue), lengths in dialogues.items():
        _write_dialogue(folder / f"Session{session}/dialog", dialogue, lengths)
    (folder / "demo.json").write_bytes(_marker(turns))


def _write_dialogue(folder, dialogue, lengths_s):
    """Evaluation file and transcription of [(turn, length)]; turns follow each other half a second apart."""
    evaluation, transcription, start = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n", "", 5.0
    for turn, length_s in lengths_s:
        end = start + length_s
        means = ", ".join(f"{np.mean(values):.4f}" for values in zip(*turn.ratings, strict=True))
        evaluation += f"\n[{start:.4f} - {end:.4f}]\t{turn.utterance_id}\t{turn.emotion}\t[{means}]\n"
        for number, vote in enumerate(turn.votes, start=1):
            evaluation += f"C-E{number}:\t{EMOTIONS[vote]['word']};\t()\n"
        for number, (valence, activation, dominance) in enumerate(turn.ratings, start=1):
            evaluation += f"A-E{number}:\tval {valence}; act {activation}; dom  {dominance};\t()\n"
        transcription += f"{turn.utterance_id} [{start:08.4f}-{end:08.4f}]: {turn.text}\n"
        start = end + 0.5
    for part, text in {"EmoEvaluation": evaluation, "transcriptions": transcription}.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / f"{dialogue}.txt").write_text(text, encoding="utf-8", newline="\n")


@dataclass(frozen=True)
class Turn:
    """One utterance before it is spoken."""

    number: int  # with SEED, the seed of its draws
    utterance_id: str
    dialogue: str
    speaker: str
    text: str
    emotion: str
    delivery: Delivery
    votes: list  # tags, one for each annotator
    ratings: list  # [valence, activation, dominance], one for each annotator


def plan():
    """Decide who says what, and how.

    Returns
    -------
    list of Turn
        In the order of dialogues and turns, the parallel dialogues last; the same on every call.
    """
    rng = np.random.default_rng(SEED)
    emotions, improvised = {}, {}
    for speaker in SPEAKERS:
        tags = [tag for tag, emotion in EMOTIONS.items() for _ in range(emotion["turns"])]
        emotions[speaker] = iter(rng.permutation(tags).tolist())
        improvised[speaker] = iter(rng.permutation(SENTENCES).tolist())
    sessions = sorted({speaker[0] for speaker in SPEAKERS})
    turns = []
    for session, dialogue in product(sessions, DIALOGUES):
        for position in range(TURNS):
            speaker = _speaker(session, dialogue, position)
            if "script" in dialogue:
                text = SENTENCES[TURNS * (int(dialogue[-1]) - 1) + position]
            else:
                text = next(improvised[speaker])
            turns.append(_draw_turn(speaker, dialogue, position, text, next(emotions[speaker]), len(turns)))
    numbers = {speaker: number for number, speaker in enumerate(SPEAKERS, start=len(turns))}
    for session, position in product(sessions, range(2 * len(PARALLEL_TAGS))):
        speaker = _speaker(session, PARALLEL_DIALOGUE, position)
        said = PARALLEL_SENTENCE, PARALLEL_TAGS[position // 2]
        turns.append(_draw_turn(speaker, PARALLEL_DIALOGUE, position, *said, numbers[speaker]))
    return turns


def _speaker(session, dialogue, position):
    """Whose turn it is."""
    return session + (dialogue[0] if position % 2 == 0 else "FM".replace(dialogue[0], ""))


def _draw_turn(speaker, dialogue, position, text, emotion, number):
    """How it is spoken, and what the annotators make of it: the majority hears the tag."""
    dialogue = f"Ses0{speaker[0]}{dialogue}"
    utterance_id = f"{dialogue}_{speaker[1]}{position // 2:03d}"
    rng = np.random.default_rng([SEED, number])
    delivery = draw_delivery(emotion, SPEAKERS[speaker], rng)
    if emotion == "xxx":
        votes = rng.choice(sorted(EMOTIONS.keys() - {"xxx"}), size=ANNOTATORS, replace=False).tolist()
    else:
        votes = [emotion] * ANNOTATORS
        if rng.random() > delivery.strength - 0.2:  # the weaker it is acted, the less they agree
            votes[rng.integers(ANNOTATORS)] = str(rng.choice(EMOTIONS[emotion]["mistaken_for"]))
    ratings = rng.normal(EMOTIONS[emotion]["ratings"], RATING_SD, size=(ANNOTATORS, 3))
    ratings = np.clip(np.rint(ratings), 1, 5).astype(int).tolist()
    return Turn(number, utterance_id, dialogue, speaker, text, emotion, delivery, votes, ratings)
