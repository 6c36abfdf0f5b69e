"""What prediction tables say, and how sure one can be."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "ablations", "calibration", "claims", "comparison", "epochs", "intervals", "literature",
        "predictions", "resampling", "subsets",
    ],
    submod_attrs={
        "ablations": ["families", "reference_of", "ablation_table", "compare_settings", "rule_table"],
        "calibration": ["reliability_table", "expected_calibration_error"],
        "claims": ["verdict", "paper_comparison"],
        "comparison": [
            "Comparison", "compare_variants", "compare_many", "at_shared_seeds", "check_same_utterances",
        ],
        "epochs": ["load_epochs", "epoch_scores", "choose_epochs", "apply_rule"],
        "intervals": [
            "Estimate", "Interval", "summary_table", "class_table", "bootstrap_interval", "interval_table",
            "clustered_interval", "check_choice", "check_range",
        ],
        "literature": ["read_literature"],
        "predictions": ["check_predictions", "scored_rows", "grouping_of", "selection_of", "check_labels"],
        "resampling": ["Tally", "tally", "score_of", "standard_error", "cluster_limits", "row_limits"],
        "subsets": ["subset_accuracy", "class_recall"],
    },
)  # fmt: skip
