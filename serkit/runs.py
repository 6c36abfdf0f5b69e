"""One experiment, its folder, and what is recorded so that it can be trusted and repeated."""

import functools
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from serkit import recipe as recipes
from serkit.errors import ParameterError, RunError, explain_names, reported_as, shown
from serkit.experiment import Experiment, declared, of_type, project_home, require_project, show_path
from serkit.files import replacing, sync

CHECKPOINT = "checkpoint.pt"  # of a run folder that is not finished
DONE = "DONE"  # written last into a finished run folder
FOLD_CURE = "but the fold is marked as done: delete its folder and run `serkit reproduce` again"
MANIFEST = "manifest.parquet"  # of a corpus, in its folder of processed data
EXAMPLE = "example"  # run whose predictions come with the kit, in this file:
PACKED = "data/examples/ravdess_whisper.tar.xz"
EPOCHS = "epochs.parquet"  # predictions after every epoch, where they are kept
VECTORS = "embedding.parquet"  # what the network makes of each test utterance
ATTENTION = "attention.parquet"  # weights of each test segment, from the model of a finished fold
SWAPPED = "attention_swapped.parquet"  # its predictions with other weights in their place
REPORT = "report.html"  # of a run: all of it on one page
FILES = "files.json"  # size and SHA-256 of every file of a finished fold
RESULTS = ("experiment.json", "history.csv", "timing.csv", "predictions.parquet", "metrics.json")
READERS = {
    # by default, folders named a=b would become columns
    ".parquet": functools.partial(pd.read_parquet, partitioning=None, page_checksum_verification=True),
    ".csv": pd.read_csv,
    ".json": lambda path: {**json.loads(path.read_text(encoding="utf-8"))},  # no list, no number
}
FURTHER = (EPOCHS, VECTORS)  # not of every fold
MODEL = ("model/config.json", "model/model.safetensors", "model/features.json", "model/README.md")
PACKAGES = ("serkit", "torch", "torchaudio", "transformers", "accelerate", "librosa", "numpy", "pandas")


def check_run_name(name):
    """The name of a run, if it can name a folder on any system.

    Raises
    ------
    ParameterError
        Otherwise.

    Examples
    --------
    >>> check_run_name("iemocap-paper_2")
    'iemocap-paper_2'
    """
    name = str(name) if type(name) is int and abs(name) < 10**64 else name  # papermill makes a number of 2024
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}", name):
        allowed = "at most 64 letters (a to z), digits, - and _, not beginning with -: it names a folder"
        raise ParameterError(f"run={shown(name)}, expected {allowed}")
    return name


def corpus_root(corpus, root=""):
    """Folder of a corpus: as given (relative to the project), or ``data/<corpus>``; of several, as given."""
    if "=" in str(root):
        return Path(root)
    return project_home() / (os.path.expanduser(root) if root else Path("data") / corpus)


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


def start_run(run, *, corpus, root="", notebook="", settings=None, **parameters):
    """Validate a notebook's parameters, derive the rest, and print what it runs on.

    Parameters
    ----------
    run : str
        Name of the run, see :func:`check_run_name`.
    corpus : str
    root : str, optional
        Folder of the corpus; default ``data/<corpus>``.
    notebook : str, optional
        Printed; in Jupyter a name that no cell has made yet is looked up in this notebook.
    settings : mapping or str, optional
        Further parameters by name; papermill hands them over as text, ``{"micro_batch": 8}``.
    **parameters
        Any setting of :class:`serkit.experiment.Experiment`.

    Returns
    -------
    Run

    Raises
    ------
    ParameterError
        On a setting that does not exist or is out of range.
    """
    require_project()
    run = check_run_name(getattr(run, "name", run))  # a cell that is run twice hands back the Run it made
    experiment = Experiment.of({"corpus": corpus} | parameters | of_type(dict, "settings", settings))
    root = of_type(str, "root", root)
    declared(sys._getframe(1).f_globals)  # the others, which later cells of the notebook will read
    quiet_libraries()
    show_pictures()
    explain_names(project_home() / "notebooks" / f"{notebook}.ipynb")
    result = Run(run, experiment, corpus_root(corpus, root), device_name())
    packages = " ".join(f"{name} {version(name)}" for name in ("serkit", "torch", "transformers", "librosa"))
    print(f"run {run!r}  {notebook}\ncorpus {corpus} at {show_path(result.root)}  recipe {experiment.recipe}")
    print(f"device {result.device}  seed {experiment.seed}\n{packages}  Python {platform.python_version()}")
    return result


def open_manifest(run):
    """The manifest that notebook 01 saved for a run's corpus.

    Parameters
    ----------
    run : Run or str
        A run, or the name of the corpus.

    Raises
    ------
    RunError
        If there is none yet, or it is damaged, saying how to make it.
    """
    corpus = run if isinstance(run, str) else run.experiment.corpus
    if (manifest := find_manifest(corpus)) is None:
        cure = f"run notebook 01_prepare_corpus with corpus={corpus!r} first, or `serkit reproduce`"
        raise RunError(f"{show_path(processed_folder(corpus) / MANIFEST)} is missing; {cure}")
    return manifest


def find_manifest(corpus):
    """The manifest that notebook 01 saved for a corpus, or None where it has not run.

    Raises
    ------
    RunError
        If it is damaged.
    """
    path = processed_folder(corpus) / MANIFEST
    cure = "perhaps cut short by a full disk; delete it and run notebook 01_prepare_corpus, or `serkit reproduce`"
    return read_table(path, cure) if path.is_file() else None


def quiet_libraries():
    """Turn off progress bars and notices of transformers that say nothing about the result."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # both read their variables when they are imported, and the imports of a notebook come first
    if hub := sys.modules.get("huggingface_hub"):
        hub.utils.disable_progress_bars()
    if transformers := sys.modules.get("transformers"):
        transformers.logging.disable_progress_bar()
        transformers.logging.set_verbosity_error()


def show_pictures():
    """In a notebook figures appear, in matplotlib's own style, whatever MPLBACKEND and matplotlibrc say."""
    mpl, ipython = sys.modules.get("matplotlib"), sys.modules.get("IPython")
    shell = ipython.get_ipython() if mpl and ipython else None
    if hasattr(shell, "kernel"):
        mpl.style.use("default")  # what is drawn later takes its settings from here
        if mpl.get_backend().lower() == "agg":
            shell.run_line_magic("matplotlib", "inline")


def device_name():
    """The device that training will use, with its name."""
    import torch  # here and not above: reading a run folder must not cost torch's import

    if torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name()})"
    on_apple = torch.backends.mps.is_available()
    return "mps (Apple GPU)" if on_apple else f"cpu ({torch.get_num_threads()} threads)"


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
    # not that of an environment inside someone else's repository
    folder = Path(__file__).resolve().parents[1] / ".git"
    command = ["git", "--git-dir", str(folder), "rev-parse", "--verify", "HEAD"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True, timeout=10).strip()


def write_json(path, record):
    """Write a JSON file in one step: there is never half of it."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(record, indent=2, default=str) + "\n")


def sha256_of(path):
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def recorded(path):
    """What ``files.json`` says of a file."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def write_inventory(folder):
    """Write ``files.json`` of a run folder whose results are all there: size and SHA-256 of each file.

    It finds what was cut short, edited or mixed up on its way to another machine, and is no protection against
    deceit. Left out are notebook, log and TensorBoard events, which are still being written. What is recorded is
    on the disk, so that a power cut after ``DONE`` takes nothing of it.
    """
    folder = Path(folder)
    names = [*RESULTS, *MODEL, *(name for name in FURTHER if (folder / name).is_file())]
    for name in [*names, "model"]:
        sync(folder / name)
    write_json(folder / FILES, {"files": {name: recorded(folder / name) for name in names}})


def file_faults(folder, names=None):
    """What is wrong with the files of a finished fold, by what ``files.json`` says of their size and SHA-256.

    Parameters
    ----------
    folder : path
    names : sequence of str, optional
        Only these, as far as they are recorded.

    Returns
    -------
    list of str
        Empty too where nothing is recorded, as in an unfinished fold.

    Raises
    ------
    RunError
        If the record can't be read.
    """
    folder, faults = Path(folder), []
    inventory = read_table(folder / FILES, FOLD_CURE)["files"] if (folder / FILES).is_file() else {}
    for name in sorted(inventory if names is None else inventory.keys() & names):
        path = folder / name
        if not path.is_file():
            faults.append(f"{name}: missing")
        elif inventory[name] != recorded(path):
            faults.append(f"{name}: cut short or edited after the fold was finished, by {FILES}")
    return faults


def mark_done(folder, experiment):
    """Write ``DONE`` into a finished fold, last of all."""
    with replacing(Path(folder) / DONE) as partial:
        partial.write_text(experiment.key + "\n")


def read_record(folder):
    """What ``experiment.json`` of a run folder says.

    Returns
    -------
    dict
        ``key``, ``parameters``, versions, machine, and the names of all folds of the protocol.

    Raises
    ------
    RunError
        If it is not there or can't be read.
    """
    path = Path(folder) / "experiment.json"
    cure = "copy that folder again, or delete it and run `serkit reproduce`"
    record = {"parameters": {}} | read_table(path, cure)
    if not isinstance(given := record["parameters"], dict):
        raise RunError(f"{show_path(path)}: parameters={shown(given)}, expected a table; {cure}")
    return record


def read_experiment(folder):
    """The experiment that a run folder holds.

    A setting that its version of serkit didn't have can't have been used: it has its default.

    Raises
    ------
    RunError
        If its record can't be read, or has a setting that this version of serkit doesn't know.
    """
    record = read_record(folder)
    try:
        return Experiment.of(record["parameters"])
    except ParameterError as error:
        made_by = dict(record.get("versions") or {}).get("serkit", "no version")
        versions = f"{made_by} recorded, {version('serkit')} here"
        about = f"{show_path(folder)} was made by another version of serkit ({versions})"
        raise RunError(f"{about}: {error}; read it with that one") from error


def is_done(folder, experiment):
    """Whether ``folder`` holds the finished results of exactly this experiment, as they were written."""
    with suppress(Exception):  # a damaged record finds a way into each of them
        key = (Path(folder) / DONE).read_text(errors="replace").strip()
        return key == experiment.key and not file_faults(folder, RESULTS)
    return False


def is_finished(folder):
    """Whether a training has ended in ``folder``, damaged as its files may be by now: a lost ``DONE`` drops no fold."""
    folder = Path(folder)
    return (folder / DONE).exists() or ((folder / FILES).exists() and not (folder / CHECKPOINT).exists())


def check_folder(folder, experiment):
    """Refuse a run folder that holds another experiment: results are never overwritten.

    Raises
    ------
    RunError
        Naming the folder and the first parameter that differs.
    """
    if not (is_finished(folder) or (Path(folder) / "experiment.json").exists()):
        return
    record = read_record(folder)
    if record.get("key") == experiment.key:
        return
    now = asdict(experiment) | {"key": experiment.key}
    before = record["parameters"] | {"key": record.get("key")}
    name = next(name for name in asdict(experiment) | before if before.get(name) != now.get(name))
    other = f"{name}={shown(before.get(name))}, asked for {shown(now.get(name))}"
    raise RunError(f"{show_path(folder)} holds a run with {other}; choose another run name, or delete it")


def find_folds(run="*", variant="*", home=None):
    """Finished run folders, sorted: of one run or of all, of one variant or of all; none is no fault.

    Parameters
    ----------
    run, variant : str, optional
        Names; default all. A ``Run`` will do as well, here and wherever folds are found.
    home : path, optional
        The project; default the one that the current folder lies in.

    Returns
    -------
    list of Path
    """
    runs, run = (home or project_home()) / "runs", getattr(run, "name", run)
    return sorted(filter(is_finished, runs.glob(f"{run}/{variant}/fold=*/seed=*")))


def variant_of(folder):
    """Name of the variant that a run folder belongs to.

    >>> variant_of("runs/demo/corrected_clean_session_demo/fold=1/seed=111")
    'corrected_clean_session_demo'
    """
    return Path(folder).parts[-3]


def variants_of(run):
    """Names of a run's variants with a finished fold, sorted; none is no fault."""
    return sorted({variant_of(folder) for folder in find_folds(run)})


def finished_folders(run, variant=""):
    """All finished run folders of a run, or of one of its variants, sorted.

    Raises
    ------
    RunError
        If there is none, saying what makes one.
    """
    run, variant = check_run_name(getattr(run, "name", run)), of_type(str, "variant", variant)
    if run == EXAMPLE:
        unpack_example()
    if not (folders := find_folds(run, variant or "*")):
        require_project()
        where, others = shown(f"runs/{run}/{variant}".rstrip("/")).strip("'"), variants_of(run)
        known = f"its variants are {', '.join(others)}"
        cure = known if others else "train one with notebook 05_train_coattention or `serkit reproduce`"
        raise RunError(f"run {run!r}: no finished fold in {where}; {cure}")
    return folders


def unpack_example():
    """Make the folders of the run :data:`EXAMPLE`, unless they come from the present file already."""
    packed, target = project_home() / PACKED, project_home() / "runs" / EXAMPLE
    mark = target / "unpacked.txt"  # SHA-256 of the file that they were made from
    if not packed.is_file() or (mark.is_file() and mark.read_text() == sha256_of(packed)):
        return
    with tarfile.open(packed) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # new in Python 3.11.4
        archive.extractall(target)
    mark.write_text(sha256_of(packed))


def choose_variant(run, variant=""):
    """A variant of a run by its name; without a name, the only one there is.

    Raises
    ------
    RunError
        If it has no finished fold, or there are several to choose from, naming them.
    """
    names = sorted({variant_of(folder) for folder in finished_folders(run, variant)})
    if len(names) > 1:
        raise RunError(f"run {run!r} has {len(names)} variants, choose one with variant: {', '.join(names)}")
    return names[0]


def shared_parameters(run, variant=""):
    """Parameters that all finished folds of a variant were made with; ``fold`` and ``seed`` are left out.

    Parameters
    ----------
    run : str
    variant : str, optional
        Default all: then only what the variants have in common is given.

    Returns
    -------
    dict

    Raises
    ------
    RunError
        If there is no finished fold, a record can't be read, or the folds of one variant differ in a
        parameter: their scores must not be averaged.
    """
    first = {}  # of each variant
    for folder in finished_folders(run, variant):
        parameters = asdict(read_experiment(folder))
        del parameters["fold"], parameters["seed"]
        other, before = first.setdefault(variant_of(folder), (folder, parameters))
        for name, value in parameters.items():
            if before[name] != value:
                made = f"{show_path(folder)} was made with {name}={shown(value)}"
                rule = "expected the same in all folds and seeds of a variant; delete one of them"
                raise RunError(f"{made}, {show_path(other)} with {shown(before[name])}, {rule}")
    return in_common([parameters for _, parameters in first.values()])


def in_common(parameters):
    """What several mappings of parameters have the same.

    >>> in_common([{"fusion": "mean", "by": "session"}, {"fusion": "gated", "by": "session"}])
    {'by': 'session'}
    """
    first, *others = parameters
    return {name: value for name, value in first.items() if all(known.get(name) == value for known in others)}


def planned_folds(run, variant):
    """Names of all folds of a variant's protocol, the missing ones included, as its records give them.

    Returns
    -------
    list of str or None
        Sorted; None if no record says.
    """
    planned = (read_record(folder).get("folds") for folder in find_folds(run, variant))
    return next((sorted(map(str, names)) for names in planned if names), None)


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
    return pd.concat(map(read_predictions, finished_folders(run, variant)), ignore_index=True)


def read_predictions(folder):
    """Prediction table of one finished run folder.

    Raises
    ------
    RunError
        If it is missing or can't be read.
    """
    return read_table(Path(folder) / "predictions.parquet", FOLD_CURE)


def read_table(path, cure):
    """A table (Parquet or CSV) or a record (JSON) of a run or corpus.

    Raises
    ------
    RunError
        If it is missing, can't be read, or is not what it was when its fold was finished, naming it; ``cure`` goes
        on after a comma.
    """
    path = Path(path)
    if not os.path.lexists(path):
        raise RunError(f"{show_path(path)} is missing, {cure}")
    with reported_as(RunError, f"{show_path(path)} can't be read", cure):
        for fault in [] if path.name == FILES else file_faults(path.parent, [path.name]):
            raise ValueError(fault.partition(": ")[2])
        return READERS[path.suffix](path)


def leak_notice(parameters):
    """What caption and figure must say about how the checkpoint was selected.

    Examples
    --------
    >>> leak_notice({"selection": "published"})
    'Leak: the checkpoint was chosen on the test speakers (published protocol).'
    >>> leak_notice({"selection": "clean"})
    ''
    """
    leaks = (parameters or {}).get("selection") == "published"
    return "Leak: the checkpoint was chosen on the test speakers (published protocol)." if leaks else ""


def stem_of(variant):
    """A variant's name as part of a file name.

    Examples
    --------
    >>> stem_of("published+D2_clean_session_paper")
    'published-with-D2_clean_session_paper'
    """
    return variant.replace("+", "-with-")
