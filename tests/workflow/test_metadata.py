"""Snakemake's records of an experiment's outputs, and the DVC stages that hold them."""

import runpy
from pathlib import Path

import pytest
import yaml
from snakemake.persistence.file import FilePersistence
from workflow_project import ROOT, published_experiments


def test_a_record_lies_where_snakemake_looks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snakemake splits long record names into folders."""
    (tmp_path / ".snakemake/metadata").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    metadata = runpy.run_path(str(ROOT / "scripts/metadata.py"))
    persistence = FilePersistence(path=tmp_path / ".snakemake")
    names = ["results/table1.csv", f"results/checkpoints/ö/{'long.' * 60}run/{'x' * 200}.csv"]
    for name in names:
        path = Path(persistence._record_path(".snakemake/metadata", name))
        assert metadata["record_file"](name) == path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    assert sorted(name for name, _ in metadata["records"]()) == sorted(names)


@pytest.mark.parametrize("name", published_experiments())
def test_an_experiment_has_its_results_where_its_stage_looks(name: str) -> None:
    experiment = published_experiments()[name]
    config = yaml.safe_load((ROOT / experiment.config).read_text())
    assert Path(config["results"]) == experiment.results
    assert all(settings["persist"] for settings in experiment.settings)
