"""The notebooks run from the first cell to the last, and are stored without results."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
# what the cells import: without it there is nothing to run
LEARNING = ["ase", "equinox", "featomic", "matplotlib", "optax"]
NEEDS = {
    "crystal/crystal.ipynb": LEARNING,
    "molecules/molecules.ipynb": [*LEARNING, "wigners"],
}
NAMES = sorted(p.relative_to(NOTEBOOKS).as_posix() for p in NOTEBOOKS.glob("*/*.ipynb"))


@pytest.mark.parametrize("name", NAMES)
def test_runs(name):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for module in NEEDS.get(name, []):
        pytest.importorskip(module)
    path = NOTEBOOKS / name
    notebook = nbformat.read(path, as_version=4)
    # The cells run in a process of their own: a warning in there is no error, a failed
    # assertion is. `resources` makes the folder of the notebook its working directory.
    client = nbclient.NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()


@pytest.mark.parametrize("name", NAMES)
def test_has_no_results(name):
    # results would change with each run and fill the history
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
