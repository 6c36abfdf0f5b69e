from . import coattention, encoders, storage
from .coattention import (
    DEMO,
    PAPER,
    PROFILES,
    CoAttentionModel,
    CoAttentionOutput,
    ModelConfig,
    create_model,
    resolve_structure,
    weigh_frames,
    weights_source,
)
from .encoders import (
    MfccBiLstm,
    SpectrogramCNN,
    alexnet_features,
    count_encoder_frames,
    fingerprint,
    freeze,
    load_alexnet_weights,
    load_speech_encoder,
    speech_config,
)
from .storage import (
    ModelFolder,
    describe_model,
    from_published_state_dict,
    load_model,
    load_published,
    model_card,
    open_model_folder,
    save_model,
)
