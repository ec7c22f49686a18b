"""Scripts called in the process of the tests."""

import json

import pytest


def call(script, *words):
    """Its main, with these words as its command line."""
    parser = script.get_args_parser()
    return script.main(parser.parse_args([str(word) for word in words]), parser)


def printed(capsys, benchmark, *words):
    """The JSON line that a benchmark prints last."""
    capsys.readouterr()
    call(benchmark, *words)
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def refused(capsys, script, *words):
    """The message of a usage error."""
    with pytest.raises(SystemExit) as stop:
        call(script, *words)
    assert stop.value.code == 2
    return capsys.readouterr().err
