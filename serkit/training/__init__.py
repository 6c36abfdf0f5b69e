"""One fold: from features to predictions."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["batches", "checkpoints", "encoder_states", "loop", "scoring"],
    submod_attrs={
        "batches": [
            "SegmentDataset", "segment_batch", "load_batches", "fit_scaler", "model_inputs"
        ],
        "checkpoints": [
            "Progress", "best_epoch", "save_checkpoint", "load_checkpoint", "interruptible", "kept_epochs",
            "keep_predictions",
        ],
        "encoder_states": ["EncoderStates", "states_key", "build_states"],
        "loop": [
            "FoldResult", "Learner", "train_fold", "train_epoch", "make_learner", "time_steps", "model_config",
            "train_step", "read_result", "class_weights", "seed_of_step",
        ],
        "scoring": [
            "resolve_precision", "make_accelerator", "predict", "score_utterances", "prediction_table",
            "vector_table",
        ],
    },
)  # fmt: skip
