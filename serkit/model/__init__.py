"""The three branches, their co-attention, and a trained model on disk."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["coattention", "encoders", "storage"],
    submod_attrs={
        "coattention": [
            "ModelConfig", "PAPER", "DEMO", "PROFILES", "CoAttentionOutput", "CoAttentionModel", "weigh_frames",
            "create_model", "resolve_structure", "weights_source",
        ],
        "encoders": [
            "alexnet_features", "SpectrogramCNN", "MfccBiLstm", "speech_config", "load_speech_encoder",
            "freeze", "fingerprint", "load_alexnet_weights", "count_encoder_frames",
        ],
        "storage": [
            "ModelFolder", "save_model", "load_model", "describe_model", "open_model_folder", "model_card",
            "load_published", "from_published_state_dict",
        ],
    },
)  # fmt: skip
