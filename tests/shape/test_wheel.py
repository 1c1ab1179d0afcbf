"""The wheel carries all that an installed tidings needs, and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.shape.tree import ROOT, kept


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder: Path = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_every_file_of_the_package_is_in_the_wheel_and_no_other(wheel: zipfile.ZipFile) -> None:
    ours = {path.removeprefix("src/") for path in kept() if path.startswith("src/tidings/")}
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == ours


def test_types_statements_and_the_flights_go_along(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert "tidings/py.typed" in names
    assert [name for name in names if name.startswith("tidings/stores/sql/sqlite/") and name.endswith(".sql")]
    assert [name for name in names if name.startswith("tidings/demo/") and name.endswith(".jsonl.gz")]


def test_the_licence_goes_along(wheel: zipfile.ZipFile) -> None:
    assert [name for name in wheel.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
