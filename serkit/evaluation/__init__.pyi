from . import attention, baselines, claims, comparison, intervals, predictions
from .attention import attention_tables, look_into, weights_text, worth_text
from .baselines import (
    annotator_rows,
    baseline_table,
    below_baseline,
    make_baselines,
    people_table,
    soft_distance,
)
from .claims import paper_comparison, read_literature, verdict
from .comparison import (
    ablation_table,
    across_corpora,
    apply_rule,
    at_shared_seeds,
    check_same_utterances,
    choose_epochs,
    compare_many,
    compare_settings,
    compare_variants,
    epoch_scores,
    families,
    kept_epochs,
    load_epochs,
    read_differences,
    reference_of,
    rule_scores,
    rule_table,
)
from .intervals import (
    Estimate,
    class_recall,
    expected_calibration_error,
    percent,
    reliability_table,
    risk_coverage,
    score_interval,
    slice_table,
)
from .predictions import (
    check_predictions,
    grouping_of,
    protocol_in_words,
    scored_rows,
    selection_of,
    settings_in_words,
    with_selection,
)
