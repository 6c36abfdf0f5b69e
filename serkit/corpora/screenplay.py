"""The demo corpus on paper: who says which sentence, with which emotion, and what annotators hear.

Nothing here makes a sound; every draw comes from one seed. Emotions are dealt out over the turns
of a speaker without a look at the words, so the words know nothing of the label.
"""

from dataclasses import dataclass

import numpy as np

from serkit.corpora.prosody import Delivery, Speaker, draw_delivery

SEED = 20220523  # of every draw; another one gives another corpus

SPEAKERS = {
    "1F": Speaker("en-us+f2", 165, 2.0, 1.00), "1M": Speaker("en-us+m3", 150, 2.0, 1.10),
    "2F": Speaker("en+f4", 170, 0.5, 0.90), "2M": Speaker("en-gb-scotland+m1", 155, 4.5, 1.10),
    "3F": Speaker("en-gb-x-rp+f3", 152, 1.0, 0.95), "3M": Speaker("en-us+m7", 168, 3.0, 0.95),
    "4F": Speaker("en-us+f1", 158, 3.5, 1.05), "4M": Speaker("en+m2", 170, 1.5, 1.15),
    "5F": Speaker("en-gb-scotland+f2", 166, 4.0, 0.95), "5M": Speaker("en-gb-x-gbclan+m6", 160, 3.5, 1.05),
}  # fmt: skip
TAGS_PER_SPEAKER = {"neu": 13, "ang": 8, "sad": 8, "exc": 7, "hap": 4, "fru": 2, "sur": 1, "xxx": 1}

DIALOGUES = (  # in every session
    "F_impro01", "F_impro02", "F_script01_1", "F_script01_2",
    "M_impro01", "M_impro02", "M_script01_1", "M_script01_2",
)  # fmt: skip
TURNS = 11  # per dialogue; the speaker in the dialogue's name begins, so each says all lines of a script
SENTENCES = (  # a comma is a pause; the first 11 are script01_1, the next 11 script01_2
    "Did you get the letter that I sent you?",
    "It came this morning, together with the newspaper.",
    "So you know about the house.",
    "They want all of us out by the end of the month.",
    "We could stay with my brother for a while, until we have found something else.",
    "He lives on the other side of the river, close to the bridge.",
    "You have always said that it was too far.",
    "It is only an hour if you go by train.",
    "I have already told him that we are coming.",
    "When did you do that?",
    "Last night, after you went upstairs, and before you came down again.",
    "The doctor called again while you were out.",
    "What did she say this time?",
    "She wants to see you on Monday, at half past nine.",
    "I can't go there on Monday, because my sister is coming.",
    "Then you should tell your sister to come on Tuesday.",
    "She has bought the ticket, it was expensive, and she won't change it now.",
    "Who is going to drive you there?",
    "I thought that you would do it.",
    "You know that I have to be at work by eight o'clock.",
    "Then I will take the bus.",
    "Let us talk about it tonight, when the children are in bed.",
    "I think that this is my seat.",
    "Would you look at the time?",
    "They have moved the meeting to Friday afternoon.",
    "I left the keys on the kitchen table, next to the bread.",
    "There is somebody standing at the door.",
    "He said that you would understand.",
    "That was the last one that they had in the shop.",
    "You never told me that you had a daughter.",
    "I saw your car in front of the station, just before seven, with the lights on.",
    "They are playing that song again.",
    "We have been waiting here since ten o'clock, all of us.",
    "My mother is going to live with us from now on.",
    "She put everything in a box, and left it on the stairs for the neighbours.",
    "I looked for you in the garden, but there was only the dog.",
    "All of them are coming to dinner, even your uncle.",
    "Somebody has painted the whole wall blue.",
    "You can keep it until Sunday, if nobody asks for it by the end of the week.",
    "It has been raining since we left the village, and it looks as if it will go on.",
)

ANNOTATORS = 3
WORDS = {  # what annotators choose from
    "neu": "Neutral", "ang": "Anger", "sad": "Sadness", "hap": "Happiness", "exc": "Excited",
    "fru": "Frustration", "sur": "Surprise",
}  # fmt: skip
MISTAKEN_FOR = {  # by the one annotator who disagrees
    "neu": ("fru", "sad", "hap"), "ang": ("fru", "neu"), "sad": ("neu", "fru"), "hap": ("exc", "neu"),
    "exc": ("hap", "sur"), "fru": ("ang", "neu"), "sur": ("exc", "hap"),
}  # fmt: skip
RATINGS = {  # valence, activation, dominance from 1 to 5, mean over annotators
    "neu": (3.0, 2.6, 2.8), "ang": (1.8, 3.9, 4.0), "sad": (2.0, 2.0, 2.3), "hap": (4.0, 3.2, 3.2),
    "exc": (4.2, 4.0, 3.5), "fru": (2.2, 3.2, 3.3), "sur": (3.3, 3.7, 2.9), "xxx": (2.8, 3.0, 3.0),
}  # fmt: skip
RATING_SD = 0.6  # between annotators


@dataclass(frozen=True)
class Turn:
    """One utterance before it is spoken."""

    utterance_id: str
    dialogue: str
    speaker: str
    text: str
    emotion: str
    delivery: Delivery
    votes: tuple  # tags, one for each annotator
    ratings: tuple  # (valence, activation, dominance), one for each annotator

    @property
    def session(self):
        return self.speaker[0]


def plan():
    """Decide who says what, and how.

    Returns
    -------
    list of Turn
        In the order of dialogues and turns, the same on every call.
    """
    rng = np.random.default_rng(SEED)
    emotions, improvised = {}, {}
    for speaker in SPEAKERS:
        tags = [tag for tag, count in TAGS_PER_SPEAKER.items() for _ in range(count)]
        emotions[speaker] = iter(rng.permutation(tags).tolist())
        improvised[speaker] = iter(rng.permutation(SENTENCES).tolist())
    turns = []
    for session in sorted({speaker[0] for speaker in SPEAKERS}):
        for dialogue in DIALOGUES:
            for position in range(TURNS):
                letter = dialogue[0] if position % 2 == 0 else "FM".replace(dialogue[0], "")
                speaker = session + letter
                if "script" in dialogue:
                    text = SENTENCES[TURNS * (int(dialogue[-1]) - 1) + position]
                else:
                    text = next(improvised[speaker])
                name = f"Ses0{session}{dialogue}"
                utterance_id = f"{name}_{letter}{position // 2:03d}"
                turns.append(
                    _draw_turn(utterance_id, name, speaker, text, next(emotions[speaker]), len(turns))
                )
    return turns


def _draw_turn(utterance_id, dialogue, speaker, text, emotion, number):
    """How it is spoken, and what the annotators make of it: the majority hears the tag."""
    rng = np.random.default_rng([SEED, number])
    delivery = draw_delivery(emotion, SPEAKERS[speaker], rng)
    if emotion == "xxx":
        votes = rng.choice(sorted(WORDS), size=ANNOTATORS, replace=False).tolist()
    else:
        votes = [emotion] * ANNOTATORS
        if rng.random() > delivery.strength - 0.2:  # the weaker it is acted, the less they agree
            votes[rng.integers(ANNOTATORS)] = str(rng.choice(MISTAKEN_FOR[emotion]))
    ratings = rng.normal(RATINGS[emotion], RATING_SD, size=(ANNOTATORS, 3))
    ratings = np.clip(np.rint(ratings), 1, 5).astype(int).tolist()
    return Turn(utterance_id, dialogue, speaker, text, emotion, delivery, tuple(votes), tuple(ratings))
