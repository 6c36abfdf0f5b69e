from . import batches, checkpoints, encoder_states, loop, scoring
from .batches import SegmentDataset, fit_scaler, load_batches, model_inputs, segment_batch
from .checkpoints import (
    Progress,
    best_epoch,
    interruptible,
    keep_predictions,
    kept_epochs,
    load_checkpoint,
    save_checkpoint,
)
from .encoder_states import EncoderStates, build_states, encode, fit_states, real_frames, states_key
from .loop import (
    FoldResult,
    Learner,
    class_weights,
    make_learner,
    model_config,
    read_result,
    seed_of_step,
    time_steps,
    train_epoch,
    train_fold,
    train_step,
)
from .scoring import (
    make_accelerator,
    mean_over_segments,
    predict,
    prediction_table,
    resolve_precision,
    score_utterances,
    vector_table,
)
