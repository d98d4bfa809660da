//! Timelines for editing programs, read back by other parsers: OpenTimelineIO with its adapters, and pympi
//! for ELAN. `make editing-parsers` installs them in target/editing.
#![cfg(all(feature = "bundled-models", feature = "cli", feature = "video"))]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use sphereface::identify::Who;
use sphereface::report::timeline::{Numbering, Rate, TimelineFormat, TimelineOptions, VideoFacts};
use sphereface::report::{Appearance, Output as File, Results, Span};

const S: u64 = 1_000_000_000;

/// A Python that has these modules; `None`, with a message, if there is none.
fn python(modules: &[&str]) -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/editing/bin/python");
    let python = if own.exists() { own } else { PathBuf::from("python3") };
    let imports = format!("import {}", modules.join(", "));
    let found = Command::new(&python).args(["-c", &imports]).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Some(python);
    }
    eprintln!("skipped: no Python with {} (make editing-parsers)", modules.join(", "));
    None
}

/// Runs a script that prints JSON.
fn ask(python: &Path, script: &str, file: &Path) -> Value {
    let Output { status, stdout, stderr } =
        Command::new(python).args(["-c", script]).arg(file).output().unwrap();
    assert!(status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&stderr));
    serde_json::from_slice(&stdout).unwrap()
}

fn people() -> Vec<Appearance> {
    let person = |name: &str, spans: &[(u64, u64)]| {
        let spans = spans.iter().map(|&(start_ns, end_ns)| Span { start_ns, end_ns }).collect();
        Appearance { who: Who::Named(name.into()), frames: 1, spans }
    };
    vec![
        person("Ann & \"<b>\"", &[(S, 3 * S), (61 * S, 62 * S + S / 2)]),
        person("Zoë Ørsted", &[(2 * S, 2 * S + S / 10)]),
    ]
}

/// A timeline of a video of 63 s at this rate.
fn write(folder: &Path, name: &str, fps: (i32, i32), start: &str) -> PathBuf {
    let path = folder.join(name);
    let output = File::create(&path).unwrap();
    let options = TimelineOptions {
        start: start.parse().unwrap(),
        rate: None,
        media: Some("/films/a talk.mov".into()),
    };
    let format = TimelineFormat::of_path(&path).unwrap();
    let mut results = Results::default().timelines(vec![(output, format)], options);
    let video = VideoFacts {
        name: "a talk.mov".into(),
        width: 1280,
        height: 720,
        fps: Some(fps),
        sound: Some(false),
    };
    results.opened(&video).unwrap();
    results.finish(&people(), 63 * S).unwrap();
    path
}

/// First frame, counted from the start of the video, and length of every appearance, by time.
fn expected(rate: Rate) -> Vec<(String, i64, i64)> {
    let mut marks = Vec::new();
    for person in people() {
        for span in &person.spans {
            let first = rate.frame_at(span.start_ns);
            marks.push((person.who.to_string(), first, rate.frame_at(span.end_ns) - first));
        }
    }
    marks.sort_by_key(|mark| mark.1);
    marks
}

/// Name, first frame and length of each mark that a parser found.
fn marks(found: &Value) -> Vec<(String, i64, i64)> {
    let number = |value: &Value| {
        let number = value.as_f64().unwrap();
        assert!((number - number.round()).abs() < 1e-3, "{number} is not a whole frame");
        number.round() as i64
    };
    let one = |mark: &Value| (mark[0].as_str().unwrap().to_owned(), number(&mark[1]), number(&mark[2]));
    let mut marks: Vec<_> = found["marks"].as_array().unwrap().iter().map(one).collect();
    marks.sort_by_key(|mark| mark.1);
    marks
}

const RATES: [((i32, i32), &str); 5] = [
    ((25, 1), "01:00:00:00"),
    ((30000, 1001), "00:59:30;00"),
    ((30000, 1001), "01:00:00:00"),
    ((24000, 1001), "00:00:00:00"),
    ((60000, 1001), "09:59:59;58"),
];

#[test]
fn opentimelineio_reads_its_own_format_and_finds_every_frame() {
    let Some(python) = python(&["opentimelineio"]) else { return };
    let script = "import sys, json, opentimelineio as o
t = o.adapters.read_from_file(sys.argv[1])
c = t.find_clips()[0]
print(json.dumps({'start': t.global_start_time.value, 'rate': t.global_start_time.rate, 'length': t.duration().value,
  'url': c.media_reference.target_url, 'drop': t.global_start_time.to_timecode(),
  'marks': [[m.name, m.marked_range.start_time.value, m.marked_range.duration.value] for m in c.markers]}))";
    let folder = tempfile::tempdir().unwrap();
    for (fps, start) in RATES {
        let rate = Rate::new(fps.0.into(), fps.1.into()).unwrap();
        let (numbering, first) = Numbering::of(start.parse().unwrap(), rate).unwrap();
        let found = ask(&python, script, &write(folder.path(), "a.otio", fps, start));
        assert_eq!(found["start"], first as f64);
        assert_eq!(found["length"], rate.frame_at(63 * S) as f64);
        assert_eq!(found["url"], "file:///films/a%20talk.mov");
        let moved = |(name, frame, length)| (name, frame - first, length);
        assert_eq!(marks(&found).into_iter().map(moved).collect::<Vec<_>>(), expected(rate), "{start}");
        // The parser has its own rules of drop frame, and uses them wherever the rate allows it.
        if numbering.drop {
            assert_eq!(found["drop"], start);
        }
    }
}

#[test]
fn an_adapter_for_final_cut_pro_7_reads_what_premiere_gets() {
    let Some(python) = python(&["opentimelineio", "otio_fcp_adapter"]) else { return };
    let script = "import sys, json, opentimelineio as o
t = o.adapters.read_from_file(sys.argv[1])
c = t.find_clips()[0]
print(json.dumps({'start': t.global_start_time.value, 'rate': t.global_start_time.rate, 'clip': c.source_range.start_time.value,
  'length': c.source_range.duration.value, 'url': c.media_reference.target_url,
  'marks': [[m.name, m.marked_range.start_time.value, m.marked_range.duration.value] for m in t.tracks.markers]}))";
    let folder = tempfile::tempdir().unwrap();
    for (fps, start) in RATES {
        let rate = Rate::new(fps.0.into(), fps.1.into()).unwrap();
        let (_, first) = Numbering::of(start.parse().unwrap(), rate).unwrap();
        let found = ask(&python, script, &write(folder.path(), "a.xml", fps, start));
        assert_eq!(
            (&found["start"], &found["clip"]),
            (&Value::from(first as f64), &Value::from(first as f64))
        );
        assert!((found["rate"].as_f64().unwrap() - rate.per_s()).abs() < 0.02, "{found}");
        assert_eq!(found["length"], rate.frame_at(63 * S) as f64);
        assert_eq!(found["url"], "file://localhost/films/a%20talk.mov");
        assert_eq!(marks(&found), expected(rate), "{start}");
    }
}

#[test]
fn an_adapter_for_final_cut_pro_x_finds_the_markers() {
    let Some(python) = python(&["opentimelineio", "otio_fcpx_xml_adapter"]) else { return };
    let script = "import sys, json, opentimelineio as o
t = o.adapters.read_from_file(sys.argv[1])
t = [x for x in t if isinstance(x, o.schema.Timeline)][0]
c = t.find_clips()[0]
print(json.dumps({'clip': c.source_range.start_time.value, 'length': c.source_range.duration.value,
  'marks': [[m.name, m.marked_range.start_time.value, m.marked_range.duration.value] for m in c.markers]}))";
    let folder = tempfile::tempdir().unwrap();
    for (fps, start) in RATES {
        let rate = Rate::new(fps.0.into(), fps.1.into()).unwrap();
        let (_, first) = Numbering::of(start.parse().unwrap(), rate).unwrap();
        let path = write(folder.path(), "a.fcpxml", fps, start);
        // Every time is an integer number of frames, as Final Cut requires; the adapter supports integer
        // rates only.
        let text = std::fs::read_to_string(&path).unwrap();
        for time in text.split('"').filter_map(|value| value.strip_suffix('s')) {
            let Some((n, d)) = time.split_once('/').or(Some((time, "1"))) else { continue };
            let (Ok(n), Ok(d)) = (n.parse::<i64>(), d.parse::<i64>()) else { continue };
            assert_eq!(n * i64::from(fps.0) % (d * i64::from(fps.1)), 0, "{time}");
        }
        for (name, frame, length) in expected(rate) {
            let seconds = |frames| match rate.seconds(frames) {
                (n, d) if n % d == 0 => format!("{}s", n / d),
                (n, d) => format!("{n}/{d}s"),
            };
            let name =
                name.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;");
            let keyword = format!(
                "<keyword start=\"{}\" duration=\"{}\" value=\"{name}\"/>",
                seconds(first + frame),
                seconds(length)
            );
            assert!(text.contains(&keyword), "{keyword}: {text}");
        }
        if fps.1 == 1 {
            let found = ask(&python, script, &path);
            assert_eq!(found["clip"], first as f64);
            let starts = |marks: Vec<(String, i64, i64)>, at: i64| -> Vec<(String, i64)> {
                marks.into_iter().map(|(name, frame, _)| (name, frame - at)).collect()
            };
            assert_eq!(starts(marks(&found), first), starts(expected(rate), 0));
        }
    }
}

#[test]
fn an_adapter_for_edls_reads_what_resolve_gets() {
    let Some(python) = python(&["opentimelineio", "otio_cmx3600_adapter"]) else { return };
    let script = "import sys, json, opentimelineio as o
t = o.adapters.read_from_file(sys.argv[1], 'cmx_3600', rate=float(open(sys.argv[1] + '.rate').read()))
marks = []
for c in t.find_clips():
    comment = c.metadata['cmx_3600']['comments'][0]
    fields = dict(f.strip().split(':', 1) for f in comment.split('|') if f.strip())
    marks.append([fields['M'], c.source_range.start_time.value, int(fields['D'])])
    assert c.source_range.duration.value == 1, c.source_range
print(json.dumps({'marks': marks}))";
    let folder = tempfile::tempdir().unwrap();
    for (fps, start) in RATES {
        let rate = Rate::new(fps.0.into(), fps.1.into()).unwrap();
        let (_, first) = Numbering::of(start.parse().unwrap(), rate).unwrap();
        let path = write(folder.path(), "a.edl", fps, start);
        std::fs::write(folder.path().join("a.edl.rate"), rate.per_s().to_string()).unwrap();
        let moved = |(name, frame, length)| (name, frame - first, length);
        let found = marks(&ask(&python, script, &path));
        assert_eq!(found.into_iter().map(moved).collect::<Vec<_>>(), expected(rate), "{start}");
    }
}

#[test]
fn pympi_reads_what_elan_gets() {
    let Some(python) = python(&["pympi"]) else { return };
    let script = "import sys, json, pympi
e = pympi.Elan.Eaf(sys.argv[1])
print(json.dumps({'media': e.get_linked_files()[0]['MEDIA_URL'],
  'tiers': {t: e.get_annotation_data_for_tier(t) for t in e.get_tier_names()}}))";
    let folder = tempfile::tempdir().unwrap();
    let found = ask(&python, script, &write(folder.path(), "a.eaf", (25, 1), "01:00:00:00"));
    assert_eq!(found["media"], "file:///films/a%20talk.mov");
    let (ann, zoe) = ("Ann & \"<b>\"", "Zoë Ørsted");
    assert_eq!(found["tiers"][ann], serde_json::json!([[1000, 3000, ann], [61000, 62500, ann]]));
    assert_eq!(found["tiers"][zoe], serde_json::json!([[2000, 2100, zoe]]));
}

fn sphereface(arguments: &[&str], folder: &Path) -> (i32, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_sphereface")).args(arguments).current_dir(folder).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// Five frames without a face.
const BARS: &str = "gst:videotestsrc num-buffers=5 ! video/x-raw,width=160,height=120,framerate=30000/1001";

#[test]
fn the_program_writes_timelines_of_videos_and_of_analyses() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let request =
        ["label", BARS, "--no-video", "-q", "--analysis", "bars.parquet", "--timeline", "first.otio"];
    let (code, error) = sphereface(&[&request[..], &["--timecode", "01:00:00;00"]].concat(), at);
    assert_eq!(code, 0, "{error}");
    let again =
        ["label", "bars.parquet", "--no-video", "-q", "--timeline", "second.otio", "--timeline", "b.EDL"];
    let (code, error) = sphereface(&[&again[..], &["--timecode", "01:00:00;00"]].concat(), at);
    assert_eq!(code, 0, "{error}");
    let read =
        |name: &str| -> Value { serde_json::from_slice(&std::fs::read(at.join(name)).unwrap()).unwrap() };
    for name in ["first.otio", "second.otio"] {
        let timeline = read(name);
        assert_eq!(timeline["global_start_time"]["value"], 107_892.0, "{name}");
        assert_eq!(
            timeline["tracks"]["children"][0]["children"][0]["source_range"]["duration"]["value"],
            5.0
        );
    }
    assert!(std::fs::read_to_string(at.join("b.EDL")).unwrap().contains("FCM: DROP FRAME"));
}

#[test]
fn requests_that_make_no_sense_are_usage_errors() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::copy(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/people/Ada/1.jpg"),
        at.join("still.jpg"),
    )
    .unwrap();
    for (arguments, words) in [
        (&[BARS, "--no-video", "--timeline", "a.txt"][..], ".fcpxml"),
        (&[BARS, "--no-video", "--timeline", "-"], ".fcpxml"),
        (&[BARS, "--no-video", "--timeline", "a.edl", "--timecode", "1 o'clock"], "HH:MM:SS:FF"),
        (&[BARS, "--no-video", "--timeline", "a.edl", "--timecode", "01:00:00:30"], "0 to 29"),
        (&[BARS, "--no-video", "--timeline", "a.edl", "--timecode", "00:01:00;00"], "--timecode"),
        (&[BARS, "--no-video", "--timeline", "a.edl", "--frame-rate", "0"], "30000/1001"),
        (
            &[BARS, "--no-video", "--timeline", "a.edl", "--frame-rate", "25", "--timecode", "01:00:00;00"],
            "drop frame exists at 29.97",
        ),
        (&[BARS, "--no-video", "--timecode", "01:00:00:00"], "--timeline"),
        (&[BARS, "--no-video", "--timeline", "a.edl", "--timeline", "a.edl"], "both write to"),
        (&["still.jpg", "--timeline", "a.edl"], "--timeline"),
    ] {
        let (code, error) = sphereface(&[&["label"], arguments].concat(), at);
        assert!(code == 2 && error.contains(words), "{arguments:?}: {code} {error}");
        assert!(!at.join("a.edl").exists());
    }
}
