use super::*;
use crate::identify::Who;
use crate::report::Span;

const S: u64 = 1_000_000_000;

fn people() -> Vec<Appearance> {
    let person = |who, spans: &[(u64, u64)]| {
        let spans = spans.iter().map(|&(start_ns, end_ns)| Span { start_ns, end_ns }).collect();
        Appearance { who, frames: 1, spans }
    };
    vec![
        person(Who::Named("Ann <1> | x".into()), &[(0, 2 * S), (60 * S + S / 10, 61 * S)]),
        person(Who::Named("Zoë".into()), &[(0, S), (2 * S, 2 * S + 1)]),
        person(Who::Stranger(1), &[(0, 40 * S)]),
    ]
}

/// The text of every format, by its extension.
fn write(fps: Option<(i32, i32)>, options: &TimelineOptions) -> Result<Vec<String>, ReportError> {
    let folder = tempfile::tempdir().unwrap();
    let names = ["a.edl", "a.fcpxml", "a.XML", "a.otio", "a.eaf"];
    let paths: Vec<PathBuf> = names.iter().map(|name| folder.path().join(name)).collect();
    let outputs = paths
        .iter()
        .map(|path| (Output::create(path).unwrap(), TimelineFormat::of_path(path).unwrap()))
        .collect();
    let mut timelines = Timelines::new(outputs, options.clone());
    let video = VideoFacts { name: "a talk.mov".into(), width: 1920, height: 1080, fps, sound: Some(true) };
    timelines.opened(&video)?;
    timelines.finish(&people(), 62 * S)?;
    Ok(paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect())
}

#[test]
fn drop_frame_and_start_are_right_in_every_format() {
    let options = TimelineOptions {
        start: "00:59:59;28".parse().unwrap(),
        rate: None,
        media: Some("/films/a talk.mov".into()),
    };
    let texts = write(Some((30000, 1001)), &options).unwrap();
    let [edl, fcpxml, xmeml, otio, eaf] = <[String; 5]>::try_from(texts).unwrap();

    // 2 s are 60 frames, 60.1 s are frame 1801; the first mark is followed by one in the same frame.
    let expected = "TITLE: a talk\nFCM: DROP FRAME\n\n\
        001  001      V     C        00:59:59;28 00:59:59;29 00:59:59;28 00:59:59;29  \n |C:ResolveColorBlue |M:Ann <1>   x |D:60\n\n\
        002  001      V     C        00:59:59;29 01:00:00;00 00:59:59;29 01:00:00;00  \n |C:ResolveColorGreen |M:Zoë |D:29\n\n\
        003  001      V     C        01:00:01;28 01:00:01;29 01:00:01;28 01:00:01;29  \n |C:ResolveColorGreen |M:Zoë |D:1\n\n\
        004  001      V     C        01:01:00;01 ";
    // Frame 1801 of the clip is frame 107,890 + 1801 of the day: a minute later, two numbers were dropped.
    let expected = expected.trim_end_matches("01:01:00;01 ").to_owned() + "01:00:59;29";
    assert!(edl.starts_with(&expected), "{edl}");
    assert!(edl.contains("01:00:59;29 01:01:00;02"), "the number after the last of a minute: {edl}");

    let start = 107_890 * 1001;
    assert!(fcpxml.contains(&format!("tcStart=\"{start}/30000s\" tcFormat=\"DF\"")), "{fcpxml}");
    assert!(fcpxml.contains("frameDuration=\"1001/30000s\""));
    assert!(fcpxml.contains("src=\"file:///films/a%20talk.mov\"") && fcpxml.contains("hasAudio=\"1\""));
    let keyword = format!(
        "<keyword start=\"{}/30000s\" duration=\"{}/30000s\" value=\"Ann &lt;1&gt; | x\"/>",
        (107_890 + 1801) * 1001,
        27 * 1001
    );
    assert!(fcpxml.contains(&keyword), "{keyword}: {fcpxml}");

    assert!(xmeml.contains("<timebase>30</timebase><ntsc>TRUE</ntsc>"));
    assert!(
        xmeml.contains("<string>00:59:59;28</string><frame>107890</frame><displayformat>DF</displayformat>")
    );
    assert!(xmeml.contains("<in>1801</in><out>1828</out>") && xmeml.contains("<in>60</in><out>61</out>"));
    assert!(xmeml.contains("file://localhost/films/a%20talk.mov"));

    let otio: serde_json::Value = serde_json::from_str(&otio).unwrap();
    let clip = &otio["tracks"]["children"][0]["children"][0];
    assert_eq!(otio["global_start_time"]["value"], 107_890.0);
    assert_eq!(clip["markers"].as_array().unwrap().len(), 4);
    assert_eq!(clip["markers"][3]["marked_range"]["start_time"]["value"], 109_691.0);
    assert_eq!(clip["markers"][3]["marked_range"]["duration"]["value"], 27.0);
    let rate = clip["source_range"]["duration"]["rate"].as_f64().unwrap();
    assert!((rate - 30000.0 / 1001.0).abs() < 1e-12);

    assert_eq!(eaf.matches("<TIER ").count(), 2);
    assert_eq!(eaf.matches("<TIME_SLOT ").count(), 8);
    assert!(eaf.contains("TIME_VALUE=\"60100\"") && eaf.contains("TIER_ID=\"Ann &lt;1&gt; | x\""), "{eaf}");
    for xml in [fcpxml, xmeml, eaf] {
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
        roxmltree::Document::parse_with_options(&xml, options).unwrap();
    }
}

#[test]
fn a_rate_that_divides_no_second_is_kept_exact() {
    let options = TimelineOptions { start: "10:00:00:00".parse().unwrap(), ..TimelineOptions::default() };
    let texts = write(Some((24000, 1001)), &options).unwrap();
    assert!(
        texts[0].contains("FCM: NON-DROP FRAME") && texts[0].contains("10:01:00:01 10:01:00:02"),
        "{}",
        texts[0]
    );
    assert!(texts[1].contains("tcFormat=\"NDF\""));
    let texts =
        write(None, &TimelineOptions { rate: "25".parse().ok(), ..TimelineOptions::default() }).unwrap();
    assert!(texts[0].contains("00:01:00:03"), "60.1 s are 1502.5 frames: {}", texts[0]);
    assert!(texts[1].contains("src=\"a%20talk.mov\"") && texts[1].contains("tcStart=\"0s\""));
}

#[test]
fn what_does_not_go_with_the_video_is_refused_before_the_work() {
    let refused = |fps, start: &str| {
        let options = TimelineOptions { start: start.parse().unwrap(), ..TimelineOptions::default() };
        match write(fps, &options).unwrap_err() {
            ReportError::Timecode(error) => error,
            other => panic!("{other}"),
        }
    };
    assert_eq!(refused(None, "00:00:00:00"), TimecodeError::NoRate);
    assert!(matches!(refused(Some((25, 1)), "00:00:00;00"), TimecodeError::NoDropFrame(_)));
    assert!(matches!(refused(Some((25, 1)), "00:00:00:25"), TimecodeError::Frame { base: 25, .. }));
    // ELAN counts in milliseconds.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.eaf");
    let mut timelines = Timelines::new(
        vec![(Output::create(&path).unwrap(), TimelineFormat::Eaf)],
        TimelineOptions::default(),
    );
    let video = VideoFacts { name: "a.mp4".into(), width: 1, height: 1, fps: None, sound: None };
    timelines.opened(&video).unwrap();
    timelines.finish(&[], 0).unwrap();
    assert!(path.exists());
    let of = |name: &str| TimelineFormat::of_path(Path::new(name));
    assert_eq!([of("edl"), of("a.txt"), of("-")], [None; 3]);
}
