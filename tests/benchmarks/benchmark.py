"""How fast, how large, how much memory: the whole path on a corpus of IEMOCAP's exact shape.

``make benchmark`` builds the tree from any speech at hand, measures everything in one run, and
writes ``RESULTS.md`` beside this file. ``--share 0.1`` takes a tenth of the utterances, for a quick look.
"""

import argparse
import contextlib
import importlib.metadata
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[2] / "shared" / "data"  # beside the clone, if at all
PHASES = (
    "librosa_loop",
    "extraction",
    "first_batch",
    "data_path",
    "model_step",
    "agreement",
)
PACKAGES = ("torch", "numpy", "librosa", "scipy", "soundfile", "pandas")
IEMOCAP_SEGMENTS = 11_002  # of all its utterances, published cutting
POOL_S = 600  # s of speech that the utterances are cut from
SEED = 7
MB = 1e6
LOOK = 0.5  # s between looks at the memory: each one takes milliseconds that the phase then lacks


def main():
    """Build, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--share", type=float, default=1.0, help="part of the corpus, 0.01 to 1")
    parser.add_argument("--speech", type=Path, default=SHARED / "ravdess", help="folder of sound files")
    parser.add_argument("--index", type=Path, default=SHARED / "iemocap_index.csv")
    parser.add_argument("--results", type=Path, default=HERE / "RESULTS.md")
    parser.add_argument("--phase", choices=PHASES, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase:
        import phases

        outcome = getattr(phases, options.phase)(options.work)
        (options.work / f"{options.phase}.json").write_text(json.dumps(outcome))
        return
    with tempfile.TemporaryDirectory(prefix="serkit-benchmark-") as folder:
        work = Path(folder)
        notes = build_tree(work, options)
        measured = {phase: measure(phase, work) for phase in PHASES}
    text = report(measured, notes, options)
    options.results.write_text(text)
    print(f"\n{text}")


def build_tree(work, options):
    """Corpus tree and manifest in ``work``; returns what they are made of."""
    sys.path[:0] = [str(HERE.parent)]
    from trees import write_iemocap_tree

    from serkit import corpora

    index, about_index = read_index(options.index)
    index = index.iloc[:: round(1 / options.share)]
    pool, about_speech = read_speech(options.speech, work)
    rng = np.random.default_rng(SEED)

    def cut(_, num_samples):
        return np.take(pool, np.arange(num_samples) + rng.integers(len(pool)), mode="wrap")

    print(f"writing {len(index)} utterances, {index['num_samples'].sum() / 57_600_000:.2f} h", flush=True)
    write_iemocap_tree(work / "iemocap", index, cut, warts=False)
    with contextlib.redirect_stdout(io.StringIO()):  # counts that a part of the corpus can't meet
        manifest = corpora.load(
            "iemocap", work / "iemocap", check="strict" if options.share == 1 else "report"
        )
    manifest.to_parquet(work / "manifest.parquet")
    os.sync()  # or the first phase shares the disk with what is still to be written
    return [about_index, about_speech]


def read_index(path):
    """Ids, tags and lengths of IEMOCAP; made up from the published counts where the list is absent."""
    if path.is_file():
        return pd.read_csv(path), "utterances: ids, tags and lengths of the release"
    from serkit.constants import IEMOCAP_EMOTIONS, IEMOCAP_SPEAKERS

    rng = np.random.default_rng(SEED)
    ids = [
        f"Ses0{who[0]}{who[1]}_impro01_{who[1]}{k:03d}"
        for who, n in IEMOCAP_SPEAKERS.items()
        for k in range(n)
    ]
    tags = rng.permutation(np.repeat(list(IEMOCAP_EMOTIONS), list(IEMOCAP_EMOTIONS.values())))
    seconds = np.clip(rng.lognormal(1.3, 0.6, len(ids)), 0.6, 34)
    lengths = np.round(16_000 * seconds * (6.99 * 3600 / seconds.sum())).astype(int)
    table = pd.DataFrame({"utterance_id": ids, "emotion": tags, "num_samples": lengths})
    return table, "utterances: as many as in the release; lengths made up (log-normal, 6.99 h in all)"


def read_speech(folder, work):
    """Ten minutes of speech, shape (num_samples,), and where it comes from."""
    from serkit import corpora
    from serkit.features import audio

    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in (".wav", ".flac"))
    about = f"speech: {folder.name}, cut to each utterance's length"
    if not paths:
        paths = corpora.load("demo", work / "demo")["path"]
        about = "speech: the demo corpus (eSpeak NG), cut to each utterance's length"
    pool, length = [], 0
    for path in paths:
        pool.append(audio.read(path))
        length += len(pool[-1])
        if length > POOL_S * 16_000:
            break
    return np.concatenate(pool), about


def measure(phase, work):
    """Run one phase in a process of its own and watch the memory of it and its children."""
    print(f"{phase} ...", end=" ", flush=True)
    started = time.perf_counter()
    command = [sys.executable, __file__, "--phase", phase, "--work", str(work)]
    log = work / f"{phase}.log"
    with open(log, "w") as file:
        child = subprocess.Popen(command, stdout=file, stderr=file)
        peak = watch(child)
    if child.returncode:
        sys.exit(f"{phase} failed:\n{log.read_text()}")
    print(f"{time.perf_counter() - started:.0f} s, peak {peak / MB:.0f} MB", flush=True)
    return json.loads((work / f"{phase}.json").read_text()) | {"peak_mb": peak / MB}


def watch(child):
    """Highest memory of a process and its children until it ends, in bytes; shared pages count once."""
    peak, process = 0, psutil.Process(child.pid)
    while child.poll() is None:
        with contextlib.suppress(psutil.Error):
            family = [process, *process.children(recursive=True)]
            peak = max(peak, sum(memory(member) for member in family))
        time.sleep(LOOK)
    return peak


def memory(process):
    """Proportional set size where the system has it (Linux), else resident set size."""
    return getattr(process.memory_full_info(), "pss", None) or process.memory_info().rss


def report(measured, notes, options):
    """The page ``RESULTS.md``."""
    loop, ours, first, path, step, same = (measured[phase] for phase in PHASES)
    loop_s, saving_s, ours_s = (np.median(x) for x in (loop["seconds"], loop["saving"], ours["seconds"]))
    floor = np.convolve(ours["floor"], [0.5, 0.5], "valid")  # before and after each extraction
    factors = np.divide(ours["seconds"], floor)
    hours = f"{ours['utterances']} utterances, {ours['segments']} segments"
    rows = [
        ("librosa loop", f"{rounds(loop['seconds'])}, {loop['utterances'] / loop_s:.0f} utterances/s; {saving_s:.1f} s of it to save {loop['bytes'] / 1e9:.2f} GB"),
        ("extraction", f"{rounds(ours['seconds'])}, {ours['utterances'] / ours_s:.0f} utterances/s"),
        ("extraction against the loop", f"{loop_s / ours_s:.1f} times as fast; first rounds: {loop['seconds'][0] / ours['seconds'][0]:.1f}"),
        ("the same, the loop's saving left out", f"{(loop_s - saving_s) / ours_s:.1f} times as fast"),
        ("the two transforms alone", f"{rounds(ours['floor'])} in {ours['processes']} processes"),
        ("extraction above that floor", f"factor {np.median(factors):.2f} (median of {', '.join(f'{f:.2f}' for f in factors)})"),
        ("peak memory, librosa loop", f"{loop['peak_mb']:.0f} MB (it keeps nothing)"),
        ("peak memory, extraction", f"{ours['peak_mb']:.0f} MB, all processes"),
        ("store", f"{ours['bytes'] / 1e9:.2f} GB"),
        ("largest difference from librosa", f"{same['level']:.4f} dB, MFCC {same['mfcc']:.4f}"),
        ("store opened", f"{first['opened']:.2f} s, with manifest and folds"),
        ("scaler of the fold", f"{first['scaled'] - first['opened']:.2f} s"),
        ("until the first batch of 64", f"{first['seconds']:.2f} s after imports"),
        ("peak memory until then", f"{first['peak_mb']:.0f} MB, without a model"),
        ("data path alone, first epoch", f"{path['first epoch']:.0f} segments/s ({path['first epoch'] / 64:.1f} batches/s)"),
        ("data path alone, later epochs", f"{path['later epochs']:.0f} segments/s ({path['later epochs'] / 64:.1f} batches/s)"),
        ("peak memory, data path", f"{path['peak_mb']:.0f} MB"),
        *step_rows(step),
    ]  # fmt: skip
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    share = "" if options.share == 1 else f" OPTIONS='--share {options.share:g}'"
    lines = [
        "# Measured",
        "",
        f"`make benchmark{share}` on {date.today()}: {hours}.",
        *(f"{note[0].upper()}{note[1:]}." for note in notes),
        "",
        f"Machine: {cpu_name()}, {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} "
        f"cores, {psutil.virtual_memory().total / 1e9:.0f} GB; {platform.system()}, Python {platform.python_version()}; {versions}.",
        "Every phase ran in a process of its own; the loop several times in a row, extraction and transforms in turn, each",
        "time from nothing (the first round into an empty folder, the others over the files of the one before). The levels are stored in 16 bits:",
        "half a step is 0.0006 dB; librosa works in single precision, which is up to 0.005 dB off at the floor.",
        "",
        "| what | measured |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows),
    ]
    return "\n".join(lines) + "\n"


def rounds(seconds):
    """Median and all rounds."""
    return f"{np.median(seconds):.1f} s (median of {', '.join(f'{s:.1f}' for s in seconds)})"


def step_rows(step):
    """What a training step costs, and an epoch of IEMOCAP at that pace."""
    n, epoch = step["segments"], IEMOCAP_SEGMENTS / step["segments"] / 3600
    amx = "the CPU has AMX" if step["fast_bf16"] else "the CPU has no AMX"
    return [
        (f"step of the paper's model, {n} segments in pieces of 8", f"{step['float32']:.1f} s float32, {step['bf16']:.1f} s bf16"),
        ("above its encoders' forward and backward", f"{step['overhead_float32']:+.1%} float32, {step['overhead_bf16']:+.1%} bf16 (median of pairs)"),
        ("bf16 against float32", f"{step['bf16_ratio']:.2f} of the time (median of pairs); {amx}"),
        ("step with a frozen encoder, output kept", f"{step['frozen']:.1f} s, {step['frozen'] / step['float32']:.3f} of the fine-tuning step"),
        ("its output computed once", f"{step['encode'] * IEMOCAP_SEGMENTS / 3600:.1f} h for IEMOCAP"),
        (f"an epoch of {IEMOCAP_SEGMENTS} segments, projected", f"{step['float32'] * epoch:.1f} h fine-tuning, {60 * step['frozen'] * epoch:.0f} min frozen"),
        ("model's step, demo profile", f"{n / step['demo']:.1f} segments/s"),
    ]  # fmt: skip


def cpu_name():
    """Model name of the processor."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
