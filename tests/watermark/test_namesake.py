"""PyPI's ``watermark`` installs the same top-level package: both accidents are noticed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import watermark

FOREIGN_INIT = "from .version import __version__\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a copy of this package and of ``pol``, which it imports."""
    package = Path(watermark.__file__).parent
    for folder in (package, package.parent / "pol"):
        shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(site: Path, code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r}); {code}"]
    return subprocess.run(command, capture_output=True, text=True, cwd=site, check=False)


def test_alone_the_package_is_silent(site: Path) -> None:
    result = run(site, "import watermark; print(watermark.__file__)")
    assert result.stdout.startswith(str(site))
    assert "pip uninstall" not in result.stderr


def test_foreign_files_between_ours_are_noticed(site: Path) -> None:
    (site / "watermark" / "magic.py").touch()
    result = run(site, "import watermark")
    assert result.returncode == 0
    assert "pip uninstall watermark" in result.stderr


def test_a_foreign_init_over_ours_is_an_error_that_says_so(site: Path) -> None:
    (site / "watermark" / "__init__.py").write_text(FOREIGN_INIT)
    (site / "watermark" / "version.py").write_text("__version__ = '2.6.0'\n")
    result = run(site, "from watermark.key import WatermarkKey")
    assert result.returncode == 1
    assert "not aiarena's package" in result.stderr
    assert "pip uninstall watermark" in result.stderr
