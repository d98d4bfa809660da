"""The example of docs/python.md runs."""

import re
import subprocess
import sys

from conftest import SAMPLES


def test_the_example_runs(tmp_path):
    text = (SAMPLES.parent / "docs" / "python.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "samples").symlink_to(SAMPLES)
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Gallery(2 people, Threshold(angle_deg=")
    assert lines[1].startswith("Ada [") and lines[1].endswith(" degrees")
    assert any(re.fullmatch(r" +\d+\.\d\d s  Boris appeared", line) for line in lines)
    assert lines[-1].startswith("Summary(") and (tmp_path / "named.mkv").stat().st_size > 10_000
