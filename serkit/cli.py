"""``serkit doctor | reproduce | report | verify | predict``: the command line."""

import importlib.util
import shutil
import signal
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from serkit import runs
from serkit.constants import SPEECH_ENCODER
from serkit.corpora import REGISTRY
from serkit.errors import ParameterError, SerkitError
from serkit.experiment import TrainingSettings

# settings of the command line that a grid does not replace
BESIDE_GRID = (
    "grid",
    "jobs",
    "scheduler",
    "corpus",
    "root",
    "run",
    "iemocap_check",
    "skip_broken",
    "dry_run",
)


@dataclass(frozen=True)
class Reproduce(TrainingSettings):
    """Run all notebooks on a corpus: figures and tables at the end. Call it again to continue."""

    grid: str = ""  # TOML file of many variants, such as notebooks/grids/demo.toml; settings are then its own
    jobs: int = 0  # trainings at a time; 0: one for each GPU, or one without a GPU
    scheduler: str = ""  # address of a dask scheduler, such as tcp://host:8786: its workers run the trainings
    corpus: str = ""  # demo, ravdess, emodb or iemocap; empty: the grid's, or demo
    root: str = ""  # folder of the corpus; empty: data/<corpus>
    run: str = ""  # name of the run, a folder under runs/ and figures/; empty: that of the grid or corpus
    folds: str = "all"  # speakers or sessions to test, such as 1,2
    seeds: str = "111"  # such as 111,211 (the published two)
    recipe: str = "corrected"  # features: published, corrected, published+D2, ...
    selection: str = "clean"  # what chooses the checkpoint: published, clean, last
    by: str = "session"  # what is held out: session or speaker
    iemocap_check: str = "strict"  # strict: refuse an incomplete IEMOCAP; report: say so and go on
    skip_broken: bool = False  # go on without sound files that can't be read; the store records them
    dry_run: bool = False  # print the plan and stop

    def __call__(self):
        from serkit.reproduction.reproduce import reproduce  # pandas is slow to import

        if self.grid:
            return self._reproduce_grid(reproduce)
        corpus = self.corpus or "demo"
        return reproduce(
            self.run or corpus,
            corpus=corpus,
            root=_folder(self.root),
            check=self.iemocap_check,
            skip_broken=self.skip_broken,
            fold_names=[] if self.folds == "all" else _words("folds", self.folds),
            seeds=[_integer("seeds", word) for word in _words("seeds", self.seeds)],
            recipe=self.recipe,
            selection=self.selection,
            by=self.by,
            dry_run=self.dry_run,
            jobs=self.jobs,
            scheduler=self.scheduler,
            **{field.name: getattr(self, field.name) for field in fields(TrainingSettings)},
        )

    def _reproduce_grid(self, reproduce):
        from serkit.reproduction.plan import read_grid

        grid, usual = read_grid(self.grid), Reproduce()
        for field in fields(self):
            if field.name not in BESIDE_GRID and getattr(self, field.name) != getattr(usual, field.name):
                raise ParameterError(
                    f"{field.name}={getattr(self, field.name)!r} beside a grid, expected it in the grid; "
                    f"write it into {self.grid}"
                )
        return reproduce(
            self.run or grid.run or grid.path.stem,
            grid=grid,
            corpus=self.corpus or grid.corpus,
            root=_folder(self.root or grid.root),
            check=self.iemocap_check,
            skip_broken=self.skip_broken,
            dry_run=self.dry_run,
            jobs=self.jobs,
            scheduler=self.scheduler,
        )


@dataclass
class Report:
    """Scores, verdicts on the paper, tables, figures and one page of a run: runs/RUN/report.html."""

    names: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")
    ] = ()  # the run, and further ones to set beside the paper
    run: str = "demo"  # another way to name the run
    partial: bool = False  # report on the folds there are, although some are missing

    def __call__(self):
        from serkit.reproduction.report import write_report

        name, *others = self.names or (self.run,)
        write_report(name, others, self.partial)
        return 0


@dataclass
class Verify:
    """Compute everything in a run folder again that can be, and say whether it all follows from the predictions."""

    run: Annotated[str, tyro.conf.Positional] = "demo"  # name of the run, a folder under runs/ and figures/
    partial: bool = False  # missing folds are named, but are no fault

    def __call__(self):
        from serkit.reproduction.verify import verify

        return verify(self.run, self.partial)


@dataclass
class Predict:
    """Recognise four emotions in sound files, for each file or every three seconds of it."""

    files: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE [FILE ...]")
    ] = ()  # sound files: WAV, FLAC, OGG, MP3, ... of any rate and length
    model: str = ""  # model folder; empty: that of the newest finished fold of --run
    run: str = "demo"  # run to take the model from
    format: Literal["table", "json", "csv"] = "table"  # of the result
    segments: bool = False  # one row for every 3 s segment
    output: str = ""  # file for the result; empty: printed
    timeline: str = ""  # picture of the emotions over time: FILE.png, .pdf or .svg; one recording only
    device: str = "auto"  # auto, cpu, cuda, mps
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"

    def __call__(self):
        from serkit.predict.command import predict_files

        return predict_files(
            self.files,
            model=self.model,
            run=self.run,
            form=self.format,
            segments=self.segments,
            output=self.output,
            timeline=self.timeline,
            device=self.device,
            precision=self.precision,
        )


@dataclass
class Doctor:
    """Say what is installed and found, and what to do about each gap."""

    def __call__(self):
        found = [*_check_packages(), *_check_device(), *_check_corpora(), *_check_weights(), *_check_disk()]
        for good, subject, text in found:
            print(f"{'ok ' if good else '-- '} {subject:22s} {text}")
        return 0


def _folder(path):
    """A folder as the notebooks get it: they run in the project, not here."""
    return str(Path(path).expanduser().resolve()) if path else ""


def _words(name, text):
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ParameterError(f"{name}={text!r}, expected values separated by commas, such as 1,2")
    return words


def _integer(name, word):
    try:
        return int(word)
    except ValueError:
        raise ParameterError(f"{name}: {word!r} is no whole number, expected such as 111") from None


def _check_packages():
    for name in ("torch", "torchaudio", "torchvision", "transformers", "accelerate", "librosa", "soundfile",
                 "papermill", "jupyterlab", "espeakng_loader"):  # fmt: skip
        good = importlib.util.find_spec(name) is not None
        yield good, name, "installed" if good else "missing; run `make setup`"


def _check_device():
    device = runs.device_name()
    hint = (
        ""
        if device.startswith("cuda")
        else "; the paper profile wants an NVIDIA GPU, the demo profile does not"
    )
    yield device.startswith("cuda"), "device", device + hint


def _check_corpora():
    for name in sorted(REGISTRY):
        root = runs.corpus_root(name)
        if name == "demo":
            yield (
                True,
                "corpus demo",
                "there" if root.is_dir() else "spoken by eSpeak NG when first asked for",
            )
        elif root.is_dir():
            yield True, f"corpus {name}", f"found at {runs.show_path(root)}"
        else:
            yield False, f"corpus {name}", f"not at {runs.show_path(root)}; see data/README.md, or give root"


def _check_weights():
    import torch
    from huggingface_hub import try_to_load_from_cache

    cached = any(isinstance(try_to_load_from_cache(SPEECH_ENCODER, name), str)
                 for name in ("model.safetensors", "pytorch_model.bin"))  # fmt: skip
    yield (
        cached,
        "speech encoder",
        f"{SPEECH_ENCODER} "
        + ("in the cache" if cached else "not cached; downloaded on first use of profile='paper' (360 MB)"),
    )
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    cached = any(folder.glob("alexnet-*.pth"))
    yield (
        cached,
        "AlexNet weights",
        "in the cache"
        if cached
        else (f"not in {folder}; downloaded on first use of profile='paper' (233 MB)"),
    )


def _check_disk():
    free_gb = shutil.disk_usage(runs.project_home()).free / 1e9
    hint = "" if free_gb > 20 else "; the demo corpus needs 1 GB, IEMOCAP with all folds about 20 GB"
    yield free_gb > 2, "disk", f"{free_gb:.0f} GB free{hint}"


Command = (
    Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)


def _terminate(*_):
    raise KeyboardInterrupt


def main():
    """Entry point: one message and exit code 2 for a foreseeable mistake, never a traceback."""
    # a cluster's time limit: kernels are then interrupted, and trainings save before they end
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = tyro.cli(Command, prog="serkit", description=__doc__)()
    except SerkitError as error:
        print(f"serkit: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("serkit: interrupted; call again to continue", file=sys.stderr)
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
