"""The whole reproduction without a hand on it: which notebook runs with which parameters.

papermill executes the notebooks; what is DONE for the same parameters is skipped, a failed step
is named at the end and never stops the others.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import papermill
from filelock import FileLock, Timeout
from jupyter_client import AsyncKernelManager
from papermill.exceptions import PapermillExecutionError

from serkit import corpora, estimate, folds, runs
from serkit.audio import resampled_length
from serkit.corpora.manifest import task_rows
from serkit.errors import ParameterError, RunError
from serkit.recipe import named
from serkit.segments import count_segments

PREPARATION = ("01_prepare_corpus", "02_mfcc", "03_spectrogram", "04_wav2vec2")
TRAINING = "05_train_coattention"
ANALYSIS = "06_confusion_matrix"
NAMING = ("speech_encoder", "encoder_training", "encoder_layers")  # settings that a variant is named after
KERNEL_START_S = 300  # papermill's own 60 s are too few on a busy machine


@dataclass(frozen=True)
class Step:
    """One notebook with its parameters."""

    notebook: str
    parameters: dict
    output: Path  # the executed notebook
    experiment: runs.Experiment | None = None  # of a training step
    needs: list = field(default_factory=list)  # files without which the step is not done
    cost: estimate.Cost = field(default_factory=estimate.Cost)

    @property
    def title(self):
        """Name of the step in plan and progress."""
        if self.experiment is None:
            return self.notebook
        return f"{self.notebook}  fold={self.experiment.fold} seed={self.experiment.seed}"

    @property
    def estimate_s(self):
        """Seconds that it takes at most."""
        return self.cost.seconds

    @property
    def record(self):
        """File that remembers with what this step was finished."""
        return self.output.with_suffix(".done.json")

    def key(self):
        """Hash of parameters and notebook: a changed notebook runs again."""
        content = json.dumps(self.parameters, sort_keys=True, default=str)
        source = notebook_path(self.notebook).read_bytes()
        return hashlib.sha256(content.encode() + source).hexdigest()[:16]

    def is_done(self):
        """Whether nothing is left to do here."""
        if self.experiment is not None:
            return runs.is_done(self.output.parent, self.experiment)
        try:
            finished = json.loads(self.record.read_text())["key"] == self.key()
        except (OSError, ValueError, KeyError):
            return False
        return finished and all(Path(path).exists() for path in self.needs)


def notebook_path(name):
    """File of a notebook of this project."""
    path = runs.project_home() / "notebooks" / f"{name}.ipynb"
    if not path.is_file():
        raise RunError(f"{path} is missing; start serkit inside the project folder (the one with notebooks/)")
    return path


def make_plan(
    run, *, corpus, root="", check="strict", skip_broken=False, fold_names=(), seeds=(111,), **settings
):
    """List every step of a reproduction, in order.

    The corpus is read first, so that what is wrong with it is said before anything runs.

    Parameters
    ----------
    run : str
    corpus, root : str
    check : {"strict", "report"}
        What to do about an incomplete IEMOCAP, see ``serkit.corpora.load``.
    skip_broken : bool
        Whether to do without sound files that can't be read, see ``serkit.store.build_store``.
    fold_names : sequence of str, optional
        Speakers or sessions to test; none means all.
    seeds : sequence of int
    **settings
        Further fields of ``serkit.runs.Experiment``.

    Returns
    -------
    list of Step
    """
    manifest = corpora.load(corpus, runs.corpus_root(corpus, root), check=check)
    base = runs.Experiment(corpus=corpus, **settings)
    all_folds = folds.make_folds(manifest, base.by, base.selection)
    chosen = [folds.find_fold(all_folds, name) for name in fold_names] or all_folds
    home = runs.project_home() / "runs" / run
    common = {"run": run, "corpus": corpus, "root": root, "recipe": base.recipe}
    protocol = {"by": base.by, "selection": base.selection}
    steps = []
    for notebook in PREPARATION:
        first = notebook == PREPARATION[0]
        about_corpus = protocol | {"iemocap_check": check, "skip_broken": skip_broken}
        parameters = common | (about_corpus if first else {"profile": base.profile})
        needs = [runs.processed_folder(corpus) / "manifest.parquet"]
        steps.append(Step(notebook, parameters, home / "notebooks" / f"{notebook}.ipynb", needs=needs))
    usual = asdict(runs.Experiment(profile=base.profile))
    own = _split_settings(settings, usual)
    for seed in seeds:
        for fold in chosen:
            experiment = runs.Experiment(corpus=corpus, fold=fold.name, seed=seed, **settings)
            output = experiment.folder(run) / f"{TRAINING}.ipynb"
            parameters = common | protocol | {"fold": fold.name, "seed": seed} | own
            steps.append(Step(TRAINING, parameters, output, experiment))
    encoder = {name: getattr(base, name) for name in NAMING if getattr(base, name) != usual[name]}
    parameters = common | protocol | {"profile": base.profile} | ({"more": encoder} if encoder else {})
    steps.append(Step(ANALYSIS, parameters, home / "notebooks" / f"{ANALYSIS}.ipynb"))
    return _with_costs(steps, manifest, {fold.name: fold for fold in chosen})


def _split_settings(settings, usual):
    """Settings that notebook 05 has a parameter for, and of all others those that are not as usual."""
    known = papermill.inspect_notebook(str(notebook_path(TRAINING)))
    own = {name: value for name, value in settings.items() if name in known}
    more = {name: value for name, value in settings.items() if name not in known and value != usual[name]}
    return own | ({"more": more} if more else {})


def _with_costs(steps, manifest, chosen):
    """The same steps with what they cost; where all is done nothing is measured."""
    todo = [step for step in steps if not step.is_done() and step.notebook != ANALYSIS]
    if not todo:
        return steps
    base = _any_experiment(steps)
    measured = estimate.measure(base, manifest, train=any(step.experiment for step in todo))
    counts = {name: _count_segments(manifest, fold, base.recipe) for name, fold in chosen.items()}
    costs = {
        id(step): measured.fold(counts[step.experiment.fold], step.experiment.epochs, step.output.parent)
        for step in todo
        if step.experiment is not None
    }
    encoded = set()
    for step in todo:
        encoder = measured.encoder_of(step.experiment)
        if encoder is not None and encoder not in encoded:
            encoded.add(encoder)
            once, cost = measured.encoding(counts[step.experiment.fold]), costs[id(step)]
            costs[id(step)] = replace(cost, seconds=cost.seconds + once.seconds, store=once.store)
    # whatever comes first builds the store, if there is none
    first, preparation = todo[0], measured.preparation()
    seconds = preparation.seconds - estimate.NOTEBOOK_S
    cost = costs.get(id(first), first.cost)
    costs[id(first)] = replace(cost, seconds=cost.seconds + seconds, store=cost.store + preparation.store)
    return [replace(step, cost=costs.get(id(step), step.cost)) for step in steps]


def _any_experiment(steps):
    """What all training steps have in common, with fold and seed of the first."""
    return next(step.experiment for step in steps if step.experiment is not None)


def _count_segments(manifest, fold, recipe):
    """Segments in each part of a fold."""
    rows = task_rows(manifest)
    lengths = resampled_length(rows["num_samples"], rows["sample_rate"])
    n_segments = lengths.map(lambda n: count_segments(int(n), named(recipe)))
    return {
        split: int(n_segments[rows["utterance_id"].isin(getattr(fold, split))].sum())
        for split in folds.SPLITS
    }


def run_plan(steps, run):
    """Execute a plan.

    Parameters
    ----------
    steps : list of Step
    run : str

    Returns
    -------
    dict of str to list of str
        Titles of the steps that were ``done``, ``skipped`` or ``failed``.
    """
    outcome = {"done": [], "skipped": [], "failed": []}
    for step in steps:
        check_parameters(step)
        if step.experiment is not None:
            runs.check_folder(step.output.parent, step.experiment)
    with _only_one(run):
        started, clock = time.perf_counter(), {}
        todo = [step for step in steps if not step.is_done()]
        for number, step in enumerate(steps, start=1):
            prefix = f"[{number:2d}/{len(steps)}] {step.title}"
            if step not in todo and not (step.notebook == ANALYSIS and outcome["done"]):
                outcome["skipped"].append(step.title)
                print(f"{prefix}: done before", flush=True)
                continue
            print(f"{prefix}: running, log in {runs.show_path(_log_path(step))}", flush=True)
            began = time.perf_counter()
            fault = execute(step)
            outcome["failed" if fault else "done"].append(step.title)
            seconds = time.perf_counter() - began
            spent, planned = clock.get(step.notebook == TRAINING, (0.0, 0.0))
            clock[step.notebook == TRAINING] = (spent + seconds, planned + step.estimate_s)
            left = _seconds_left([s for s in todo if steps.index(s) >= number], clock)
            verdict = f"FAILED: {fault}" if fault else "done"
            print(f"{prefix}: {verdict} in {seconds:.0f} s, at most {left / 60:.1f} min left", flush=True)
        minutes = (time.perf_counter() - started) / 60
    print(
        f"{len(outcome['done'])} done, {len(outcome['skipped'])} done before, "
        f"{len(outcome['failed'])} failed in {minutes:.1f} min"
    )
    for title in outcome["failed"]:
        print(f"  failed: {title}")
    return outcome


def _seconds_left(steps, clock):
    """Estimates of what is to come, scaled by how long finished steps of the same kind took."""
    left = 0.0
    for step in steps:
        spent, planned = clock.get(step.notebook == TRAINING, (1.0, 1.0))
        left += step.estimate_s * spent / planned
    return left


def check_parameters(step):
    """Refuse parameters that the notebook does not have; papermill itself only warns."""
    known = papermill.inspect_notebook(str(notebook_path(step.notebook)))
    unknown = sorted(set(step.parameters) - set(known))
    if unknown:
        raise ParameterError(
            f"{step.notebook} has no parameter {unknown[0]!r}, expected one of {', '.join(known)}"
        )


def execute(step):
    """Run one step; return None, or in one line what went wrong."""
    step.output.parent.mkdir(parents=True, exist_ok=True)
    with _kernel_manager() as manager, _logged_to(_log_path(step)):
        try:
            papermill.execute_notebook(
                str(notebook_path(step.notebook)),
                str(step.output),
                parameters=step.parameters,
                cwd=str(runs.project_home()),
                start_timeout=KERNEL_START_S,
                progress_bar=False,
                log_output=True,
                **manager,
            )
        except PapermillExecutionError as error:
            return f"cell {error.cell_index}: {error.ename}: {error.evalue}"
        except Exception as error:  # a dead kernel, a full disk: the other steps go on
            return f"{type(error).__name__}: {error}"
    if step.experiment is None:
        runs.write_json(step.record, {"key": step.key(), "parameters": step.parameters})
    return None


def _log_path(step):
    return step.output.with_suffix(".log")


@contextmanager
def _logged_to(path):
    """What the notebook prints goes into a file that can be followed while it runs."""
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    logger = logging.getLogger("papermill")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
        handler.close()


@contextmanager
def _kernel_manager():
    """Kernels talk over sockets in a folder of their own: TCP ports can collide between them."""
    folder = tempfile.mkdtemp(prefix="serkit-")
    # a kernel named python3 in somebody's home must not be taken instead of this environment's
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")

    class IpcKernelManager(AsyncKernelManager):
        def __init__(self, **settings):
            super().__init__(**settings)
            self.transport = "ipc"
            self.ip = f"{folder}/k"

    try:
        yield {"kernel_manager_class": IpcKernelManager}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _only_one(run):
    """One `serkit reproduce` at a time for a run folder."""
    folder = runs.project_home() / "runs" / run
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(
            f"{runs.show_path(folder)} is in use by another `serkit reproduce`; wait for it"
        ) from None
    except OSError as error:
        raise RunError(
            f"{folder}: can't be written ({error.strerror}); check its owner and the disk"
        ) from error
    try:
        yield
    finally:
        lock.release()


def print_plan(steps):
    """Show what will run, what is done, and how long it takes at most."""
    todo = [step for step in steps if not step.is_done()]
    print(f"{len(steps)} steps, {len(steps) - len(todo)} done before")
    for number, step in enumerate(steps, start=1):
        state = f"at most {step.estimate_s / 60:5.1f} min" if step in todo else "done before"
        print(f"  {number:2d}  {step.title:45s} {state}")
    experiment = _any_experiment(steps)
    shown = {key: value for key, value in asdict(experiment).items() if key not in ("fold", "seed")}
    print("parameters: " + ", ".join(f"{key}={value}" for key, value in shown.items()))
    if todo:
        print("\n".join(estimate.describe([step.cost for step in todo], experiment)))
    print(
        f"estimate for everything: at most {sum(step.estimate_s for step in todo) / 60:.0f} min\n", flush=True
    )


def reproduce(run, *, dry_run=False, **settings):
    """Plan, show, run. Returns the exit code: 0 when nothing failed."""
    steps = make_plan(run, **settings)
    print_plan(steps)
    if dry_run:
        return 0
    todo = [step for step in steps if not step.is_done()]
    estimate.check_disk([step.cost for step in todo], _any_experiment(steps))
    return 1 if run_plan(steps, run)["failed"] else 0
