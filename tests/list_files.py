"""Lists, and the command that makes them, dataset_team.lists."""

import json

from dataset_team import lists
from tests.calls import call


def write(folder, content):
    (folder / "list.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / "list.txt"


def run(capsys, *args):
    """(the result, all that is printed)"""
    call(lists, *args)
    out = capsys.readouterr().out
    return json.loads(out.splitlines()[-1].removeprefix("result: ")), out
