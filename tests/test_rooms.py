"""Which module may import which: no circle, no script in a library, no reporting in the science."""

import ast

from tests.conftest import REPO

ROOMS = (
    "coviar",
    "dataset_team",
    "models",
    "MACs",
    "training",
    "early_exit",
    "study",
    "benchmarks",
)
FILES = [path for room in ROOMS for path in (REPO / room).rglob("*.py")] + list(REPO.glob("*.py"))
MODULES = {
    ".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__"): path
    for path in FILES
}


def imports_of(module):
    """The modules of this repository that a module imports, also inside functions."""
    tree = ast.parse(MODULES[module].read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= inner & MODULES.keys() or {node.module}
    return names & MODULES.keys()


IMPORTS = {module: imports_of(module) for module in MODULES}


def reached(module):
    found, left = set(), [module]
    while left:
        more = IMPORTS[left.pop()] - found
        found |= more
        left += more
    return found


def test_there_is_no_circle():
    assert len(IMPORTS) > 100 and "models.team_net" in reached("predict")
    assert [module for module in MODULES if module in reached(module)] == []


def test_no_module_imports_a_script():
    scripts = {path.stem for path in REPO.glob("*.py")} | {"MACs.main"}
    assert {module: found for module in MODULES if (found := IMPORTS[module] & scripts)} == {}


def test_only_scripts_and_benchmarks_import_the_study():
    library = [m for m in MODULES if "." in m and m.split(".")[0] not in ("study", "benchmarks")]
    importing = [m for m in library if any(name.startswith("study") for name in IMPORTS[m])]
    assert importing == ["MACs.main"]
