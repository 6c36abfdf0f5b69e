"""The plan of a reproduction: which notebook runs with which parameters, and what that costs."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import papermill

from serkit import corpora, folds, runs
from serkit.errors import ParameterError, RunError
from serkit.features.audio import resampled_length
from serkit.features.segments import count_segments
from serkit.folds import task_rows
from serkit.recipe import named
from serkit.reproduction import estimate

PREPARATION = ("01_prepare_corpus", "02_mfcc", "03_spectrogram", "04_wav2vec2")
TRAINING = "05_train_coattention"
ANALYSIS = "06_confusion_matrix"
ABLATIONS = "07_ablations"
TOGETHER = (ANALYSIS, ABLATIONS)  # put finished folds together


@dataclass(frozen=True)
class Step:
    """One notebook with its parameters; complete in itself, so that it can be sent to another process."""

    notebook: str
    parameters: dict
    output: Path  # the executed notebook
    experiment: runs.Experiment | None = None  # of a training step
    needs: list = field(default_factory=list)  # files without which the step is not done
    cost: estimate.Cost = field(default_factory=estimate.Cost)
    label: str = ""  # of the variant, where there are several
    reads: Path | None = None  # folder whose finished folds are put together: of a variant, or of the run
    home: Path = field(default_factory=runs.project_home)

    @property
    def title(self):
        """Name of the step in plan and progress; no two steps of a plan have the same."""
        words = [self.label] if self.label else []
        if self.experiment is not None:
            words += [f"fold={self.experiment.fold} seed={self.experiment.seed}"]
        return "  ".join([self.notebook, " ".join(words)]) if words else self.notebook

    @property
    def estimate_s(self):
        """Seconds that it takes at most."""
        return self.cost.seconds

    @property
    def record(self):
        """File that remembers with what this step was finished."""
        return self.output.with_suffix(".done.json")

    @property
    def log(self):
        """File with what the notebook prints while it runs."""
        return self.output.with_suffix(".log")

    @property
    def source(self):
        """The notebook itself."""
        return notebook_path(self.notebook, self.home)

    def key(self):
        """Hash of parameters, notebook and finished folds: where one of them changed, it runs again."""
        content = json.dumps(self.parameters, sort_keys=True, default=str)
        if self.reads is not None:
            finished = sorted(self.reads.rglob(f"fold=*/seed=*/{runs.DONE}"))
            content += "".join(f"{path.relative_to(self.reads)} {path.read_text()}" for path in finished)
        return hashlib.sha256(content.encode() + self.source.read_bytes()).hexdigest()[:16]

    def is_done(self):
        """Whether nothing is left to do here."""
        if self.experiment is not None:
            return runs.is_done(self.output.parent, self.experiment)
        try:
            finished = json.loads(self.record.read_text())["key"] == self.key()
        except (OSError, ValueError, KeyError):
            return False
        return finished and all(Path(path).exists() for path in self.needs)


def notebook_path(name, home=None):
    """File of a notebook of this project."""
    path = (home or runs.project_home()) / "notebooks" / f"{name}.ipynb"
    if not path.is_file():
        raise RunError(f"{path} is missing; start serkit inside the project folder (the one with notebooks/)")
    return path


def make_plan(
    run, *, corpus, root="", check="strict", skip_broken=False, fold_names=(), seeds=(111,), variants=(),
    threads=0, **settings,
):  # fmt: skip
    """List every step of a reproduction, in order.

    The corpus is read first, so that what is wrong with it is said before anything runs.

    Parameters
    ----------
    run : str
    corpus, root : str
    check : {"strict", "report"}
        What to do about an incomplete IEMOCAP, see ``serkit.corpora.load``.
    skip_broken : bool
        Whether to do without sound files that can't be read, see ``serkit.features.store.build_store``.
    fold_names : sequence of str, optional
        Speakers or sessions to test; none means all.
    seeds : sequence of int
    variants : sequence of pair of str and dict, optional
        Label and settings of each, see :attr:`serkit.reproduction.grid.Grid.variants`; default one, of ``settings``.
    threads : int, optional
        That each training may use, for the estimate; 0: all cores.
    **settings
        Further fields of ``serkit.experiment.Experiment``, of all variants.

    Returns
    -------
    list of Step
    """
    manifest = corpora.load(corpus, runs.corpus_root(corpus, root), check=check)
    variants = [(label, settings | own) for label, own in variants] or [("", settings)]
    several = len(variants) > 1
    home = runs.project_home() / "runs" / run
    place = {"run": run, "corpus": corpus, "root": root}
    bases = [runs.Experiment(corpus=corpus, **own) for _, own in variants]
    steps = _preparation(home, place, bases, {"iemocap_check": check, "skip_broken": skip_broken})
    for (label, own), base in zip(variants, bases, strict=True):
        all_folds = folds.make_folds(manifest, base.by, base.selection)
        chosen = [folds.find_fold(all_folds, name) for name in fold_names] or all_folds
        common = place | {"recipe": base.recipe, "by": base.by, "selection": base.selection}
        common |= {"name_variant": True} if several else {}
        parameters = common | _split_settings(own)
        for seed in seeds:
            for fold in chosen:
                one = replace(base, fold=fold.name, seed=seed)
                output = one.folder(run) / f"{TRAINING}.ipynb"
                each = parameters | {"fold": fold.name, "seed": seed}
                steps.append(Step(TRAINING, each, output, one, label=label if several else ""))
    for (label, _), base in zip(variants, bases, strict=True):
        steps.append(_analysis(home, place, base, label if several else ""))
    steps.append(Step(ABLATIONS, place, home / "notebooks" / f"{ABLATIONS}.ipynb", reads=home))
    return _with_costs(steps, manifest, threads)


def _preparation(home, place, bases, about_corpus):
    """Notebooks 01 to 04; 01 once more for each further protocol, whose folds it writes down."""
    first = bases[0]
    needs = [runs.processed_folder(first.corpus) / runs.MANIFEST]
    common = place | {"recipe": first.recipe}
    steps = []
    for number, (by, selection) in enumerate(dict.fromkeys((base.by, base.selection) for base in bases)):
        name = f"{PREPARATION[0]}_{by}_{selection}" if number else PREPARATION[0]
        parameters = common | {"by": by, "selection": selection} | about_corpus
        label = f"by={by} selection={selection}" if number else ""
        output = home / "notebooks" / f"{name}.ipynb"
        steps.append(Step(PREPARATION[0], parameters, output, needs=needs, label=label))
    for notebook in PREPARATION[1:]:
        output = home / "notebooks" / f"{notebook}.ipynb"
        steps.append(Step(notebook, common | {"profile": first.profile}, output, needs=needs))
    return steps


def _analysis(home, place, base, label):
    """Notebook 06 of one variant."""
    parameters = place | {"variant": base.variant} | ({"name_variant": True} if label else {})
    name = f"{ANALYSIS}_{base.variant}" if label else ANALYSIS
    folder = home / base.variant
    return Step(ANALYSIS, parameters, home / "notebooks" / f"{name}.ipynb", label=label, reads=folder)


def _split_settings(settings):
    """Settings that notebook 05 has a parameter for, and of all others those that are not as usual."""
    usual = asdict(runs.Experiment(profile=settings.get("profile", runs.Experiment.profile)))
    known = papermill.inspect_notebook(str(notebook_path(TRAINING)))
    own = {name: value for name, value in settings.items() if name in known}
    other = {name: value for name, value in settings.items() if name not in known and value != usual[name]}
    return own | ({"settings": other} if other else {})


def unfinished(steps):
    """Steps that are to be done; what puts folds together is, where one of its folds is."""
    todo = [step for step in steps if not step.is_done()]
    folders = {step.output.parents[2] for step in todo if step.experiment is not None}
    changed = folders | {folder.parent for folder in folders}
    return [step for step in steps if step in todo or step.reads in changed]


def _with_costs(steps, manifest, threads=0):
    """The same steps with what they cost; where all is done nothing is measured."""
    todo = [step for step in steps if not step.is_done() and step.notebook not in TOGETHER]
    if not todo:
        return steps
    train = [step for step in todo if step.experiment is not None]
    any_experiment = (train or [step for step in steps if step.experiment is not None])[0].experiment
    measured, counts, costs, encoded = {}, {}, {}, set()  # each kind of training is measured once
    for step in train:
        kind = estimate.cost_class(step.experiment)
        if kind not in measured:
            measured[kind] = estimate.measure(step.experiment, manifest, threads=threads)
        own = replace(measured[kind], experiment=step.experiment)
        cut = (step.experiment.by, step.experiment.selection, step.experiment.recipe)
        if cut not in counts:
            counts[cut] = _count_segments(manifest, *cut)
        n_segments = counts[cut][step.experiment.fold]
        cost = own.fold(n_segments, step.experiment.epochs, step.output.parent)
        encoder = own.encoder_of(step.experiment)
        if encoder is not None and (kind, cut[2], encoder) not in encoded:
            encoded.add((kind, cut[2], encoder))
            once = own.encoding(n_segments)
            cost = replace(cost, seconds=cost.seconds + once.seconds, store=once.store)
        costs[id(step)] = cost
    some = next(iter(measured.values()), None) or estimate.measure(any_experiment, manifest, train=False)
    # whatever comes first builds the store, if there is none
    first, preparation = todo[0], some.preparation()
    seconds = preparation.seconds - estimate.NOTEBOOK_S
    cost = costs.get(id(first), first.cost)
    costs[id(first)] = replace(cost, seconds=cost.seconds + seconds, store=cost.store + preparation.store)
    return [replace(step, cost=costs.get(id(step), step.cost)) for step in steps]


def _count_segments(manifest, by, selection, recipe):
    """Segments in each part of each fold."""
    rows = task_rows(manifest)
    lengths = resampled_length(rows["num_samples"], rows["sample_rate"])
    n_segments = lengths.map(lambda n: count_segments(int(n), named(recipe)))
    return {
        fold.name: {
            split: int(n_segments[rows["utterance_id"].isin(getattr(fold, split))].sum())
            for split in folds.SPLITS
        }
        for fold in folds.make_folds(manifest, by, selection)
    }


def check_step(step):
    """Refuse parameters that the notebook does not have (papermill itself only warns), and foreign results."""
    known = papermill.inspect_notebook(str(step.source))
    unknown = sorted(set(step.parameters) - set(known))
    if unknown:
        raise ParameterError(
            f"{step.notebook} has no parameter {unknown[0]!r}, expected one of {', '.join(known)}"
        )
    if step.experiment is not None:
        runs.check_folder(step.output.parent, step.experiment)
