"""Plots and tables for print: each plot takes ``ax`` and returns it, ``save_figure`` writes it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["saving", "signals", "scores", "curves"],
    submod_attrs={
        "saving": [
            "paper_style", "legend_above", "readable_on", "colours_of", "save_figure", "save_table", "digest_of",
            "table_csv", "table_markdown", "latex_caption", "write_file", "DIGEST", "PNG_DPI", "UNDATED", "COLUMN_IN", "TEXT_IN",
            "BLUE", "ORANGE", "GREEN", "VERMILLION", "GREY", "EMOTION_COLOURS", "OTHER_COLOURS",
        ],
        "signals": [
            "plot_waveform", "plot_spectrogram", "plot_mfcc", "plot_coattention", "panel_grid", "plot_attention",
            "MAX_PANELS", "plot_timeline",
        ],
        "scores": [
            "plot_class_counts", "plot_durations", "draw_matrix", "plot_confusion_matrix", "speaker_confusions",
            "speaker_grid", "plot_speaker_confusions", "confusion_difference", "plot_confusion_difference",
            "plot_recall_intervals", "plot_reliability", "duration_accuracy", "plot_duration_accuracy",
            "plot_speaker_scores", "plot_class_probabilities", "plot_ablation", "plot_rules",
        ],
        "curves": [
            "read_histories", "plot_history", "project", "read_vectors", "fold_points", "fold_grid",
            "plot_fold_points",
        ],
    },
)  # fmt: skip
