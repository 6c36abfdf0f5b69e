"""One experiment: every parameter that decides the numbers of a training run, checked."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from serkit import recipe as recipes
from serkit.constants import (
    BATCH_SIZE,
    CORPORA,
    FUSIONS,
    LEARNING_RATE,
    MAX_EPOCHS,
    MIN_EPOCHS,
    PATIENCE,
    VIEW_SETS,
)
from serkit.errors import ParameterError
from serkit.folds import GROUPINGS, SELECTIONS

# training defaults: the paper's own, and what a narrow model learned from scratch needs on a CPU
TRAINING = {
    "paper": {
        "epochs": MAX_EPOCHS, "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE,
        "patience": PATIENCE, "min_epochs": MIN_EPOCHS,
    },
    "demo": {"epochs": 10, "batch_size": 16, "learning_rate": 1e-3, "patience": 5, "min_epochs": 7},
}  # fmt: skip


@dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained. The defaults are the published ones; zeros and "" mean: the profile's own."""

    profile: str = "demo"  # size of the model: paper or demo
    views: str = "all"  # what it sees: all, one of spectrogram, mfcc and speech, or two such as mfcc+speech
    fusion: str = "coattention"  # how views become one: coattention (published), softmax, mean, gated
    epochs: int = 0  # at most
    batch_size: int = 0  # segments of one optimiser step
    micro_batch: int = 0  # segments computed at once, gradients are summed; 0: the whole batch
    learning_rate: float = 0.0  # of AdamW
    encoder_learning_rate: float = 0.0  # of the speech encoder; 0: like everything else
    weight_decay: float = 0.01  # of AdamW, torch's default
    warmup: float = 0.0  # share of all steps in which the learning rate rises from 0
    schedule: str = "constant"  # learning rate afterwards: constant, linear or cosine (down to 0)
    class_weights: bool = False  # errors on rare classes count more: N / (4 n)
    label_smoothing: float = 0.0  # share of the target given to all classes alike
    max_grad_norm: float = 0.0  # gradients longer than this are shortened; 0: never
    patience: int = 0  # epochs without a better one
    min_epochs: int = 0  # never stop before
    precision: str = "auto"  # float32, bf16, fp16, or what the device is good at
    speech_encoder: str = ""  # hub id, local folder, or random
    cnn_weights: str = ""  # imagenet or random
    encoder_training: str = "all"  # what of the speech encoder learns: all, transformer, top_<k>, frozen
    encoder_layers: str = "last"  # its last layer, or a learned weighted sum of all layers: weighted
    encoder_cache: bool = True  # a frozen encoder's output is computed once and read from disk
    gradient_checkpointing: bool = False  # a third more time for a fraction of the memory
    compile: bool = False  # torch.compile
    keep_epochs: bool = True  # keep the predictions of every epoch, to compare rules of choosing one

    def __post_init__(self):
        if self.profile not in TRAINING:
            raise ParameterError(f"profile={self.profile!r}, expected one of {', '.join(TRAINING)}")
        for name, value in TRAINING[self.profile].items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)
        check_choices(
            self,
            precision=("auto", "float32", "bf16", "fp16"),
            schedule=("constant", "linear", "cosine"),
            cnn_weights=("", "imagenet", "random"),
            encoder_layers=("last", "weighted"),
            views=tuple(VIEW_SETS),
            fusion=FUSIONS,
        )
        if self.fusion != "coattention" and self.views != "all":
            raise ParameterError(
                f"fusion={self.fusion!r} with views={self.views!r}, expected views='all': fusions are compared on all "
                "three views; leave one of the two out"
            )
        if not re.fullmatch(r"all|transformer|frozen|top_[1-9]\d?", self.encoder_training):
            raise ParameterError(
                f"encoder_training={self.encoder_training!r}, expected all, transformer, frozen or top_<k> "
                "such as top_4"
            )
        for name, low, high in (
            ("epochs", 1, 1000), ("batch_size", 1, 4096), ("micro_batch", 0, 4096), ("learning_rate", 1e-8, 1.0),
            ("encoder_learning_rate", 0.0, 1.0), ("weight_decay", 0.0, 1.0), ("warmup", 0.0, 0.9),
            ("label_smoothing", 0.0, 0.9), ("max_grad_norm", 0.0, 1e6), ("patience", 1, 1000), ("min_epochs", 1, 1000),
        ):  # fmt: skip
            check_range(self, name, low, high)


@dataclass(frozen=True)
class Experiment(TrainingSettings):
    """Everything that decides the numbers of one training run."""

    corpus: str = "demo"
    recipe: str = "corrected"  # features: published, corrected, published+D2, ...
    selection: str = "clean"  # who chooses the checkpoint: published, clean, last
    by: str = "session"  # what is held out: session or speaker
    fold: str = "1"  # the session or speaker that is tested
    seed: int = 111

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "fold", str(self.fold))
        recipes.named(self.recipe)
        check_choices(self, corpus=CORPORA, selection=SELECTIONS, by=GROUPINGS)
        check_range(self, "seed", 0, 2**31)

    @property
    def reads_states(self):
        """Whether a frozen encoder's output is computed once and read from disk from then on."""
        return self.encoder_training == "frozen" and self.encoder_cache and "speech" in VIEW_SETS[self.views]

    @property
    def variant(self):
        """Short name of what is compared with what: recipe, selection, grouping, profile, encoder, views."""
        named = [self.recipe, self.selection, self.by, self.profile]
        if self.speech_encoder:
            named.append(re.sub(r"\W+", "-", Path(self.speech_encoder).name))
        named += [self.encoder_training] * (self.encoder_training != "all")
        named += [self.encoder_layers] * (self.encoder_layers != "last")
        named += [self.views] * (self.views != "all") + [self.fusion] * (self.fusion != "coattention")
        return "_".join(named)

    @property
    def key(self):
        """Hash of all parameters: equal experiments give equal numbers on the same machine."""
        return key_of(asdict(self))

    def folder(self, run, home=None):
        """Where this experiment's results lie."""
        return (
            (home or project_home()) / "runs" / run / self.variant / f"fold={self.fold}" / f"seed={self.seed}"
        )


def key_of(parameters):
    """Hash of parameters as JSON knows them, whatever their order; of a record as well as of an Experiment.

    Examples
    --------
    >>> key_of({"fold": "1", "seed": 111}) == key_of({"seed": 111, "fold": "1"})
    True
    """
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:12]


def check_choices(settings, **choices):
    """Refuse a field that is none of its choices, naming them."""
    for name, allowed in choices.items():
        if getattr(settings, name) not in allowed:
            expected = ", ".join(map(repr, allowed)) if "" in allowed else ", ".join(allowed)
            raise ParameterError(f"{name}={getattr(settings, name)!r}, expected one of {expected}")


def check_range(settings, name, low, high):
    """Refuse a field that is no number from ``low`` to ``high``."""
    value = getattr(settings, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ParameterError(f"{name}={value!r}, expected a number from {low} to {high}")


def project_home():
    """The folder that holds ``notebooks/``, ``data/`` and ``runs/``, from anywhere inside it."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks" / "01_prepare_corpus.ipynb").is_file():
            return folder
    return here


def show_path(path):
    """A path as a reader wants it: relative to the project where it lies inside."""
    try:
        return Path(path).resolve().relative_to(project_home().resolve())
    except ValueError:
        return Path(path)
