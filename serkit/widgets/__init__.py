"""Hear, see, try: what a notebook shows beside plots."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "earboard", "earparts", "earsummary", "earview", "examples", "lecture", "listening", "ownvoice",
        "soundinput", "voice", "voicesamples",
    ],
    submod_attrs={
        "earboard": ["EarBoard"],
        "earparts": ["MatrixGrid", "UtteranceTable", "UtterancePane", "probability_table"],
        "earsummary": ["player", "picture", "surest_mistakes", "summary"],
        "earview": ["Listening", "is_live"],
        "examples": [
            "one_per_emotion", "utterance_near", "waveform_near", "confident_mistakes", "check_all",
        ],
        "lecture": [
            "play", "segment_sounds", "split_at", "plot_window", "plot_mel_bands", "plot_lobes",
            "plot_picture", "plot_fields", "plot_vectors",
        ],
        "listening": [
            "runs_on_disk", "variants_on_disk", "load_utterances", "utterance_table", "choose",
            "counts_of", "behind_cell", "in_order", "page_of", "text_lines", "key_of", "model_folder",
            "sound_path", "save_marked",
        ],
        "ownvoice": ["Analysis", "Recogniser", "open_recogniser", "compare"],
        "soundinput": ["SoundInput"],
        "voice": ["VoicePanel", "finished_models", "as_html", "player", "draw"],
        "voicesamples": ["unheard_utterances", "choose_recording", "four_emotions", "spoil", "wav_bytes"],
    },
)  # fmt: skip
