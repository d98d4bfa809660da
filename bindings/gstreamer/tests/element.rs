//! The element as GStreamer programs use it: single buffers, whole pipelines, and `gst-launch-1.0`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex};

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_check as gst_check;
use gstreamer_video as gst_video;
use sphereface::gallery::{Choice, GalleryFolder, NewStill, PersonName};
use sphereface::media::{Input, Source, SourceOptions};
use sphereface::{Engine, Gallery, IdentifiedFace, Output, Stream, StreamOptions};

/// Size of the sample.
const SIZE: (usize, usize) = (768, 432);

/// Shared by all tests: the plugin, and a gallery of two of the three people of the sample.
struct World {
    gallery: PathBuf,
    engine: Engine,
    frames: Vec<sphereface::media::Frame>,
    _folder: tempfile::TempDir,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    gst::init().unwrap();
    gstsphereface::plugin_register_static().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::new().unwrap();
    let gallery = folder.path().join("gallery");
    let people = GalleryFolder::create(&gallery).unwrap();
    for name in ["Ada", "Boris"] {
        let still = |number: u32| {
            let path = sample(&format!("people/{name}/{number}.jpg"));
            NewStill::read(&path, Choice::Largest, engine.detector()).unwrap()
        };
        people.enroll(&PersonName::new(name).unwrap(), vec![still(1), still(2)]).unwrap();
    }
    let mut source = Source::open(&Input::File(sample("sample.mp4")), &SourceOptions::default()).unwrap();
    let frames = std::iter::from_fn(|| source.next_frame().unwrap()).collect();
    World { gallery, engine, frames, _folder: folder }
});

fn sample(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples").join(path)
}

/// Names of the faces of a frame as the element reports them, in their order.
fn names(faces: &[IdentifiedFace]) -> Vec<String> {
    let told = faces.iter().filter(|face| !face.transient);
    told.map(|face| face.who().map_or_else(|| "unknown".into(), |who| who.to_string())).collect()
}

/// Names frame by frame, and events, of a live stream over the sample.
static OF_STREAM: LazyLock<(Vec<Vec<String>>, Vec<String>)> = LazyLock::new(|| {
    let gallery = Gallery::open(&WORLD.engine, &WORLD.gallery).unwrap();
    let mut stream = Stream::new(&WORLD.engine, Some(&gallery), StreamOptions::default().live(true));
    let (mut frames, mut events) = (Vec::new(), Vec::new());
    let mut pull = |stream: &mut Stream| {
        while let Some(output) = stream.pull() {
            match output {
                Output::Frame(frame) => frames.push(names(&frame.faces)),
                Output::Event(event) => events.push(format!("{:?} {}", event.kind, event.who)),
                _ => panic!("something new comes out of a stream"),
            }
        }
    };
    for frame in &WORLD.frames {
        stream.push(frame.clone()).unwrap();
        pull(&mut stream);
    }
    stream.finish().unwrap();
    pull(&mut stream);
    (frames, events)
});

fn harness(properties: &str) -> gst_check::Harness {
    let gallery = WORLD.gallery.display();
    let mut harness = gst_check::Harness::new_parse(&format!("sphereface gallery={gallery} {properties}"));
    harness.set_src_caps_str(&caps("I420", SIZE));
    harness
}

fn caps(format: &str, (width, height): (usize, usize)) -> String {
    format!("video/x-raw,format={format},width={width},height={height},framerate=25/1")
}

/// A frame of the sample as a buffer.
fn buffer(index: usize) -> gst::Buffer {
    let frame = &WORLD.frames[index];
    let mut buffer = gst::Buffer::from_slice(frame.picture.as_bytes().to_vec());
    let made = buffer.make_mut();
    made.set_pts(gst::ClockTime::from_nseconds(frame.pts_ns));
    made.set_duration(gst::ClockTime::from_nseconds(frame.duration_ns));
    buffer
}

/// Names and tracks by the metas of a buffer.
fn metas(buffer: &gst::BufferRef) -> Vec<(String, u32)> {
    let one = |meta: gst::MetaRef<'_, gst_video::VideoRegionOfInterestMeta>| {
        assert_eq!(meta.roi_type(), "face");
        let (x, y, width, height) = meta.rect();
        assert!(width > 0 && height > 0 && x + width <= SIZE.0 as u32 && y + height <= SIZE.1 as u32);
        let face = meta.param("sphereface").unwrap();
        assert!(face.get::<f64>("score").unwrap() > 0.5);
        assert_eq!(face.get::<gst::Array>("landmarks").unwrap().len(), 10);
        let name: String = face.get("name").unwrap();
        assert_eq!(face.get::<bool>("known").unwrap(), !name.starts_with("Unknown") && name != "unknown");
        if face.get::<bool>("known").unwrap() {
            assert!(face.get::<f64>("angle").unwrap() < 90.0);
        }
        (name, face.get("track").unwrap())
    };
    buffer.iter_meta::<gst_video::VideoRegionOfInterestMeta>().map(one).collect()
}

fn only_names(buffer: &gst::BufferRef) -> Vec<String> {
    metas(buffer).into_iter().map(|(name, _)| name).collect()
}

/// Element messages so far: kind and name.
fn events(bus: &gst::Bus) -> Vec<String> {
    std::iter::from_fn(|| bus.pop_filtered(&[gst::MessageType::Element]))
        .filter_map(|message| {
            let structure = message.structure()?.to_owned();
            (structure.name() == "sphereface-event").then(|| event(&structure))
        })
        .collect()
}

fn event(structure: &gst::StructureRef) -> String {
    format!("{} {}", structure.get::<String>("event").unwrap(), structure.get::<String>("name").unwrap())
}

fn watch(harness: &gst_check::Harness) -> gst::Bus {
    let bus = gst::Bus::new();
    harness.element().unwrap().set_bus(Some(&bus));
    bus
}

#[test]
fn faces_are_told_on_the_buffer_and_somebody_appears_and_leaves() {
    let mut harness = harness("draw=false");
    let bus = watch(&harness);
    let given = buffer(0);
    let out = harness.push_and_pull(given.clone()).unwrap();
    assert_eq!((out.pts(), out.duration(), out.size()), (given.pts(), given.duration(), given.size()));
    assert_eq!(
        out.map_readable().unwrap().as_slice(),
        given.map_readable().unwrap().as_slice(),
        "not drawn on"
    );
    let (expected, _) = &*OF_STREAM;
    assert_eq!(only_names(&out), expected[0]);
    for (index, names) in expected.iter().enumerate().take(12).skip(1) {
        let out = harness.push_and_pull(buffer(index)).unwrap();
        assert_eq!(only_names(&out), *names, "frame {index}");
    }
    let appeared = events(&bus);
    assert!(appeared.iter().any(|event| event.starts_with("appeared ")), "{appeared:?}");
    assert!(harness.push_event(gst::event::Eos::new()));
    assert!(events(&bus).iter().all(|event| event.starts_with("left ")));
}

#[test]
fn names_are_drawn_in_every_format_alike() {
    let drawn = |format: &str| {
        let mut harness = harness("");
        harness.set_src_caps_str(&caps(format, SIZE));
        let frame = &WORLD.frames[0].picture;
        let [y, u, v] = frame.planes();
        let bytes: Vec<u8> = match format {
            "I420" => [y, u, v].concat(),
            "YV12" => [y, v, u].concat(),
            _ => [y.to_vec(), u.iter().zip(v).flat_map(|(u, v)| [*u, *v]).collect()].concat(),
        };
        let out = harness.push_and_pull(gst::Buffer::from_slice(bytes.clone())).unwrap();
        let out = out.map_readable().unwrap().to_vec();
        assert_ne!(out, bytes, "{format} is drawn on");
        let (y, chroma) = out.split_at(y.len());
        let half = chroma.len() / 2;
        let (u, v): (Vec<u8>, Vec<u8>) = match format {
            "I420" => (chroma[..half].to_vec(), chroma[half..].to_vec()),
            "YV12" => (chroma[half..].to_vec(), chroma[..half].to_vec()),
            _ => chroma.chunks_exact(2).map(|pair| (pair[0], pair[1])).unzip(),
        };
        [y.to_vec(), u, v]
    };
    let expected = drawn("I420");
    assert_eq!(drawn("YV12"), expected);
    assert_eq!(drawn("NV12"), expected);
}

#[test]
fn covered_faces_are_covered() {
    let mut harness = harness("draw=false redact=all");
    let given = buffer(0);
    let out = harness.push_and_pull(given.clone()).unwrap();
    let (given, pixels) = (given.map_readable().unwrap(), out.map_readable().unwrap());
    let rects: Vec<_> =
        out.iter_meta::<gst_video::VideoRegionOfInterestMeta>().map(|meta| meta.rect()).collect();
    assert!(!rects.is_empty());
    for (x, y, width, height) in rects {
        let row = |bytes: &[u8]| {
            let at = (y + height / 2) as usize * SIZE.0 + x as usize;
            bytes[at..at + width as usize].to_vec()
        };
        assert_ne!(row(&given), row(&pixels), "a covered face looks otherwise");
    }
}

#[test]
fn a_seek_and_another_size_are_survived_and_strangers_keep_their_numbers() {
    let mut harness = harness("draw=false");
    let bus = watch(&harness);
    let first: Vec<String> =
        (0..6).flat_map(|at| only_names(&harness.push_and_pull(buffer(at)).unwrap())).collect();
    assert!(harness.push_event(gst::event::FlushStart::new()));
    assert!(harness.push_event(gst::event::FlushStop::new(true)));
    assert!(harness.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new())));
    let out = harness.push_and_pull(buffer(0)).unwrap();
    let again = only_names(&out);
    assert!(!again.is_empty() && again.iter().all(|name| first.contains(name)), "{again:?} of {first:?}");
    assert!(
        events(&bus).iter().any(|event| event.starts_with("left ")),
        "what was seen before the seek is gone"
    );

    harness.set_src_caps_str(&caps("I420", (SIZE.0, SIZE.1 / 2)));
    let [y, u, v] = WORLD.frames[0].picture.planes();
    let halves = [&y[..y.len() / 2], &u[..u.len() / 2], &v[..v.len() / 2]].concat();
    let mut half = gst::Buffer::from_slice(halves);
    half.make_mut().set_pts(gst::ClockTime::from_seconds(1));
    assert!(harness.push_and_pull(half).is_ok());
    assert!(harness.push_event(gst::event::Eos::new()));
    // No size that a decoder may produce is too small.
    harness.push_event(gst::event::FlushStart::new());
    harness.push_event(gst::event::FlushStop::new(true));
    harness.set_src_caps_str(&caps("I420", (1, 1)));
    harness.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, 1, 1).build().unwrap();
    let one = harness.push_and_pull(gst::Buffer::from_slice(vec![0; info.size()])).unwrap();
    assert!(metas(&one).is_empty());
}

#[test]
fn it_adds_no_latency_and_asks_for_no_memory_of_its_own() {
    let mut harness = harness("");
    harness.set_live(true);
    harness.set_upstream_latency(gst::ClockTime::from_mseconds(30));
    harness.push_and_pull(buffer(0)).unwrap();
    assert_eq!(harness.query_latency(), Some(gst::ClockTime::from_mseconds(30)));
    let caps: gst::Caps = caps("I420", SIZE).parse().unwrap();
    let mut query = gst::query::Allocation::new(Some(&caps), true);
    assert!(harness.element().unwrap().static_pad("sink").unwrap().query(&mut query));
    assert_eq!(query.allocation_pools().len(), 0);
    assert!(query.find_allocation_meta::<gst_video::VideoMeta>().is_some(), "rows may lie apart");
    assert!(harness.element().unwrap().static_pad("src").unwrap().query(&mut gst::query::Latency::new()));
}

#[test]
fn rows_that_lie_apart_are_read_and_drawn_on_where_they_are() {
    let frame = &WORLD.frames[0].picture;
    let rows = [(SIZE.0, 1024), (SIZE.0 / 2, 576), (SIZE.0 / 2, 576)];
    let (mut bytes, mut offsets) = (Vec::new(), Vec::new());
    for (plane, (width, stride)) in frame.planes().iter().zip(rows) {
        offsets.push(bytes.len());
        for row in plane.chunks_exact(width) {
            bytes.extend_from_slice(row);
            bytes.resize(bytes.len() + stride - width, 7);
        }
    }
    let mut given = gst::Buffer::from_slice(bytes);
    let (flags, strides) = (gst_video::VideoFrameFlags::empty(), rows.map(|(_, stride)| stride as i32));
    let (format, [width, height]) = (gst_video::VideoFormat::I420, [SIZE.0 as u32, SIZE.1 as u32]);
    gst_video::VideoMeta::add_full(given.make_mut(), flags, format, width, height, &offsets, &strides)
        .unwrap();
    let whole = harness("").push_and_pull(buffer(0)).unwrap();
    let out = harness("").push_and_pull(given).unwrap();
    assert_eq!(metas(&out), metas(&whole));
    let (out, whole) = (out.map_readable().unwrap(), whole.map_readable().unwrap());
    let mut expected = whole.as_slice();
    for (offset, (width, stride)) in offsets.iter().zip(rows) {
        for row in out[*offset..].chunks(stride).take(if width == SIZE.0 { SIZE.1 } else { SIZE.1 / 2 }) {
            let (now, rest) = expected.split_at(width);
            assert!(row[..width] == *now && row[width..].iter().all(|&x| x == 7));
            expected = rest;
        }
    }
}

/// The events that a source sends after a flush.
fn flush(harness: &mut gst_check::Harness) {
    assert!(harness.push_event(gst::event::FlushStart::new()));
    assert!(harness.push_event(gst::event::FlushStop::new(true)));
    assert!(harness.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new())));
}

#[test]
fn after_the_end_of_a_stream_and_a_flush_another_one_is_named() {
    let mut harness = harness("draw=false");
    let bus = watch(&harness);
    let (expected, _) = &*OF_STREAM;
    for _ in 0..2 {
        let found: Vec<_> =
            (0..9).map(|at| only_names(&harness.push_and_pull(buffer(at)).unwrap())).collect();
        assert_eq!(found, expected[..9]);
        assert!(harness.push_event(gst::event::Eos::new()));
        let told = events(&bus);
        let of = |kind: &str| {
            let mut names: Vec<_> = told.iter().filter_map(|event| event.strip_prefix(kind)).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(of("appeared "), of("left "), "who has come has left at the end");
        assert_eq!(harness.push(buffer(9)), Err(gst::FlowError::Eos));
        flush(&mut harness);
    }
}

#[test]
fn another_format_in_the_middle_names_the_same_people() {
    let mut harness = harness("draw=false");
    let (expected, _) = &*OF_STREAM;
    for index in 0..12 {
        let [y, u, v] = WORLD.frames[index].picture.planes();
        let bytes: Vec<u8> = match index / 4 {
            1 => [y.to_vec(), u.iter().zip(v).flat_map(|(u, v)| [*u, *v]).collect()].concat(),
            _ => [y, u, v].concat(),
        };
        if index % 4 == 0 {
            harness.set_src_caps_str(&caps(["I420", "NV12", "I420"][index / 4], SIZE));
        }
        let mut given = gst::Buffer::from_slice(bytes);
        given.make_mut().set_pts(gst::ClockTime::from_nseconds(WORLD.frames[index].pts_ns));
        let found = only_names(&harness.push_and_pull(given).unwrap());
        // The whole frame is searched again, so that faces that are hard to find may be found or lost.
        let known =
            |names: &[String]| names.iter().filter(|name| ["Ada", "Boris"].contains(&name.as_str())).count();
        assert!(
            found.len().abs_diff(expected[index].len()) <= 1,
            "{index}: {found:?}, {:?}",
            expected[index]
        );
        assert!(
            known(&found) > 0 || known(&expected[index]) == 0,
            "{index}: {found:?}, {:?}",
            expected[index]
        );
    }
    // A segment that continues without a flush, times that decrease, and no times at all.
    assert!(harness.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new())));
    for time in [Some(5), Some(4), None, None, Some(100)] {
        let mut given = buffer(0);
        given.make_mut().set_pts(time.map(gst::ClockTime::from_seconds));
        let out = harness.push_and_pull(given).unwrap();
        assert_eq!(only_names(&out).len(), expected[0].len(), "at {time:?}");
    }
}

/// A pipeline over the sample, and the names that its buffers have.
fn playing() -> (gst::Pipeline, Arc<Mutex<Vec<Vec<String>>>>) {
    let description = format!(
        "filesrc location={} ! decodebin name=decode videoconvert name=convert ! sphereface gallery={} \
         ! fakesink name=sink sync=false",
        sample("sample.mp4").display(),
        WORLD.gallery.display()
    );
    let pipeline = gst::parse::launch(&description).unwrap().downcast::<gst::Pipeline>().unwrap();
    // Not by `!` in the description: that links the first time only, and decodebin makes its pads each time.
    let convert = pipeline.by_name("convert").unwrap().static_pad("sink").unwrap();
    pipeline.by_name("decode").unwrap().connect_pad_added(move |_, pad| {
        if pad.can_link(&convert) {
            pad.link(&convert).unwrap();
        }
    });
    let found: Arc<Mutex<Vec<Vec<String>>>> = Arc::default();
    let told = Arc::clone(&found);
    let sink = pipeline.by_name("sink").unwrap();
    sink.static_pad("sink").unwrap().add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer() {
            told.lock().unwrap().push(only_names(buffer));
        }
        gst::PadProbeReturn::Ok
    });
    (pipeline, found)
}

/// Waits for one of two messages for at most `seconds`; an error fails the test.
fn wait(pipeline: &gst::Pipeline, wanted: gst::MessageType, seconds: u64) {
    let kinds = [wanted, gst::MessageType::Error];
    let message = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(seconds), &kinds);
    if let gst::MessageView::Error(error) = message.expect("a message in time").view() {
        panic!("{error:?}");
    }
}

#[test]
fn seeks_while_it_plays_are_survived() {
    let (expected, _) = &*OF_STREAM;
    let (pipeline, found) = playing();
    pipeline.set_state(gst::State::Paused).unwrap();
    wait(&pipeline, gst::MessageType::AsyncDone, 60);
    pipeline.set_state(gst::State::Playing).unwrap();
    for at in [900, 0, 400, 1200, 100] {
        let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT;
        pipeline.seek_simple(flags, gst::ClockTime::from_mseconds(at)).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(30));
    }
    wait(&pipeline, gst::MessageType::Eos, 120);
    let last = found.lock().unwrap().last().cloned().unwrap();
    assert!(!last.is_empty() || expected.last().unwrap().is_empty());
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn another_gallery_is_read_while_it_runs_and_one_that_cannot_be_is_told() {
    LazyLock::force(&WORLD);
    let mut harness = gst_check::Harness::new_parse("sphereface draw=false");
    harness.set_src_caps_str(&caps("I420", SIZE));
    let bus = watch(&harness);
    let out = harness.push_and_pull(buffer(0)).unwrap();
    assert!(metas(&out).iter().all(|(name, _)| name.starts_with("Unknown") || name == "unknown"));
    let element = harness.find_element("sphereface").unwrap();
    element.set_property("gallery", "/no/such/gallery");
    harness.push_and_pull(buffer(1)).unwrap();
    let warning = bus.pop_filtered(&[gst::MessageType::Warning]).expect("a warning");
    let gst::MessageView::Warning(warning) = warning.view() else { panic!("asked for warnings") };
    assert!(warning.error().to_string().contains("/no/such/gallery"), "{}", warning.error());
    element.set_property("gallery", WORLD.gallery.to_str().unwrap());
    let named: Vec<String> =
        (2..12).flat_map(|at| only_names(&harness.push_and_pull(buffer(at)).unwrap())).collect();
    assert!(named.iter().any(|name| name == "Ada" || name == "Boris"), "{named:?}");
}

#[test]
fn what_makes_no_sense_is_an_error_that_says_why() {
    LazyLock::force(&WORLD);
    for (properties, reason) in [
        ("gallery=/no/such/gallery", "/no/such/gallery"),
        ("min-face=5px", "12 pixels"),
        ("redact=somebody", "does not select any faces"),
        ("model=no-such-model", "no-such-model"),
    ] {
        let pipeline =
            gst::parse::launch(&format!("videotestsrc ! sphereface {properties} ! fakesink")).unwrap();
        let _ = pipeline.set_state(gst::State::Playing);
        let bus = pipeline.bus().unwrap();
        let error = bus.timed_pop_filtered(gst::ClockTime::from_seconds(20), &[gst::MessageType::Error]);
        let error = error.expect("an error");
        let gst::MessageView::Error(error) = error.view() else { panic!("asked for errors") };
        assert!(error.error().to_string().contains(reason), "{}", error.error());
        pipeline.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn a_decoded_file_has_the_names_that_a_live_stream_gives_frame_by_frame_each_time_it_is_played() {
    let (expected, expected_events) = &*OF_STREAM;
    assert!(expected.iter().flatten().any(|name| name == "Ada"), "somebody is named");
    let (pipeline, found) = playing();
    for _ in 0..2 {
        pipeline.set_state(gst::State::Playing).unwrap();
        let bus = pipeline.bus().unwrap();
        let mut told_events = Vec::new();
        for message in bus.iter_timed(gst::ClockTime::from_seconds(300)) {
            match message.view() {
                gst::MessageView::Element(_) => {
                    let structure = message.structure().unwrap();
                    if structure.name() == "sphereface-event" {
                        told_events.push(event(structure));
                    }
                }
                gst::MessageView::Error(error) => panic!("{error:?}"),
                gst::MessageView::Eos(_) => break,
                _ => {}
            }
        }
        pipeline.set_state(gst::State::Null).unwrap();
        assert_eq!(std::mem::take(&mut *found.lock().unwrap()), *expected);
        assert_eq!(told_events.len(), expected_events.len());
    }
}

/// A folder with only the plugin.
static PLUGIN: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let name = "libgstsphereface.so";
    let test = std::env::current_exe().unwrap();
    // Cargo builds it beside the tests, and links it into the folder above if it is built on its own.
    let built = test.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.exists());
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(built.expect("cargo builds the plugin"), folder.path().join(name)).unwrap();
    folder
});

#[test]
fn gst_launch_tells_the_same_names_and_gst_inspect_explains_the_element() {
    let registry = tempfile::tempdir().unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let done = Command::new(program)
            .args(arguments)
            .env("GST_PLUGIN_PATH", PLUGIN.path())
            .env("GST_REGISTRY", registry.path().join("registry.bin"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success(), "{text}{}", String::from_utf8_lossy(&done.stderr));
        text
    };
    let inspected = run("gst-inspect-1.0", &["sphereface"]);
    for text in
        ["Face recognition", "gallery ", "threshold ", "detect-every", "redact ", "precision", "I420", "bf16"]
    {
        assert!(inspected.contains(text), "{text}: {inspected}");
    }
    let (location, gallery) = (sample("sample.mp4"), &WORLD.gallery);
    let description = format!(
        "filesrc location={} ! decodebin ! videoconvert ! sphereface gallery={} post-frames=true ! fakesink sync=false",
        location.display(),
        gallery.display()
    );
    let words: Vec<&str> = ["-m"].into_iter().chain(description.split(' ')).collect();
    let told = run("gst-launch-1.0", &words);
    let frames: Vec<Vec<String>> =
        told.lines().filter(|line| line.contains("sphereface-frame, ")).map(names_in).collect();
    let (expected, _) = &*OF_STREAM;
    assert_eq!(&frames, expected);
    assert!(
        told.lines().any(|line| line.contains("sphereface-event, event=(string)appeared, name=(string)Ada"))
    );
}

#[test]
fn the_example_of_the_page_runs() {
    let page = include_str!("../../../docs/gstreamer.md");
    let example = page.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(sample("").canonicalize().unwrap(), folder.path().join("samples")).unwrap();
    std::os::unix::fs::symlink(&WORLD.gallery, folder.path().join("gallery")).unwrap();
    let done = Command::new("sh")
        .args(["-c", example])
        .current_dir(folder.path())
        .env("GST_PLUGIN_PATH", PLUGIN.path())
        .env("GST_REGISTRY", folder.path().join("registry.bin"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{told}{}", String::from_utf8_lossy(&done.stderr));
    assert!(told.contains("sphereface-event, event=(string)appeared, name=(string)Ada"), "{told}");
    assert!(folder.path().join("named.mkv").metadata().unwrap().len() > 10_000);
}

/// The names in a message as `gst-launch-1.0 -m` prints it, with structures in structures as texts.
fn names_in(line: &str) -> Vec<String> {
    let plain = line.replace('\\', "");
    let one = |part: &str| part.split(',').next().unwrap_or_default().trim_matches('"').to_owned();
    plain.split("name=(string)").skip(1).map(one).collect()
}
