"""Pack run folders into an archive, as ``ravdess_whisper.tar.xz`` here: predictions, and neither models nor sounds.

``python data/examples/pack_run.py RUN [VARIANT]`` takes of each variant the seeds whose folds have all finished; of
VARIANT the predictions after every epoch too. Probabilities keep four digits.
"""

import shutil
import sys
import tempfile
from dataclasses import asdict

import pandas as pd

from serkit import runs
from serkit.errors import RunError
from serkit.experiment import key_of, project_home
from serkit.metrics import PROBABILITY

RECORD = ("folds", "versions", "device", "machine", "commit")  # kept of experiment.json


def pack(run, path, every_epoch_of=""):
    """Write the run folders of a run into the archive ``path``.

    Parameters
    ----------
    run : str
    path : path
        It ends in ``.tar.xz``.
    every_epoch_of : str, optional
        Variant whose predictions after every epoch are written too.

    Returns
    -------
    pd.DataFrame
        ``variant, seed`` and number of ``folds`` of what was written.

    Raises
    ------
    RunError
        If no seed of any variant has finished, or folds of a variant differ in a setting.
    """
    written = []
    with tempfile.TemporaryDirectory() as packed:
        for folder in runs.finished_folders(run):
            record, variant = runs.read_record(folder), runs.variant_of(folder)
            finished = runs.find_folds(run, variant)
            alike = [other for other in finished if other.name == folder.name]  # of the same seed
            if len(alike) < len(runs.planned_folds(run, variant) or alike):
                continue
            runs.shared_parameters(run, variant)  # refuses folds that differ
            target = packed / folder.relative_to(project_home() / "runs" / run)
            parameters = asdict(runs.read_experiment(folder))
            if parameters["speech_encoder"]:  # where it lay on that machine says nothing here
                parameters |= {"speech_encoder": parameters["speech_encoder"].rpartition("/")[2]}
            about = {"key": key_of(parameters), "parameters": parameters}
            runs.write_json(target / "experiment.json", about | {name: record.get(name) for name in RECORD})
            write_table(runs.read_predictions(folder), target / "predictions.parquet")
            if variant == every_epoch_of:
                write_table(runs.read_table(folder / runs.EPOCHS, runs.FOLD_CURE), target / runs.EPOCHS)
            (target / runs.DONE).write_text(about["key"])
            written.append({"variant": variant, "seed": parameters["seed"]})
        if not written:
            raise RunError(
                f"run {run!r}: no seed has all its folds yet, expected one; call again when it has"
            )
        shutil.make_archive(str(path).removesuffix(".tar.xz"), "xztar", packed)
    return pd.DataFrame(written).value_counts(sort=False).rename("folds").reset_index()


def write_table(table, path):
    """Write predictions with probabilities of four digits."""
    table = table.round({name: 4 for name in table if name.startswith(PROBABILITY)})
    table.to_parquet(path, index=False, compression=None)  # the archive does it better


if __name__ == "__main__":
    target = project_home() / "data" / "examples" / f"{sys.argv[1]}.tar.xz"
    print(pack(sys.argv[1], target, *sys.argv[2:3]).to_string(index=False))
    print(f"written: {target}")
