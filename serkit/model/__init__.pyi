from . import coattention, encoders, speech_encoders, storage
from .coattention import (
    DEMO,
    PAPER,
    PROFILES,
    CoAttentionModel,
    CoAttentionOutput,
    ModelConfig,
    check_encoder,
    create_model,
    padding_effect,
    read_speech_encoder,
    resolve_structure,
    weigh_frames,
    weights_source,
)
from .encoders import (
    MfccBiLstm,
    SpectrogramCNN,
    alexnet_features,
    fingerprint,
    load_alexnet_weights,
)
from .speech_encoders import (
    build_speech_encoder,
    count_encoder_frames,
    encoder_input,
    freeze,
    load_speech_encoder,
    read_states,
    read_structure,
    states_shape,
    wants_mask,
)
from .storage import (
    ModelFolder,
    describe_model,
    export_onnx,
    from_published_state_dict,
    load_model,
    load_published,
    model_card,
    open_model_folder,
    save_model,
)
