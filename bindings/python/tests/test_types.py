"""The type stubs match the package, as mypy sees it."""

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "python" / "sphereface"


def mypy(*arguments: str, at: Path) -> str:
    pytest.importorskip("mypy")
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=at, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_package_is_typed(tmp_path):
    assert "Success" in mypy("mypy", "--strict", "--cache-dir", str(tmp_path), str(PACKAGE), at=tmp_path)


def test_the_stubs_are_what_the_module_has(tmp_path):
    # Ignored: private names of the compiled module, and arguments whose defaults it does not state.
    told = mypy("mypy.stubtest", "sphereface.sphereface_native", "--ignore-missing-stub", at=tmp_path)
    assert "no issues found" in told, told


def test_a_program_that_uses_the_package_is_checked(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import sphereface\n"
        "engine = sphereface.Engine(threads=2)\n"
        "names: list[str | None] = [face.name for face in sphereface.Recogniser(engine).name(sphereface.read_image('a.jpg'))]\n"
        "angle: float = engine.threshold_deg(1e-3)\n"
    )
    assert "Success" in mypy("mypy", "--strict", "--cache-dir", str(tmp_path), str(program), at=tmp_path)
    program.write_text("import sphereface\nsphereface.Engine(threads='two')\n")
    with pytest.raises(AssertionError, match="arg-type|call-overload"):
        mypy("mypy", "--strict", "--cache-dir", str(tmp_path), str(program), at=tmp_path)
