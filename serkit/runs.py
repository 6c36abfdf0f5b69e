"""One experiment, its folder, and what is recorded so that it can be trusted and repeated."""

import hashlib
import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from serkit import recipe as recipes
from serkit.constants import BATCH_SIZE, LEARNING_RATE, MAX_EPOCHS, MIN_EPOCHS, PATIENCE
from serkit.corpora import REGISTRY
from serkit.errors import ParameterError, RunError
from serkit.folds import GROUPINGS, SELECTIONS

DONE = "DONE"  # written last into a finished run folder
PACKAGES = ("serkit", "torch", "torchaudio", "transformers", "accelerate", "librosa", "numpy", "pandas")

# training defaults: the paper's own, and what a narrow model learned from scratch needs on a CPU
TRAINING = {
    "paper": {
        "epochs": MAX_EPOCHS, "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE,
        "patience": PATIENCE, "min_epochs": MIN_EPOCHS,
    },
    "demo": {"epochs": 10, "batch_size": 16, "learning_rate": 1e-3, "patience": 5, "min_epochs": 7},
}  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """Everything that decides the numbers of one training run. Zeros mean: the profile's own value."""

    corpus: str = "demo"
    recipe: str = "corrected"  # features: published, corrected, published+D2, ...
    selection: str = "clean"  # who chooses the checkpoint: published, clean, last
    by: str = "session"  # what is held out: session or speaker
    fold: str = "1"  # the session or speaker that is tested
    seed: int = 111
    profile: str = "demo"  # size of the model: paper or demo
    epochs: int = 0  # at most
    batch_size: int = 0  # segments
    learning_rate: float = 0.0
    patience: int = 0  # epochs without a better one
    min_epochs: int = 0  # never stop before
    precision: str = "auto"  # float32, bf16, fp16, or what the device is good at

    def __post_init__(self):
        if self.profile not in TRAINING:
            raise ParameterError(f"profile={self.profile!r}, expected one of {', '.join(TRAINING)}")
        for name, value in TRAINING[self.profile].items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)
        object.__setattr__(self, "fold", str(self.fold))
        recipes.named(self.recipe)
        choices = {
            "corpus": tuple(REGISTRY), "selection": SELECTIONS, "by": GROUPINGS,
            "precision": ("auto", "float32", "bf16", "fp16"),
        }  # fmt: skip
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ParameterError(f"{name}={getattr(self, name)!r}, expected one of {', '.join(allowed)}")
        for name, low, high in (
            ("epochs", 1, 1000), ("batch_size", 1, 4096), ("learning_rate", 1e-8, 1.0),
            ("patience", 1, 1000), ("min_epochs", 1, 1000), ("seed", 0, 2**31),
        ):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise ParameterError(f"{name}={value!r}, expected a number from {low} to {high}")

    @property
    def variant(self):
        """Short name of what is compared with what: recipe, selection, grouping, profile."""
        return f"{self.recipe}_{self.selection}_{self.by}_{self.profile}"

    @property
    def key(self):
        """Hash of all parameters: equal experiments give equal numbers on the same machine."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    def folder(self, run, home=None):
        """Where this experiment's results lie."""
        return (
            (home or project_home()) / "runs" / run / self.variant / f"fold={self.fold}" / f"seed={self.seed}"
        )


def project_home():
    """The folder that holds ``notebooks/``, ``data/`` and ``runs/``, from anywhere inside it."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks" / "01_prepare_corpus.ipynb").is_file():
            return folder
    return here


def corpus_root(corpus, root=""):
    """Folder of a corpus: as given (relative to the project), or ``data/<corpus>``."""
    return project_home() / (Path(root).expanduser() if root else Path("data") / corpus)


def processed_folder(corpus):
    """Where everything derived from a corpus lies: manifest, folds, feature stores."""
    return project_home() / "data" / "processed" / corpus


@dataclass(frozen=True)
class Run:
    """What ``start_run`` hands to a notebook."""

    name: str  # name of the run, first folder under runs/ and figures/
    experiment: Experiment
    root: Path  # of the corpus
    device: str

    @property
    def folder(self):
        """Where this run's results lie."""
        return self.experiment.folder(self.name)

    @property
    def processed(self):
        """Where manifest, folds and feature stores of the corpus lie."""
        return processed_folder(self.experiment.corpus)

    @property
    def recipe(self):
        """The recipe that the experiment names, as an object."""
        return recipes.named(self.experiment.recipe)


def start_run(run, *, corpus, root="", notebook="", **parameters):
    """Validate a notebook's parameters, derive the rest, and print what it runs on.

    Parameters
    ----------
    run : str
        Name of the run; letters, digits, dash and underscore.
    corpus : str
    root : str, optional
        Folder of the corpus; default ``data/<corpus>``.
    notebook : str, optional
        Printed.
    **parameters
        Any field of ``Experiment``.

    Returns
    -------
    Run

    Raises
    ------
    ParameterError
        On a parameter that does not exist or is out of range.
    """
    run = getattr(run, "name", run)  # a cell that is run twice hands back the Run it made
    if not run or not run.replace("-", "").replace("_", "").isalnum():
        raise ParameterError(f"run={run!r}, expected letters, digits, - and _ (it names a folder)")
    known = {field.name for field in fields(Experiment)}
    unknown = sorted(set(parameters) - known)
    if unknown:
        raise ParameterError(f"unknown parameter {unknown[0]!r}, expected one of {', '.join(sorted(known))}")
    quiet_libraries()
    experiment = Experiment(corpus=corpus, **parameters)
    result = Run(run, experiment, corpus_root(corpus, root), device_name())
    packages = " ".join(f"{name} {version(name)}" for name in ("serkit", "torch", "transformers", "librosa"))
    print(f"run {run!r}  {notebook}\ncorpus {corpus} at {show_path(result.root)}  recipe {experiment.recipe}")
    print(f"device {result.device}  seed {experiment.seed}\n{packages}  Python {platform.python_version()}")
    return result


def open_manifest(run):
    """The manifest that notebook 01 saved for this run's corpus.

    Raises
    ------
    RunError
        If there is none yet, saying how to make it.
    """
    path = run.processed / "manifest.parquet"
    if not path.is_file():
        raise RunError(
            f"{show_path(path)} is missing; run notebook 01_prepare_corpus with corpus={run.experiment.corpus!r} "
            "first, or `serkit reproduce`, which runs everything in order"
        )
    return pd.read_parquet(path)


def quiet_libraries():
    """Turn off progress bars and notices of transformers that say nothing about the result."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def device_name():
    """The device that training will use, with its name."""
    import torch  # here and not above: reading a run folder must not cost torch's import

    if torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name()})"
    if torch.backends.mps.is_available():
        return "mps (Apple GPU)"
    return f"cpu ({torch.get_num_threads()} threads)"


def show_path(path):
    """A path as a reader wants it: relative to the project where it lies inside."""
    try:
        return Path(path).resolve().relative_to(project_home().resolve())
    except ValueError:
        return Path(path)


def provenance():
    """Versions, machine and commit, for ``experiment.json``."""
    return {
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "device": device_name(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "commit": current_commit(),
    }


def current_commit():
    """Commit of the checkout this package runs from; None outside a checkout or without git."""
    package = Path(__file__).resolve().parent
    command = ["git", "-C", str(package), "rev-parse", "--show-toplevel", "--verify", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        top, commit = done.stdout.split("\n")[:2]
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    # an environment inside someone else's repository has a commit too, but not ours
    return commit if Path(top).resolve() == package.parent else None


def write_json(path, record):
    """Write a JSON file in one step: there is never half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(record, indent=2, default=str) + "\n")
    os.replace(partial, path)


def is_done(folder, experiment):
    """Whether ``folder`` holds the finished results of exactly this experiment."""
    try:
        record = json.loads((Path(folder) / "experiment.json").read_text())
        return (Path(folder) / DONE).is_file() and record["key"] == experiment.key
    except (OSError, ValueError, KeyError):
        return False


def check_folder(folder, experiment):
    """Refuse a run folder that holds another experiment: results are never overwritten.

    Raises
    ------
    RunError
        Naming the folder and the first parameter that differs.
    """
    try:
        record = json.loads((Path(folder) / "experiment.json").read_text())
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise RunError(
            f"{show_path(folder)}/experiment.json can't be read ({error}); delete that folder"
        ) from error
    if record.get("key") != experiment.key:
        before, now = record.get("parameters", {}), asdict(experiment)
        name = next((name for name in now if before.get(name) != now[name]), "key")
        raise RunError(
            f"{show_path(folder)} holds a run with {name}={before.get(name)!r}, asked for {now.get(name)!r}; "
            "choose another run name, or delete that folder"
        )


def finished_folders(run):
    """All finished run folders of a run, sorted.

    Raises
    ------
    RunError
        If there is none, saying what makes one.
    """
    base = project_home() / "runs" / run
    found = sorted(path.parent for path in base.glob("*/fold=*/seed=*/" + DONE))
    if not found:
        raise RunError(
            f"run {run!r}: no finished fold in {show_path(base)}; train one with notebook 05_train_coattention "
            "or `serkit reproduce`"
        )
    return found


def load_predictions(run, variant=""):
    """All prediction tables of a run in one.

    Parameters
    ----------
    run : str
    variant : str, optional
        Only this variant; default all.

    Returns
    -------
    pd.DataFrame
        Columns as in ``predictions.parquet``, both splits.

    Raises
    ------
    RunError
        If the run has no finished fold of that variant, or one of them has no readable predictions.
    """
    folders = [folder for folder in finished_folders(run) if not variant or folder.parts[-3] == variant]
    if not folders:
        others = sorted({folder.parts[-3] for folder in finished_folders(run)})
        raise RunError(f"run {run!r}: no finished fold of variant {variant!r}, found {', '.join(others)}")
    return pd.concat([_read_predictions(folder) for folder in folders], ignore_index=True)


def _read_predictions(folder):
    path = folder / "predictions.parquet"
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are of these two kinds
        reason = "is missing" if not path.exists() else f"can't be read ({str(error).splitlines()[0]})"
        raise RunError(
            f"{show_path(path)} {reason}, although the fold is marked as done; delete that folder and run "
            "`serkit reproduce` again"
        ) from error
