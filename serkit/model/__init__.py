"""The three branches, their co-attention, and a trained model on disk."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "coattention", "encoders", "fusion", "modelcard", "published", "storage",
    ],
    submod_attrs={
        "coattention": [
            "ModelConfig", "CoAttentionOutput", "CoAttentionModel", "create_model", "resolve_structure",
            "weights_source", "save_model", "load_model",
        ],
        "encoders": [
            "alexnet_features", "SpectrogramCNN", "MfccBiLstm", "speech_config", "load_speech_encoder",
            "freeze", "fingerprint", "load_alexnet_weights", "count_encoder_frames",
        ],
        "fusion": ["weigh_frames"],
        "modelcard": ["model_card"],
        "published": ["load_published", "from_published_state_dict"],
        "storage": ["ModelFolder", "write_model_folder", "describe_model", "open_model_folder"],
    },
)  # fmt: skip
