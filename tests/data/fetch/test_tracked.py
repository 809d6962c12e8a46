"""What an earlier fetch wrote, from a DVC remote."""

import hashlib
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo
from fetch_cases import (
    AS_PUBLISHED,
    PREFIXES,
    annotations,
    assert_whole,
    known,
    layout,
    local,
    make_tar,
    make_zip,
    pass_for_published,
)

from cmer.data.fetch import fetch_dataset
from cmer.errors import UserError

LABELS = PREFIXES | {"00001.jpg": "bridge"}
FOLDER = "results/data/rsicd"
CONFIG = """[core]
    remote = origin
[remote "origin"]
    url = {}
"""


def git(*arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a repository `project`, whose fetched dataset is pushed to `remote` and no longer in its cache."""
    base = tmp_path_factory.mktemp("base")
    with pytest.MonkeyPatch.context() as patch:
        (base / "project").mkdir()
        patch.chdir(base / "project")
        pass_for_published(patch)
        git("init")
        Path(".dvc").mkdir()
        Path(".dvc/config").write_text(CONFIG.format(base / "remote"))
        fetch_dataset(known(local(make_zip(base / "a.zip", layout()))), FOLDER)
        with Repo() as repo:
            repo.add("results/data")
            git("add", "--all")
            git("commit", "--message", "fetched")
            repo.push()
        shutil.rmtree(".dvc/cache")
        shutil.rmtree("results/data")
    return base


@pytest.fixture
def base(pushed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in whose project we are."""
    shutil.copytree(pushed, tmp_path / "base", symlinks=True)
    (tmp_path / "base/project/.dvc/config").write_text(CONFIG.format(tmp_path / "base/remote"))
    monkeypatch.chdir(tmp_path / "base/project")
    return tmp_path / "base"


def refused(folder: str, **source: str) -> str:
    with pytest.raises(UserError) as error:
        fetch_dataset(known({"kind": "dvc", **source}), folder)
    assert not (Path(folder) / "images.tar").exists()
    return str(error.value)


def test_the_folder_being_written_comes_back_byte_for_byte(base: Path) -> None:
    fetched = fetch_dataset(known({"kind": "dvc"}), FOLDER)
    assert_whole(Path(FOLDER), LABELS)
    assert (fetched.source, fetched.warnings) == ("DVC remote of .", [])
    assert not list(Path("work/downloads").iterdir())


def test_another_repository_and_folder_can_be_named(base: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    fetch_dataset(known({"kind": "dvc", "repo": str(base / "project"), "path": FOLDER}), "out")
    assert_whole(Path("out"), LABELS)
    fetch_dataset(known({"kind": "dvc", "repo": str(base / "project")}), base / "project" / FOLDER)
    assert_whole(base / "project" / FOLDER, LABELS)


def test_what_lies_in_the_working_tree_is_not_taken_for_the_tracked(base: Path) -> None:
    Path(FOLDER).mkdir(parents=True)
    (Path(FOLDER) / "dataset.json").write_text("half written")
    fetch_dataset(known({"kind": "dvc"}), FOLDER)
    assert_whole(Path(FOLDER), LABELS)


def test_a_running_pipeline_does_not_lock_the_fetch_out(base: Path) -> None:
    """`dvc repro` runs the workflow, and that runs the fetch."""
    Path("fetch.py").write_text(
        f"{AS_PUBLISHED}"
        "from cmer.data.fetch import fetch_dataset; from cmer.config.datasets import PublishedDataset\n"
        f"source = {{'kind': 'dvc', 'path': '{FOLDER}'}}\n"
        "fetch_dataset(PublishedDataset.model_validate({'source': 'rsicd', 'sources': [source]}), 'results/more')\n"
    )
    stage = {"cmd": f"{sys.executable} fetch.py", "outs": [{"results/more": {"persist": True}}]}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"fetch": stage}}))
    with Repo() as repo:
        repo.reproduce("fetch")
    assert_whole(Path("results/more"), LABELS)


def test_what_is_not_tracked_is_a_reason(base: Path) -> None:
    assert "results/data/ucm/images.tar is not tracked there" in refused("results/data/ucm")


def test_a_remote_that_is_gone_is_a_reason(base: Path) -> None:
    (base / "remote").rename(base / "gone")
    assert f"{FOLDER}/images.tar cannot be fetched: " in refused(FOLDER)


def test_a_damaged_remote_is_a_reason(base: Path) -> None:
    tar = max((path for path in (base / "remote").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(tar.read_bytes())
    data[tarfile.BLOCKSIZE] ^= 1
    tar.chmod(0o644)
    tar.write_bytes(data)
    assert f"the MD5 of {FOLDER}/images.tar is {hashlib.md5(data).hexdigest()}, not " in refused(FOLDER)


def test_a_tracked_link_that_leads_outside_is_a_reason(base: Path) -> None:
    link = tarfile.TarInfo("airport_1.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "../../../../etc/passwd"
    Path(FOLDER).mkdir(parents=True)
    make_tar(Path(FOLDER) / "images.tar", {}, link)
    (Path(FOLDER) / "dataset.json").write_bytes(annotations())
    with Repo() as repo:
        repo.add("results/data")
    git("add", "--all")
    git("commit", "--message", "harm")
    shutil.rmtree("results/data")
    assert f"{FOLDER}/images.tar cannot be read: " in refused(FOLDER)


def test_no_repository_is_a_reason(tmp_path: Path) -> None:
    assert "DVC remote of .: out/images.tar cannot be fetched: " in refused("out")
    absent = str(tmp_path / "absent")
    assert f"DVC remote of {absent}: out/images.tar cannot be fetched: " in refused("out", repo=absent)


def test_without_dvc_the_extra_that_adds_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dvc.api", None)
    assert "DVC remote of .: DVC is not installed; `pip install 'cmer[sharing]'` adds it" in refused("out")
