//! `sphereface label`: a video or a still with names on it.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::UsageError;
use super::options::{self, DetectionArgs, ModelArgs, ThreadArgs, ThresholdArgs};
use crate::annotate::{Annotator, Style};
use crate::embed::{Embedder, Mirror};
use crate::identify::{Identifier, Threshold};
use crate::media::{Input, MediaError};
use crate::pipeline::Control;
use crate::pipeline::label::{self, Event, LabelError, LabelJob, LabelSummary};
use crate::pipeline::recognise::Recogniser;
use crate::report::JsonLines;

/// Write a video (or a still) with everyone you enrolled named
///
/// Strangers stay strangers. The sound is kept. Ctrl-C finishes the file and stops; a second
/// one stops at once and leaves nothing.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface label party.mp4 -o named.mp4 --gallery friends\n  \
    sphereface label group.jpg -o named.jpg --gallery friends --style text=name\n  \
    sphereface label talk.mkv --no-video --jsonl faces.jsonl --gallery staff\n  \
    sphereface label webcam --view --gallery family")]
pub struct LabelArgs {
    /// What to label: a video or image file, rtsp://..., http(s)://..., webcam, /dev/video0 or
    /// gst:PIPELINE
    input: String,
    /// Where to write the annotated video (.mp4, .mkv, .webm) or still (.jpg, .png, ...)
    #[arg(short, long, value_name = "FILE", conflicts_with = "no_video")]
    output: Option<PathBuf>,
    /// Write no annotated video: only tell, or list with --jsonl, who was seen
    #[arg(long)]
    no_video: bool,
    /// Folder of the people to name; without it faces are found and everyone is unknown
    #[arg(long, value_name = "DIR", help_heading = "Recognition")]
    gallery: Option<PathBuf>,
    /// Average each face with its mirror image: a little more certain, twice the work
    #[arg(long, help_heading = "Recognition")]
    mirror: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    threshold: ThresholdArgs,
    #[command(flatten)]
    detection: DetectionArgs,
    #[command(flatten)]
    encoding: EncodingArgs,
    /// List every face as a line of JSON in this file; - for standard output
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    jsonl: Option<PathBuf>,
    /// Show the video in a window while it is labelled
    #[arg(long, help_heading = "Results")]
    view: bool,
    /// How boxes and names look, for example width=3,text=name,unknown=hide
    #[arg(long, value_name = "SETTINGS", default_value_t = Style::default(), help_heading = "Results")]
    style: Style,
    /// Treat the input as live: never fall behind, drop the oldest frames instead
    #[arg(long, help_heading = "Running")]
    live: bool,
    #[command(flatten, next_help_heading = "Running")]
    threads: ThreadArgs,
    /// At the end, say what each stage took
    #[arg(long, help_heading = "Running")]
    stats: bool,
    /// Say nothing unless something goes wrong
    #[arg(short, long, help_heading = "Running")]
    quiet: bool,
}

/// How the video is encoded.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Encoding")]
struct EncodingArgs {
    /// Codec [default: H.264, VP8 in .webm]
    #[arg(long, value_enum, default_value_t = CodecName::Auto, hide_default_value = true)]
    codec: CodecName,
    /// Constant quantizer, lower is better: 0 to 51 for H.264, 0 to 63 for VP8 and VP9
    /// [default: 23 for H.264, 20 for VP8 and VP9]
    #[arg(long, value_name = "Q", value_parser = clap::value_parser!(u8).range(0..=63))]
    quantizer: Option<u8>,
    /// Encoding effort: slower is smaller at the same quality
    #[arg(long, value_enum, default_value_t = SpeedName::Fast)]
    speed: SpeedName,
    /// GStreamer encoder to use, for example x264enc [default: the first that works, hardware
    /// first]
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
    fn options(&self) -> crate::media::SinkOptions {
        use crate::media::{Codec, SinkOptions, Speed};
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

impl LabelArgs {
    /// Labels, tells how it goes, and says who was seen when.
    pub fn run(self) -> Result<()> {
        let input = Input::parse(&self.input).map_err(usage)?;
        self.refuse_nonsense(&input)?;
        let isa = options::isa()?;
        let detector = self.detection.detector(isa)?;
        let annotator = Annotator::new(self.style.clone())?;
        let known = match &self.gallery {
            Some(gallery) => Some(self.known(gallery, self.model.embedder(isa)?)?),
            None => {
                self.say("no --gallery: faces are found and everyone is unknown");
                None
            }
        };
        let recogniser = known.as_ref().map(|(embedder, identifier)| Recogniser {
            embedder,
            identifier,
            mirror: if self.mirror { Mirror::Average } else { Mirror::No },
        });
        let json_lines = match self.jsonl.as_deref() {
            None => None,
            Some(path) if path == Path::new("-") => {
                Some(JsonLines::stream(std::io::stdout(), "standard output"))
            }
            Some(path) => Some(JsonLines::create(path)?),
        };
        let job = LabelJob {
            input,
            output: self.output.clone(),
            detector: &detector,
            recogniser,
            annotator: &annotator,
            json_lines,
            view: self.view,
            live: self.live.then_some(true),
            #[cfg(feature = "video")]
            encoding: self.encoding.options(),
            threads: self.threads.count(),
        };
        let control = Control::new();
        let signals = Signals::watch(&control)?;
        let progress = Progress::new(self.quiet);
        let result = label::run(job, &control, &mut |event| progress.show(event));
        progress.bar.finish_and_clear();
        signals.close();
        let summary = result.map_err(|error| match error {
            LabelError::Media(error) => usage(error),
            other => other.into(),
        })?;
        if self.stats {
            eprintln!("{}", summary.statistics);
        }
        self.tell(&summary);
        Ok(())
    }

    /// Refuses, before anything is opened, what cannot be meant.
    fn refuse_nonsense(&self, input: &Input) -> Result<(), UsageError> {
        let refuse = |reason: String| Err(UsageError(reason));
        if self.output.is_none() && !self.no_video && !self.view && self.jsonl.is_none() {
            return refuse(
                "there is nothing to do with the result: give -o FILE, --jsonl FILE, --view or --no-video"
                    .into(),
            );
        }
        let jsonl = self.jsonl.as_deref().filter(|path| *path != Path::new("-"));
        for (flag, path) in [("-o", self.output.as_deref()), ("--jsonl", jsonl)] {
            if let (Some(path), Some(source)) = (path, input.path())
                && same_file(path, source)
            {
                return refuse(format!("{flag} {} is also the input: choose another name", path.display()));
            }
        }
        if let (Some(output), Some(jsonl)) = (&self.output, jsonl)
            && same_file(output, jsonl)
        {
            return refuse(format!("-o and --jsonl are both {}: choose another name", output.display()));
        }
        if self.gallery.is_none() && (self.threshold.threshold.is_some() || self.threshold.fmr.is_some()) {
            return refuse(
                "--threshold and --fmr decide who is named, and without --gallery nobody is: give a gallery"
                    .into(),
            );
        }
        if matches!(input, Input::Still(_)) {
            if self.view || self.live {
                return refuse(
                    "--view and --live are for video, and the input is a still: write it with -o FILE".into(),
                );
            }
            if let Some(output) = &self.output
                && !matches!(Input::of_path(output), Input::Still(_))
            {
                let output = output.display();
                return refuse(format!(
                    "{input} is a still and {output} does not name one: use .jpg, .png, .webp, .bmp or .tiff"
                ));
            }
        }
        Ok(())
    }

    /// The network and the people of the gallery; says which.
    fn known(&self, gallery: &PathBuf, embedder: Embedder) -> Result<(Embedder, Identifier)> {
        let threshold = Threshold::resolve(self.threshold.request(), embedder.metadata())
            .map_err(|error| UsageError(error.to_string()))?;
        let templates = options::templates(gallery, &embedder)?;
        if let Some(error) = &templates.not_saved {
            self.say(&format!("warning: {error}; the gallery will be embedded again next time"));
        }
        let identifier = Identifier::new(&templates, threshold)?;
        self.say(&format!("model {} ({}), {}", self.model.model, embedder.model(), accuracy(&embedder)));
        self.say(&format!(
            "gallery {}: {} people, {} templates; a face is named below {}",
            gallery.display(),
            identifier.people().len(),
            identifier.templates_len(),
            identifier.threshold()
        ));
        Ok((embedder, identifier))
    }

    fn say(&self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    /// Who was seen when.
    fn tell(&self, summary: &LabelSummary) {
        let LabelSummary { frames, faces, named, dropped, people, stopped, .. } = summary;
        let mut text = format!(
            "{frames} frames in {:.1} s ({:.1} frames/s), {faces} faces, {named} named",
            summary.statistics.wall.as_secs_f64(),
            summary.statistics.items_per_s()
        );
        if *dropped > 0 {
            text += &format!(", {dropped} frames dropped");
        }
        if *stopped {
            text += "; stopped before the end of the input";
        }
        self.say(&text);
        let width = people.iter().map(|person| person.name.chars().count()).max().unwrap_or(0);
        for person in people {
            let spans: Vec<String> = person.spans.iter().map(ToString::to_string).collect();
            self.say(&format!("  {:width$}  {} frames, {}", person.name, person.frames, spans.join(", ")));
        }
        if let Some(output) = &self.output {
            self.say(&format!("wrote {}", output.display()));
        }
    }
}

/// Errors about what was asked for, as opposed to what went wrong, are usage errors.
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

/// Whether two paths name one file, by whatever way; a file that is not there yet is looked up
/// in its folder.
fn same_file(a: &Path, b: &Path) -> bool {
    let resolve = |path: &Path| {
        path.canonicalize().ok().or_else(|| {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            Some(folder.unwrap_or(Path::new(".")).canonicalize().ok()?.join(path.file_name()?))
        })
    };
    resolve(a).is_some_and(|a| Some(a) == resolve(b))
}

/// What the model's metadata say it reaches on LFW.
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

/// A bar with frames/s and the time left, where standard error is a terminal.
struct Progress {
    bar: ProgressBar,
    quiet: bool,
}

impl Progress {
    fn new(quiet: bool) -> Self {
        let visible = !quiet && std::io::stderr().is_terminal();
        Self { bar: if visible { ProgressBar::no_length() } else { ProgressBar::hidden() }, quiet }
    }

    fn show(&self, event: Event<'_>) {
        match event {
            Event::Opened { size: (width, height), frames, encoder } => {
                if let Some(encoder) = encoder {
                    self.say(&format!("{width}x{height}, encoding with {encoder}"));
                }
                let template = match frames {
                    Some(frames) => {
                        self.bar.set_length(frames);
                        "{bar:30} {pos}/{len} frames  {rate} frames/s  {eta} left"
                    }
                    None => "{spinner} {pos} frames  {rate} frames/s  {elapsed}",
                };
                if let Ok(style) = ProgressStyle::with_template(template) {
                    let rate = |state: &ProgressState, to: &mut dyn std::fmt::Write| {
                        let _ = write!(to, "{:.1}", state.per_sec());
                    };
                    self.bar.set_style(style.with_key("rate", rate));
                }
                self.bar.reset();
                self.bar.enable_steady_tick(Duration::from_millis(250));
            }
            Event::Frame => self.bar.inc(1),
            Event::Warning(text) => self.say(&format!("warning: {text}")),
        }
    }

    fn say(&self, text: &str) {
        if !self.quiet {
            self.bar.suspend(|| eprintln!("{text}"));
        }
    }
}

/// Ctrl-C and SIGTERM: the first finishes the outputs, the second leaves none, the third kills.
struct Signals {
    #[cfg(unix)]
    handle: signal_hook::iterator::Handle,
    #[cfg(unix)]
    thread: std::thread::JoinHandle<()>,
}

impl Signals {
    #[cfg(unix)]
    fn watch(control: &Control) -> Result<Self> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
        let handle = signals.handle();
        let control = control.clone();
        let thread = std::thread::Builder::new().name("signals".into()).spawn(move || {
            for (count, signal) in signals.forever().enumerate() {
                match count {
                    0 => control.stop(),
                    1 => control.abort(),
                    _ => drop(signal_hook::low_level::emulate_default_handler(signal)),
                }
            }
        })?;
        Ok(Self { handle, thread })
    }

    #[cfg(not(unix))]
    fn watch(_: &Control) -> Result<Self> {
        Ok(Self {})
    }

    fn close(self) {
        #[cfg(unix)]
        {
            self.handle.close();
            let _ = self.thread.join();
        }
    }
}
