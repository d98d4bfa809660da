#!/usr/bin/env python3
"""Measures what a library saves and loses if it analyses only some of the frames.

    benches/frames.py SPHEREFACE DATA SAMPLE [--folder DIR]

DATA holds `video/hamilton` and `video/friends`, SAMPLE is the folder of the bundled sample; each has a folder of stills per
person. All clips are encoded again with a key frame at the beginning and every two seconds, as cameras and streams have
them. Prints a line per setting: CPU time relative to all frames, the people found per clip, those that only this
setting finds, and the seconds with a name.
"""
import argparse
import glob
import json
import os
import resource
import shutil
import subprocess
import tempfile

SETTINGS = [[], *(["--fps", rate] for rate in ("15", "10", "5", "2", "1")), ["--key-frames"]]


def run(*arguments):
    return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout


def cpu_s():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def encoded(clips, folder):
    os.makedirs(folder, exist_ok=True)
    for clip in clips:
        if not run("ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "stream=width", clip).strip():
            continue
        name = "-".join(clip.split(os.sep)[-3:])
        run("ffmpeg", "-v", "error", "-y", "-i", clip, "-an", "-c:v", "libx264", "-preset", "medium", "-crf", "18",
            "-force_key_frames", "expr:gte(t,n_forced*2)", os.path.join(folder, name))


def gallery(sphereface, data, sample, folder):
    for person in sorted(glob.glob(f"{data}/video/*/stills/*") + glob.glob(f"{sample}/people/*")):
        stills = sorted(glob.glob(f"{person}/*"))
        run(sphereface, "enroll", os.path.basename(person).replace("_", " "), *stills, "--gallery", folder)


def look(sphereface, clips, people, setting, folder):
    shutil.rmtree(folder, ignore_errors=True)
    run(sphereface, "library", "--library", folder, "add", clips)
    before = cpu_s()
    run(sphereface, "library", "--library", folder, "work", "--gallery", people, "--threads", "1", "--no-pictures",
        *setting)
    used = cpu_s() - before
    rows = [json.loads(line) for line in run(sphereface, "library", "--library", folder, "export", "-").splitlines()]
    named = [row for row in rows if row["name"]]
    pairs = {(row["path"], row["name"]) for row in named}
    return used, pairs, sum(row["end_s"] - row["start_s"] for row in named)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("sphereface")
    parser.add_argument("data")
    parser.add_argument("sample")
    parser.add_argument("--folder")
    options = parser.parse_args()
    folder = options.folder or tempfile.mkdtemp()
    clips = sorted(glob.glob(f"{options.data}/video/hamilton/clip.mp4"))
    clips += sorted(glob.glob(f"{options.data}/video/friends/clips/*.mp4"))
    encoded([*clips, f"{options.sample}/sample.mp4"], f"{folder}/clips")
    people = f"{folder}/gallery"
    if not os.path.isdir(people):
        gallery(options.sphereface, options.data, options.sample, people)
    whole = None
    for setting in SETTINGS:
        used, pairs, seconds = look(options.sphereface, f"{folder}/clips", people, setting, f"{folder}/library")
        whole = whole or (used, pairs)
        print(f"{' '.join(setting) or 'all frames'}: CPU time {used / whole[0]:.2f}, "
              f"{len(pairs & whole[1])} of {len(whole[1])} people, {len(pairs - whole[1])} more, "
              f"{seconds:.1f} s with a name", flush=True)
        for path, name in sorted(pairs - whole[1]):
            print(f"    more: {name} in {os.path.basename(path)}")
    if not options.folder:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
