//! The library as another program uses it: engine, gallery, streams, recogniser, and jobs that call back.
#![cfg(all(
    feature = "bundled-models",
    feature = "candle",
    feature = "cli",
    feature = "train",
    feature = "video"
))]

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::thread;

use sphereface::analysis::Analysis;
use sphereface::annotate::{Cover, Redactor, Whom};
use sphereface::gallery::{Choice, GalleryFolder, NewStill, PersonName};
use sphereface::media::{Frame, Input, Sink, SinkOptions, Source, SourceOptions, read_still};
use sphereface::nn::{Arithmetic, ArithmeticChoice, Device, DeviceChoice, Isa};
use sphereface::pipeline::redact::Redaction;
use sphereface::pipeline::{Control, LabelError, LabelJob, Mode, Pictures, RequestError, Subscriber};
use sphereface::report::Audit;
use sphereface::{
    Engine, EngineError, Event, EventKind, Gallery, IdentifiedFace, LabelledFrame, Output, Recogniser,
    Stream, StreamOptions,
};

/// Frames of the sample around its cut.
const FRAMES: std::ops::Range<u64> = 176..224;

/// Shared by all tests: the engine, a gallery of two of the three people, and a short video.
struct World {
    engine: Engine,
    gallery: Gallery,
    clip: PathBuf,
    _folder: tempfile::TempDir,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::builder().threads(2).build().unwrap();
    let people = GalleryFolder::create(&folder.path().join("gallery")).unwrap();
    for name in ["Ada", "Boris"] {
        let still =
            |number: u32| NewStill::read(&person(name, number), Choice::Largest, engine.detector()).unwrap();
        people.enroll(&PersonName::new(name).unwrap(), vec![still(1), still(2)]).unwrap();
    }
    let gallery = Gallery::open(&engine, folder.path().join("gallery")).unwrap();
    let clip = folder.path().join("clip.mkv");
    write_clip(&clip);
    World { engine, gallery, clip, _folder: folder }
});

fn sample(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(path)
}

fn person(name: &str, number: u32) -> PathBuf {
    sample(&format!("people/{name}/{number}.jpg"))
}

fn write_clip(path: &Path) {
    let mut source = Source::open(&Input::File(sample("sample.mp4")), &SourceOptions::default()).unwrap();
    let info = source.info().clone();
    let mut sink = Sink::create(path, &info, source.take_audio(), &SinkOptions::default()).unwrap();
    while let Some(frame) = source.next_frame().unwrap() {
        if FRAMES.contains(&frame.index) {
            let start = FRAMES.start;
            sink.write(Frame { index: frame.index - start, pts_ns: frame.pts_ns, ..frame }).unwrap();
        }
    }
    sink.finish().unwrap();
}

fn frames() -> Vec<Frame> {
    let mut source = Source::open(&Input::File(WORLD.clip.clone()), &SourceOptions::default()).unwrap();
    std::iter::from_fn(|| source.next_frame().unwrap()).collect()
}

fn job<'a>() -> LabelJob<'a> {
    LabelJob::new(&WORLD.engine, Input::File(WORLD.clip.clone())).gallery(&WORLD.gallery)
}

fn names(faces: &[IdentifiedFace]) -> Vec<&str> {
    faces.iter().filter_map(IdentifiedFace::name).collect()
}

/// Frames and events of a stream over all frames.
fn through(mut stream: Stream, frames: &[Frame]) -> (Vec<LabelledFrame>, Vec<Event>) {
    let (mut labelled, mut events) = (Vec::new(), Vec::new());
    let mut pull = |stream: &mut Stream| {
        while let Some(output) = stream.pull() {
            match output {
                Output::Frame(frame) => labelled.push(frame),
                Output::Event(event) => events.push(event),
                _ => panic!("something new comes out of a stream"),
            }
        }
    };
    for frame in frames {
        stream.push(frame.clone()).unwrap();
        pull(&mut stream);
    }
    stream.finish().unwrap();
    pull(&mut stream);
    (labelled, events)
}

fn stream(live: bool) -> Stream {
    Stream::new(&WORLD.engine, Some(&WORLD.gallery), StreamOptions::default().live(live))
}

#[test]
fn a_stream_says_what_a_job_in_one_pass_says() {
    let mut of_job: Vec<LabelledFrame> = Vec::new();
    job()
        .mode(Mode::Online)
        .on_frame(|frame| of_job.push(frame.clone()))
        .run(&Control::new(), &mut |_| {})
        .unwrap();
    let (of_stream, _) = through(stream(false), &frames());
    assert_eq!(of_stream.len(), (FRAMES.end - FRAMES.start) as usize);
    assert_eq!(of_stream.len(), of_job.len());
    for (a, b) in of_stream.iter().zip(&of_job) {
        assert_eq!((a.index, a.pts_ns, a.duration_ns, a.cut), (b.index, b.pts_ns, b.duration_ns, b.cut));
        assert_eq!(a.faces, b.faces, "frame {}", a.index);
    }
    assert!(of_stream.iter().any(|frame| names(&frame.faces).contains(&"Boris")), "somebody is named");
    assert!(of_stream.iter().any(|frame| frame.cut), "the cut is seen");
}

#[test]
fn streams_of_one_engine_do_not_change_each_other() {
    let frames = frames();
    let (alone, events) = through(stream(true), &frames);
    let both: Vec<_> = thread::scope(|scope| {
        let run = || through(stream(true), &frames);
        let threads = [scope.spawn(run), scope.spawn(run)];
        threads.map(|thread| thread.join().unwrap()).into()
    });
    for (frames, events_of_this) in &both {
        assert_eq!(events_of_this, &events);
        for (a, b) in frames.iter().zip(&alone) {
            assert_eq!(a.faces, b.faces, "frame {}", a.index);
        }
    }
}

#[test]
fn a_live_stream_answers_every_frame_at_once_and_everybody_leaves_at_the_end() {
    let frames = frames();
    let mut one = stream(true);
    one.push(frames[0].clone()).unwrap();
    assert!(matches!(one.pull(), Some(Output::Frame(frame)) if frame.index == 0));
    let (_, events) = through(stream(true), &frames);
    let count = |kind: &EventKind| events.iter().filter(|event| event.kind == *kind).count();
    assert!(count(&EventKind::Appeared) > 0);
    let renamed_into_sight = |event: &&Event| {
        let same = |other: &&Event| other.kind == EventKind::Appeared && other.who == event.who;
        matches!(event.kind, EventKind::Renamed { .. }) && events.iter().any(|other| same(&other))
    };
    let merged = events.iter().filter(renamed_into_sight).count();
    assert_eq!(count(&EventKind::Left) + merged, count(&EventKind::Appeared), "{events:?}");
}

#[test]
fn another_gallery_takes_its_place_while_a_stream_runs() {
    let frames = frames();
    let mut stream = Stream::new(&WORLD.engine, None, StreamOptions::default());
    let (before, after) = frames.split_at(16);
    let push = |stream: &mut Stream, frames: &[Frame]| {
        frames.iter().for_each(|frame| stream.push(frame.clone()).unwrap());
        std::iter::from_fn(|| stream.pull()).collect::<Vec<_>>()
    };
    for output in push(&mut stream, before) {
        assert!(
            !matches!(output, Output::Frame(frame) if !names(&frame.faces).is_empty()),
            "nobody has a name"
        );
    }
    stream.set_gallery(Some(&WORLD.gallery)).unwrap();
    let first = push(&mut stream, &after[..1]);
    assert!(
        matches!(&first[0], Output::Frame(frame) if names(&frame.faces).contains(&"Boris")),
        "people in sight are judged anew: {first:?}"
    );
    assert!(
        first.iter().any(|output| matches!(output, Output::Event(event)
            if event.who.name() == Some("Boris") && matches!(event.kind, EventKind::Renamed { .. }))),
        "{first:?}"
    );
}

#[test]
fn a_job_in_two_passes_tells_of_every_frame_with_its_picture_and_of_who_comes_and_goes() {
    let mut pictures: Vec<(u64, usize, Vec<String>)> = Vec::new();
    let mut told: Vec<String> = Vec::new();
    let mut plain = 0;
    let summary = job()
        .on_picture(|frame| {
            let picture = frame.picture.as_ref().unwrap();
            let names = names(&frame.faces).into_iter().map(str::to_owned).collect();
            pictures.push((frame.index, picture.width(), names));
        })
        .on_frame(|frame| {
            assert!(frame.picture.is_none());
            plain += 1;
        })
        .on_event(|event| told.push(format!("{} {:?}", event.who, event.kind)))
        .run(&Control::new(), &mut |_| {})
        .unwrap();
    let frames = FRAMES.end - FRAMES.start;
    assert_eq!((summary.frames, plain, pictures.len() as u64), (frames, frames, frames));
    assert!(pictures.iter().zip(0..).all(|((index, width, _), at)| *index == at && *width == 768));
    assert_eq!(summary.named, pictures.iter().map(|(_, _, names)| names.len() as u64).sum::<u64>());
    assert_eq!(told.iter().filter(|event| *event == "Boris Appeared").count(), 1, "{told:?}");
    assert_eq!(told.iter().filter(|event| *event == "Boris Left").count(), 1, "{told:?}");
    assert!(told.iter().all(|event| !event.contains("Renamed")), "decided with all in view: {told:?}");
}

#[test]
fn stills_are_named_by_a_recogniser_and_strangers_are_not() {
    let recogniser = Recogniser::new(&WORLD.engine, &WORLD.gallery);
    for (who, number, expected) in [("Ada", 3, Some("Ada")), ("Boris", 3, Some("Boris")), ("Chloé", 1, None)]
    {
        let faces = recogniser.name(&read_still(&person(who, number)).unwrap()).unwrap();
        assert_eq!(faces.len(), 1, "{who}");
        assert_eq!(faces[0].name(), expected);
        assert!(faces[0].angle_deg().is_some() && faces[0].embedding.is_some());
    }
    let nobody = Recogniser::without_gallery(&WORLD.engine);
    let faces = nobody.name(&read_still(&person("Ada", 1)).unwrap()).unwrap();
    assert!(faces.len() == 1 && faces[0].name().is_none() && faces[0].embedding.is_none());
}

/// An engine that computes in bf16 on `threads` threads; `None`, with a message, if the CPU has no
/// instruction for it.
fn in_bf16(threads: usize) -> Option<Engine> {
    let builder = Engine::builder().device(DeviceChoice::Cpu).threads(threads);
    match builder.precision(Arithmetic::Bf16).build() {
        Ok(engine) => Some(engine),
        Err(EngineError::Precision(error)) => {
            println!("skipped: {error}");
            None
        }
        Err(other) => panic!("{other}"),
    }
}

/// Every face of the clip, frame by frame.
fn labelled_by(engine: &Engine, mode: Mode) -> Vec<Vec<IdentifiedFace>> {
    let mut frames = Vec::new();
    LabelJob::new(engine, Input::File(WORLD.clip.clone()))
        .gallery(&WORLD.gallery)
        .mode(mode)
        .on_frame(|frame| frames.push(frame.faces.clone()))
        .run(&Control::new(), &mut |_| {})
        .unwrap();
    assert!(frames.iter().flatten().any(|face| face.name() == Some("Boris")));
    frames
}

#[test]
fn an_engine_tells_its_arithmetic_and_an_analysis_records_it() {
    let on_cpu = || Engine::builder().device(DeviceChoice::Cpu).threads(1);
    let device = Device::open(DeviceChoice::Cpu, Isa::best()).unwrap();
    let chosen = ArithmeticChoice::Auto.resolve(&device, true).unwrap();
    assert_eq!(on_cpu().build().unwrap().arithmetic(), chosen, "auto is the default");
    let in_f32 = on_cpu().precision(Arithmetic::F32).build().unwrap();
    assert_eq!(in_f32.arithmetic().to_string(), "f32 (requested)");
    let folder = tempfile::tempdir().unwrap();
    for engine in [Some(in_f32), in_bf16(1)].into_iter().flatten() {
        let path = folder.path().join("clip.parquet");
        LabelJob::new(&engine, Input::File(WORLD.clip.clone()))
            .analysis(&path)
            .run(&Control::new(), &mut |_| {})
            .unwrap();
        let analysis = Analysis::read(&path).unwrap();
        assert_eq!(analysis.arithmetic, engine.arithmetic().arithmetic);
        assert_eq!(analysis.arithmetic, engine.embedder().arithmetic());
    }
}

#[test]
fn labels_in_bf16_are_the_same_for_any_number_of_threads() {
    let (Some(one), Some(two)) = (in_bf16(1), in_bf16(2)) else { return };
    for mode in [Mode::TwoPass, Mode::PerFrame] {
        assert_eq!(labelled_by(&one, mode), labelled_by(&two, mode), "{mode:?}");
    }
}

#[test]
fn angles_differ_by_less_than_half_a_degree_between_arithmetics() {
    let Some(in_bf16) = in_bf16(2) else { return };
    let in_f32 = Engine::builder().device(DeviceChoice::Cpu).precision(Arithmetic::F32).threads(2);
    let in_f32 = in_f32.build().unwrap();
    // Every face of the clip against its nearest person.
    let all = [&in_f32, &in_bf16].map(|engine| labelled_by(engine, Mode::PerFrame).concat());
    assert_eq!(all[0].len(), all[1].len());
    for (a, b) in all[0].iter().zip(&all[1]) {
        assert_eq!(a.name(), b.name());
        let (a, b) = (a.angle_deg().unwrap(), b.angle_deg().unwrap());
        assert!((a - b).abs() < 0.5, "{a} {b}");
    }
    // Every still of the sample against every other, also with one of the two from the other arithmetic.
    let stills =
        ["Ada", "Boris", "Chloé"].into_iter().flat_map(|name| [1, 2, 3].map(|number| person(name, number)));
    let crop = |still: PathBuf| in_f32.detect(&read_still(&still).unwrap()).unwrap().remove(0).crop.unwrap();
    let crops: Vec<_> = stills.map(crop).collect();
    let [precise, fast] = [&in_f32, &in_bf16].map(|engine| engine.embed(crops.clone()).unwrap());
    let mut most = 0.0f64;
    for a in 0..crops.len() {
        for b in (0..crops.len()).filter(|&b| b != a) {
            let expected = precise[a].angle_deg(&precise[b]).unwrap();
            for found in [fast[a].angle_deg(&fast[b]), fast[a].angle_deg(&precise[b])] {
                most = most.max((found.unwrap() - expected).abs());
            }
        }
    }
    println!("angles differ by {most:.3} degrees at most");
    assert!(most < 0.5, "{most}");
}

/// Collects every frame, with those pictures.
struct Collects<'a>(Pictures, &'a RefCell<Vec<LabelledFrame>>);

impl Subscriber for Collects<'_> {
    fn pictures(&self) -> Pictures {
        self.0
    }

    fn frame(&mut self, frame: &LabelledFrame) -> Result<(), LabelError> {
        self.1.borrow_mut().push(frame.clone());
        Ok(())
    }
}

#[test]
fn subscribers_receive_covered_pictures_with_names_or_without() {
    let all = [Pictures::None, Pictures::Plain, Pictures::Named].map(|kind| (kind, RefCell::default()));
    let redaction = Redaction {
        whom: Whom::Unknown,
        redactor: Redactor::new(Cover::Solid, 0.0).unwrap(),
        hold_frames: 3,
        audit: Audit::new(None),
    };
    let mut job = job().redaction(Some(redaction));
    for (kind, frames) in &all {
        job = job.subscriber(Collects(*kind, frames));
    }
    let folder = tempfile::tempdir().unwrap();
    let summary = job.output(folder.path().join("out.mkv")).run(&Control::new(), &mut |_| {}).unwrap();
    let [none, plain, named] = all.map(|(_, frames)| frames.into_inner());
    let decoded = frames();
    assert_eq!([none.len(), plain.len(), named.len()], [decoded.len(); 3]);
    let (mut covered, mut drawn) = (0, 0);
    for (((none, plain), named), decoded) in none.iter().zip(&plain).zip(&named).zip(&decoded) {
        assert!(none.picture.is_none());
        for other in [plain, named] {
            assert_eq!((other.index, other.pts_ns), (none.index, none.pts_ns));
            assert_eq!((&other.faces, &other.covered), (&none.faces, &none.covered));
        }
        let [plain_picture, named_picture] = [plain, named].map(|one| one.picture.as_deref().unwrap());
        let changed = plain_picture != &*decoded.picture;
        assert_eq!(changed, !plain.covered.is_empty(), "frame {}", plain.index);
        let width = plain_picture.width();
        for bbox in &plain.covered {
            let [x, y] = [(bbox.x1 + bbox.x2) / 2.0, (bbox.y1 + bbox.y2) / 2.0].map(|x| x as usize);
            assert_eq!(plain_picture.planes()[0][y * width + x], 16, "black in the middle of {bbox:?}");
        }
        let shown = plain.faces.iter().any(|face| !face.transient);
        assert_eq!(plain_picture != named_picture, shown, "frame {}", plain.index);
        covered += u64::from(changed);
        drawn += u64::from(shown);
    }
    assert!(covered > 20 && drawn > 40, "{covered} {drawn}");
    assert_eq!(summary.redacted.unwrap().frames_covered, covered);
}

#[test]
fn a_subscriber_that_fails_ends_the_job_and_no_output_is_left() {
    struct Fails;
    impl Subscriber for Fails {
        fn pictures(&self) -> Pictures {
            Pictures::Plain
        }

        fn frame(&mut self, frame: &LabelledFrame) -> Result<(), LabelError> {
            match frame.index {
                5 => Err(LabelError::Subscriber("enough".into())),
                _ => Ok(()),
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.mkv");
    let error = job().mode(Mode::Online).output(&output).subscriber(Fails).run(&Control::new(), &mut |_| {});
    assert_eq!(error.unwrap_err().to_string(), "enough");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_request_that_makes_no_sense_is_refused_before_anything_is_opened() {
    let missing = || LabelJob::new(&WORLD.engine, Input::File("no/such/video.mp4".into()));
    let refused = |job: LabelJob<'_>| job.request().check().unwrap_err();
    assert_eq!(refused(missing().analysis("a.json")), RequestError::AnalysisName("a.json".into()));
    let still = || LabelJob::new(&WORLD.engine, Input::Still("a.jpg".into()));
    assert_eq!(refused(still().mode(Mode::Online)), RequestError::StillAsVideo);
    assert_eq!(refused(still().output("a.mp4")), RequestError::StillToVideo("a.mp4".into()));
    assert_eq!(refused(still().analysis("a.parquet")), RequestError::AnalysisOfStill);
    assert!(missing().output("b.mp4").request().check().is_ok());
}
