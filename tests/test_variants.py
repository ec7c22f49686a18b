"""The table of what variants of a training bring on held-out videos."""

import csv
import json

import pytest

from study import variants
from tests.calls import call, refused

TOP1 = {("base", 1): 60, ("base", 2): 70, ("ema", 1): 63, ("ema", 2): 69, ("late", 1): 90}


@pytest.fixture
def runs(tmp_path):
    for (variant, split), top1 in TOP1.items():
        folder = tmp_path / variant / "toy/streams" / f"split{split}_seed3"
        folder.mkdir(parents=True)
        args = {"data_name": "toy", "split": f"split{split}", "random_seed": 3, "select_on": "last"}
        lost = {"fused": 0, "iframe": 10, "mv": 20, "residual": 5}
        line = {f"heldout_{name}": top1 - minus for name, minus in lost.items()}
        lines = [{"epoch": 3, "heldout_fused": 0.0}, {"epoch": 7, **line}]
        (folder / "args.json").write_text(json.dumps(args))
        (folder / "env.json").write_text(json.dumps({"command": f"python x --{variant}"}))
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / "result.json").write_text("{}")
    return tmp_path


def test_rows_and_paired_differences(runs, tmp_path, capsys):
    call(variants, runs, "--out", tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(r["variant"], r["split"]): r for r in rows if r["output"] == "residual"}
    assert len(rows) == 4 * len(TOP1)
    assert float(found["ema", "split2"]["heldout_top1_pct"]) == 64
    assert found["ema", "split2"]["epochs"] == "8"
    table = {row[0]: row[1:] for row in variants.difference_table(variants.variant_rows(runs))[1:]}
    assert list(table) == ["base", "ema", "late"]
    assert table["base"] == ["2", "65.0 ± 7.1", "55.0 ± 7.1", "45.0 ± 7.1", "60.0 ± 7.1", *[""] * 4]
    assert table["ema"][5] == "1.0 ± 2.8", "split by split: 3 and -1"
    assert table["late"][:2] == ["1", "90.0"] and table["late"][5] == "30.0", "of its one split"
    assert "| ema" in capsys.readouterr().out


def test_runs_that_cannot_be_judged_are_refused(runs, tmp_path, capsys):
    folder = runs / "ema/toy/streams/split1_seed3"
    args = json.loads((folder / "args.json").read_text())
    (folder / "args.json").write_text(json.dumps({**args, "select_on": "heldout"}))
    with pytest.raises(ValueError, match="ema/toy/streams/split1_seed3 has chosen its epoch"):
        variants.variant_rows(runs)
    (folder / "args.json").write_text(json.dumps(args))
    log = (folder / "log.jsonl").read_text()
    (folder / "log.jsonl").write_text('{"epoch": 7, "test_fused": 1.0}')
    with pytest.raises(ValueError, match="has no held-out videos to be judged by"):
        variants.variant_rows(runs)
    for damaged, number in (
        (b"", 0),
        (b"\n", 1),
        (log.encode()[:-9], 2),
        (b"[]\n", 1),
        (b"\xe9", 1),
    ):
        (folder / "log.jsonl").write_bytes(damaged)
        message = refused(capsys, variants, runs, "--out", tmp_path / "a.csv")
        words = f"{folder / 'log.jsonl'}, line {number}: not what an epoch logs; train it again"
        assert words in message and not (tmp_path / "a.csv").exists()
    (folder / "log.jsonl").write_text(log)
    (folder / "result.json").unlink()
    assert len(variants.variant_rows(runs)) == 4 * (len(TOP1) - 1), "not finished: left out"
    with pytest.raises(ValueError, match="holds no finished run"):
        variants.variant_rows(folder)
