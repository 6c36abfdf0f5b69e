"""Hear, see, try: what a notebook shows beside plots."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["lecture", "listening", "voice"],
    submod_attrs={
        "lecture": [
            "player", "play", "picture", "segment_table", "one_per_emotion", "utterance_near", "waveform_near", "check_all",
            "unheard_utterances", "choose_recording", "four_emotions", "spoil", "wav_bytes", "segment_sounds",
            "split_at", "plot_window", "plot_mel_bands", "plot_lobes", "plot_picture", "plot_fields", "plot_vectors",
        ],
        "listening": ["Listening"],
        "voice": ["Analysis", "Recogniser", "SoundInput", "VoicePanel", "as_html", "compare", "open_recogniser"],
    },
)  # fmt: skip
