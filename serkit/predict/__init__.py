"""Any recording to emotions."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["command", "predictor", "recording"],
    submod_attrs={
        "command": ["predict_files", "newest_model", "save_timeline", "describe_training", "summary_table"],
        "predictor": ["Prediction", "Attention", "Predictor", "open_predictor"],
        "recording": ["Recording", "Notice", "to_dbfs", "window_length"],
    },
)  # fmt: skip
