#!/usr/bin/env python3
"""Compares workers with one process that analyses the same files one after the other, on a library of 1,000 files.

    benches/library.py SPHEREFACE CLIP... [--videos 300] [--photos 700] [--folder DIR]

Cuts the clips into one-second videos and photos of their frames, in several sizes, with ffmpeg. Prints the seconds of
`library shard`, which has no catalogue, and of `library work` with one, two and three workers, all with one thread, and
the size of the catalogue per file. The results of all runs must be equal.
"""
import argparse
import hashlib
import os
import shutil
import subprocess
import tempfile
import time


def run(*arguments, **options):
    return subprocess.run(arguments, check=True, capture_output=True, text=True, **options).stdout


def duration(clip):
    return float(run("ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", clip))


def make(clips, videos, photos, folder):
    """Per clip and width: one run of ffmpeg for the one-second videos, and one for the photos."""
    os.makedirs(folder, exist_ok=True)
    sets = [(number, clip, width) for number, clip in enumerate(clips) for width in (640, 480, 854)]
    for number, clip, width in sets:
        name = f"{folder}/clip{number}w{width}"
        scale = f"scale={width}:-2"
        cut = ["-force_key_frames", "expr:gte(t,n_forced)", "-f", "segment", "-segment_time", "1"]
        seconds = str(-(-videos // len(sets)))
        run("ffmpeg", "-v", "error", "-y", "-i", clip, "-t", seconds, "-an", "-vf", scale, "-c:v", "libx264",
            "-preset", "ultrafast", *cut, "-reset_timestamps", "1", f"{name}-%03d.mp4")
        count = -(-photos // len(sets))
        rate = count / max(duration(clip) - 0.1, 0.1)
        run("ffmpeg", "-v", "error", "-y", "-i", clip, "-vf", f"fps={rate},{scale}", "-frames:v", str(count),
            f"{name}-%03d.jpg")


def digest(folder):
    total = hashlib.sha256()
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as file:
            total.update(name.encode() + file.read())
    return total.hexdigest()[:16]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("sphereface")
    parser.add_argument("clips", nargs="+")
    parser.add_argument("--videos", type=int, default=300)
    parser.add_argument("--photos", type=int, default=700)
    parser.add_argument("--folder")
    options = parser.parse_args()
    folder = options.folder or tempfile.mkdtemp()
    media = os.path.join(folder, "media")
    if not os.path.isdir(media):
        make(options.clips, options.videos, options.photos, media)
    files = sorted(os.path.join(media, name) for name in os.listdir(media))
    listing = os.path.join(folder, "files.txt")
    with open(listing, "w") as file:
        file.write("\n".join(files))

    alone = os.path.join(folder, "alone")
    shutil.rmtree(alone, ignore_errors=True)
    start = time.time()
    run(options.sphereface, "library", "shard", "--list", listing, "-o", alone, "--threads", "1")
    one = time.time() - start
    print(f"{len(files)} files, one process without a catalogue: {one:.1f} s, analyses {digest(alone)}", flush=True)
    for workers in (1, 2, 3):
        library = os.path.join(folder, f"library{workers}")
        shutil.rmtree(library, ignore_errors=True)
        start = time.time()
        run(options.sphereface, "library", "--library", library, "add", media)
        added = time.time() - start
        command = [options.sphereface, "library", "--library", library, "work", "--threads", "1", "--no-pictures"]
        start = time.time()
        running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(workers)]
        if any(worker.wait() != 0 for worker in running):
            raise SystemExit("a worker failed")
        took = time.time() - start
        size = os.path.getsize(os.path.join(library, "catalogue.sqlite"))
        print(
            f"{workers} workers: added in {added:.1f} s, worked {took:.1f} s ({one / took:.2f} times the one process), "
            f"catalogue {size / len(files) / 1e3:.1f} kB per file, analyses {digest(os.path.join(library, 'analyses'))}",
            flush=True,
        )


if __name__ == "__main__":
    main()
