#!/usr/bin/env python3
r"""Makes packs for distill.py from collections of pictures: aligned crops and the teacher's embedding of each.

    collect.py PACKS NAME=SOURCE... --teacher mbf.onnx [--leave-out people.npy] [--keep 'faces/*'] [--part 0/3]

SOURCE is a folder of pictures, a bare git directory whose pictures are read from its newest commit, or a folder
with train.rec and train.idx, whose crops are aligned already. PACKS gets NAME.npz (the crops as JPEG, 112x112) and
NAME.teacher.npy (n x 512 f16, unit rows, crop and mirror image together), and a line in sources.jsonl with the
counts. An existing pack is not changed. NAME.work keeps the crops and the teacher's rows of an unfinished pack, so that
the same command resumes a run that was stopped.

Excluded are pictures without a face, faces near to a row of people.npy (one row per person that is reserved
for evaluation), and all but one of several pictures that are nearly the same. `--part 0/3` takes every third
picture, beginning with the first. Small pictures are taken for tight crops of a face and get a frame.

Needs numpy, pillow, torch, `sphereface` built, and what distill.py needs for the teacher.
"""
import argparse
import fnmatch
import io
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from distill import teacher
from records import read_images

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
# Cosines: above the first, two crops may show one person; above the second, they come from one picture.
SAME_PERSON, SAME_PICTURE = 0.42, 0.985
# Faces that the teacher embeds before its rows are saved.
PART = 2048
# Pixels along the longer side: up to the first, a picture is a tight crop; above the second, it is reduced on reading.
TIGHT_PX, MOST_PX = 260, 900
FRAMED_PX, FRAME_PX = 200, 80


def from_git(source, chosen):
    """The files of a bare git directory that `chosen` selects from all paths, one after another."""
    git = ["git", "-C", source]
    listed = subprocess.run([*git, "ls-tree", "-r", "-z", "HEAD"], capture_output=True, check=True).stdout
    objects = {}
    for row in listed.split(b"\0"):
        if row:
            head, path = row.split(b"\t", 1)
            # One object under two names is one picture.
            objects.setdefault(head.split()[2], os.fsdecode(path))
    names = {path: name for name, path in objects.items()}
    with subprocess.Popen([*git, "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as ask:
        for path in chosen(list(names)):
            ask.stdin.write(names[path] + b"\n")
            ask.stdin.flush()
            head = ask.stdout.readline().split()
            # git answers without content for an object that the copy lacks.
            if len(head) == 3:
                content = ask.stdout.read(int(head[2]))
                ask.stdout.read(1)
                yield content
        ask.stdin.close()


def from_folder(source, chosen):
    for path in chosen(sorted(str(path.relative_to(source)) for path in Path(source).rglob("*") if path.is_file())):
        yield Path(source, path).read_bytes()


def prepared(content):
    """A picture prepared for the detector, as a JPEG file."""
    picture = Image.open(io.BytesIO(content))
    if picture.format == "JPEG" and picture.mode == "RGB" and TIGHT_PX < max(picture.size) <= MOST_PX:
        return content
    picture.draft("RGB", (MOST_PX, MOST_PX))
    if picture.mode in ("RGBA", "LA", "P"):
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (128, 128, 128, 255)), picture)
    picture = picture.convert("RGB")
    if max(picture.size) > MOST_PX:
        picture.thumbnail((MOST_PX, MOST_PX))
    elif max(picture.size) <= TIGHT_PX:
        scale = FRAMED_PX / min(picture.size)
        picture = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.LANCZOS)
        framed = Image.new("RGB", [side + 2 * FRAME_PX for side in picture.size])
        framed.paste(picture, (FRAME_PX, FRAME_PX))
        picture = framed
    return jpeg(picture, 95)


def jpeg(picture, quality):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, subsampling=0)
    return file.getvalue()


def aligned(source, chosen, options, work):
    """Crops as JPEG files, and the number of pictures."""
    raw, count = work / "raw", 0
    for content in (from_git if Path(source, "HEAD").exists() else from_folder)(source, chosen):
        place = raw / f"{count // 1000:04d}"
        place.mkdir(parents=True, exist_ok=True)
        count += 1
        try:
            (place / f"{count:07d}.jpg").write_bytes(prepared(content))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            pass  # not a picture
    done = subprocess.run(
        [options.sphereface, "align", raw, work / "crops", "--size", "112x112", "--factor", "0.75",
         "--min-face", str(options.min_face), "--threads", str(options.threads), "--device", "cpu"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    paths = sorted((work / "crops").rglob("*.png"))
    if done.returncode and not paths:
        raise SystemExit(f"{source}: nothing aligned: {done.stderr[-300:]}")
    return [jpeg(Image.open(path).convert("RGB"), 93) for path in paths], count


def write_pack(path, images, **more):
    """Writes the crops as one array of bytes with the offset of each. The file is complete or absent."""
    part = path.with_suffix(".part.npz")
    np.savez(part, jpeg=np.frombuffer(b"".join(images), np.uint8),
             offsets=np.cumsum([0, *map(len, images)]).astype(np.int64), **more)
    os.replace(part, path)


def crops_of(place, chosen, options, work):
    """The crops of a source as JPEG files, and the number of pictures; saved in `work`."""
    kept = work / "crops.npz"
    if not kept.exists():
        if Path(place, "train.rec").exists():
            images = read_images(place)
            pictures = len(images)
        else:
            with tempfile.TemporaryDirectory(dir=work) as scratch:
                images, pictures = aligned(place, chosen, options, Path(scratch))
        write_pack(kept, images, pictures=pictures)
    pack = np.load(kept)
    content, offsets = pack["jpeg"].tobytes(), pack["offsets"]
    return [content[start:end] for start, end in zip(offsets, offsets[1:])], int(pack["pictures"])


def rows_of(images, ask, work, name):
    """The teacher's unit rows of the crops; saved in `work` part by part."""
    rows = [torch.zeros(0, 512)]
    for first in range(0, len(images), PART):
        kept = work / f"rows{first}.npy"
        if not kept.exists():
            part = []
            for start in range(first, min(first + PART, len(images)), 64):
                batch = images[start:min(start + 64, first + PART)]
                faces = np.stack([np.asarray(Image.open(io.BytesIO(image)).convert("RGB")) for image in batch])
                part.append(ask(torch.from_numpy(faces).permute(0, 3, 1, 2).float()))
            np.save(work / "part.npy", torch.cat(part).numpy())
            os.replace(work / "part.npy", kept)
            print(f"{name}: rows of {min(first + PART, len(images))} of {len(images)} faces", flush=True)
        rows.append(torch.from_numpy(np.load(kept)))
    return torch.cat(rows)


def first_of_each(rows):
    """The rows that are not nearly equal to an earlier row that is kept."""
    fresh = torch.ones(len(rows), dtype=torch.bool)
    for start in range(0, len(rows), 512):
        near = rows[start:start + 512] @ rows.T > SAME_PICTURE
        for i in range(start, min(start + 512, len(rows))):
            fresh[i] = not (near[i - start, :i] & fresh[:i]).any()
    return fresh


def collect(name, place, chosen, ask, people, options):
    """Makes one pack; returns its line of sources.jsonl."""
    work = options.packs / f"{name}.work"
    work.mkdir(exist_ok=True)
    images, pictures = crops_of(place, chosen, options, work)
    rows = rows_of(images, ask, work, name)
    known = (rows @ people.T > SAME_PERSON).any(1)
    kept = (~known).nonzero().flatten()
    fresh = first_of_each(rows[kept])
    kept = kept[fresh].tolist()
    write_pack(options.packs / f"{name}.npz", [images[i] for i in kept])
    # The rows are written last: a pack exists when they do.
    np.save(work / "part.npy", rows[kept].half().numpy())
    os.replace(work / "part.npy", options.packs / f"{name}.teacher.npy")
    shutil.rmtree(work)
    return {"name": name, "pictures": pictures, "faces": len(images), "left out": int(known.sum()),
            "nearly the same": int((~fresh).sum()), "kept": len(kept)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packs", type=Path)
    parser.add_argument("sources", nargs="+", metavar="NAME=SOURCE")
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--leave-out", help="rows of people who are reserved for evaluation")
    parser.add_argument("--keep", action="append", help="only paths that match this")
    parser.add_argument("--part", default="0/1", help="FIRST/N: every Nth picture from number FIRST, counted from 0")
    parser.add_argument("--sphereface", default="sphereface")
    parser.add_argument("--min-face", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    first, step = map(int, options.part.split("/"))
    matches = lambda path: not options.keep or any(fnmatch.fnmatch(path, keep) for keep in options.keep)
    chosen = lambda paths: [path for path in paths if path.lower().endswith(PICTURES) and matches(path)][first::step]
    options.packs.mkdir(parents=True, exist_ok=True)
    ask = teacher(options.teacher, torch.device("cpu"))
    people = torch.zeros(0, 512)
    if options.leave_out:
        people = torch.nn.functional.normalize(torch.from_numpy(np.load(options.leave_out).astype(np.float32)))
    for source in options.sources:
        name, _, place = source.partition("=")
        if (options.packs / f"{name}.teacher.npy").exists():
            continue
        counts = json.dumps(collect(name, place, chosen, ask, people, options))
        with open(options.packs / "sources.jsonl", "a") as log:
            print(counts, file=log)
        print(counts, flush=True)


if __name__ == "__main__":
    main()
