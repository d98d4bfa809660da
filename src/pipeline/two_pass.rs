//! Two passes: observe the whole video, decide with whole tracks, write.

use std::sync::Arc;

use super::LabelError;
use super::analysis_builder::AnalysisBuilder;
use super::graph::{self, Control, Overflow};
use super::job::{LabelJob, LabelSummary, Pass, Progress, RelabelJob};
use super::open::OpenedSource;
use super::output::{FrameOutput, OutputSpec};
use super::redact::{Covered, Redaction};
use super::run_summary::{APPEARANCE_GAP_NS, RunSummary, labels};
use super::stages::{self, Observe};
use super::statistics::Statistics;
use super::subscriber::{Subscribers, tell_opened};
use crate::analysis::Analysis;
use crate::annotate::{Annotator, Region};
use crate::engine::{Gallery, IdentifiedFace, LabelledFrame, RecogniseError, Work, same_deg};
use crate::identify::{Decision, decide};
use crate::media::{Frame, Picture, Source, SourceInfo};
use crate::report::timeline::VideoFacts;
use crate::report::{AuditSummary, Explanation};
use crate::track::{self, Moment, Tracker};

/// Observes a video file, decides, and writes.
pub(super) fn run(
    mut job: LabelJob<'_>,
    opened: OpenedSource,
    spec: OutputSpec,
    control: &Control,
    on_progress: &mut dyn FnMut(Progress<'_>),
) -> Result<LabelSummary, LabelError> {
    let OpenedSource { mut source, encoder, .. } = opened;
    tell_opened(&mut job.subscribers, &facts_of(source.info()))?;
    let mut viewers = Subscribers::pick(&mut job.subscribers, true, APPEARANCE_GAP_NS);
    let writes = job.output.is_some() || job.view || !viewers.is_empty();
    let again = || spec.open(&job.input, job.live, control);
    let mut early = None;
    // The second pass is prepared at the end of the first, when threads are free.
    let observed = observe(&job, &mut source, control, on_progress, || early = writes.then(again))?;
    let Observed { mut analysis, moments, work, statistics } = observed;
    let mut cut_off = source.cut_off().map(str::to_owned);
    drop(source);
    let stopped = control.is_stopping();
    // The frames analysed until then are still written.
    control.resume();
    let same_deg = same_deg(&job.engine, job.gallery.as_ref());
    track::join(&mut analysis.observations, &analysis.cuts, same_deg);
    if let Some(path) = &job.analysis {
        analysis.write(path)?;
    }
    let mut summary = RunSummary::new(&mut job.subscribers);
    summary.work = work;
    let identifier = job.gallery.as_ref().map(Gallery::identifier);
    let decisions = decide(&analysis.observations, identifier, same_deg).map_err(RecogniseError::from)?;
    let frames = labelled(&analysis, &decisions, &moments);
    enter(&mut summary, &analysis, &frames)?;
    let covered = job.redaction.as_ref().map(|redaction| redaction.cover(&analysis, &decisions));
    let annotator = job.drawing.annotator(job.gallery.as_ref())?;
    let (rendered, redacted) = match writes {
        true => {
            // A stopped input must be opened again.
            let opening = early.transpose()?.filter(|opening| !opening.is_stopped());
            let opened = opening.map_or_else(again, Ok)?.finish()?;
            let (source, output) = spec.begin(OpenedSource { encoder, ..opened })?;
            let rendering = Rendering {
                annotator: &annotator,
                frames: &frames,
                redaction: job.redaction.zip(covered.as_ref()),
                threads: job.engine.threads(),
                cut_off: cut_off.take(),
            };
            let rendered = render(source, output, rendering, &mut viewers, control, on_progress)?;
            cut_off = rendered.cut_off;
            (Some(rendered.statistics), rendered.redacted)
        }
        false => (None, None),
    };
    if let Some(page) = job.page {
        page.write(&analysis, &decisions, &summary.people(), covered.as_ref(), annotator.colours())?;
    }
    let stopped = stopped || control.is_stopping();
    let written = rendered.as_ref().map_or(analysis.video.frames, |rendered| rendered.items);
    let mut summary = summary.close(one_after_the_other(statistics, rendered), 0, stopped, Some(viewers))?;
    (summary.frames, summary.listed) = (written, analysis.video.frames);
    summary.redacted = redacted;
    summary.cut_off = cut_off;
    summary.explanations = Explanation::of(&analysis.observations, &decisions);
    Ok(summary)
}

/// The facts about an opened video for subscribers.
pub(super) fn facts_of(info: &SourceInfo) -> VideoFacts {
    let file = info.input.path().and_then(|path| path.file_name());
    VideoFacts {
        name: file.map_or_else(|| info.input.to_string(), |name| name.to_string_lossy().into_owned()),
        width: info.width,
        height: info.height,
        fps: info.fps,
        sound: Some(info.audio_tracks > 0),
    }
}

/// Results of the first pass.
struct Observed {
    analysis: Analysis,
    /// Time and duration of each frame in nanoseconds.
    moments: Vec<(Moment, u64)>,
    work: Work,
    statistics: Statistics,
}

/// The first pass. `at_end` is called when the last frame was read.
fn observe(
    job: &LabelJob<'_>,
    source: &mut Source,
    control: &Control,
    on_progress: &mut dyn FnMut(Progress<'_>),
    at_end: impl FnOnce() + Send,
) -> Result<Observed, LabelError> {
    let info = source.info().clone();
    let size = (info.width, info.height);
    on_progress(Progress::Opened { pass: Pass::Look, size, frames: info.frames, encoder: None });
    let how = Observe::of(job, false);
    let mut builder = AnalysisBuilder::new(&job.engine, job.embeds(), &job.input, &info);
    let mut tracker = Tracker::new(same_deg(&job.engine, job.gallery.as_ref()));
    let (mut moments, mut work) = (Vec::new(), Work::default());
    let (warn, warnings) = crossbeam_channel::unbounded::<String>();
    let statistics = graph::run(how.in_flight(info.live, size), control, |graph| {
        let observed = stages::stages(graph, source, warn, how, at_end);
        graph.sink("track", observed, |chunk| {
            for frame in chunk {
                let tracks = frame.track(&mut tracker);
                builder.observed(&frame, &tracks);
                moments.push((frame.moment, frame.duration_ns));
                work += frame.work;
                warnings.try_iter().for_each(|text| on_progress(Progress::Warning(&text)));
                on_progress(Progress::Frame);
            }
            Ok(())
        });
    })?;
    warnings.try_iter().for_each(|text| on_progress(Progress::Warning(&text)));
    Ok(Observed { analysis: builder.finish(), moments, work, statistics })
}

/// Decides again about an analysed video, and writes.
pub(super) fn relabel(
    mut job: RelabelJob<'_>,
    open: impl FnOnce() -> Result<(Source, FrameOutput), LabelError>,
    control: &Control,
    on_progress: &mut dyn FnMut(Progress<'_>),
) -> Result<LabelSummary, LabelError> {
    let start = std::time::Instant::now();
    let analysis = job.analysis;
    let video = &analysis.video;
    tell_opened(
        &mut job.subscribers,
        &VideoFacts {
            name: video.name.clone(),
            width: video.width as usize,
            height: video.height as usize,
            fps: video.fps,
            sound: None,
        },
    )?;
    let mut viewers = Subscribers::pick(&mut job.subscribers, true, APPEARANCE_GAP_NS);
    let mut summary = RunSummary::new(&mut job.subscribers);
    let identifier = job.gallery.as_ref().map(Gallery::identifier);
    let decisions = decide(&analysis.observations, identifier, job.same_deg).map_err(RecogniseError::from)?;
    let frames = labelled(analysis, &decisions, &[]);
    enter(&mut summary, analysis, &frames)?;
    let mut statistics = Statistics { wall: start.elapsed(), ..Statistics::default() };
    let covered = job.redaction.as_ref().map(|redaction| redaction.cover(analysis, &decisions));
    let annotator = job.drawing.annotator(job.gallery.as_ref())?;
    let (mut redacted, mut cut_off) = (None, None);
    let mut written = analysis.video.frames;
    if job.output.is_some() || job.view || !viewers.is_empty() {
        let (source, output) = open()?;
        let rendering = Rendering {
            annotator: &annotator,
            frames: &frames,
            redaction: job.redaction.zip(covered.as_ref()),
            threads: job.threads,
            cut_off: None,
        };
        let rendered = render(source, output, rendering, &mut viewers, control, on_progress)?;
        written = rendered.statistics.items;
        statistics = one_after_the_other(statistics, Some(rendered.statistics));
        (redacted, cut_off) = (rendered.redacted, rendered.cut_off);
    }
    if let Some(page) = job.page {
        page.write(analysis, &decisions, &summary.people(), covered.as_ref(), annotator.colours())?;
    }
    statistics.items = analysis.video.frames;
    let explanations = Explanation::of(&analysis.observations, &decisions);
    let summary = summary.close(statistics, 0, control.is_stopping(), Some(viewers))?;
    Ok(LabelSummary { redacted, explanations, frames: written, cut_off, ..summary })
}

/// Adds up the statistics of two consecutive runs.
fn one_after_the_other(mut first: Statistics, second: Option<Statistics>) -> Statistics {
    if let Some(second) = second {
        first.wall += second.wall;
        first.stages.extend(second.stages);
    }
    first
}

/// Every frame of an analysis with its faces. `moments` holds the times of frames without faces, if known.
fn labelled(analysis: &Analysis, decisions: &[Decision], moments: &[(Moment, u64)]) -> Vec<LabelledFrame> {
    let empty = |index: u64| {
        let known = usize::try_from(index).ok().and_then(|index| moments.get(index));
        let (pts_ns, duration_ns) =
            known.map_or((0, 0), |(moment, duration_ns)| (moment.pts_ns, *duration_ns));
        let cut = analysis.cuts.binary_search(&index).is_ok();
        LabelledFrame {
            index,
            pts_ns,
            duration_ns,
            cut,
            faces: Vec::new(),
            elsewhere: Vec::new(),
            picture: None,
        }
    };
    let mut frames: Vec<LabelledFrame> = (0..analysis.video.frames).map(empty).collect();
    for seen in &analysis.observations {
        let frame = usize::try_from(seen.frame).ok().and_then(|index| frames.get_mut(index));
        let Some(frame) = frame else { continue };
        (frame.pts_ns, frame.duration_ns) = (seen.pts_ns, seen.duration_ns);
        let decision = Decision::about(decisions, seen.track);
        let face = IdentifiedFace::of_track(seen.face, seen.quality, seen.track, decision);
        frame.faces.push(IdentifiedFace { embedding: seen.embedding.clone(), ..face });
    }
    frames
}

/// Reports the frames: all of them if their times are known, else those with faces.
fn enter(
    summary: &mut RunSummary<'_>,
    analysis: &Analysis,
    frames: &[LabelledFrame],
) -> Result<(), LabelError> {
    summary.lasts_until(analysis.video.duration_ns);
    let known = |frame: &&LabelledFrame| !frame.faces.is_empty() || frame.duration_ns > 0;
    frames.iter().filter(known).try_for_each(|frame| summary.enter(frame))
}

/// The labels to draw on the frames of a video.
struct Rendering<'a> {
    annotator: &'a Annotator,
    frames: &'a [LabelledFrame],
    /// The redaction.
    redaction: Option<(Redaction, &'a Covered)>,
    threads: usize,
    /// Why the video ended early in the first pass, if it did.
    cut_off: Option<String>,
}

/// Result of writing.
struct Rendered {
    statistics: Statistics,
    redacted: Option<AuditSummary>,
    /// Why the video ended early, if it did.
    cut_off: Option<String>,
}

/// A frame on its way to the output.
struct Drawn {
    frame: Frame,
    /// The same without names, if a subscriber needs it.
    unnamed: Option<Arc<Picture>>,
    /// The covered areas.
    areas: Vec<Region>,
}

/// Draws the labels and writes the frames.
fn render(
    mut source: Source,
    mut output: FrameOutput,
    rendering: Rendering<'_>,
    viewers: &mut Subscribers<'_>,
    control: &Control,
    on_progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Rendered, LabelError> {
    let Rendering { annotator, frames: labelled, redaction, threads, cut_off } = rendering;
    let was_cut_off = cut_off.is_some();
    let (info, threads) = (source.info().clone(), threads.max(1));
    let (mut redaction, covered) = redaction.unzip();
    let (draws, watched) = (output.shows(), !viewers.is_empty());
    on_progress(Progress::Opened {
        pass: Pass::Write,
        size: (info.width, info.height),
        frames: Some(labelled.len() as u64),
        encoder: output.encoder(),
    });
    let from = &mut source;
    let mut left = labelled.len();
    let stop = output.stop.clone();
    let here = |frame: &Frame| usize::try_from(frame.index).ok().and_then(|index| labelled.get(index));
    let mut statistics = graph::run(2 * threads + 4, control, |graph| {
        let frames = graph.source("decode", Overflow::Wait, move || {
            // An analysis that was stopped early has fewer frames than the video.
            if left == 0 {
                if was_cut_off || from.next_frame()?.is_some() {
                    stop.stop();
                }
                return Ok(None);
            }
            left -= 1;
            Ok(from.next_frame()?)
        });
        let drawn = graph.map("annotate", threads, frames, || {
            move |mut frame: Frame| {
                let index = usize::try_from(frame.index).ok();
                let boxes = covered.and_then(|(redactor, boxes)| Some((redactor, boxes.get(index?)?)));
                // Faces are covered first, so that names stay readable.
                let areas = match boxes.filter(|(_, boxes)| !boxes.is_empty()) {
                    Some((redactor, boxes)) => redactor.draw(Arc::make_mut(&mut frame.picture), boxes),
                    None => Vec::new(),
                };
                let unnamed = watched.then(|| frame.picture.clone());
                let here = here(&frame).filter(|here| draws && !here.faces.is_empty());
                if let Some(here) = here {
                    annotator.draw(Arc::make_mut(&mut frame.picture), &labels(&here.faces));
                }
                Ok(Drawn { frame, unnamed, areas })
            }
        });
        graph.sink("write", drawn, |Drawn { frame, unnamed, areas }: Drawn| {
            let here = here(&frame);
            if let Some(redaction) = &mut redaction {
                let faces = here.map_or(&[][..], |here| &here.faces);
                redaction.check((frame.index, frame.pts_ns), (info.width, info.height), faces, &areas)?;
            }
            if let (Some(here), true) = (here, watched) {
                let (pts_ns, duration_ns) = (frame.pts_ns, frame.duration_ns);
                viewers.tell(&LabelledFrame { pts_ns, duration_ns, picture: unnamed, ..here.clone() })?;
            }
            output.show(frame, control)?;
            on_progress(Progress::Frame);
            Ok(())
        });
    })?;
    source.take_warnings().iter().for_each(|text| on_progress(Progress::Warning(text)));
    let cut_off = cut_off.or_else(|| source.cut_off().map(str::to_owned));
    let redacted = redaction.map(|redaction| redaction.audit.finish()).transpose()?;
    statistics.wall += output.finish(control)?;
    Ok(Rendered { statistics, redacted, cut_off })
}
