from . import (
    constants,
    corpora,
    errors,
    evaluation,
    experiment,
    features,
    figures,
    files,
    folds,
    metrics,
    model,
    predict,
    recipe,
    reproduction,
    runs,
    training,
    widgets,
)
from .recipe import CORRECTED, PUBLISHED
from .runs import start_run
