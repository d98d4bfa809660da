#!/usr/bin/env python3
"""Measures wrong names where people follow one another in one place.

    python3 benches/sequences.py                 # the table
    python3 benches/sequences.py --keep FOLDER   # keeps the videos and the program's answers

Each video shows many people one after the other, each for 2 to 60 frames, at the same place and of the same
size, as slides, a speaker view or a kiosk camera do. Half of the people are enrolled with one picture from
another video of them. Backdrops are plain, patterned, or change with every person; between two people there
are 0, 1 or 5 empty frames. People come from `tracks` of the shared data (SPHEREFACE_DATA, or ../shared/data)
and SPHEREFACE is the program (default: target/release/sphereface). Needs numpy, pillow and ffmpeg.
"""
import argparse
import json
import os
import pathlib
import subprocess
import tempfile

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = os.environ.get("SPHEREFACE", str(ROOT / "target/release/sphereface"))
TRACKS = pathlib.Path(os.environ.get("SPHEREFACE_DATA", ROOT / "../shared/data")) / "tracks"
SIZE = (640, 360)
MODES = {"frame by frame": ["--per-frame"], "online": ["--online"], "two passes": []}
# Side of the aligned crop in pixels; a face box is about three quarters of it.
SIDES_PX = (60, 112, 200)


def people(rng, count):
    """Names with the folders of two videos of each."""
    found = []
    for person in sorted(TRACKS.iterdir()):
        videos = sorted(folder for folder in person.iterdir() if folder.is_dir()) if person.is_dir() else []
        if len(videos) >= 2:
            found.append((person.name, videos[0], videos[1]))
    return [found[at] for at in rng.permutation(len(found))[:count]]


def backdrop(kind, rng):
    width, height = SIZE
    if kind == "plain":
        return np.full((height, width, 3), (96, 104, 112), np.float32)
    coarse = rng.uniform(30, 220, (9, 16, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC), np.float32)


def mask(side):
    """A mask: 1 inside an ellipse, falling to 0 at the border of the crop."""
    line = np.linspace(-1, 1, side)
    radius = np.hypot(line[None] * 1.02, line[:, None] * 0.98)
    return np.clip((1.0 - radius) / 0.15, 0, 1)[..., None].astype(np.float32)


def shown(crop, side, shift, scene):
    """The scene with a face in its middle, shifted by some pixels."""
    face = np.asarray(crop.resize((side, side), Image.Resampling.LANCZOS), np.float32)
    height, width, _ = scene.shape
    left, top = (width - side) // 2 + shift[0], (height - side) // 2 + shift[1]
    place = scene[top:top + side, left:left + side]
    scene[top:top + side, left:left + side] = place + (face - place) * mask(side)


def video(path, cast, kind, side, empty, rng):
    """Writes a video; the answer has the person of each frame, or None."""
    encode = subprocess.Popen(
        ["ffmpeg", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{SIZE[0]}x{SIZE[1]}",
         "-r", "25", "-i", "-", "-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p", str(path)],
        stdin=subprocess.PIPE)
    truth, scene = [], backdrop(kind, rng)

    def frame(who, crop=None, shift=(0, 0)):
        picture = scene.copy()
        if crop is not None:
            shown(crop, side, shift, picture)
        picture += rng.normal(0, 2, picture.shape)
        encode.stdin.write(np.clip(picture, 0, 255).astype(np.uint8).tobytes())
        truth.append(who)

    for name, folder, _ in cast:
        if kind == "changing":
            scene = backdrop(kind, rng)
        crop = Image.open(sorted(folder.glob("*.jpg"))[0]).convert("RGB")
        frames, phase = int(rng.integers(2, 61)), rng.uniform(0, 6)
        for at in range(frames):
            sway = (round(side / 40 * np.sin(phase + at / 6)), round(side / 60 * np.cos(phase + at / 9)))
            frame(name, crop, sway)
        for _ in range(empty):
            frame(None)
    encode.stdin.close()
    if encode.wait():
        raise SystemExit("ffmpeg failed")
    return truth


def score(lines, truth, enrolled):
    """Views of the enrolled that are right, wrong and unnamed; views of strangers that are named; tracks per appearance."""
    counts = dict.fromkeys(("right", "wrong", "unknown", "stranger named", "stranger unknown", "tracks", "mixed"), 0)
    by_frame = {}
    for line in lines:
        by_frame.setdefault(line["frame"], []).append(line)
    tracks, whose = {}, {}
    for at, who in enumerate(truth):
        for face in by_frame.get(at, []):
            if who is None:
                continue
            name = face.get("name")
            if who in enrolled:
                counts["right" if name == who else "wrong" if name else "unknown"] += 1
            else:
                counts["stranger named" if name else "stranger unknown"] += 1
            if face.get("track") is not None:
                tracks.setdefault(who, set()).add(face["track"])
                whose.setdefault(face["track"], set()).add(who)
    counts["tracks"] = sum(map(len, tracks.values()))
    counts["mixed"] = sum(len(names) > 1 for names in whose.values())
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the videos")
    parser.add_argument("--modes", default=",".join(MODES))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(options.seed)
        cast = people(rng, options.people)
        enrolled = {name for name, _, _ in cast[::2]}
        stills = folder / "people"
        for name, _, other in cast[::2]:
            (stills / name).mkdir(parents=True, exist_ok=True)
            still = np.full((400, 400, 3), 128, np.float32)
            shown(Image.open(sorted(other.glob("*.jpg"))[0]).convert("RGB"), 300, (0, 0), still)
            Image.fromarray(np.clip(still, 0, 255).astype(np.uint8)).save(stills / name / "1.png")
        gallery = folder / "gallery"
        if not gallery.exists():
            # People whose still cannot be used are strangers like the others.
            subprocess.run([PROGRAM, "enroll", "--dir", stills, "--gallery", gallery], stdout=subprocess.DEVNULL)
        enrolled &= {folder.name for folder in gallery.iterdir()}
        total = {}
        for kind in ("plain", "patterned", "changing"):
            for empty in (0, 1, 5):
                for side in SIDES_PX:
                    path = folder / f"{kind}-{empty}-{side}.mp4"
                    known = path.with_suffix(".truth.json")
                    order = [cast[at] for at in rng.permutation(len(cast))]
                    if path.exists() and known.exists():
                        truth = json.loads(known.read_text())
                    else:
                        truth = video(path, order, kind, side, empty, rng)
                        known.write_text(json.dumps(truth))
                    for mode in options.modes.split(","):
                        said = path.with_suffix(f".{mode.replace(' ', '-')}.jsonl")
                        subprocess.run([PROGRAM, "label", path, "--no-video", "--gallery", gallery, "--jsonl", said,
                                        "--min-face", "20", *MODES[mode]], check=True, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
                        lines = [json.loads(line) for line in said.read_text().splitlines()]
                        counts = score(lines, truth, enrolled)
                        for key in (("all", mode), (kind, mode), (f"{empty} empty", mode), (f"{side} px", mode)):
                            row = total.setdefault(key, dict.fromkeys(counts, 0) | {"appearances": 0})
                            for name, value in counts.items():
                                row[name] += value
                            row["appearances"] += len(cast)
        print("| videos | mode | right | wrong | left unknown | strangers named | strangers unknown | tracks per appearance | tracks of two people |")
        print("|---|---|---|---|---|---|---|---|---|")
        for (which, mode), row in total.items():
            print(f"| {which} | {mode} | {row['right']} | {row['wrong']} | {row['unknown']} | {row['stranger named']} "
                  f"| {row['stranger unknown']} | {row['tracks'] / row['appearances']:.2f} | {row['mixed']} |")


if __name__ == "__main__":
    main()
