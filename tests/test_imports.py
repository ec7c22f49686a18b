"""Which file imports which: no circles, nothing below asks the study, and light scripts stay so."""

import ast
import graphlib

import pytest

from tests.conftest import REPO, ROOMS

# They read saved logits and tables: torchvision, and torch._dynamo with it, is 1.5 CPU seconds.
LIGHT = (
    *("wise_team_net_logit", "team_net_wise_all_acc"),
    *("study.collect", "study.compare", "study.report.__main__", "study.tables"),
)


def imported(name, path):
    """The modules that a file imports when it is imported itself."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.fixture(scope="module")
def graph():
    """Of our modules: what each imports, ours or not, with the packages it lies in."""
    paths = [*REPO.glob("*.py"), *(path for room in ROOMS for path in REPO.glob(f"{room}/**/*.py"))]
    parts = {path: path.relative_to(REPO).with_suffix("").parts for path in paths}
    files = {".".join(p for p in parts[path] if p != "__init__"): path for path in paths}
    found = {name: set(imported(name, path)) for name, path in files.items()}
    for name, others in found.items():
        packages = {other.rpartition(".")[0] for other in {name, *others}}
        others |= packages - {"", name}
    return found


def test_there_is_no_circle(graph):
    ours = {name: {other for other in others if other in graph} for name, others in graph.items()}
    assert len(ours) > 100
    # A package's __init__ runs before its modules, of which it may import some.
    ours = {
        name: {o for o in others if not name.startswith(f"{o}.")} for name, others in ours.items()
    }
    graphlib.TopologicalSorter(ours).prepare()


def test_only_scripts_and_the_study_import_the_study(graph):
    others = {name for name in graph if "." in name and not name.startswith("study.")}
    others -= {"MACs.main"}  # a script
    assert [name for name in others if any(f"{o}.".startswith("study.") for o in graph[name])] == []


def test_nothing_imports_a_script(graph):
    scripts = {name for name in graph if "." not in name} - set(ROOMS) | {"MACs.main"}
    assert {name: found for name, others in graph.items() if (found := others & scripts)} == {}


def reached(graph, name):
    found, new = set(), {name}
    while new:
        found |= new
        new = {other for one in new for other in graph.get(one, ())} - found
    return found


@pytest.mark.parametrize("script", LIGHT)
def test_scripts_of_saved_logits_start_without_torchvision(graph, script):
    assert "torchvision" in reached(graph, "train_team_net")
    assert "torchvision" not in reached(graph, script)
