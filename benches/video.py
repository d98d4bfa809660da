#!/usr/bin/env python3
"""Markdown tables about identity in videos, with the real program and the clips of the shared data.

    python3 benches/video.py modes     # frame by frame, online, two passes: what is right and wrong
    python3 benches/video.py strangers # one of six people enrolled at a time: who else gets the name
    python3 benches/video.py numbers  # whether a stranger's number stands for one person
    python3 benches/video.py search    # --detect-every auto against a search of every frame
    python3 benches/video.py relabel   # CPU time of labelling an analysis against that of the video

SPHEREFACE is the program (default: target/release/sphereface), SPHEREFACE_DATA the data (default:
../shared/data). Everything is written to a temporary folder.
"""
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = os.environ.get("SPHEREFACE", str(ROOT / "target/release/sphereface"))
VIDEO = pathlib.Path(os.environ.get("SPHEREFACE_DATA", ROOT / "../shared/data")) / "video"
SAMPLES = ROOT / "samples"
FRIENDS = VIDEO / "friends"
MODES = {"frame by frame": ["--per-frame"], "online": ["--online"], "two passes": []}
HALF = ["Joey_Tribbiani", "Monica_Geller", "Phoebe_Buffay"]


def run(*arguments):
    """Standard output and CPU seconds of the program."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([PROGRAM, *map(str, arguments)], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def friends_clips():
    clips = json.loads((FRIENDS / "truth.json").read_text())["clips"]
    return [name for name, clip in clips.items() if clip["frames"]]


def galleries(folder):
    """People to enrol, by the name of their gallery."""
    for name in ("ten", "one", "half"):
        for person in sorted((FRIENDS / "stills").iterdir()):
            if name == "half" and person.name not in HALF:
                continue
            (folder / name / person.name).mkdir(parents=True)
            stills = sorted(person.iterdir())
            for still in stills[:1] if name == "one" else stills:
                shutil.copy(still, folder / name / person.name)
    people = {"hamilton": VIDEO / "hamilton/stills", "sample": SAMPLES / "people"}
    people |= {name: folder / name for name in ("ten", "one", "half")}
    for name, stills in people.items():
        run("enroll", "--dir", stills, "--gallery", folder / f"gallery-{name}")


def sets():
    """Title, gallery, clips (file, truth, more arguments of eval)."""
    clip = FRIENDS / "clips"
    of_friends = lambda *more: [(clip / name, FRIENDS / "truth.json", ["--clip", name, *more]) for name in friends_clips()]
    return [
        ("interview (hamilton)", "hamilton", [(VIDEO / "hamilton/clip.mp4", VIDEO / "hamilton/truth.json", [])]),
        ("six characters, ten stills per person", "ten", of_friends()),
        ("six characters, one still per person", "one", of_friends()),
        ("six characters, three of six people enrolled", "half", of_friends("--enrolled", ",".join(HALF))),
        ("bundled sample", "sample", [(SAMPLES / "sample.mp4", SAMPLES / "sample.json", [])]),
    ]


def add(total, score):
    for group in ("easy", "difficult"):
        counts = score[group]
        for key, value in counts.items():
            total[group, key] = total.get((group, key), 0) + value
        seen = counts["known_detected"] + counts["strangers_detected"]
        total["ns"] = total.get("ns", 0) + seen * (score["frame_ns"] or 0)
    named = score["named_in_ignored"] + (score["named_false_detections"] or 0)
    total["named_elsewhere"] = total.get("named_elsewhere", 0) + named


def modes(folder):
    for title, gallery, clips in sets():
        totals = {}
        for mode, flags in MODES.items():
            total = totals[mode] = {}
            for clip, truth, more in clips:
                faces = folder / "faces.jsonl"
                run("label", clip, "--no-video", "--gallery", folder / f"gallery-{gallery}", "--jsonl", faces, *flags)
                # The laxer rule: the truths are drawn tightly around the faces.
                add(total, json.loads(run("eval", "video", truth, faces, "--json", *more)[0])[1])
        print(f"\n| {title} | " + " | ".join(MODES) + " |\n|---|" + "---|" * len(MODES))
        both = lambda total, key: total["easy", key] + total["difficult", key]
        share = lambda part, whole: f"{part}/{whole} ({100 * part / whole:.1f} %)" if whole else "-"
        found = lambda t, g: share(t[g, "known_detected"] + t[g, "strangers_detected"], t[g, "known"] + t[g, "strangers"])
        lines = {
            "faces found, easy": lambda t: found(t, "easy"),
            "faces found, difficult": lambda t: found(t, "difficult"),
            "identified, easy": lambda t: share(t["easy", "identified"], t["easy", "known"]),
            "identified, difficult": lambda t: share(t["difficult", "identified"], t["difficult", "known"]),
            "wrong names": lambda t: both(t, "misnamed"),
            "strangers named": lambda t: share(both(t, "strangers_named"), both(t, "strangers_detected")),
            "names on boxes without a labelled face": lambda t: t["named_elsewhere"],
            "track switches": lambda t: both(t, "switches"),
            "interruptions, easy / difficult": lambda t: f"{t['easy', 'interruptions']} / {t['difficult', 'interruptions']}",
            "changes of name, and per minute": lambda t: f"{both(t, 'renamings')}, {both(t, 'renamings') * 60e9 / t['ns']:.1f}" if t["ns"] else "-",
        }
        for name, line in lines.items():
            print(f"| {name} | " + " | ".join(str(line(totals[mode])) for mode in MODES) + " |", flush=True)


def strangers(folder):
    """Each of six people enrolled alone; the other five, of the same age and in the same light, are strangers."""
    analyses = {}
    for clip in friends_clips():
        analyses[clip] = folder / f"{clip}.parquet"
        run("label", FRIENDS / "clips" / clip, "--no-video", "--gallery", folder / "gallery-ten", "--analysis", analyses[clip])
    print("| one person enrolled with | identified | stranger faces named | pairs of person and clip concerned |\n|---|---|---|---|")
    people = sorted(path.name for path in (FRIENDS / "stills").iterdir())
    for title, stills in (("ten stills", "ten"), ("one still", "one")):
        total, pairs, faces = {}, 0, folder / "faces.jsonl"
        for person in people:
            gallery = folder / f"alone-{stills}-{person}"
            run("enroll", person, folder / stills / person, "--gallery", gallery)
            for clip, analysis in analyses.items():
                run("label", analysis, "--no-video", "--gallery", gallery, "--jsonl", faces)
                judged = run("eval", "video", FRIENDS / "truth.json", faces, "--json", "--clip", clip, "--enrolled", person)[0]
                score = json.loads(judged)[1]
                add(total, score)
                pairs += any(score[group]["strangers_named"] for group in ("easy", "difficult"))
        both = lambda key: total["easy", key] + total["difficult", key]
        share = lambda part, whole: f"{both(part)}/{both(whole)} ({100 * both(part) / both(whole):.1f} %)"
        print(f"| {title} | {share('identified', 'known')} | {share('strangers_named', 'strangers_detected')} | {pairs}/{len(people) * len(analyses)} |", flush=True)


def numbers(folder):
    """Strangers' numbers in a video, and people found over all clips with nobody enrolled."""
    analysis, faces = folder / "numbers.parquet", folder / "faces.jsonl"
    print("| faces with a stranger's number: of another person / split | online | two passes |\n|---|---|---|")
    of = {gallery: clips for _, gallery, clips in sets()}
    rows = [
        ("interview (hamilton)", "hamilton", of["hamilton"]),
        ("interview, nobody enrolled", None, of["hamilton"]),
        ("six characters, three of six people enrolled", "half", of["half"]),
        ("bundled sample, nobody enrolled", None, of["sample"]),
    ]
    for title, gallery, clips in rows:
        cells = []
        for mode in ("online", "two passes"):
            total = {"numbered": 0, "shared": 0, "split": 0}
            for clip, truth, more in clips:
                known = ["--gallery", folder / f"gallery-{gallery}"] if gallery else []
                # Without a gallery, faces are embedded only for an analysis.
                run("label", clip, "--no-video", *known, "--analysis", analysis, "--jsonl", faces, *MODES[mode])
                judged = json.loads(run("eval", "video", truth, faces, "--json", *more)[0])[1]["numbers"]
                total = {key: total[key] + judged[key] for key in total}
            cells.append("{numbered}: {shared} / {split}".format(**total))
        print(f"| {title} | " + " | ".join(cells) + " |", flush=True)
    truth = json.loads((FRIENDS / "truth.json").read_text())["clips"]
    people, analyses = {}, []
    for clip in friends_clips():
        analyses.append(folder / f"{clip}.parquet")
        run("label", FRIENDS / "clips" / clip, "--no-video", "--analysis", analyses[-1], "--jsonl", faces)
        for face in map(json.loads, faces.read_text().splitlines()):
            for one in truth[clip]["faces"]:
                places = [place for frame, place in one["frames"] if frame == face["frame"]]
                if one["name"] and places and max(centred(face["box"], places[0]), iou(face["box"], places[0])) >= 0.4:
                    people.setdefault(f"{analyses[-1]}#{face['track']}", []).append(one["name"])
    people = {track: max(sorted(set(names)), key=names.count) for track, names in people.items()}
    found = [[people[track] for track in person["tracks"] if track in people] for person in json.loads(run("discover", *analyses, "--json")[0])]
    tracks = [name for person in found for name in person]
    pairs = lambda names: sum(names.count(name) * (names.count(name) - 1) // 2 for name in set(names))
    right, joined = sum(map(pairs, found)), sum(len(names) * (len(names) - 1) // 2 for names in found)
    print(f"\ndiscover, clips of six characters: {len(tracks)} tracks of {len(set(tracks))} people; of {pairs(tracks)} pairs of tracks of one person {right} are joined, and {joined - right} pairs of two people")


def centred(a, b):
    """1 when each centre lies in the other box, else 0."""
    inside = lambda a, b: b[0] <= (a[0] + a[2]) / 2 <= b[2] and b[1] <= (a[1] + a[3]) / 2 <= b[3]
    return float(inside(a, b) and inside(b, a))


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])
    return width * height / (area(a) + area(b) - width * height)


def losses(every, default):
    """Whether the default found each track of `every`, frame by frame; and the number of faces that only the default found."""
    frames = lambda path: [json.loads(line) for line in path.read_text().splitlines()]
    free, tracks = {}, {}
    for face in frames(default):
        free.setdefault(face["frame"], []).append(face)
    for face in frames(every):
        here = free.get(face["frame"], [])
        best = max(here, key=lambda other: iou(other["box"], face["box"]), default=None)
        hit = best is not None and iou(best["box"], face["box"]) >= 0.4
        if hit:
            here.remove(best)
        tracks.setdefault(face["track"], []).append(hit)
    return tracks.values(), sum(map(len, free.values()))


def runs(hits):
    """Lengths of the losses."""
    length = 0
    for hit in [*hits, True]:
        if hit and length:
            yield length
        length = 0 if hit else length + 1


def search(folder):
    print("| clips | faces, every frame searched | lost by the default | losses of 1, 2, 3, 4, 5, more frames | on tracks of 10 frames or more | found by the default alone | CPU s, every frame | CPU s, default |\n|---|---|---|---|---|---|---|---|")
    for title, gallery, clips in [one for one in sets() if one[1] in ("hamilton", "ten", "sample")]:
        faces = lost = alone = 0
        histogram, long_tracks, cpu = [0] * 6, [0] * 6, [0.0, 0.0]
        for clip, _, _ in clips:
            lists = [folder / "every.jsonl", folder / "default.jsonl"]
            for i, every in enumerate(("1", "auto")):
                cpu[i] += run("label", clip, "--no-video", "--gallery", folder / f"gallery-{gallery}", "--detect-every", every, "--jsonl", lists[i])[1]
            tracks, only = losses(*lists)
            alone += only
            for hits in tracks:
                faces += len(hits)
                lost += hits.count(False)
                for length in runs(hits):
                    histogram[min(length, 6) - 1] += 1
                    long_tracks[min(length, 6) - 1] += len(hits) >= 10
        text = lambda counts: ", ".join(map(str, counts))
        print(f"| {title} | {faces} | {lost} | {text(histogram)} | {text(long_tracks)} | {alone} | {cpu[0]:.1f} | {cpu[1]:.1f} |", flush=True)


def relabel(folder):
    print("| clips | first run, CPU s | from the analysis, CPU s | share |\n|---|---|---|---|")
    for title, gallery, clips in [one for one in sets() if one[1] in ("hamilton", "ten", "sample")]:
        cpu = [0.0, 0.0]
        for clip, _, _ in clips:
            analysis, common = folder / "clip.parquet", ["--no-video", "--gallery", folder / f"gallery-{gallery}", "--jsonl", folder / "faces.jsonl"]
            cpu[0] += run("label", clip, *common, "--analysis", analysis)[1]
            cpu[1] += run("label", analysis, *common)[1]
        print(f"| {title} | {cpu[0]:.2f} | {cpu[1]:.2f} | {100 * cpu[1] / cpu[0]:.1f} % |", flush=True)


if __name__ == "__main__":
    wanted = sys.argv[1:]
    tables = {"modes": modes, "strangers": strangers, "numbers": numbers, "search": search, "relabel": relabel}
    if not wanted or any(name not in tables for name in wanted):
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        galleries(folder)
        for name in wanted:
            tables[name](folder)
