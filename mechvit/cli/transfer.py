"""Measure whether training on one corruption helps on another: one model for each, tested on all.

    mechvit transfer                                     # four kinds of noise, four of blur, in minutes
    mechvit transfer --corruptions box_blur_3 median_blur_3 gaussian_noise_4 \\
        --mixtures box_blur_3+gaussian_noise_4 mine=clean+median_blur_3 --out runs/mine
    mechvit transfer --model runs/photos/models/base --corruptions imagenet_c_3 \\
        --mixtures noise blur all --out runs/imagenet_c
    mechvit transfer --preset imagenet --model DIR --images folder:DIR --limit 1000 \\
        --corruptions paper --out runs/paper

OUT/transfer.html shows the matrix, the transfer within and across groups of corruptions, and its relation to the
similarity of their spectra; OUT/tables/*.parquet contain the numbers with bootstrap intervals, OUT/models/* the
checkpoints. Run it again to continue after an interruption: finished stages are kept. More corruptions can be added
later; their models are trained, and all tests run again.
"""

from __future__ import annotations

import os
import time

from mechvit.experiment.transfer_config import PRESETS as PRESETS
from mechvit.experiment.transfer_config import TransferConfig
from mechvit.terminal import say


def main(config: TransferConfig) -> None:
    """Run the experiment; print the matrix, the means and the path of the page."""
    # Spinning threads would wait for each other whenever another process uses one of the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from pathlib import Path

    import pandas as pd

    from mechvit.experiment.transfer import run_transfer

    started = time.perf_counter()
    page = run_transfer(config)
    tables = Path(config.out, "tables")
    matrix, means = (pd.read_parquet(tables / f"{name}.parquet") for name in ("transfer", "transfer_means"))
    rows, columns = (list(dict.fromkeys(matrix[name])) for name in ("trained_on", "tested_on"))
    gains = matrix.pivot(index="trained_on", columns="tested_on", values="gain").loc[rows, columns] * 100
    gains.loc["base"] = matrix[matrix["trained_on"] == "base"].set_index("tested_on")["accuracy"] * 100
    say("\ngain over the base in percentage points; first row: the base's accuracy, percent\n")
    say(gains.rename_axis(index=None, columns=None).to_string(float_format="%.1f"))
    say("\nmeans (gains are fractions, transfer the share of the tested corruption's own gain)\n")
    say(means.to_string(index=False, float_format="%.3f"))
    say(f"\nthis call took {time.perf_counter() - started:.0f} s; open {page}")
