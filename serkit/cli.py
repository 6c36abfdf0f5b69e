"""``serkit doctor | fetch | corpus | reproduce | report | verify | predict | export``: the command line."""

import importlib.util
import os
import shutil
import signal
import sys
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from serkit import runs
from serkit.constants import CORPORA, SPEECH_ENCODER
from serkit.errors import ParameterError, SerkitError, shown
from serkit.experiment import ACROSS, HELP, SETTINGS, convert, expectation

Words = tyro.conf.Positional[tuple[str, ...]]


def _option(field):
    """A setting as tyro wants it: switches as they are, all else as text, which ``convert`` reads as everywhere."""
    about = HELP[field.name]
    if field.type is bool:
        return field.name, Annotated[bool, tyro.conf.arg(help=about)], field.default
    about += f": {expectation(field.name)}"
    return field.name, Annotated[str, tyro.conf.arg(help=about, metavar="VALUE")], str(field.default).lower()


# corpus, folds and seeds have another form here
OPTIONS = [_option(field) for name, field in SETTINGS.items() if name not in ("corpus", "fold", "seed")]


@dataclass(frozen=True)
class Reproduce(make_dataclass("Settings", OPTIONS, frozen=True)):
    """Run all notebooks on a corpus: figures and tables at the end. Call it again to continue."""

    grid: str = ""  # TOML file of many variants, such as notebooks/grids/demo.toml; settings are then its own
    jobs: int = 0  # trainings at a time; 0: one for each GPU, or one without a GPU
    scheduler: str = ""  # address of a dask scheduler, such as tcp://host:8786: its workers run the trainings
    corpus: str = ""  # such as iemocap, or the name of a table; empty: the grid's, or demo
    train_corpus: str = ""  # across corpora: trained on this one, such as ravdess or ravdess+emodb ...
    test_corpus: str = ""  # ... and tested on this one
    root: str = ""  # folder of the corpus; empty: data/<corpus>
    run: str = ""  # name of the run, a folder under runs/ and figures/; empty: that of the grid or corpus
    folds: str = "all"  # speakers or sessions to test, such as 1,2
    seeds: str = "111"  # such as 111,211 (the published two)
    iemocap_check: str = "strict"  # strict: refuse an incomplete IEMOCAP; report: say so and go on
    skip_broken: bool = False  # go on without sounds that extraction can't use; the store records them
    dry_run: bool = False  # print the plan and stop

    def __call__(self):
        given, usual = vars(self), vars(Reproduce())
        changed = {name: value for name, value in given.items() if value != usual[name]}
        settings = {name: convert(name, value) for name, value in changed.items() if name in SETTINGS}
        corpus, root, run, grid = settings.pop("corpus", "demo"), self.root, self.run, None
        if self.train_corpus or self.test_corpus:
            corpus = convert("corpus", f"{self.train_corpus or corpus}{ACROSS}{self.test_corpus or corpus}")
        if self.grid:
            for name in sorted(changed.keys() & {*settings, "folds", "seeds"}):
                given = shown(changed[name])
                raise ParameterError(f"{name}={given} beside a grid; write it into {self.grid}")
            from serkit.reproduction.plan import read_grid

            grid = read_grid(self.grid)
            corpus = corpus if ACROSS in corpus else self.corpus or grid.corpus
            root, run = root or grid.root, run or grid.run or grid.path.stem
        else:
            settings["fold_names"] = [] if self.folds == "all" else _words("folds", self.folds)
            settings["seeds"] = [convert("seed", word) for word in _words("seeds", self.seeds)]
        run = runs.check_run_name(run or corpus.replace("+", "-"))
        from serkit.reproduction.reproduce import reproduce  # pandas is slow to import

        # notebooks run in the project, not here
        root = ",".join(map(_absolute, root.split(","))) if root else ""
        encoder = os.path.expanduser(settings.get("speech_encoder") or "")
        if os.path.isdir(encoder) and (folder := Path(encoder)).name:
            settings["speech_encoder"] = str(folder.resolve())
        return reproduce(
            run, grid=grid, corpus=corpus, root=root, check=self.iemocap_check, skip_broken=self.skip_broken,
            dry_run=self.dry_run, jobs=self.jobs, scheduler=self.scheduler, **settings,
        )  # fmt: skip


@dataclass
class Report:
    """Scores, verdicts on the paper, tables, figures and one page of a run: runs/RUN/report.html."""

    # the run, and further ones to set beside the paper
    names: Annotated[Words, tyro.conf.arg(metavar="RUN [RUN ...]")] = ("demo",)
    partial: bool = False  # report on the folds there are, although some are missing
    baselines: bool = False  # make those that take minutes too: eGeMAPS, the probe of a fine-tuned encoder

    def __call__(self):
        from serkit.reproduction.report import write_report

        name, *others = map(runs.check_run_name, self.names)
        write_report(name, others, self.partial, self.baselines)
        return 0


@dataclass
class Verify:
    """Compute everything in a run folder again that can be, and say whether it all follows from the predictions."""

    run: Annotated[str, tyro.conf.Positional] = "demo"  # name of the run, a folder under runs/ and figures/
    partial: bool = False  # missing folds are named, but are no fault

    def __call__(self):
        from serkit.reproduction.verify import verify

        return verify(runs.check_run_name(self.run), self.partial)


@dataclass
class Predict:
    """Recognise four emotions in sound files, for each file or every three seconds of it."""

    # sound files: WAV, FLAC, OGG, MP3, ... of any rate and length; a folder means the sounds in it
    files: Annotated[Words, tyro.conf.arg(metavar="FILE [FILE ...]")] = ()
    model: str = ""  # model folder; empty: that of the newest finished fold of --run
    run: str = "demo"  # run to take the model from
    format: Literal["table", "json", "csv"] = "table"  # of the result
    segments: bool = False  # one row for every 3 s segment
    channel: int = 0  # the only one that is heard, such as 1 for one side of a call; 0: the average of all
    output: str = ""  # file for the result; empty: printed. An interrupted call with it goes on where it was
    timeline: str = ""  # picture of the emotions over time: FILE.png, .pdf or .svg; one recording only
    device: str = "auto"  # auto, cpu, cuda, mps
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    # withhold this share of the least sure answers, reckoned on validation speakers; such as 0.2
    abstain: float = 0.0

    def __call__(self):
        from serkit.predict.command import predict_files

        options = vars(self) | {"run": runs.check_run_name(self.run)}
        return predict_files(options.pop("files"), form=options.pop("format"), **options)


@dataclass
class Export:
    """Write a trained model as one file, for programs that have neither serkit nor torch; takes a minute or two."""

    # model folder, such as runs/RUN/VARIANT/fold=1/seed=111/model
    onnx: Annotated[str, tyro.conf.arg(metavar="MODEL_FOLDER")]
    out: Annotated[str, tyro.conf.Positional] = "model.onnx"  # the file; not in the model folder

    def __call__(self):
        from serkit.model import export_onnx

        runs.quiet_libraries()
        error = export_onnx(self.onnx, self.out)
        print(f"{self.out}: on noise, its logits differ from the model's by at most {error:.0e}")
        return 0


@dataclass
class Corpus:
    """Look at the table of a corpus of your own: what is understood, what is doubtful, the folds that follow."""

    action: Annotated[Literal["check"], tyro.conf.Positional]
    file: Annotated[str, tyro.conf.Positional]  # CSV, TSV, JSON Lines or Parquet, or the folder that holds it

    def __call__(self):
        from serkit.corpora.table import check

        return 0 if check(self.file) else 1


@dataclass
class Fetch:
    """Download a free corpus, check and unpack it; what is there already isn't fetched again."""

    # ravdess, tess; of emodb, cremad and savee it says what to do by hand
    corpus: Annotated[str, tyro.conf.Positional]
    root: str = ""  # folder to unpack to; empty: data/<corpus>

    def __call__(self):
        from serkit.corpora.fetch import fetch

        fetch(self.corpus, root=self.root or None)
        return 0


@dataclass
class Doctor:
    """Say what is installed and found, and what to do about each gap."""

    def __call__(self):
        for good, subject, present, absent in _findings():
            print(f"{'ok ' if good else '-- '} {subject:22s} {present if good else absent}")
        return 0


def _absolute(part):
    """A folder as notebooks need it, who run in the project; with its corpus in front where it has one."""
    name, mark, folder = part.rpartition("=")
    return name + mark + str(Path(os.path.expanduser(folder)).resolve())


def _words(name, text):
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ParameterError(f"{name}={shown(text)}, expected values separated by commas, such as 1,2")
    return words


def _findings():
    """What is looked for: whether it is there, its name, and what to say if it is and if it isn't."""
    for name in ("torch", "torchaudio", "torchvision", "transformers", "accelerate", "librosa", "soundfile",
                 "papermill", "jupyterlab", "espeakng_loader"):  # fmt: skip
        yield importlib.util.find_spec(name) is not None, name, "installed", "missing; run `make setup`"
    device = runs.device_name()
    yield device.startswith("cuda"), "device", device, f"{device}; the paper profile wants an NVIDIA GPU"
    for name in CORPORA:
        root, shown = runs.corpus_root(name), runs.show_path(runs.corpus_root(name))
        cure = "spoken when first asked for" if name == "demo" else "see data/README.md, or give root"
        yield root.is_dir(), f"corpus {name}", f"found at {shown}", f"not at {shown}; {cure}"
    import torch
    from huggingface_hub import try_to_load_from_cache

    absent = "not in the cache; downloaded on first use of profile='paper'"
    files = ("model.safetensors", "pytorch_model.bin")
    cached = any(isinstance(try_to_load_from_cache(SPEECH_ENCODER, name), str) for name in files)
    yield cached, "speech encoder", f"{SPEECH_ENCODER} in the cache", f"{SPEECH_ENCODER} {absent} (360 MB)"
    cached = any((Path(torch.hub.get_dir()) / "checkpoints").glob("alexnet-*.pth"))
    yield cached, "AlexNet weights", "in the cache", f"{absent} (233 MB)"
    free = f"{shutil.disk_usage(runs.project_home()).free / 1e9:.0f}"
    needed = "the demo corpus needs 1 GB, IEMOCAP with all folds about 20 GB"
    yield float(free) >= 20, "disk", f"{free} GB free", f"{free} GB free; {needed}"


Command = Reproduce | Report | Verify | Predict | Export | Corpus | Fetch | Doctor


def main():
    """Entry point: one message and exit code 2 for a foreseeable mistake, never a traceback."""
    os.environ["MPLBACKEND"] = "Agg"  # pictures go to files, whatever a matplotlibrc says
    sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal has all characters
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cluster's time limit ends it as Ctrl-C does
    try:
        code = tyro.cli(Command, prog="serkit", description=__doc__)()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141  # as of a program that SIGPIPE has ended
    except SerkitError as error:
        print(f"serkit: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("serkit: interrupted; call again to continue", file=sys.stderr)
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
