"""One fold: from features to predictions."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "batches", "checkpoints", "devices", "encoder_states", "interrupts", "launch", "loop",
        "optimisation", "progress", "scoring",
    ],
    submod_attrs={
        "batches": [
            "SegmentDataset", "segment_batch", "make_loader", "plan_batches", "load_batches", "fit_scaler",
            "model_inputs",
        ],
        "checkpoints": [
            "save_checkpoint", "writing", "load_checkpoint", "remove_checkpoint", "good_checkpoint",
            "position", "keep_epoch", "join_epochs",
        ],
        "devices": [
            "cpu_is_fast_at_bf16", "resolve_precision", "make_accelerator", "peak_memory",
            "is_out_of_memory",
        ],
        "encoder_states": ["EncoderStates", "states_key", "build_states"],
        "interrupts": ["Interrupts"],
        "launch": ["train_in_processes", "main"],
        "loop": ["FoldResult", "train_fold", "train_steps", "model_config", "read_result"],
        "optimisation": ["make_optimizer", "class_weights", "seed_of_step"],
        "progress": [
            "new_progress", "begin_epoch", "train_scores", "best_epoch", "is_at_best", "is_finished",
            "epoch_line", "batch_line", "log_scalars",
        ],
        "scoring": ["predict", "score_utterances", "prediction_table", "vector_table"],
    },
)  # fmt: skip
