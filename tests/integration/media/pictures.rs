//! Properties of pictures besides their pixels: range, rotation, fields, depth, transparency, damage.

use std::fs;
use std::path::Path;

use sphereface::media::{Codec, Input, SinkOptions, Source, SourceOptions};
use tempfile::TempDir;

use crate::media::clips::{
    H264, PICTURES, Transcoded, ffmpeg, frame_times, output_of, probe, same_frames, same_frames_with, tools,
    transcode,
};

/// Red, green and blue of the first frame, as a player shows them.
fn shown(path: &Path) -> Vec<u8> {
    shown_as(path, "rgb24")
}

fn shown_as(path: &Path, format: &str) -> Vec<u8> {
    let name = path.to_str().unwrap();
    output_of(
        "ffmpeg",
        &["-v", "error", "-i", name, "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", format, "-"],
    )
}

fn mean(pixels: &[u8]) -> f64 {
    pixels.iter().map(|v| f64::from(*v)).sum::<f64>() / pixels.len() as f64
}

/// The mean distance of two pictures of one size.
fn distance(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len(), "of one size");
    a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
}

fn warns(done: &Transcoded, of: &str) -> bool {
    done.warnings.iter().any(|warning| warning.contains(of))
}

#[test]
fn full_range_looks_the_same_from_every_container_in_every_container() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let people = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/sample.mp4");
    let full = "-vf scale=384:-2:out_range=full,format=yuvj420p -color_range pc";
    let tagged = format!("{full} -colorspace bt709 -color_primaries bt709 -color_trc bt709");
    let x264 = "-c:v libx264 -preset ultrafast -pix_fmt yuvj420p";
    let vp9 = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -pix_fmt yuv420p";
    for (name, how) in [
        ("full.mp4", format!("{tagged} {x264}")),
        ("untold.mp4", format!("{full} {x264}")),
        ("fragments.mp4", format!("{tagged} {x264} -movflags frag_keyframe+empty_moov")),
        ("full.mkv", format!("{tagged} {x264}")),
        ("full.ts", format!("{tagged} {x264}")),
        ("full.flv", format!("{tagged} {x264}")),
        (
            "full.h265.mp4",
            format!("{tagged} -c:v libx265 -x265-params log-level=0 -preset ultrafast -tag:v hvc1"),
        ),
        ("mjpeg.mov", format!("{full} -c:v mjpeg")),
        ("mjpeg.avi", format!("{full} -c:v mjpeg")),
        ("mjpeg.mkv", format!("{full} -c:v mjpeg")),
        ("vp9.webm", format!("{tagged} {vp9}")),
        ("vp9.mp4", format!("{tagged} {vp9}")),
        ("mpeg4.mp4", format!("{tagged} -c:v mpeg4 -q:v 2 -pix_fmt yuv420p")),
    ] {
        let clip = at(name);
        ffmpeg(&format!("-i {} -frames:v 10 -an {how}", people.display()), &clip);
        let before = [shown(&clip), shown_as(&clip, "gray")];
        for (extension, codec) in [
            ("mp4", Codec::H264),
            ("mkv", Codec::H264),
            ("webm", Codec::Vp8),
            ("webm", Codec::Vp9),
            ("mp4", Codec::Vp9),
        ] {
            let out = at(&format!("{name}.{codec:?}.{extension}"));
            let what = format!("{name} -> {codec:?} in {extension}");
            same_frames_with(&clip, &out, &SinkOptions { codec, ..SinkOptions::default() });
            for (before, after) in before.iter().zip([shown(&out), shown_as(&out, "gray")]) {
                let (brightness, off) = (mean(&after) - mean(before), distance(before, &after));
                println!("{what}: {brightness:+.2} brighter, {off:.2} apart");
                // Another range would be off by 4 and more; an encoder of another matrix rounds twice.
                assert!(brightness.abs() < 1.5, "{what}: {brightness:+.2} brighter");
                assert!(off < 4.0, "{what}: {off:.2} apart");
            }
        }
    }
}

#[test]
fn a_pose_in_matroska_turns_the_picture_as_a_rotation_in_mp4_does() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let plain = folder.path().join("plain.mkv");
    let half = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=0.4";
    ffmpeg(&format!("{half} {H264}"), &plain);
    for (roll, size) in [(90.0f64, "120,160"), (180.0, "160,120"), (-90.0, "120,160"), (270.0, "120,160")] {
        let clip = folder.path().join(format!("roll {roll}.mkv"));
        fs::write(&clip, with_roll(&fs::read(&plain).unwrap(), roll)).unwrap();
        let before = shown(&clip);
        for extension in ["mp4", "mkv", "webm"] {
            let out = clip.with_extension(format!("out.{extension}"));
            same_frames(&clip, &out);
            let what = format!("{roll} -> {extension}");
            assert_eq!(probe(&out, "v:0", "stream=width,height", &[]), [size], "{what}");
            let off = distance(&before, &shown(&out));
            assert!(off < 10.0, "{what}: {off} apart from how ffmpeg shows it");
        }
    }
}

/// Cameras write such matrices for pictures that are mirrored, as those of yourself are.
#[test]
fn a_matrix_that_mirrors_is_followed() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let plain = folder.path().join("plain.mp4");
    ffmpeg(&format!("-f lavfi -i testsrc2=size=160x120:rate=25:duration=0.4 {H264}"), &plain);
    let plain = fs::read(&plain).unwrap();
    for (name, matrix, size) in [
        ("transpose", [0, 1, 1, 0], "120,160"),
        ("transverse", [0, -1, -1, 0], "120,160"),
        ("left and right", [-1, 0, 0, 1], "160,120"),
        ("up and down", [1, 0, 0, -1], "160,120"),
    ] {
        let mut file = plain.clone();
        // The matrix begins 44 bytes after the name of the header of the only track.
        let header = file.windows(4).position(|window| window == b"tkhd").unwrap();
        for (number, at) in matrix.iter().zip([44, 48, 56, 60]) {
            file[header + at..][..4].copy_from_slice(&(number * 65_536_i32).to_be_bytes());
        }
        let clip = folder.path().join(format!("{name}.mp4"));
        fs::write(&clip, file).unwrap();
        for extension in ["mp4", "mkv"] {
            let out = clip.with_extension(format!("out.{extension}"));
            same_frames(&clip, &out);
            let what = format!("{name} -> {extension}");
            assert_eq!(probe(&out, "v:0", "stream=width,height", &[]), [size], "{what}");
            let off = distance(&shown(&clip), &shown(&out));
            assert!(off < 10.0, "{what}: {off} apart from how ffmpeg shows it");
        }
    }
}

const SEGMENT: u64 = 0x1853_8067;
const TRACKS: u64 = 0x1654_ae6b;
const TRACK: u64 = 0xae;
const VIDEO: u64 = 0xe0;
/// Checksums, offsets of other elements, and padding, which are no longer right in a changed file.
const DROPPED: [u64; 4] = [0xbf, 0x114d_9b74, 0x1c53_bb6b, 0xec];

/// A Matroska file whose pictures are turned counterclockwise.
fn with_roll(file: &[u8], roll: f64) -> Vec<u8> {
    let pose = [&[0x76, 0x75, 0x88][..], &roll.to_be_bytes()].concat();
    let projection = [&[0x76, 0x70, 0x80 | pose.len() as u8][..], &pose].concat();
    appended(file, &[SEGMENT, TRACKS, TRACK, VIDEO], &projection)
}

/// Elements with data appended to the element at a path.
fn appended(mut elements: &[u8], path: &[u64], more: &[u8]) -> Vec<u8> {
    let Some((wanted, inner)) = path.split_first() else { return [elements, more].concat() };
    let mut made = Vec::new();
    let number = |bytes: &[u8]| bytes.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    while !elements.is_empty() {
        let id = elements[0].leading_zeros() as usize + 1;
        let length = elements[id].leading_zeros() as usize + 1;
        let size = number(&elements[id..id + length]) & ((1 << (7 * length)) - 1);
        let (whole, rest) = elements.split_at(id + length + size as usize);
        let kind = number(&whole[..id]);
        if kind == *wanted {
            let content = appended(&whole[id + length..], inner, more);
            made.extend(&whole[..id]);
            made.extend((content.len() as u64 | 1 << 56).to_be_bytes());
            made.extend(content);
        } else if !DROPPED.contains(&kind) {
            made.extend(whole);
        }
        elements = rest;
    }
    made
}

#[test]
fn pictures_with_transparency_are_read_and_its_loss_is_said_once() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let half = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=0.4,format=yuva420p";
    let fast = "-auto-alt-ref 0 -deadline realtime -cpu-used 8";
    for (name, how) in [
        ("vp8.webm", format!("-c:v libvpx {fast}")),
        ("vp9.webm", format!("-c:v libvpx-vp9 {fast}")),
        ("png.mov", "-pix_fmt rgba -c:v png".to_owned()),
        ("qtrle.mov", "-pix_fmt argb -c:v qtrle".to_owned()),
        ("prores.mov", "-c:v prores_ks -profile:v 4444 -pix_fmt yuva444p10le".to_owned()),
    ] {
        ffmpeg(&format!("{half} {how}"), &at(name));
        for extension in ["mp4", "mkv", "webm"] {
            let out = at(&format!("{name}.out.{extension}"));
            let done = same_frames(&at(name), &out);
            let told = done.warnings.iter().filter(|warning| warning.contains("transparency")).count();
            assert_eq!(told, 1, "{name} -> {extension}: {:?}", done.warnings);
        }
        let silent = Source::open(&Input::File(at(name)), &SourceOptions::default()).unwrap().take_warnings();
        assert_eq!(silent, Vec::<String>::new(), "{name}: nothing is written, so nothing is lost");
    }
}

#[test]
fn pixels_without_a_width_are_square() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let half = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=0.4";
    for (name, how) in [
        ("bgr24.avi", "-c:v rawvideo -pix_fmt bgr24"),
        ("yuv.avi", "-c:v rawvideo -pix_fmt yuv420p"),
        ("mjpeg.avi", "-c:v mjpeg"),
    ] {
        ffmpeg(&format!("{half} {how}"), &at(name));
        for extension in ["mp4", "mkv", "webm"] {
            let out = at(&format!("{name}.out.{extension}"));
            same_frames(&at(name), &out);
            let shape = probe(&out, "v:0", "stream=width,height,sample_aspect_ratio", &[]);
            assert!(shape[0].starts_with("160,120") && !shape[0].contains("4:3"), "{name}: {shape:?}");
        }
    }
}

#[test]
fn fields_and_their_order_arrive() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let fields = |top: u8| {
        let order = if top == 1 { "tff" } else { "bff" };
        format!(
            "-f lavfi -i testsrc2=size=160x128:rate=50:duration=0.8 -vf interlace=scan={order} -flags +ilme+ildct -top {top}"
        )
    };
    for (name, how, order) in [
        ("tff.mpg", format!("{} -c:v mpeg2video", fields(1)), "tt"),
        ("bff.mpg", format!("{} -c:v mpeg2video", fields(0)), "bb"),
        ("tff.ts", format!("{} -c:v mpeg2video", fields(1)), "tt"),
        ("tff.mkv", format!("{} -c:v mpeg2video", fields(1)), "tt"),
        ("h264.mp4", format!("{} -c:v libx264 -x264-params tff=1", fields(1)), "tt"),
        ("h264.mkv", format!("{} -c:v libx264 -x264-params bff=1", fields(0)), "bb"),
        // Its decoder does not know the order.
        ("tff ffv1.mkv", format!("{} -c:v ffv1", fields(1)), "tt"),
        ("bff ffv1.mkv", format!("{} -c:v ffv1 -level 3", fields(0)), "bb"),
        (
            "frames.mpg",
            "-f lavfi -i testsrc2=size=160x128:rate=25:duration=0.8 -c:v mpeg2video".into(),
            "progressive",
        ),
    ] {
        ffmpeg(&how, &at(name));
        for extension in ["mp4", "mkv"] {
            let out = at(&format!("{name}.out.{extension}"));
            transcode(&at(name), &out);
            let frame = probe(&out, "v:0", "frame=interlaced_frame,top_field_first", &[]);
            let wanted = match order {
                "tt" => "1,1",
                "bb" => "1,0",
                _ => "0,0",
            };
            assert!(frame[0].starts_with(wanted), "{name} -> {extension}: {}", frame[0]);
            let told = probe(&out, "v:0", "stream=field_order", &[]);
            assert_eq!(told[0], order, "{name} -> {extension}");
        }
    }
}

#[test]
fn lost_packets_cost_what_they_held_and_no_more() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let clip =
        "-f lavfi -i testsrc2=size=320x240:rate=25:duration=3 -c:v libx264 -preset ultrafast -bf 2 -g 30";
    ffmpeg(clip, &at("whole.ts"));
    ffmpeg(&format!("{clip} -mpegts_m2ts_mode 1"), &at("whole.m2ts"));
    for (name, size) in [("whole.ts", 188), ("whole.m2ts", 192)] {
        let whole = fs::read(at(name)).unwrap();
        assert!(!warns(&transcode(&at(name), &at("whole.mp4")), "lost"), "{name}: nothing is lost");
        for every in [97, 20] {
            let lossy: Vec<u8> = whole
                .chunks(size)
                .enumerate()
                .filter(|(number, _)| *number < 10 || number % every != 0)
                .flat_map(|(_, packet)| packet.to_vec())
                .collect();
            let clip = at(&format!("{every}.{name}"));
            fs::write(&clip, lossy).unwrap();
            let out = at(&format!("{every}.{name}.mp4"));
            let done = transcode(&clip, &out);
            let (concealed, written) = (frame_times(&clip).len(), frame_times(&out).len());
            println!(
                "{name}, every {every}th lost: {written} frames, ffmpeg {concealed}: {:?}",
                done.warnings
            );
            assert!(concealed > 55, "ffmpeg shows {concealed} of 75 frames");
            assert!(written + 1 >= concealed, "{written} frames, ffmpeg shows {concealed}");
            assert!(warns(&done, "lost"), "{:?}", done.warnings);
        }
    }
}

#[test]
fn high_dynamic_range_is_seen_and_written_as_standard_range() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let people = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/sample.mp4");
    let tagged = "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv";
    let people = format!("-i {} -frames:v 10 -an -vf scale=384:-2,{tagged}", people.display());
    ffmpeg(&format!("{people} {H264} -crf 8"), &at("sdr.mkv"));
    let to = |transfer: &str| {
        format!(
            "{people},zscale=transfer=linear,format=gbrpf32le,\
             zscale=primaries=bt2020:transfer={transfer}:matrix=bt2020nc:range=tv:npl=203,format=yuv420p10le \
             -c:v libx265 -crf 8 -x265-params log-level=0 -preset ultrafast -colorspace bt2020nc -color_primaries bt2020 \
             -color_trc {transfer}"
        )
    };
    for (name, transfer) in [("pq.mp4", "smpte2084"), ("pq.mkv", "smpte2084"), ("hlg.mp4", "arib-std-b67")] {
        ffmpeg(&to(transfer), &at(name));
        let before = shown(&at("sdr.mkv"));
        for extension in ["mp4", "mkv", "webm"] {
            let out = at(&format!("{name}.out.{extension}"));
            let done = same_frames(&at(name), &out);
            assert!(warns(&done, "HDR"), "{name} -> {extension}: {:?}", done.warnings);
            let off = distance(&before, &shown(&out));
            println!("{name} -> {extension}: {off:.1} apart");
            // Highlights are compressed.
            assert!(off < 8.0, "{name} -> {extension}: {off} apart from standard range");
            let transfer = probe(&out, "v:0", "stream=color_transfer", &[]).join("");
            assert!(!transfer.contains("2084") && !transfer.contains("b67"), "{transfer}");
        }
    }
}

#[test]
fn ten_bits_that_become_eight_are_said() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    ffmpeg(&format!("{PICTURES} -c:v libx264 -preset ultrafast -pix_fmt yuv420p10le"), &at("ten.mkv"));
    let done = same_frames(&at("ten.mkv"), &at("out.mp4"));
    assert!(warns(&done, "10 bits"), "{:?}", done.warnings);
}

/// Rows of indices into a palette, which converters do not find.
#[test]
fn pictures_with_a_palette_are_refused_by_name() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let clip = folder.path().join("palette.avi");
    ffmpeg(&format!("{PICTURES} -c:v rawvideo -pix_fmt pal8"), &clip);
    let error = Source::open(&Input::File(clip), &SourceOptions::default()).err().unwrap().to_string();
    assert!(error.contains("palette.avi") && error.contains("a palette of 8 bits"), "{error}");
}

/// Orders of samples, distances of rows and palettes that GStreamer takes for others.
#[test]
fn uncompressed_pictures_and_palettes_of_quicktime_have_their_colours() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    // 160 pixels are no multiple of 64, to which rows of r210 are filled up.
    let half = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=0.2";
    for (name, how) in [
        ("555.mov", "-c:v rawvideo -pix_fmt rgb555be"),
        ("v308.mov", "-c:v v308"),
        ("r210.mov", "-c:v r210"),
        ("r210.avi", "-c:v r210"),
        ("v210.mov", "-c:v v210"),
        ("uyvy.mov", "-c:v rawvideo -pix_fmt uyvy422"),
        ("rgb.mov", "-c:v rawvideo -pix_fmt rgb24"),
        ("smc.mov", "-c:v smc"),
        ("rle.mov", "-c:v qtrle"),
    ] {
        ffmpeg(&format!("{half} {how}"), &at(name));
        let out = at(&format!("{name}.out.mkv"));
        same_frames_with(&at(name), &out, &SinkOptions { quantizer: Some(4), ..SinkOptions::default() });
        let off = distance(&shown(&at(name)), &shown(&out));
        println!("{name}: {off:.2} apart");
        // Chroma loses detail; other colours would be off by 100 and more.
        assert!(off < 12.0, "{name}: {off} apart");
    }
}

/// A cutter that does not encode anew hides the beginning by an edit list; a recording may begin at any time.
#[test]
fn false_cut_short_of_hidden_beginnings_and_late_clocks() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let whole = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=3";
    ffmpeg(&format!("{whole} {H264} -g 75"), &at("whole.mp4"));
    ffmpeg(&format!("-ss 0.44 -i {} -c copy", at("whole.mp4").display()), &at("cut.mp4"));
    ffmpeg(&format!("-i {} -c copy -output_ts_offset 5", at("whole.mp4").display()), &at("late.mkv"));
    for name in ["whole.mp4", "cut.mp4", "late.mkv"] {
        let mut source = Source::open(&Input::File(at(name)), &SourceOptions::default()).unwrap();
        while source.next_frame().unwrap().is_some() {}
        assert_eq!(source.take_warnings(), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn what_no_output_keeps_is_told_by_name() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let tags = "-metadata artist=Somebody -metadata comment=Good -metadata title=Kept";
    ffmpeg(&format!("{PICTURES} {H264} {tags}"), &at("tags.mp4"));
    ffmpeg(&format!("{PICTURES} {PICTURES} -map 0 -map 1 {H264}"), &at("two.mkv"));
    ffmpeg(&format!("{PICTURES} {H264} -timecode 01:02:03:04"), &at("timecode.mov"));
    ffmpeg(&format!("{PICTURES} {H264} -timecode 01:02:03:04"), &at("timecode.mkv"));
    fs::write(at("s.vtt"), "WEBVTT\n\n00:00.200 --> 00:00.700\nHallo\n").unwrap();
    let titled = format!("{PICTURES} -i {}", at("s.vtt").display());
    ffmpeg(&format!("{titled} {H264} -c:s webvtt"), &at("vtt.mkv"));
    ffmpeg(&format!("{titled} -c:v libvpx -deadline realtime -cpu-used 8"), &at("vtt.webm"));
    for (name, told) in [
        ("timecode.mov", "its timecode track is left out"),
        ("timecode.mkv", "its timecode is left out"),
        ("vtt.mkv", "its subtitles are left out"),
        ("vtt.webm", "its subtitles are left out"),
        ("tags.mp4", "its artist and comment are left out"),
        ("two.mkv", "a further video track is left out"),
    ] {
        for extension in ["mp4", "mkv", "webm"] {
            let done = same_frames(&at(name), &at(&format!("{name}.out.{extension}")));
            let found = done.warnings.iter().filter(|warning| warning.contains(told)).count();
            assert_eq!((found, done.warnings.len()), (1, 1), "{name} -> {extension}: {:?}", done.warnings);
        }
        let silent = Source::open(&Input::File(at(name)), &SourceOptions::default()).unwrap().take_warnings();
        assert_eq!(silent, Vec::<String>::new(), "{name}: nothing is written");
    }
}

#[test]
fn time_and_place_of_recording_are_kept() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let tags = "-metadata creation_time=2020-05-06T07:08:09Z -metadata location=+48.1371+011.5754/";
    for name in ["a.mp4", "a.mov", "a.mkv"] {
        ffmpeg(&format!("{PICTURES} {H264} {tags}"), &at(name));
        for extension in ["mp4", "mkv", "webm"] {
            let out = at(&format!("{name}.out.{extension}"));
            let done = same_frames(&at(name), &out);
            let what = format!("{name} -> {extension}");
            let told = |tag: &str| probe(&out, "v", &format!("format_tags={tag}"), &[]).join(",");
            assert_eq!(told("creation_time"), "2020-05-06T07:08:09.000000Z", "{what}");
            assert_eq!(told("location"), "+48.1371+011.5754/", "{what}");
            assert_eq!(done.warnings, Vec::<String>::new(), "{what}");
        }
    }
}
