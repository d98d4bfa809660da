//! `sphereface label`: names people in a video or a still.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::options::{
    self, DetectionArgs, DeviceArgs, MarginArgs, ModelArgs, PrecisionArgs, ThreadArgs, ThresholdArgs,
};
use super::results::{Lists, RedactArgs, ResultArgs, is_standard_output};
use super::terminal::Signals;
use super::{UsageError, faces, outputs};
use sphereface::analysis::Analysis;
use sphereface::annotate::Style;
use sphereface::embed::{Embedder, Mirror};
use sphereface::engine::{DetectEvery, Engine, EngineBuilder, Gallery, GalleryOptions};
use sphereface::file::counted;
use sphereface::media::{Input, MediaError};
use sphereface::nn::{Arithmetic, ArithmeticChoice, Device};
#[cfg(feature = "video")]
use sphereface::pipeline::label;
use sphereface::pipeline::{
    Control, LabelError, LabelJob, LabelRequest, LabelSummary, Mode, Pass, Progress, RelabelJob, RequestError,
};
use sphereface::report::timeline::TimecodeError;
use sphereface::report::{Appearance, ReportError};

/// Label everyone you enrolled in a video or a still
///
/// Everyone else stays unknown. The sound is kept. Files are processed in two passes so that names are
/// correct from the first frame. Live inputs are labelled as they arrive.
///
/// Ctrl-C finishes the outputs and stops. A second Ctrl-C stops at once and leaves no output. If
/// interrupted during the second pass, the video is cut short, but reports and analysis are complete.
///
/// If the input delivers nothing for 30 s, or changes to a format that one video cannot hold, the
/// outputs end there, complete, and the exit code is 3.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface label party.mp4 -o named.mp4 --gallery gallery\n  \
    sphereface label group.jpg -o named.jpg --gallery gallery --style text=name\n  \
    sphereface label group.jpg --xmp --gallery gallery\n  \
    sphereface label talk.mkv --no-video --jsonl faces.jsonl --gallery staff\n  \
    sphereface label talk.mkv --no-video --analysis talk.parquet\n  \
    sphereface label talk.parquet --jsonl faces.jsonl --gallery staff --threshold 66deg\n  \
    sphereface label talk.mov --no-video --gallery staff --timeline talk.fcpxml --timecode 01:00:00:00\n  \
    sphereface label talk.mkv --no-video --gallery staff --html talk.html --analysis talk.parquet\n  \
    sphereface label street.mp4 -o out.mp4 --gallery staff --redact unknown --redact-audit audit.jsonl\n  \
    sphereface label webcam --view --gallery family")]
pub struct LabelArgs {
    /// Input: a video or image file, rtsp://..., http(s)://..., webcam, /dev/video0, gst:PIPELINE, standard
    /// input (-) or a FIFO (read once, as with --online), or a .parquet file written by --analysis
    /// (labelled without decoding the video)
    input: OsString,
    /// Annotated video (.mp4, .mkv, .webm) or still (.jpg, .png, ...) to write
    #[arg(short, long, value_name = "FILE", conflicts_with = "no_video")]
    output: Option<PathBuf>,
    /// Write no annotated video; report only who was seen
    #[arg(long)]
    no_video: bool,
    /// Gallery of the people to name; without it, faces are found and everyone is unknown
    #[arg(long, value_name = "DIR", help_heading = "Recognition")]
    gallery: Option<PathBuf>,
    /// Average the embeddings of each face and its mirror image: slightly more accurate, twice the work
    #[arg(long, help_heading = "Recognition")]
    mirror: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    threshold: ThresholdArgs,
    #[command(flatten)]
    margin: MarginArgs,
    /// Label in one pass, using only the frames seen so far, as for live inputs
    #[arg(long, help_heading = "Recognition")]
    online: bool,
    /// Identify every face independently, without tracking (baseline): slower, and names flicker
    #[arg(long, conflicts_with_all = ["online", "detect_every"], help_heading = "Recognition")]
    per_frame: bool,
    #[command(flatten)]
    detection: DetectionArgs,
    /// Frames between two detection passes over the whole frame, 1 to 32. In between, known faces are
    /// followed. auto: at most 8, and regions that changed are searched in between
    #[arg(long, value_name = "N|auto", default_value_t = DetectEvery::Auto, help_heading = "Detection")]
    detect_every: DetectEvery,
    #[command(flatten)]
    encoding: EncodingArgs,
    /// Save the tracks and embeddings to this Parquet file, to label the video again with another
    /// gallery or threshold without decoding it
    #[arg(long, value_name = "FILE.parquet", help_heading = "Results")]
    analysis: Option<PathBuf>,
    /// Video that the input analysis was made from [default: the one beside the analysis]
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    video: Option<PathBuf>,
    #[command(flatten)]
    results: ResultArgs,
    #[command(flatten)]
    redact: RedactArgs,
    /// Show the labelled video in a window
    #[arg(long, help_heading = "Results")]
    view: bool,
    /// Appearance of boxes and names, for example width=3,text=name,unknown=hide
    #[arg(long, value_name = "SETTINGS", default_value_t = Style::default(), help_heading = "Results")]
    style: Style,
    /// End the outputs when nothing has arrived for this many seconds. The first picture may take at least 20
    /// s. A lost RTSP stream is reconnected instead [default: 30]
    #[arg(
        long,
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=86_400),
        help_heading = "Running"
    )]
    patience: Option<u64>,
    /// Treat the input as live: drop the oldest frames instead of falling behind
    #[arg(long, help_heading = "Running")]
    live: bool,
    #[command(flatten, next_help_heading = "Running")]
    device: DeviceArgs,
    #[command(flatten, next_help_heading = "Running")]
    threads: ThreadArgs,
    /// At the end, explain the decision about every track: the nearest still and its angle, the
    /// runner-up, the votes of single views, and the quality of the best view
    #[arg(long, conflicts_with = "quiet", help_heading = "Results")]
    explain: bool,
    /// At the end, list every stranger instead of the ten seen longest
    #[arg(long, conflicts_with = "quiet", help_heading = "Results")]
    all: bool,
    /// At the end, print the time spent in each stage
    #[arg(long, help_heading = "Running")]
    stats: bool,
    /// Print nothing but errors
    #[arg(short, long, help_heading = "Running")]
    quiet: bool,
}

/// The encoding of the video.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Encoding")]
struct EncodingArgs {
    /// Codec [default: H.264, VP8 in .webm]
    #[arg(long, value_enum, default_value_t = CodecName::Auto, hide_default_value = true)]
    codec: CodecName,
    /// Constant quantizer; lower is better quality. 0 to 51 for H.264, 0 to 63 for VP8 and VP9
    /// [default: 23 for H.264, 20 for VP8 and VP9]
    #[arg(long, value_name = "Q", value_parser = clap::value_parser!(u8).range(0..=63))]
    quantizer: Option<u8>,
    /// Encoding effort; slower makes smaller files at the same quality
    #[arg(long, value_enum, default_value_t = SpeedName::Fast)]
    speed: SpeedName,
    /// GStreamer encoder element, for example x264enc [default: the first that works, hardware
    /// encoders first]
    #[arg(long, value_name = "ELEMENT")]
    encoder: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum CodecName {
    Auto,
    H264,
    Vp8,
    Vp9,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum SpeedName {
    Fast,
    Balanced,
    Slow,
}

#[cfg(feature = "video")]
impl EncodingArgs {
    fn options(&self) -> sphereface::media::SinkOptions {
        use sphereface::media::{Codec, SinkOptions, Speed};
        SinkOptions {
            codec: match self.codec {
                CodecName::Auto => Codec::Auto,
                CodecName::H264 => Codec::H264,
                CodecName::Vp8 => Codec::Vp8,
                CodecName::Vp9 => Codec::Vp9,
            },
            quantizer: self.quantizer,
            speed: match self.speed {
                SpeedName::Fast => Speed::Fast,
                SpeedName::Balanced => Speed::Balanced,
                SpeedName::Slow => Speed::Slow,
            },
            encoders: self.encoder.iter().cloned().collect(),
        }
    }
}

/// The input could not be read to its end; the outputs are complete up to there: exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("{0}; the outputs are complete up to there")]
pub struct CutOff(String);

impl LabelArgs {
    /// Labels the input, reports progress, and prints who was seen when.
    pub fn run(mut self) -> Result<()> {
        let input = Input::parse_argument(&self.input).map_err(usage)?;
        if let Input::Still(photo) = &input {
            self.results.name_sidecar(photo);
        }
        self.refuse_nonsense(&input)?;
        let analysed = input.path().filter(|path| Analysis::is_named(path)).map(Path::to_owned);
        let control = Control::new();
        control.set_patience(self.patience.map(Duration::from_secs));
        let progress = Reporter::new(self.quiet);
        let result = match analysed {
            Some(path) => self.relabel(&path, &control, &progress)?,
            None => self.label(input, &control, &progress)?,
        };
        let summary = result.map_err(|error| match error {
            LabelError::Media(error) => usage(error),
            LabelError::Report(ReportError::Timecode(error)) => {
                let flag = match error {
                    TimecodeError::NoRate | TimecodeError::Rate(_) => "--frame-rate",
                    _ => "--timecode",
                };
                UsageError(format!("{flag}: {error}")).into()
            }
            other => other.into(),
        })?;
        if self.stats {
            errln!("{}", summary.statistics);
            errln!("{}", summary.work);
        }
        self.tell(&summary);
        match summary.cut_off {
            Some(reason) => Err(CutOff(reason).into()),
            None => Ok(()),
        }
    }

    /// Detects, tracks and labels the faces of the input.
    fn label(
        &self,
        input: Input,
        control: &Control,
        progress: &Reporter,
    ) -> Result<Result<LabelSummary, LabelError>> {
        #[cfg(feature = "video")]
        self.check_view()?;
        #[cfg(feature = "video")]
        let opening = match self.open(&input, control) {
            Ok(opening) => opening,
            Err(error) => return Ok(Err(error)),
        };
        let engine = self.engine()?;
        let gallery = self.gallery(Some(&engine))?;
        let facts = self.facts(Some(&engine), gallery.as_ref());
        let (output, analysis) = (self.output.as_deref(), self.analysis.as_deref());
        let lists = self.lists(control);
        let page = self.results.page_job(input.path(), output, analysis, facts, &lists)?;
        let mut job = LabelJob::new(&engine, input.clone())
            .detect_every(self.detect_every)
            .mode(self.mode())
            .style(self.style.clone())
            .results(self.results.results(&lists, input.path())?)
            .redaction(self.redact.redaction(self.gallery.as_deref(), &lists)?)
            .page(page)
            .view(self.view);
        #[cfg(feature = "video")]
        {
            job = job.encoding(self.encoding.options()).opening(opening);
        }
        if self.live {
            job = job.live(true);
        }
        if let Some(gallery) = &gallery {
            job = job.gallery(gallery);
        }
        if let Some(output) = output {
            job = job.output(output);
        }
        if let Some(analysis) = analysis {
            job = job.analysis(analysis);
        }
        if let Input::Still(photo) = &input
            && let Some(sidecar) = self.results.sidecar(photo)?
        {
            job = job.subscriber(sidecar);
        }
        let signals = Signals::watch(control)?;
        let result = job.run(control, &mut |event| progress.show(event));
        progress.bar.finish_and_clear();
        signals.close();
        Ok(result)
    }

    /// Loads the detector and the embedding model. Their device and arithmetic are also printed with --stats.
    fn engine(&self) -> Result<Engine> {
        let device = self.device.open()?;
        let engine = self.builder(&device)?.precision(self.precision.precision);
        let engine = engine.build().map_err(options::refused)?;
        if self.stats || !self.quiet {
            options::tell_with(&device, engine.arithmetic());
        }
        Ok(engine)
    }

    fn builder(&self, device: &Device) -> Result<EngineBuilder> {
        Ok(Engine::builder()
            .on(device.clone())
            .model(&self.model.model)
            .detection(self.detection.config()?)
            .mirror(if self.mirror { Mirror::Average } else { Mirror::No })
            .threads(self.threads.count()))
    }

    fn mode(&self) -> Mode {
        match (self.per_frame, self.online) {
            (true, _) => Mode::PerFrame,
            (false, true) => Mode::Online,
            (false, false) => Mode::TwoPass,
        }
    }

    /// Begins to open a video.
    #[cfg(feature = "video")]
    fn open(&self, input: &Input, control: &Control) -> Result<Option<label::PendingSource>, LabelError> {
        if matches!(input, Input::Still(_)) {
            return Ok(None);
        }
        let (output, live) = (self.output.as_deref(), self.live.then_some(true));
        label::open(input, output, self.mode(), live, &self.encoding.options(), control).map(Some)
    }

    /// Refuses a window if there is no display, before any work is done.
    #[cfg(feature = "video")]
    fn check_view(&self) -> Result<(), MediaError> {
        if self.view { sphereface::media::View::check() } else { Ok(()) }
    }

    /// Labels the tracks of an analysis.
    fn relabel(
        &self,
        path: &Path,
        control: &Control,
        progress: &Reporter,
    ) -> Result<Result<LabelSummary, LabelError>> {
        #[cfg(feature = "video")]
        self.check_view()?;
        let analysis = Analysis::read(path)?;
        // The video is no argument if it lies beside the analysis.
        let media = analysis.find_video(path, self.video.as_deref()).ok();
        outputs::refuse_inputs(&self.outputs().collect::<Vec<_>>(), media.as_deref())?;
        let video = match self.output.is_some() || self.view || self.results.page() {
            true => Some(faces::video_of(path, &analysis, self.video.as_deref())?),
            false => None,
        };
        // Without a gallery, strangers are still numbered if the model is the one of the analysis.
        let wanted = self.gallery.is_some() || analysis.model.is_some();
        let engine = wanted.then(|| self.engine_of(&analysis)).transpose()?;
        if let (Some(engine), true) = (&engine, self.gallery.is_some()) {
            analysis.check_model(path, engine.model())?;
        }
        let gallery = self.gallery(engine.as_ref())?;
        let known = engine.as_ref().filter(|engine| analysis.model == Some(engine.model()));
        let facts = self.facts(known, gallery.as_ref());
        let (lists, output) = (self.lists(control), self.output.as_deref());
        // Timelines refer to the video, but do without it.
        let media = self.video.clone().or(media);
        let mut job = RelabelJob::new(&analysis)
            .video(video.clone().map(Input::File))
            .style(self.style.clone())
            .results(self.results.results(&lists, media.as_deref())?)
            .redaction(self.redact.redaction(self.gallery.as_deref(), &lists)?)
            .page(self.results.page_job(video.as_deref(), output, Some(path), facts, &lists)?)
            .view(self.view);
        #[cfg(feature = "video")]
        {
            job = job.encoding(self.encoding.options());
        }
        if let Some(engine) = &engine {
            job = job.engine(engine);
        }
        if let Some(gallery) = &gallery {
            job = job.gallery(gallery);
        }
        if let Some(output) = output {
            job = job.output(output);
        }
        let signals = Signals::watch(control)?;
        let result = job.run(control, &mut |event| progress.show(event));
        progress.bar.finish_and_clear();
        signals.close();
        Ok(result)
    }

    /// Loads the embedding model for an analysis. Only the gallery is embedded, which is done in f32.
    fn engine_of(&self, analysis: &Analysis) -> Result<Engine> {
        let device = self.device.open()?;
        let engine = self.builder(&device)?.precision(Arithmetic::F32).build().map_err(options::refused)?;
        if self.stats || !self.quiet {
            options::tell_of(&device, analysis);
        }
        Ok(engine)
    }

    /// The model, gallery and threshold, as shown on the page.
    fn facts(&self, engine: Option<&Engine>, gallery: Option<&Gallery>) -> Vec<(String, String)> {
        let fact = |heading: &str, text: String| (heading.to_owned(), text);
        let model = engine.map(|engine| {
            let accuracy = accuracy(engine.embedder());
            fact("Model", format!("{} ({}), {accuracy}", self.model.model, engine.model()))
        });
        let threshold = gallery.map(|one| fact("Named below", one.threshold().to_string()));
        let gallery = gallery.zip(self.gallery.as_ref()).map(|(gallery, folder)| {
            let people = counted(gallery.people().len(), "person");
            let templates = counted(gallery.templates_len(), "template");
            fact("Gallery", format!("{}: {people}, {templates}", folder.display()))
        });
        model.into_iter().chain(gallery).chain(threshold).collect()
    }

    /// Opens the lists. If all outputs go to standard output, the run stops when its reader closes it.
    fn lists(&self, control: &Control) -> Lists {
        let only = !self.view && self.outputs().all(|(_, path)| is_standard_output(path));
        Lists::new(only.then(|| control.clone()))
    }

    /// Every requested output with its flag.
    fn outputs(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let own = [
            ("-o", self.output.as_deref()),
            ("--analysis", self.analysis.as_deref()),
            ("--redact-audit", self.redact.redact_audit.as_deref()),
        ];
        own.into_iter().chain(self.results.files()).filter_map(|(flag, path)| Some((flag, path?)))
    }

    /// Opens the gallery, if there is one, and prints which gallery and model are used.
    fn gallery(&self, engine: Option<&Engine>) -> Result<Option<Gallery>> {
        let (Some(folder), Some(engine)) = (&self.gallery, engine) else {
            self.say("no --gallery given: faces are found, and everyone is unknown");
            return Ok(None);
        };
        let options =
            GalleryOptions::default().threshold(self.threshold.request()).margin_deg(self.margin.margin);
        let gallery = Gallery::open_with(engine, folder, &options).map_err(options::refused)?;
        if let Some(error) = gallery.not_saved() {
            self.say(&format!("warning: {error}; the gallery will be embedded again on the next run"));
        }
        let accuracy = accuracy(engine.embedder());
        self.say(&format!("model {} ({}), {accuracy}", self.model.model, engine.model()));
        self.say(&format!(
            "gallery {}: {} people, {} templates; a face is named below {}",
            folder.display(),
            gallery.people().len(),
            gallery.templates_len(),
            gallery.threshold()
        ));
        Ok(Some(gallery))
    }

    /// Refuses contradictory requests before anything is opened.
    fn refuse_nonsense(&self, input: &Input) -> Result<(), UsageError> {
        let refuse = |reason: String| Err(UsageError(reason));
        let analysed = input.path().is_some_and(Analysis::is_named);
        let names = self.results.names_photo().is_some();
        if !self.no_video && !self.view && !names && self.outputs().all(|(flag, _)| flag == "--redact-audit")
        {
            return refuse(
                "there is nothing to do: request an output with -o FILE, --jsonl FILE, --analysis FILE, --html FILE or --view, or give --no-video to print a summary only"
                    .into(),
            );
        }
        let computes = self.precision.precision != ArithmeticChoice::Auto;
        if analysed && (self.analysis.is_some() || self.online || self.per_frame || self.live || computes) {
            return refuse(format!(
                "{input} is already an analysis: --analysis, --online, --per-frame, --live and --precision apply to video only"
            ));
        }
        let looks = self.detect_every != DetectEvery::Auto || !self.detection.is_default() || self.mirror;
        if analysed && looks {
            return refuse(format!(
                "{input} is already an analysis, whose faces were found and embedded before: --min-face, --factor, --scores, --detect-every and --mirror apply to pictures only"
            ));
        }
        if !analysed && self.video.is_some() {
            return refuse(format!("--video applies to analyses only, and {input} is not one: omit it"));
        }
        if self.results.writes_timelines() && matches!(input, Input::Still(_)) {
            return refuse("--timeline applies to video only, and the input is a still: omit it".into());
        }
        if let Some(flag) = self.results.names_photo() {
            if !matches!(input, Input::Still(_)) {
                return refuse(format!("{flag} applies to photos only, and {input} is not one: omit it"));
            }
            if self.gallery.is_none() {
                return refuse(format!("{flag} writes names and needs a gallery: add --gallery DIR"));
            }
        }
        self.results.refuse_formats()?;
        self.refuse_shared(input)?;
        if self.gallery.is_none() && (self.threshold.threshold.is_some() || self.threshold.fmr.is_some()) {
            return refuse("--threshold and --fmr need a gallery: add --gallery DIR".into());
        }
        let request = self.request(input);
        request.check().map_err(|error| UsageError(with_flags(&error, input)))?;
        let still = matches!(input, Input::Still(_));
        if self.explain && (still || (!analysed && request.is_once())) {
            return refuse(
                "--explain works only in two-pass mode, on a video file or an analysis: omit it; --jsonl explains every face"
                    .into(),
            );
        }
        Ok(())
    }

    /// The part of the request that can be checked before anything is opened.
    fn request<'a>(&'a self, input: &'a Input) -> LabelRequest<'a> {
        LabelRequest {
            input,
            output: self.output.as_deref(),
            mode: self.mode(),
            live: self.live,
            view: self.view,
            redacts: self.redact.redact.is_some(),
            page: self.results.page(),
            analysis: self.analysis.as_deref(),
        }
    }

    /// Refuses outputs that would overwrite each other, the input, or the gallery.
    fn refuse_shared(&self, input: &Input) -> Result<(), UsageError> {
        let outputs: Vec<_> = self.outputs().collect();
        outputs::refuse_inputs(&outputs, [input.path(), self.video.as_deref()].into_iter().flatten())?;
        outputs::refuse_shared(&outputs)?;
        match &self.gallery {
            Some(gallery) => outputs::refuse_own(&outputs, gallery, "gallery"),
            None => Ok(()),
        }
    }

    fn say(&self, text: &str) {
        if !self.quiet {
            errln!("{text}");
        }
    }

    /// Prints one line per person.
    fn tell_people(&self, people: &[Appearance]) {
        let (listed, rest) = listed(people, self.all);
        let name = |person: &Appearance| person.who.to_string();
        let width = listed.iter().map(|person| name(person).chars().count()).max().unwrap_or(0);
        for person in listed {
            let spans: Vec<String> = person.spans.iter().map(ToString::to_string).collect();
            let frames = count(person.frames, "frame");
            self.say(&format!("  {:width$}  {frames}, {}", name(person), spans.join(", ")));
        }
        if let Some(most) = rest.first() {
            let (number, most) = (rest.len(), count(most.frames, "frame"));
            self.say(&format!(
                "  and {number} more strangers, each seen for at most {most}: --all lists them"
            ));
        }
    }

    /// Prints who was seen when.
    fn tell(&self, summary: &LabelSummary) {
        let LabelSummary { frames, listed, faces, named, dropped, people, stopped, .. } = summary;
        let mut text = format!(
            "{} in {:.1} s ({:.1} frames/s), {}, {named} named",
            count(*frames, "frame"),
            summary.statistics.wall.as_secs_f64(),
            summary.statistics.items_per_s(),
            count(*faces, "face")
        );
        if *dropped > 0 {
            text += &format!(", {} dropped", count(*dropped, "frame"));
        }
        if *stopped {
            text += "; stopped before the end of the input";
        }
        if listed > frames {
            text += &format!(", but the lists cover all {listed} frames analysed");
        }
        self.say(&text);
        self.tell_people(people);
        if self.explain {
            summary.explanations.iter().for_each(|explanation| self.say(&explanation.to_string()));
        }
        if let Some(redacted) = &summary.redacted {
            self.say(&format!(
                "redacted {} detected faces in {} frames (of {} frames with faces); left {} faces visible",
                redacted.faces_covered,
                redacted.frames_covered,
                redacted.frames_with_faces,
                redacted.faces_left
            ));
        }
        for (_, path) in self.outputs().filter(|(_, path)| !is_standard_output(path)) {
            self.say(&format!("wrote {}", path.display()));
        }
    }
}

/// Splits the people of a summary into those to list (all with a name, and the strangers seen longest) and
/// the rest.
fn listed(people: &[Appearance], all: bool) -> (Vec<&Appearance>, Vec<&Appearance>) {
    let is_stranger = |person: &&Appearance| person.who.name().is_none();
    let mut strangers: Vec<&Appearance> = people.iter().filter(is_stranger).collect();
    // The sort keeps the order of those seen equally long.
    strangers.sort_by_key(|person| std::cmp::Reverse(person.frames));
    // A line that says "and one more" takes as much room as that one.
    let most = if all || strangers.len() <= STRANGERS + 1 { strangers.len() } else { STRANGERS };
    let rest = strangers.split_off(most);
    let kept = |person: &&Appearance| !rest.iter().any(|left| left.who == person.who);
    (people.iter().filter(kept).collect(), rest)
}

/// Strangers in the summary, unless all are requested.
const STRANGERS: usize = 10;

/// Why a request is invalid, in terms of its flags.
fn with_flags(error: &RequestError, input: &Input) -> String {
    match error {
        RequestError::AnalysisName(analysis) => {
            format!("--analysis {} must end in .parquet", analysis.display())
        }
        RequestError::AnalysisOfStill => {
            "--analysis applies to video only, and the input is a still: omit it".into()
        }
        RequestError::RedactionWithoutOutput => {
            "--redact needs an output video or still: add -o FILE".into()
        }
        RequestError::PageWithoutCoveredVideo => {
            "--html would show the unredacted input, because --redact applies to the output only: add -o FILE".into()
        }
        RequestError::OnePass => {
            "--redact and --html need two passes over a video file: record the input to a file first, and omit --online, --per-frame and --live".into()
        }
        RequestError::StillAsVideo => {
            "--view, --live, --online and --per-frame apply to video only, and the input is a still: omit them".into()
        }
        RequestError::StillToVideo(output) => format!(
            "{input} is a still, but the output {} does not have the extension of one: use .jpg, .png, .webp, .bmp or .tiff",
            output.display()
        ),
        // No flag of `label` makes the others.
        _ => error.to_string(),
    }
}

/// Turns errors about the request, as opposed to failures, into usage errors.
fn usage(error: MediaError) -> anyhow::Error {
    match error {
        MediaError::BadInput { .. }
        | MediaError::OutputIsInput(_)
        | MediaError::UnknownContainer(_)
        | MediaError::UnknownImageFormat(_)
        | MediaError::CodecNotInContainer { .. }
        | MediaError::BadSetting { .. } => UsageError(error.to_string()).into(),
        other => other.into(),
    }
}

/// The accuracy on LFW according to the model's metadata.
fn accuracy(embedder: &Embedder) -> String {
    #[derive(serde::Deserialize)]
    struct Lfw {
        set: String,
        accuracy: f64,
    }
    let lfw = embedder.metadata().get("lfw").and_then(|text| serde_json::from_str::<Lfw>(text).ok());
    match lfw {
        Some(Lfw { set, accuracy }) => format!("{:.2} % on {set}", accuracy * 100.0),
        None => "no measured accuracy".to_owned(),
    }
}

/// "1 frame", "2 frames".
fn count(number: u64, what: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {what}{s}")
}

/// A progress bar with frames/s and the time left, shown if standard error is a terminal.
struct Reporter {
    bar: ProgressBar,
    quiet: bool,
    /// Warnings already shown; the second pass repeats those of the first.
    warned: RefCell<HashSet<String>>,
}

impl Reporter {
    fn new(quiet: bool) -> Self {
        let visible = !quiet && std::io::stderr().is_terminal();
        let bar = if visible { ProgressBar::no_length() } else { ProgressBar::hidden() };
        Self { bar, quiet, warned: RefCell::default() }
    }

    fn show(&self, event: Progress<'_>) {
        match event {
            Progress::Opened { pass, size: (width, height), frames, encoder } => {
                if let Some(encoder) = encoder {
                    self.say(&format!("{width}x{height}, encoding with {encoder}"));
                }
                let template = match frames {
                    Some(frames) => {
                        self.bar.set_length(frames);
                        "{msg}{bar:30} {pos}/{len} frames  {rate} frames/s  {eta} left"
                    }
                    None => "{msg}{spinner} {pos} frames  {rate} frames/s  {elapsed}",
                };
                if let Ok(style) = ProgressStyle::with_template(template) {
                    let rate = |state: &ProgressState, to: &mut dyn std::fmt::Write| {
                        let _ = write!(to, "{:.1}", state.per_sec());
                    };
                    self.bar.set_style(style.with_key("rate", rate));
                }
                self.bar.set_message(match pass {
                    Pass::Only => "",
                    Pass::Look => "analysing ",
                    Pass::Write => "writing ",
                });
                self.bar.reset();
                self.bar.enable_steady_tick(Duration::from_millis(250));
            }
            Progress::Frame => self.bar.inc(1),
            Progress::Warning(text) if self.warned.borrow_mut().insert(text.to_owned()) => {
                self.say(&format!("warning: {text}"));
            }
            _ => {}
        }
    }

    fn say(&self, text: &str) {
        if !self.quiet {
            self.bar.suspend(|| errln!("{text}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sphereface::identify::Who;
    use sphereface::report::Span;

    #[test]
    fn a_long_list_of_strangers_is_summed_up() {
        let person = |who, frames| Appearance { who, frames, spans: vec![Span { start_ns: 0, end_ns: 1 }] };
        let people = |strangers: u32| -> Vec<Appearance> {
            let named = person(Who::Named("Ada".into()), 1);
            let strangers = (1..=strangers).map(|n| person(Who::Stranger(n), u64::from(n)));
            std::iter::once(named).chain(strangers).collect()
        };
        for few in [0, 10, 11] {
            let people = people(few);
            assert_eq!(listed(&people, false), (people.iter().collect(), Vec::new()), "{few}");
        }
        let people = people(947);
        assert_eq!(listed(&people, true).0.len(), 948);
        let (kept, rest) = listed(&people, false);
        assert_eq!((kept.len(), rest.len(), rest[0].frames), (11, 937, 937), "the longest seen are listed");
        assert_eq!((kept[0].who.name(), kept[1].frames), (Some("Ada"), 938), "in the order they came");
    }
}
