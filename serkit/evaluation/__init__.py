"""What prediction tables say, and how sure one can be."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["ablations", "claims", "comparison", "intervals", "predictions"],
    submod_attrs={
        "ablations": [
            "families", "reference_of", "ablation_table", "compare_settings", "load_epochs", "epoch_scores",
            "choose_epochs", "rule_scores", "apply_rule", "rule_table",
        ],
        "claims": ["verdict", "paper_comparison", "read_literature"],
        "comparison": [
            "Comparison", "compare_variants", "compare_many", "at_shared_seeds", "check_same_utterances",
        ],
        "intervals": [
            "Estimate", "Interval", "summary_table", "bootstrap_interval", "subset_accuracy", "class_recall",
            "reliability_table", "expected_calibration_error",
        ],
        "predictions": [
            "check_predictions", "scored_rows", "selection_of", "grouping_of", "with_selection",
        ],
    },
)  # fmt: skip
