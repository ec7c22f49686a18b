"""README and docs: shell blocks parse, options, files and links that they name exist."""

import argparse
import importlib
import re
import shlex
import shutil
import subprocess

import pytest

from tests.conftest import REPO
from tests.tools import lacking

PAGES = ["README.md", "CONTRIBUTING.md", "results/README.md"]
PAGES += sorted(str(path.relative_to(REPO)) for path in (REPO / "docs").glob("*.md"))
PARSER_AT = {
    "study.report": "study.report.__main__",
}
HANDS_ON = {"-m benchmarks.sweep": "train_team_ce.py"}  # options it does not know
OF_OTHERS = {"--citation", "--extra-index-url"}  # GNU parallel, pip


def text_of(page):
    return (REPO / page).read_text()


def shell_blocks(text):
    """Indented blocks, without their indent, also inside a list."""
    blocks = re.findall(r"(?:\A|\n)\n((?: {4,}\S.*(?:\n|\Z)|\n(?= {4,}\S))+)", text)
    for block in blocks:
        lines = block.rstrip().splitlines()
        indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
        yield "\n".join(line[indent:] for line in lines)


def commands(page):
    """(what runs, its words) of every command in blocks and `code` that runs a script of ours."""
    text = text_of(page)
    codes = [
        *shell_blocks(text),
        *re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.S)),
    ]
    for code in codes:
        for line in code.replace("\\\n", " ").replace("\n", " \n").splitlines():
            found = re.search(r"(?:^|\s)(-m [\w.]+|[\w/]+\.(?:py|sh))(?=\s|$)", line)
            if not found or line.startswith("#"):
                continue
            words = shlex.split(line[found.end() :], comments=True)
            yield found[1], words


def options_of(script):
    """The options a script takes: of its parser and subparsers, or named in a shell script."""
    if script.endswith(".sh"):
        path = REPO / script if "/" in script else REPO / "multirunner" / script
        if not path.is_file():
            return None  # one that the commands write
        return set(re.findall(r"--[a-z][\w-]*", path.read_text()))
    name = script.removeprefix("-m ").removesuffix(".py").replace("/", ".")
    module = importlib.import_module(PARSER_AT.get(name, name))
    parsers = ("get_args_parser", "get_fill_parser", "get_prune_parser")
    return set().union(
        *(options_of_parser(getattr(module, p)()) for p in parsers if hasattr(module, p))
    )


def options_of_parser(parser):
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= set().union(*map(options_of_parser, action.choices.values()))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_scripts_take_the_options_that_commands_give_them(page):
    for script, words in commands(page):
        known = options_of(script)
        if script in HANDS_ON:
            known |= options_of(HANDS_ON[script])
        given = {word.split("=")[0] for word in words if re.match(r"--?[A-Za-z]", word)}
        assert known is None or given <= known, (
            page,
            script,
            given - known,
        )


def backbones(block):
    """The options of the trainings of backbones in a shell block."""
    for line in block.replace("\\\n", " ").splitlines():
        found = re.match(r"python (train_team_net|pretrain)\.py (.*)", line)
        if found and not found[2].endswith("..."):
            module = importlib.import_module(found[1])
            yield module.get_args_parser().parse_args(shlex.split(found[2], comments=True))


def test_a_backbone_is_trained_further_as_the_command_before_trained_it():
    """Another T or crop is no fault of a checkpoint, so nobody would say so."""
    further = 0
    for block in (block for page in PAGES for block in shell_blocks(text_of(page))):
        before = None
        for args in backbones(block):
            if str(args.pretrained).startswith("runs/"):
                further += 1
                for name in ("num_segments", "crop_size", "arch", "motion_arch"):
                    assert getattr(args, name) == getattr(before, name), (block, name)
            before = args
    assert further > 0


@pytest.mark.parametrize("page", PAGES)
def test_options_named_in_sentences_exist(page):
    known = set(OF_OTHERS)
    for path in [*REPO.glob("*.py"), *REPO.glob("*/*.py"), *REPO.glob("multirunner/*.sh")]:
        known |= set(re.findall(r"--[A-Za-z][\w-]*", path.read_text()))
    for code in re.findall(r"`([^`\n]+)`", text_of(page)):
        assert set(re.findall(r"(?<![\w-])--[A-Za-z][\w-]*", code)) <= known, (page, code)


@pytest.mark.parametrize("shell", ["bash", "zsh", "sh"])
@pytest.mark.parametrize("page", PAGES)
def test_shell_blocks_parse(page, shell):
    if not shutil.which(shell):
        lacking(f"no {shell}")
    for block in shell_blocks(text_of(page)):
        done = subprocess.run([shell, "-n"], input=block, text=True, capture_output=True)
        assert done.returncode == 0, (block, done.stderr)


@pytest.mark.parametrize("shell", ["bash", "zsh", "sh"])
def test_the_function_of_the_readme_gives_a_script_its_options(shell, tmp_path):
    """Also in zsh, which does not split the words of a variable."""
    if not shutil.which(shell):
        lacking(f"no {shell}")
    (block,) = (block for block in shell_blocks(text_of("README.md")) if "on_ucf101()" in block)
    function, call = re.match(r"(.*?; })\n(.*?)\n", block, re.S).groups()
    echo = call.replace("python ", "printf '%s\\n' ")
    done = subprocess.run([shell, "-c", f"{function}\n{echo}"], text=True, capture_output=True)
    script, *words = done.stdout.splitlines()
    module = importlib.import_module(script.removesuffix(".py"))
    args = module.get_args_parser().parse_args(words)
    assert (args.data_name, args.split, args.workers) == ("ucf101", "split1", 8)
    assert args.test_list.name == "ucf101_split1_test.txt" and args.pretrained == "imagenet"


def headings(page):
    for title in re.findall(r"^#+ (.*)$", page.read_text(), re.M):
        yield re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (REPO / page).parent / name if name else REPO / page
        assert path.exists(), (page, target)
        assert not anchor or anchor in headings(path), (page, target)


@pytest.mark.parametrize("page", PAGES)
def test_files_named_exist(page):
    """Paths in our folders, and scripts."""
    ours = {path.name for path in REPO.iterdir() if path.is_dir()} - {"runs", "data", "lists"}
    for code in re.findall(r"`([\w./]+)`", text_of(page)):
        is_file = "/" in code and code.split("/")[0] in ours and "." in code
        if is_file and not code.startswith(("results/ucf101/", "multirunner/all_jobs")):
            assert (REPO / code).exists(), (page, code)
        elif re.fullmatch(r"\w+\.(py|ipynb)", code):
            assert list(REPO.glob(code)) or list(REPO.glob(f"*/{code}")), (page, code)
