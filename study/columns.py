"""The columns of the CSV files of a run (RUN_COLUMNS) and of a study (STUDY_COLUMNS).

In a study, `runs.csv` says how each run was made. The other files name the run by RUN.
TIMES are milliseconds per video, from a table of `python -m benchmarks.timings`.
`wise_protocol` is the protocol of rows with combination "wise", `protocol` that of all others.
"""

from __future__ import annotations

from models import ALL as ALL  # in the column exit

RUN = ["data", "split", "seed", "method"]
BACKBONE = ["data", "split", "backbone_digest"]
# Of tables that a row of a run can be read from, the columns that are no numbers.
TEXTS = ["data", "split", "method", "part", "combination", "evidence", "exit", "point", "output"]
TEXTS += ["protocol", "command", "wise_protocol", "wise_command"]
# Empty where nobody measured them.
TIMES = ["decode_ms", "network_ms"]
_SCORE = ["exit", "top1_pct", "share_pct", "gmacs", *TIMES, "num_videos"]
_POLICY = ["rule", "goal", "reached", "select_on", "confidence", "temperature", "thresholds"]
_MADE = ["protocol", "command"]
_OF_RUN = {
    "exits.csv": [*RUN, "part", "combination", *_SCORE],
    "trade_off.csv": [*RUN, "part", "combination", "threshold", *_SCORE],
    "policies.csv": [*RUN, "part", "combination", *_POLICY, *_SCORE],
}
RUN_COLUMNS = {name: [*columns, *_MADE] for name, columns in _OF_RUN.items()}
STUDY_COLUMNS = {
    "runs.csv": [*RUN, "protocol", "wise_protocol", "command", "wise_command"],
    **_OF_RUN,
    "weights.csv": [*RUN, "point", "output", "beta"],
    "decisions.csv": [
        *(*RUN, "combination", "video", "class_name", "exit"),
        *("prediction", "confidence", "left", "correct"),
    ],
    "backbones.csv": [*RUN, "output", "top1_pct", "gmacs", "num_videos"],
}
