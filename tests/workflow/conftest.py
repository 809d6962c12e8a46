import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3 import serving
from shared_project import Shared, smallest
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
    """A copy that Snakemake considers finished: placeholder outputs, touched so that their metadata exist."""
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
    """A finished copy for a single test."""
    shutil.copytree(done.folder, tmp_path / "project")
    return Project(tmp_path / "project")


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """Placeholder results, published to the remote inside the repository."""
    project = smallest(tmp_path_factory.mktemp("published") / "project")
    for output in project.plan().outputs:
        path = project.folder / output
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(output)
    touched = project.snakemake("--touch", "--forceall")
    assert touched.code == 0, touched.text
    made = project.make("publish")
    assert made.code == 0, made.text
    project.commit()
    return project


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """The smallest experiment, run for real, tracked, and pushed to a folder."""
    project = smallest(tmp_path_factory.mktemp("ran") / "project")
    project.run("dvc", "repro", "demo")
    project.run("dvc", "remote", "add", "--default", "site", str(project.folder.parent / "site"))
    project.run("dvc", "push", "demo")
    project.commit()
    return project


@pytest.fixture(scope="session")
def both(ran: Shared, tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """The same plus a second experiment, run for real and pushed, in one clone."""
    project = ran.clone(tmp_path_factory.mktemp("both") / "project")
    assert project.make("pull").code == 0
    project.run("dvc", "repro", "experiment@ci")
    project.run("dvc", "push", "experiment@ci")
    project.commit()
    return project


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """Address of an S3 server on loopback with the bucket `results`."""
    with serving("results") as address:
        yield address
