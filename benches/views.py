#!/usr/bin/env python3
"""Compares people enrolled from one side and from several on pictures of a surveillance camera.

    python3 benches/views.py

Half of the people of `mugshots` in the shared data (SPHEREFACE_DATA, or ../shared/data) are enrolled in turn: from
the front, from three sides, from five, and with all 28 stills. `label` then analyses five surveillance frames of each
person. SPHEREFACE is the program (default: target/release/sphereface), MODEL its embedding model (default: the
built-in one). No picture is shown or kept.
"""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = os.environ.get("SPHEREFACE", str(ROOT / "target/release/sphereface"))
MODEL = ["--model", os.environ["MODEL"]] if "MODEL" in os.environ else []
MUGSHOTS = pathlib.Path(os.environ.get("SPHEREFACE_DATA", ROOT / "../shared/data")) / "mugshots"
# img_XY.jpg: X for the turn in steps of 45 degrees, 3 being the front, Y for the height of the camera.
VIEWS = {
    "from the front": ["33"],
    "-45, 0, 45 degrees": ["23", "33", "43"],
    "-90 to 90 degrees": ["13", "23", "33", "43", "53"],
    "all 28 stills": [f"{turn}{height}" for turn in range(7) for height in range(1, 5)],
}


def enrol(folder, people, views):
    for person in people:
        (folder / "people" / person).mkdir(parents=True)
        for view in views:
            shutil.copy(MUGSHOTS / person / "mugshots" / f"img_{view}.jpg", folder / "people" / person)
    gallery = folder / "gallery"
    # Backs of heads are refused, which is not a failure here.
    subprocess.run([PROGRAM, "enroll", "--dir", folder / "people", "--gallery", gallery], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checked = subprocess.run([PROGRAM, "gallery", "check", "--gallery", gallery, "--json", *MODEL], check=True, capture_output=True)
    return gallery, json.loads(checked.stdout)["expected_false_positive_identification_rate"]


def names(frame, gallery, folder):
    faces = folder / "faces.jsonl"
    subprocess.run([PROGRAM, "label", frame, "--no-video", "--gallery", gallery, "--min-face", "20", "--jsonl", faces, *MODEL],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = [json.loads(line)["name"] for line in faces.read_text().splitlines()]
    return {name for name in found if name}


def main():
    everybody = sorted(path.name for path in MUGSHOTS.iterdir() if path.is_dir())
    print("| enrolled | known: named right | known: named wrong | strangers named | expected by `gallery check` |\n|---|---|---|---|---|")
    for title, views in VIEWS.items():
        counts, expected = dict.fromkeys(("right", "wrong", "known", "named", "strangers"), 0), []
        for half in (0, 1):
            with tempfile.TemporaryDirectory() as folder:
                folder = pathlib.Path(folder)
                enrolled = everybody[half::2]
                gallery, rate = enrol(folder, enrolled, views)
                expected.append(rate)
                for person in everybody:
                    for frame in sorted((MUGSHOTS / person / "frames").iterdir()):
                        given = names(frame, gallery, folder)
                        if person in enrolled:
                            counts["known"] += 1
                            counts["right"] += person in given
                            counts["wrong"] += bool(given - {person})
                        else:
                            counts["strangers"] += 1
                            counts["named"] += bool(given)
        rates = " and ".join(f"{100 * rate:.2f} %" for rate in expected)
        print(f"| {title} | {counts['right']}/{counts['known']} | {counts['wrong']}/{counts['known']} "
              f"| {counts['named']}/{counts['strangers']} | at most {rates} |", flush=True)


if __name__ == "__main__":
    main()
