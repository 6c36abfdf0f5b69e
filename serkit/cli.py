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

Positional = tyro.conf.Positional
Words = Positional[tuple[str, ...]]
Runs = Annotated[Words, tyro.conf.arg(metavar="RUN [RUN ...]")]


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


def report(names: Runs = ("demo",), partial: bool = False, baselines: bool = False):
    """Scores, verdicts on the paper, tables, figures and one page of a run: runs/RUN/report.html.

    Parameters
    ----------
    names : tuple of str
        the run, and further ones to set beside the paper
    partial : bool
        report on the folds there are, although some are missing
    baselines : bool
        make those that take minutes too: eGeMAPS, the probe of a fine-tuned encoder
    """
    from serkit.reproduction.report import write_report

    name, *others = map(runs.check_run_name, names)
    write_report(name, others, partial, baselines)


def verify(run: Positional[str] = "demo", partial: bool = False):
    """Compute everything in a run folder again that can be, and say whether it all follows from the predictions.

    Parameters
    ----------
    run : str
        name of the run, a folder under runs/ and figures/
    partial : bool
        missing folds are named, but are no fault
    """
    from serkit.reproduction import verify

    return verify.verify(runs.check_run_name(run), partial)


def predict(
    files: Annotated[Words, tyro.conf.arg(metavar="FILE [FILE ...]")] = (), model: str = "", run: str = "demo",
    format: Literal["table", "json", "csv"] = "table", segments: bool = False, channel: int = 0, output: str = "",
    timeline: str = "", device: str = "auto", precision: Literal["auto", "float32", "bf16", "fp16"] = "auto",
    abstain: float = 0.0,
):  # fmt: skip
    """Recognise four emotions in sound files, for each file or every three seconds of it.

    Parameters
    ----------
    files : tuple of str
        sound files: WAV, FLAC, OGG, MP3, ... of any rate and length; a folder means the sounds in it
    model : str
        model folder; empty: that of the newest finished fold of --run
    run : str
        run to take the model from
    format : str
        of the result
    segments : bool
        one row for every 3 s segment
    channel : int
        the only one that is heard, such as 1 for one side of a call; 0: the average of all
    output : str
        file for the result; empty: printed. An interrupted call with it goes on where it was
    timeline : str
        picture of the emotions over time: FILE.png, .pdf or .svg; one recording only
    device : str
        auto, cpu, cuda, mps
    precision : str
        of the model's arithmetic
    abstain : float
        withhold this share of the least sure answers, reckoned on validation speakers; such as 0.2
    """
    options = locals() | {"run": runs.check_run_name(run)}
    from serkit.predict import predict_files

    return predict_files(options.pop("files"), form=options.pop("format"), **options)


def export(onnx: Annotated[str, tyro.conf.arg(metavar="MODEL_FOLDER")], out: Positional[str] = "model.onnx"):
    """Write a trained model as one file, for programs that have neither serkit nor torch; takes a minute or two.

    Parameters
    ----------
    onnx : str
        model folder, such as runs/RUN/VARIANT/fold=1/seed=111/model
    out : str
        the file; not in the model folder
    """
    from serkit.model import export_onnx

    error = export_onnx(onnx, out)
    print(f"{out}: on noise, its logits differ from the model's by at most {error:.0e}")


def corpus(action: Positional[Literal["check"]], file: Positional[str]):
    """Look at the table of a corpus of your own: what is understood, what is doubtful, the folds that follow.

    Parameters
    ----------
    action : str
        what to do with it
    file : str
        CSV, TSV, JSON Lines or Parquet, or the folder that holds it
    """
    from serkit.corpora.table import check

    return 0 if check(file) else 1


def fetch(corpus: Positional[str], root: str = ""):
    """Download a free corpus, check and unpack it; what is there already isn't fetched again.

    Parameters
    ----------
    corpus : str
        ravdess, tess; of emodb, cremad and savee it says what to do by hand
    root : str
        folder to unpack to; empty: data/<corpus>
    """
    from serkit.corpora.fetch import fetch

    fetch(corpus, root=root or None)


def doctor():
    """Say what is installed and found, and what to do about each gap."""
    for good, subject, present, absent in _findings():
        print(f"{'ok ' if good else '-- '} {subject:22s} {present if good else absent}")


def _absolute(part):
    """A folder as notebooks need it, who run in the project; with its corpus in front where it has one."""
    name, mark, folder = part.rpartition("=")
    return name + mark + str(Path(os.path.expanduser(folder)).resolve())


def _words(name, text):
    if not (words := [word.strip() for word in text.split(",") if word.strip()]):
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


COMMANDS = {"reproduce": Reproduce} | {
    command.__name__: command for command in (report, verify, predict, export, corpus, fetch, doctor)
}


def run(arguments=None):
    """Do what a command line asks for, by default that of this process; returns the exit code."""
    runs.quiet_libraries()
    done = tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="serkit", description=__doc__, args=arguments)
    return (done() if isinstance(done, Reproduce) else done) or 0


def main():
    """Entry point: one message and exit code 2 for a foreseeable mistake, never a traceback."""
    os.environ["MPLBACKEND"] = "Agg"  # pictures go to files, whatever a matplotlibrc says
    sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal has all characters
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cluster's time limit ends it as Ctrl-C does
    try:
        code = run()
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
