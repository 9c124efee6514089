"""The notebooks of the course run, their exercises can be solved, and the quizzes are right."""

import doctest
import re
import shutil

import nbformat
import pytest
from conftest import ROOT
from course_solutions import SOLUTIONS
from nbclient import NotebookClient

NOTEBOOKS = sorted((ROOT / "course").glob("*.ipynb"))
QUIZZES = sorted((ROOT / "course").glob("quiz_*.md"))
# A number, but not the one in rouge1 or mt5.
NUMBER = re.compile(r"(?<![\w.])(?<![A-Za-z]-)\d[\d,_]*(?:\.\d+)?(?:e-?\d+)?(?!\w)")


def tags(cell):
    return cell.metadata.get("tags", [])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= 40
    for cell in notebook.cells:
        if cell.cell_type == "code":
            clear = "run: jupyter nbconvert --clear-output --inplace course/*.ipynb"
            assert not cell.outputs and cell.execution_count is None, clear
    found = [tag for cell in notebook.cells for tag in tags(cell)]
    exercises = [tag for tag in found if tag.startswith("exercise-")]
    assert exercises == list(SOLUTIONS[path.stem]) and 2 <= len(exercises) <= 3
    checks = [tag for tag in found if tag.startswith("check-")]
    assert checks == [tag.replace("exercise", "check") for tag in exercises]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of what a student needs, into which the notebooks write.

    The later notebooks find there what the earlier ones made.
    """
    folder = tmp_path_factory.mktemp("project")
    for path in ROOT.glob("*.py"):
        shutil.copy(path, folder)
    shutil.copytree(ROOT / "data", folder / "data", ignore=shutil.ignore_patterns("prepared"))
    (folder / "course").mkdir()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_exercises_can_be_solved(path, project, monkeypatch):
    """Each check fails for the blank and for wrong answers, and passes for right ones.

    All other cells run to their end.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    answers = dict(SOLUTIONS[path.stem])
    cells = []
    checks = []  # pairs of a check and what it must say: "Right", or this in an AssertionError
    for cell in notebook.cells:
        cells.append(cell)
        if "exercise" in tags(cell):
            answer = answers[tags(cell)[1]]
        elif "check" in tags(cell):
            checks.append((cell, "None"))
            right, others = answer
            for source, said in [*others, (right, "Right")]:
                cells.append(nbformat.v4.new_code_cell(source.strip()))
                cells.append(nbformat.v4.new_code_cell(cell.source, metadata=cell.metadata))
                checks.append((cells[-1], said))
    notebook.cells = cells
    resources = {"metadata": {"path": str(project / "course")}}
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources)
    client.execute()  # raises where a cell fails that is no check
    for check, said in checks:
        printed = "".join(output.get("text", "") for output in check.outputs)
        errors = [output for output in check.outputs if output.output_type == "error"]
        errors = [f"{error.ename}: {error.evalue}" for error in errors]
        if said == "Right":
            assert not errors and "Right" in printed, (errors, printed)
        else:
            assert len(errors) == 1, (said, errors, printed)
            assert errors[0].startswith("AssertionError: ") and said in errors[0], (said, errors)


def numbers(text):
    return {float(re.sub("[,_]", "", number)) for number in NUMBER.findall(text)}


def questions(path):
    """Return (title, question, answer) of each question of a quiz."""
    parts = re.split(r"^## (.+)$", path.read_text(encoding="utf-8"), flags=re.M)
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        question, answer = body.split("<details>")
        yield title, question, answer


@pytest.mark.parametrize("path", QUIZZES, ids=lambda path: path.stem)
def test_quizzes_say_what_their_code_gives(path, monkeypatch):
    """The examples in an answer give what is printed there, and prove every number outside them."""
    monkeypatch.chdir(ROOT)
    names, parser = {}, doctest.DocTestParser()
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert 5 <= len(list(questions(path))) <= 8
    for title, question, answer in questions(path):
        proofs = re.findall(r"^```pycon\n(.*?)^```$", answer, flags=re.M | re.S)
        assert proofs, f"{title}: no proof"
        given, printed = "", ""
        for proof in proofs:
            test = parser.get_doctest(proof, names, title, path.name, 0)
            runner.run(test, clear_globs=False)
            names = test.globs
            given += "".join(example.source for example in test.examples)
            printed += "".join(example.want for example in test.examples)
        prose = re.sub(r"`[^`]*`", "", re.sub(r"^```.*?^```$", "", answer, flags=re.M | re.S))
        bold = re.findall(r"\*\*([^*]+)\*\*", prose)
        assert bold, f"{title}: the answer itself should stand in bold"
        for text, known in (
            (" ".join(bold), numbers(printed)),
            (prose, numbers(printed + given)),
            (re.sub(r"`[^`]*`", "", question), numbers(printed + given)),
        ):
            missing = numbers(text) - known
            assert not missing, f"{path.name}, {title}: nothing proves {missing}"
    assert not runner.failures, "see the examples above"


PAGES = [*NOTEBOOKS, *sorted((ROOT / "course").glob("*.md"))]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{path.name}: {target} is not there"
