"""Tables of measurements: rows of several processes at once, and files that are something else."""

import csv
import subprocess
import sys

import pytest

from benchmarks.table import check_table, update_rows
from tests.conftest import REPO

COLUMNS, KEY = ["network", "machine", "ms"], ["network", "machine"]
ADD = """
import sys
from benchmarks.table import update_rows
for turn in range(40):
    row = {"network": f"{sys.argv[2]}-{turn}", "machine": "m", "ms": turn}
    update_rows(sys.argv[1], ["network", "machine", "ms"], ["network", "machine"], [row])
"""


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_rows_of_jobs_at_the_same_time_are_all_kept(tmp_path):
    table = tmp_path / "new/times.csv"
    words = [sys.executable, "-c", ADD, str(table)]
    jobs = [subprocess.Popen([*words, name], cwd=REPO) for name in "abc"]
    assert [job.wait() for job in jobs] == [0, 0, 0]
    found = {row["network"] for row in read(table)}
    assert found == {f"{name}-{turn}" for name in "abc" for turn in range(40)}
    assert [path.name for path in table.parent.iterdir()] == ["times.csv"]


def test_rows_of_one_key_are_replaced_and_old_tables_may_lack_a_column(tmp_path):
    table = tmp_path / "times.csv"
    table.write_text("network,machine\na,m\nb,m\n")
    update_rows(table, COLUMNS, KEY, [{"network": "a", "machine": "m", "ms": 2}])
    assert read(table) == [
        {"network": "b", "machine": "m", "ms": ""},
        {"network": "a", "machine": "m", "ms": "2"},
    ]


HEADER = b"network,machine,ms\n"


@pytest.mark.parametrize(
    "content",
    [
        *(b"id,value\n1,2\n", b"", b"\xff\xfe\x00", b"machine,ms\nm,1\n"),
        *(HEADER + row for row in (b"a,m,2,\n", b"a,m\n", b"a,m,2", b"a,\xe9,2\n", b'a,"m,2\n')),
    ],
)
def test_another_file_is_refused_by_name_and_stays(tmp_path, content):
    path = tmp_path / "foreign.csv"
    path.write_bytes(content)
    row = {"network": "a", "machine": "m", "ms": 2}
    for refuse in (
        lambda: check_table(path, COLUMNS, KEY),
        lambda: update_rows(path, COLUMNS, KEY, [row]),
    ):
        with pytest.raises(ValueError, match="foreign.csv.*name another --out"):
            refuse()
    assert path.read_bytes() == content


def test_a_foreign_table_is_refused_before_the_measurement(server, tmp_path):
    (tmp_path / "foreign.csv").write_text("id,value\n1,2\n")
    out = ["--out", tmp_path / "foreign.csv"]
    data = ["--data-root", tmp_path, "--test-list", tmp_path / "no.txt"]
    for words in (
        ["benchmarks.early_exit", *out],
        ["benchmarks.timings", "--run", tmp_path, *data, "--data-name", "x", *out],
        ["benchmarks.over_time", "--run", tmp_path, *data, *out],
    ):
        done = server.call("-m", *words)
        assert done.returncode == 2 and "foreign.csv has the columns id,value" in done.stderr
