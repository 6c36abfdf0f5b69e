"""From any recording to emotions."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "command", "loudness", "predictor", "recording",
    ],
    submod_attrs={
        "command": ["predict_files", "newest_model", "save_timeline", "describe_training"],
        "loudness": ["LevelMeter", "to_dbfs"],
        "predictor": ["Prediction", "Attention", "Predictor", "summary_table"],
        "recording": ["Recording", "window_length"],
    },
)  # fmt: skip
