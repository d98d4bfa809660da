//! Invalid inputs and outputs, and the files left after a failure.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sphereface::media::{Audio, Codec, Container, Input, Sink, SinkOptions, Source, SourceOptions};
use tempfile::TempDir;

use crate::media::clips::{H264, PICTURES, ffmpeg, frame_times, sine, tools, transcode, transcode_with};

#[test]
fn bad_input_is_refused_in_one_sentence_and_soon() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("empty.mp4"), b"").unwrap();
    let page = "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Sign in</body></html>";
    fs::write(at("page.mp4"), page).unwrap();
    fs::write(at("text.mp4"), "hello, this is no video\n".repeat(100)).unwrap();
    fs::write(
        at("noise.mkv"),
        (0..9000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>(),
    )
    .unwrap();
    ffmpeg(&format!("{} -c:a aac", sine(440)), &at("sound.m4a"));
    ffmpeg(&format!("{} -c:a libmp3lame", sine(440)), &at("sound.mp3"));
    ffmpeg(&format!("{PICTURES} {H264}"), &at("whole.mp4"));
    let whole = fs::read(at("whole.mp4")).unwrap();
    fs::write(at("no_index.mp4"), &whole[..whole.len() / 2]).unwrap();
    ffmpeg("-f lavfi -i testsrc2=size=64x48:rate=10:duration=1 -f gif", &at("gif.mp4"));
    for (name, cause) in [
        ("missing.mp4", "does not exist"),
        ("", "is a folder"),
        ("empty.mp4", "zero bytes"),
        ("text.mp4", "cannot be decoded"),
        ("noise.mkv", "cannot be decoded"),
        ("page.mp4", "web page"),
        ("sound.m4a", "no video stream"),
        ("sound.mp3", "no video stream"),
        ("no_index.mp4", "has no index"),
        ("gif.mp4", "gif image"),
    ] {
        let began = Instant::now();
        for container in [None, Some(Container::Mp4)] {
            let options = SourceOptions { container, ..SourceOptions::default() };
            let Err(error) = Source::open(&Input::File(at(name)), &options) else {
                panic!("{name} was opened")
            };
            let message = error.to_string();
            println!("{message}");
            assert!(message.contains(cause), "{name}: {message}");
            assert!(message.contains(name), "{name} is not named: {message}");
            assert!(!message.contains('\n') && message.len() < 300, "{name}: {message}");
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{name} took {:?}", began.elapsed());
    }
    for (input, cause) in [
        ("gst:nosuchelement", "does not accept the pipeline"),
        ("gst:videotestsrc ! fakesink", "does not accept the pipeline"),
        ("rtsp://127.0.0.1:9/none", "cannot be decoded: connection refused by 127.0.0.1:9"),
        ("http://127.0.0.1:9/none.mp4", "cannot be decoded: connection refused by 127.0.0.1:9"),
        ("http://nowhere.invalid/none.mp4", "cannot be decoded: the host nowhere.invalid is not known"),
        ("webcam:97", "cannot be decoded"),
        ("still.png", "still image"),
    ] {
        let input = Input::parse(input).unwrap();
        let Err(error) = Source::open(&input, &SourceOptions::default()) else {
            panic!("{input} was opened")
        };
        let message = error.to_string();
        println!("{message}");
        assert!(message.contains(cause), "{input}: {message}");
    }
}

#[test]
fn a_truncated_file_gives_what_it_has_and_a_warning() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let two = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=3";
    ffmpeg(&format!("{two} {H264} -movflags +faststart"), &at("whole.mp4"));
    let whole = fs::read(at("whole.mp4")).unwrap();
    fs::write(at("cut.mp4"), &whole[..whole.len() / 2]).unwrap();
    let done = transcode(&at("cut.mp4"), &at("out.mp4"));
    assert!((10..75).contains(&done.frames.len()), "{} frames", done.frames.len());
    assert_eq!(frame_times(&at("out.mp4")).len(), done.frames.len());
    assert_eq!(done.warnings.len(), 1);
    assert!(done.warnings[0].contains("cut.mp4"), "{}", done.warnings[0]);
}

#[test]
fn a_bad_output_is_refused_before_anything_is_opened() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("in.mp4"), b"x").unwrap();
    fs::create_dir(at("folder.mp4")).unwrap();
    let input = Input::File(at("in.mp4"));
    let webm_h264 = SinkOptions { codec: Codec::H264, ..SinkOptions::default() };
    let quantizer = SinkOptions { quantizer: Some(60), ..SinkOptions::default() };
    let plain = SinkOptions::default();
    for (name, options, cause) in [
        ("out.avi", &plain, "use .mp4, .mkv or .webm"),
        ("out", &plain, "use .mp4, .mkv or .webm"),
        ("none/out.mp4", &plain, "create it first"),
        ("folder.mp4", &plain, "is a folder"),
        ("in.mp4", &plain, "is also the input"),
        ("out.webm", &webm_h264, "WebM cannot hold H.264"),
        ("out.mp4", &quantizer, "quantizer 60 is invalid"),
    ] {
        let message = Sink::check(&at(name), &input, options).unwrap_err().to_string();
        assert!(message.contains(cause), "{name}: {message}");
    }
    assert_eq!(Sink::check(&at("out.MKV"), &input, &plain).unwrap(), Container::Matroska);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "checking leaves nothing behind");
}

#[test]
fn a_sink_that_is_not_finished_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out.mp4");
    let input = Input::parse("gst:videotestsrc num-buffers=5 ! video/x-raw,width=64,height=48").unwrap();
    let mut source = Source::open(&input, &SourceOptions::default()).unwrap();
    let mut sink = Sink::create(&out, source.info(), Audio::none(), &SinkOptions::default()).unwrap();
    sink.write(source.next_frame().unwrap().unwrap()).unwrap();
    drop(sink);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_full_disk_is_an_error_and_leaves_nothing() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let (clip, disk) = (folder.path().join("clip.mkv"), folder.path().join("disk"));
    fs::create_dir(&disk).unwrap();
    let mount = ["-t", "tmpfs", "-o", "size=300k", "tmpfs", disk.to_str().unwrap()];
    let mounted = Command::new("mount").args(mount).stderr(Stdio::null()).status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: mounting a small tmpfs is not allowed here");
        return;
    }
    ffmpeg(&format!("-f lavfi -i testsrc2=size=320x240:rate=25:duration=4 {} {H264}", sine(440)), &clip);
    let options = SinkOptions { quantizer: Some(2), ..SinkOptions::default() };
    let began = Instant::now();
    let results: Vec<_> = ["mp4", "mkv", "webm"]
        .map(|extension| {
            transcode_with(clip.to_str().unwrap(), &disk.join(format!("out.{extension}")), &options)
        })
        .into_iter()
        .map(|result| result.err().map(|error| error.to_string()))
        .collect();
    let (took, left) = (began.elapsed(), fs::read_dir(&disk).unwrap().count());
    // Lazily: a process that another test is just starting may hold a file there for a moment.
    let unmounted = Command::new("umount").arg("--lazy").arg(&disk).status().unwrap();
    assert!(unmounted.success());
    for message in results {
        let message = message.expect("300 KB are not enough");
        println!("{message}");
        assert!(message.contains("No space left"), "{message}");
    }
    assert_eq!(left, 0, "the temporary file is gone");
    assert!(took < Duration::from_secs(20), "took {took:?}");
}

#[test]
fn a_failing_encoder_falls_through_to_the_next() {
    let folder = TempDir::new().unwrap();
    let input = "gst:videotestsrc num-buffers=5 ! video/x-raw,width=64,height=48";
    let with = |encoders: &[&str]| SinkOptions {
        encoders: encoders.iter().map(|name| (*name).to_owned()).collect(),
        ..SinkOptions::default()
    };
    let failing = ["nosuchenc", "identity error-after=2 ! x264enc", "openh264enc", "x264enc"];
    let done = transcode_with(input, &folder.path().join("out.mp4"), &with(&failing)).unwrap();
    assert_eq!(done.summary.encoder, "openh264enc");
    assert_eq!(done.summary.frames, 5);
    let none = transcode_with(input, &folder.path().join("none.mp4"), &with(&failing[..2]));
    let message = none.err().unwrap().to_string();
    assert!(message.contains("no H.264 encoder works") && message.contains("nosuchenc"), "{message}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_encoder_that_fails_in_the_middle_is_an_error_and_not_a_hang() {
    let folder = TempDir::new().unwrap();
    let input = "gst:videotestsrc num-buffers=60 ! video/x-raw,width=64,height=48";
    let encoders = vec!["identity error-after=20 ! x264enc tune=zerolatency".to_owned()];
    let options = SinkOptions { encoders, ..SinkOptions::default() };
    let message = transcode_with(input, &folder.path().join("out.mp4"), &options).err().unwrap().to_string();
    assert!(message.contains("out.mp4 failed"), "{message}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "the temporary file is gone");
}

/// GStreamer has no name for such pictures, and its decoders crashed at them.
#[test]
fn pictures_of_unusual_formats_are_refused_and_nothing_crashes() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    for format in ["yuv420p16le", "yuv440p", "yuv420p9le", "gray12le", "gbrp16le"] {
        let clip = folder.path().join(format!("{format}.mkv"));
        ffmpeg(&format!("{PICTURES} -c:v ffv1 -pix_fmt {format}"), &clip);
        let error = Source::open(&Input::File(clip), &SourceOptions::default()).err().unwrap().to_string();
        assert!(error.contains(format) && error.contains("cannot be converted"), "{error}");
    }
}
