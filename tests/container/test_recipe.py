"""The container's recipe, as far as it can be checked without building an image."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "container/cmer.def"


@pytest.fixture(scope="module")
def recipe() -> dict[str, str]:
    """The header under "", every section under its name."""
    text = re.sub(r"^#.*\n", "", RECIPE.read_text(), flags=re.M)
    header, *sections = re.split(r"^%(\w+)\n", text, flags=re.M)
    return {"": header} | dict(zip(sections[::2], sections[1::2], strict=True))


def test_python_is_the_one_that_the_lock_was_made_for(recipe: dict[str, str]) -> None:
    assert re.fullmatch(r"Bootstrap: docker\nFrom: python:([\d.]+)-[\w-]+\s*", recipe[""])[1] == "3.11"
    assert "--python-version 3.11 " in (ROOT / "Makefile").read_text()


def test_only_the_lock_and_the_package_are_installed(recipe: dict[str, str]) -> None:
    installs = [line.split()[2:] for line in recipe["post"].splitlines() if "pip install" in line]
    assert [[word for word in words if not word.startswith("--no-cache")] for words in installs] == [
        ["--require-hashes", "-r", "requirements.txt"],
        ["--no-deps", "--no-build-isolation", "."],
    ]
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert all(f"\n{name}==" in (ROOT / "requirements.txt").read_text() for name in build)


@pytest.mark.parametrize("section", ["post", "environment", "runscript", "test"])
def test_scripts_parse(recipe: dict[str, str], section: str) -> None:
    subprocess.run(["sh", "-n"], input=recipe[section], text=True, check=True)


@pytest.mark.parametrize("start", ["python -m cmer", "torchrun --standalone --nproc-per-node 1 -m cmer"])
def test_the_images_package_runs_in_a_checkout(recipe: dict[str, str], tmp_path: Path, start: str) -> None:
    checkout = tmp_path / "cmer"
    checkout.mkdir()
    (checkout / "__init__.py").touch()
    (checkout / "__main__.py").write_text("print('of the checkout')\n")
    outside = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    plain, inside = (
        subprocess.run(["sh", "-c", f"{environment}\n{start} --help"], cwd=tmp_path, env=outside, capture_output=True)
        for environment in ("", recipe["environment"])
    )
    assert b"of the checkout" in plain.stdout
    assert inside.returncode == 0 and b"stage by stage" in inside.stdout, inside.stderr


def test_what_is_copied_builds_the_whole_package(recipe: dict[str, str], tmp_path: Path) -> None:
    for line in recipe["files"].strip().splitlines():
        source, target = line.split()
        assert target == "/opt/cmer/"
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, tmp_path / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, tmp_path)
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=tmp_path, check=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("cmer/")}
    sources = [path for path in (ROOT / "cmer").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert packed == {str(path.relative_to(ROOT)) for path in sources}
