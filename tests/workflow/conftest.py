import shutil
from pathlib import Path

import pytest
from workflow_project import Plan, Project


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy in which nothing has run. Importing torch there is an error: planning must do without."""
    project = Project.copy(tmp_path_factory.mktemp("project"))
    (project.folder / "torch.py").write_text("raise ImportError('planning imports torch')\n")
    return project


@pytest.fixture(scope="session")
def whole(fresh: Project) -> Plan:
    """The plan of the default experiment from nothing."""
    return fresh.plan()


@pytest.fixture(scope="session")
def done(fresh: Project, whole: Plan, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy that Snakemake takes for finished: empty outputs, touched, so that it has their metadata."""
    folder = tmp_path_factory.mktemp("done") / "project"
    shutil.copytree(fresh.folder, folder)
    for output in whole.outputs:
        path = folder / output
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(output)
    touched = Project(folder).snakemake("--touch", "--forceall")
    assert touched.code == 0, touched.text
    return Project(folder)


@pytest.fixture
def project(done: Project, tmp_path: Path) -> Project:
    """A finished copy of one's own."""
    shutil.copytree(done.folder, tmp_path / "project")
    return Project(tmp_path / "project")
