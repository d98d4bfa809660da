//! The output keeps the frames, times, colours and sound of the input.

use std::fs;
use std::path::Path;

use sphereface::media::{Frame, Input, SinkOptions, Source, SourceOptions, Speed};
use tempfile::TempDir;

use crate::media::clips::{
    H264, PICTURES, assert_same_packets, audio_codecs, ffmpeg, frame_times, output_of, packets, probe,
    same_frames, same_frames_with, sine, tools, transcode,
};

#[test]
fn every_codec_and_container_keeps_its_frames_and_its_sound() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (a, b) = (sine(440), sine(880));
    // (clip, how it is made, [(output extension, sound codecs there, how many are copies)])
    type Outputs<'a> = &'a [(&'a str, &'a [&'a str], usize)];
    let cases: &[(&str, String, Outputs)] = &[
        (
            "h264_aac.mp4",
            format!("{PICTURES} {a} -bf 2 {H264} -c:a aac"),
            &[("mp4", &["aac"], 1), ("mkv", &["aac"], 1), ("webm", &["opus"], 0)],
        ),
        ("aac.ts", format!("{PICTURES} {a} {H264} -c:a aac"), &[("mp4", &["aac"], 1)]),
        (
            "h264_mp3.mp4",
            format!("{PICTURES} {a} {H264} -c:a libmp3lame"),
            &[("mp4", &["mp3"], 1), ("mkv", &["mp3"], 1)],
        ),
        (
            "two.mkv",
            format!("{PICTURES} {a} {b} -map 0 -map 1 -map 2 {H264} -c:a:0 aac -c:a:1 flac"),
            &[("mkv", &["aac", "flac"], 2), ("mp4", &["aac", "aac"], 1)],
        ),
        (
            "vp8_opus.webm",
            format!("{PICTURES} {a} -c:v libvpx -deadline realtime -cpu-used 8 -c:a libopus"),
            &[("webm", &["opus"], 1), ("mp4", &["opus"], 1), ("mkv", &["opus"], 1)],
        ),
        (
            "vorbis.webm",
            format!("{PICTURES} {a} -c:v libvpx -deadline realtime -cpu-used 8 -c:a libvorbis"),
            &[("webm", &["vorbis"], 1)],
        ),
        (
            "vp9_silent.webm",
            format!("{PICTURES} -c:v libvpx-vp9 -deadline realtime -cpu-used 8"),
            &[("webm", &[], 0), ("mp4", &[], 0)],
        ),
        (
            "mpeg4_mp3.avi",
            format!("{PICTURES} {a} -c:v mpeg4 -c:a libmp3lame"),
            &[("mkv", &["mp3"], 1), ("mp4", &["mp3"], 1)],
        ),
        (
            "mjpeg_pcm.mov",
            format!("{PICTURES} {a} -c:v mjpeg -pix_fmt yuvj420p -c:a pcm_s16le"),
            &[("mkv", &["pcm_s16le"], 1), ("mp4", &["aac"], 0)],
        ),
        ("ac3.mkv", format!("{PICTURES} {a} {H264} -c:a ac3"), &[("mp4", &["ac3"], 1), ("mkv", &["ac3"], 1)]),
    ];
    for (name, how, outputs) in cases {
        let clip = at(name);
        ffmpeg(how, &clip);
        for (extension, codecs, copies) in *outputs {
            let out = at(&format!("{name}.out.{extension}"));
            let done = same_frames(&clip, &out);
            let what = format!("{name} -> {extension}");
            assert_eq!(audio_codecs(&out), *codecs, "{what}");
            assert_eq!(done.info.audio_tracks, codecs.len(), "{what}");
            assert_eq!(done.summary.audio_copied, *copies, "{what}");
            assert_eq!(done.summary.audio_encoded, codecs.len() - copies, "{what}");
            let before = audio_codecs(&clip);
            let lossless = |codec: &str| codec == "flac" || codec.starts_with("pcm");
            let lost = before.iter().zip(*codecs).filter(|(a, b)| lossless(a) && !lossless(b)).count();
            let told = done.warnings.iter().filter(|text| text.contains("not lossless")).count();
            assert_eq!((told, done.warnings.len()), (lost, lost), "{what}: {:?}", done.warnings);
            for (track, codec) in codecs.iter().enumerate() {
                if before[track] == *codec && !codec.starts_with("pcm") {
                    assert_same_packets(&out, &clip, track);
                }
            }
        }
    }
}

#[test]
fn frames_written_in_another_order_keep_their_times() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let clip = folder.path().join("clip.mp4");
    ffmpeg(&format!("{PICTURES} {} {H264} -c:a aac", sine(440)), &clip);
    // B-frames are decoded after the frames between which they are shown.
    for (speed, reorders) in [(Speed::Fast, false), (Speed::Balanced, true), (Speed::Slow, true)] {
        for extension in ["mp4", "mkv"] {
            let output = folder.path().join(format!("{speed:?}.{extension}"));
            same_frames_with(&clip, &output, &SinkOptions { speed, ..SinkOptions::default() });
            let delay = probe(&output, "v", "stream=has_b_frames", &[]);
            assert_eq!(delay.iter().any(|line| line != "0"), reorders, "{speed:?}: {delay:?}");
        }
    }
}

#[test]
fn reordered_frames_without_an_edit_list_are_kept_to_the_last() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let x264 = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";
    for (name, sound) in [("silent.mp4", String::new()), ("sound.mp4", format!("{} -c:a aac", sine(440)))] {
        for frames in [1, 2, 3] {
            // Without an edit list, the first frame is shown late, and the last one after the stated end.
            ffmpeg(&format!("{PICTURES} {sound} {x264} -bf {frames} -use_editlist 0"), &at(name));
            for extension in ["mp4", "mkv"] {
                let what = format!("{frames} reordered frames in {name} -> {extension}");
                let output = at(&format!("{name}.out.{extension}"));
                let done = transcode(&at(name), &output);
                assert_eq!((done.frames.len(), done.warnings), (25, Vec::new()), "{what}");
                let (before, after) = (frame_times(&at(name)), frame_times(&output));
                assert_eq!((before.len(), after.len()), (25, 25), "{what}");
                // A file without sound may begin with its first picture.
                let later = |times: &[f64]| times.iter().map(|time| time - times[0]).collect::<Vec<_>>();
                let pairs = later(&before).into_iter().zip(later(&after));
                let off = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(off < 0.0021, "{what}: {off} s off");
                if !sound.is_empty() {
                    let of_sound = |path: &Path| packets(path, 0)[1].0 - frame_times(path)[0];
                    let (before, after) = (of_sound(&at(name)), of_sound(&output));
                    assert!((before - after).abs() < 0.003, "{what}: sound at {after}, was {before}");
                }
            }
        }
    }
}

#[test]
fn pictures_of_every_shape_come_out_right() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let half = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=0.4";
    let plain = at("plain.mp4");
    ffmpeg(&format!("{half} {H264}"), &plain);
    for degrees in [90, 180, 270] {
        let turned = format!("rot{degrees}.mp4");
        ffmpeg(&format!("-i {} -c copy -metadata:s:v:0 rotate={degrees}", plain.display()), &at(&turned));
    }
    ffmpeg(&format!("{half} -vf setsar=4/3 {H264}"), &at("aspect.mp4"));
    ffmpeg(
        "-f lavfi -i testsrc2=size=640x360:rate=25:duration=0.4 -vf scale=641:359,setsar=1 -c:v libvpx -deadline realtime -cpu-used 8",
        &at("odd.webm"),
    );
    ffmpeg(&format!("{half} -c:v libx264 -preset ultrafast -pix_fmt yuv420p10le"), &at("ten_bit.mp4"));
    ffmpeg(&format!("{half} -c:v libx264 -preset ultrafast -pix_fmt yuv444p"), &at("chroma444.mkv"));
    ffmpeg(&format!("{half} -frames:v 1 {H264}"), &at("one.mp4"));
    ffmpeg(
        &format!(
            "-f lavfi -i testsrc2=size=160x120:rate=30:duration=1 -vf select='not(mod(n,3))+lt(n,10)' -vsync vfr {H264}"
        ),
        &at("vfr.mkv"),
    );

    // (clip, output, width, height, pixel aspect)
    for (name, extension, size, aspect) in [
        ("rot90.mp4", "mp4", "120,160", "1:1"),
        ("rot180.mp4", "mkv", "160,120", "1:1"),
        ("rot270.mp4", "webm", "120,160", "1:1"),
        ("aspect.mp4", "mp4", "160,120", "4:3"),
        // Matroska stores the display width, 213, as an integer.
        ("aspect.mp4", "mkv", "160,120", "213:160"),
        ("odd.webm", "mp4", "642,360", "1:1"),
        ("odd.webm", "webm", "641,359", "1:1"),
        ("ten_bit.mp4", "mp4", "160,120", "1:1"),
        ("chroma444.mkv", "mkv", "160,120", "1:1"),
        ("one.mp4", "mp4", "160,120", "1:1"),
        ("one.mp4", "webm", "160,120", "1:1"),
        ("vfr.mkv", "mp4", "160,120", "1:1"),
        ("vfr.mkv", "mkv", "160,120", "1:1"),
        ("vfr.mkv", "webm", "160,120", "1:1"),
    ] {
        let out = at(&format!("{name}.out.{extension}"));
        same_frames(&at(name), &out);
        let what = format!("{name} -> {extension}");
        assert_eq!(probe(&out, "v:0", "stream=width,height", &[]), [size], "{what}");
        assert_eq!(probe(&out, "v:0", "stream=sample_aspect_ratio", &[]), [aspect], "{what}");
        assert_eq!(probe(&out, "v:0", "stream_side_data=rotation", &[]).join(""), "", "{what}: turned twice");
    }
    // The picture itself is turned: compare with ffmpeg's own idea of upright.
    for degrees in [90, 180, 270] {
        let pixels = |path: &Path| {
            let path = path.to_str().unwrap();
            output_of(
                "ffmpeg",
                &["-v", "error", "-i", path, "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "gray", "-"],
            )
        };
        let extension = [(90, "mp4"), (180, "mkv"), (270, "webm")].iter().find(|e| e.0 == degrees).unwrap().1;
        let before = pixels(&at(&format!("rot{degrees}.mp4")));
        let after = pixels(&at(&format!("rot{degrees}.mp4.out.{extension}")));
        assert_eq!(before.len(), after.len());
        let off: u64 = before.iter().zip(&after).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        let mean = off as f64 / before.len() as f64;
        assert!(mean < 8.0, "rotated by {degrees}: mean difference {mean}");
    }
}

#[test]
fn a_size_that_changes_in_the_middle_is_letterboxed() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    ffmpeg(&format!("-f lavfi -i color=white:size=160x120:rate=25:duration=0.4 {H264}"), &at("a.h264"));
    ffmpeg(&format!("-f lavfi -i color=white:size=200x80:rate=25:duration=0.4 {H264}"), &at("b.h264"));
    let mut bytes = fs::read(at("a.h264")).unwrap();
    bytes.extend(fs::read(at("b.h264")).unwrap());
    fs::write(at("both.h264"), bytes).unwrap();
    let input = Input::parse(at("both.h264").to_str().unwrap()).unwrap();
    let mut source = Source::open(&input, &SourceOptions::default()).unwrap();
    let mut frames: Vec<Frame> = Vec::new();
    while let Some(frame) = source.next_frame().unwrap() {
        frames.push(frame);
    }
    assert_eq!(frames.len(), 20);
    assert!(frames.iter().all(|f| (f.picture.width(), f.picture.height()) == (160, 120)));
    let last = &frames[19].picture;
    let luma = |x: usize, y: usize| last.planes()[0][y * 160 + x];
    assert!(luma(80, 60) > 200 && luma(80, 5) < 40 && luma(80, 115) < 40, "bars above and below");
}

#[test]
fn flash_and_beep_stay_together() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let clip = folder.path().join("flash.mkv");
    ffmpeg(
        &format!(
            "-f lavfi -i color=black:size=160x120:rate=25:duration=2,drawbox=color=white:t=fill:enable='between(t,0.99,1.2)' \
             -f lavfi -i aevalsrc='if(between(t,1,1.2),sin(6283*t),0)':duration=2:sample_rate=48000 {H264} -c:a aac"
        ),
        &clip,
    );
    let moments = |path: &Path| {
        let name = path.to_str().unwrap();
        let gray = output_of(
            "ffmpeg",
            &[
                "-v",
                "error",
                "-i",
                name,
                "-vf",
                "scale=1:1:flags=area",
                "-vsync",
                "passthrough",
                "-f",
                "rawvideo",
                "-pix_fmt",
                "gray",
                "-",
            ],
        );
        let flash = frame_times(path)[gray.iter().position(|&v| v > 128).unwrap()];
        let sound = output_of(
            "ffmpeg",
            &[
                "-v",
                "error",
                "-i",
                name,
                "-af",
                "aresample=async=1:first_pts=0",
                "-ac",
                "1",
                "-ar",
                "48000",
                "-f",
                "s16le",
                "-",
            ],
        );
        let beep = sound.chunks_exact(2).position(|s| i16::from_le_bytes([s[0], s[1]]).abs() > 8000).unwrap();
        (flash, beep as f64 / 48000.0)
    };
    let (flash, beep) = moments(&clip);
    assert!((flash - beep).abs() < 0.04);
    for extension in ["mp4", "mkv", "webm"] {
        let out = folder.path().join(format!("out.{extension}"));
        same_frames(&clip, &out);
        let (flash_out, beep_out) = moments(&out);
        assert!((flash_out - flash).abs() < 0.04, "{extension}: flash at {flash_out}, was {flash}");
        assert!((beep_out - beep).abs() < 0.04, "{extension}: beep at {beep_out}, was {beep}");
    }
}

#[test]
fn late_and_short_sound_keep_their_place() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let two = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=2";
    ffmpeg(&format!("{two} -itsoffset 1 {} {H264} -c:a aac", sine(440)), &at("late.mkv"));
    ffmpeg(&format!("{two} -itsoffset 1 {} {H264} -c:a aac", sine(440)), &at("late.mp4"));
    ffmpeg(&format!("{two} -f lavfi -i sine=duration=0.6 {H264} -c:a libmp3lame"), &at("short.mkv"));
    ffmpeg(
        &format!("-f lavfi -i testsrc2=size=160x120:rate=25:duration=0.4 {} {H264} -c:a aac", sine(440)),
        &at("long.mkv"),
    );
    // A demuxer may take pictures this short, compared with the sound, for a preview.
    ffmpeg(
        &format!("-f lavfi -i testsrc2=size=160x120:rate=25:duration=0.08 {} {H264} -c:a aac", sine(440)),
        &at("two frames.mp4"),
    );
    for (name, extension) in [
        ("late.mkv", "mp4"),
        ("late.mp4", "mkv"),
        ("short.mkv", "mp4"),
        ("short.mkv", "mkv"),
        ("long.mkv", "mp4"),
        ("two frames.mp4", "mp4"),
    ] {
        let out = at(&format!("{name}.out.{extension}"));
        same_frames(&at(name), &out);
        assert_same_packets(&out, &at(name), 0);
        // Times are of the pictures, which ffmpeg lets start a little late in Matroska.
        let first = |path: &Path| packets(path, 0)[0].0 - frame_times(path)[0];
        let (before, after) = (first(&at(name)), first(&out));
        assert!((before - after).abs() < 0.003, "{name} -> {extension}: sound at {after}, was {before}");
    }
}

#[test]
fn colour_range_and_matrix_are_kept() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let clip = folder.path().join("clip.mkv");
    let half = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=0.2";
    for (range, matrix) in [("tv", "bt709"), ("pc", "bt709"), ("tv", "smpte170m")] {
        let tags = format!(
            "-color_range {range} -colorspace {matrix} -color_primaries {matrix} -color_trc {matrix}"
        );
        ffmpeg(&format!("{half} -vf scale=out_range={range} {H264} {tags}"), &clip);
        for extension in ["mkv", "mp4"] {
            let out = folder.path().join(format!("out.{extension}"));
            let done = same_frames(&clip, &out);
            assert_eq!(done.info.colorimetry.full_range, range == "pc", "{range} {matrix}");
            let written = probe(&out, "v:0", "stream=color_range,color_space", &[]);
            assert_eq!(written, [format!("{range},{matrix}")], "{extension}");
        }
    }
}
