from . import lecture, listening, voice
from .lecture import (
    check_all,
    choose_recording,
    four_emotions,
    one_per_emotion,
    picture,
    play,
    player,
    plot_fields,
    plot_frame,
    plot_lobes,
    plot_mel_bands,
    plot_picture,
    plot_vectors,
    segment_sounds,
    segment_table,
    split_at,
    spoil,
    unheard_utterances,
    utterance_near,
    wav_bytes,
)
from .listening import ListeningView, listen
from .voice import Analysis, Recogniser, SoundInput, VoicePanel, as_html, compare, open_recogniser
