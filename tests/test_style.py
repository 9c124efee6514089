"""The six scripts stay readable: no private names, short functions, lines up to 100 columns."""

import ast
import tokenize

import pytest
from conftest import ROOT

SCRIPTS = [
    "prepare_data.py",
    "baseline.py",
    "train_trainer.py",
    "train_accelerate.py",
    "predict.py",
    "common.py",
]


def private(name):
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def private_names(tree):
    """Return the names with a leading underscore that the code uses or gives to a function.

    A plain "_" is the usual name of a value that is not needed.
    """
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.keyword | ast.arg):
            names.add(node.arg or "")
        elif isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            names |= {part for module in modules for part in module.split(".")}
        elif isinstance(node, ast.Constant) and str(node.value).isidentifier():
            names.add(str(node.value))  # what getattr() and setattr() take
    return {name for name in names if private(name) and name != "_"}


def functions(tree):
    """Return {name: number of lines} of all functions."""
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return {node.name: node.end_lineno - node.lineno + 1 for node in nodes}


def parse(script):
    return ast.parse((ROOT / script).read_text(encoding="utf-8"))


PRIVATE = [
    ("trainer._save_checkpoint()", {"_save_checkpoint"}),
    ("self.__secret", {"__secret"}),
    ("from torch._dynamo import config", {"_dynamo"}),
    ("import torch._C as c", {"_C"}),
    ("getattr(module, '_internal')", {"_internal"}),
    ("class Own(Trainer):\n    def _inner_training_loop(self): pass", {"_inner_training_loop"}),
    ("call(_fast_init=False)", {"_fast_init"}),
    ("if __name__ == '__main__': total_ = [0 for _ in books.__class__.__name__]", set()),
    ("'a text with _words_ in it'", set()),
]


@pytest.mark.parametrize(("code", "expected"), PRIVATE)
def test_what_counts_as_a_private_name(code, expected):
    assert private_names(ast.parse(code)) == expected


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_private_name_is_used(script):
    assert private_names(parse(script)) == set()


@pytest.mark.parametrize("script", SCRIPTS)
def test_functions_are_short(script):
    """Only the two mains that train may be longer: each is a section of the chapter."""
    limits = {"main": 109} if script.startswith("train_") else {}
    lengths = functions(parse(script)).items()
    too_long = {name: lines for name, lines in lengths if lines > limits.get(name, 70)}
    assert not too_long


@pytest.mark.parametrize("script", [*SCRIPTS, "data/trim_vocab.py"])
def test_lines_have_100_columns_at_most(script):
    with tokenize.open(ROOT / script) as lines:
        too_long = {
            number: line for number, line in enumerate(lines, 1) if len(line.rstrip()) > 100
        }
    assert not too_long


def test_the_trainer_and_the_optimizer_are_the_libraries_own():
    """No class is derived from one of a library."""
    classes = {}
    for script in SCRIPTS:
        for node in ast.walk(parse(script)):
            if isinstance(node, ast.ClassDef):
                classes[node.name] = [ast.unparse(base) for base in node.bases]
    assert classes == {"WordTokenizer": [], "Rouge": []}
