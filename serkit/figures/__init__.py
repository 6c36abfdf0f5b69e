"""Plots and tables for print."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "ablations", "attention", "certainty", "confusions", "embedding", "foldcurves", "mistakes",
        "plots", "saving", "tables", "timeline",
    ],
    submod_attrs={
        "ablations": ["plot_ablation", "plot_rules"],
        "attention": ["panel_grid", "plot_attention"],
        "certainty": ["plot_recall_intervals", "plot_reliability", "whisker"],
        "confusions": [
            "speaker_confusions", "speaker_grid", "plot_speaker_confusions", "confusion_difference",
            "plot_confusion_difference",
        ],
        "embedding": [
            "project", "plot_embedding", "read_vectors", "fold_points", "fold_grid", "plot_fold_points",
        ],
        "foldcurves": ["read_histories", "plot_fold_curves"],
        "mistakes": [
            "duration_accuracy", "plot_duration_accuracy", "rating_mistakes", "plot_rating_mistakes",
        ],
        "plots": [
            "paper_style", "plot_confusion_matrix", "plot_recall", "plot_class_counts", "plot_durations",
            "plot_waveform", "plot_spectrogram", "plot_mfcc", "plot_coattention", "plot_history",
            "plot_speaker_scores", "plot_class_probabilities", "readable_on", "legend_above",
        ],
        "saving": [
            "save_figure", "digest_of", "Sidecar", "check_frame", "to_csv", "serkit_version", "write_file",
        ],
        "tables": ["save_table", "table_csv", "markdown_table", "latex_table", "latex_caption"],
        "timeline": ["plot_timeline"],
    },
)  # fmt: skip
