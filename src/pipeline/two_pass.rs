//! Two passes: observe the whole video, decide with whole tracks, write.

use super::LabelError;
use super::analysis_builder::{AnalysisBuilder, AnalysisWriter};
use super::draw::Drawer;
use super::graph::{self, Control, Overflow};
use super::job::{LabelJob, LabelSummary, Pass, Progress, RelabelJob};
use super::open::OpenedSource;
use super::output::{OutputSpec, Outputs, facts_of};
use super::page::{PageJob, PageWriter};
use super::redact::Redaction;
use super::run_summary::RunSummary;
use super::stages::{self, Observe};
use super::statistics::Statistics;
use super::subscriber::{Subscriber, Viewers, tell_opened, want_pictures};
use crate::analysis::Analysis;
use crate::annotate::Annotator;
use crate::detect::BBox;
use crate::engine::{Gallery, IdentifiedFace, LabelledFrame, RecogniseError, Work, same_deg};
use crate::identify::{Decision, decide};
use crate::media::{Frame, Source};
use crate::report::Explanation;
use crate::report::timeline::VideoFacts;
use crate::track::{self, Moment, Observation, Tracker};

/// Observes a video file, decides, and writes.
pub(super) fn run(
    mut job: LabelJob<'_>,
    opened: OpenedSource,
    spec: OutputSpec,
    control: &Control,
    on_progress: &mut dyn FnMut(Progress<'_>),
) -> Result<LabelSummary, LabelError> {
    let OpenedSource { mut source, encoder, .. } = opened;
    let annotator = job.drawing.annotator(job.gallery.as_ref())?;
    let embeds = job.embeds();
    let builder = AnalysisBuilder::new(&job.engine, embeds, &job.input, source.info());
    if let Some(path) = job.analysis.take() {
        job.subscribers.push(Box::new(AnalysisWriter::new(builder.clone(), path)?));
    }
    add_page(&mut job.subscribers, job.page.take(), &annotator, job.redaction.as_ref());
    tell_opened(&mut job.subscribers, &facts_of(source.info()))?;
    let writes = spec.is_any() || want_pictures(&job.subscribers);
    let again = || spec.open(&job.input, job.live, control);
    let mut early = None;
    // The second pass is prepared at the end of the first, when threads are free.
    let at_end = || early = writes.then(again);
    let observed = observe(&job, embeds, builder, &mut source, control, on_progress, at_end)?;
    let Observed { mut analysis, moments, work, statistics } = observed;
    let mut cut_off = source.cut_off().map(str::to_owned);
    drop(source);
    let stopped = control.is_stopping();
    // The frames analysed until then are still written.
    control.resume();
    let same_deg = same_deg(&job.engine, job.gallery.as_ref());
    track::join(&mut analysis.observations, &analysis.cuts, same_deg);
    let identifier = job.gallery.as_ref().map(Gallery::identifier);
    let decisions = decide(&analysis.observations, identifier, same_deg).map_err(RecogniseError::from)?;
    let explanations = Explanation::of(&analysis.observations, &decisions);
    let covered = covered(job.redaction.as_ref(), &analysis, &decisions);
    let observations = std::mem::take(&mut analysis.observations);
    let frames = labelled(&analysis, observations, &decisions, &moments, covered);
    let mut summary = RunSummary::new(&mut job.subscribers);
    summary.work = work;
    frames.iter().try_for_each(|frame| summary.enter(frame))?;
    let mut viewers = Viewers::none();
    let (mut rendered, mut redacted) = (None, None);
    if writes {
        // A stopped input must be opened again.
        let opening = early.transpose()?.filter(|opening| !opening.is_stopped());
        let opened = opening.map_or_else(again, Ok)?.finish()?;
        let mut outputs = spec.begin(OpenedSource { encoder, ..opened }, control)?;
        let redactor = job.redaction.as_ref().map(|redaction| redaction.redactor);
        let check = job.redaction.map(Redaction::check);
        redacted = check.as_ref().map(|check| check.summary.clone());
        viewers = outputs.viewers(check, job.subscribers);
        let drawer = Drawer::new(annotator, redactor, &viewers);
        let rendering = Rendering { drawer, frames, threads: job.engine.threads(), cut_off: cut_off.take() };
        let done = render(outputs, rendering, &mut viewers, control, on_progress)?;
        cut_off = done.cut_off;
        rendered = Some(done.statistics);
    }
    let stopped = stopped || control.is_stopping();
    let written = rendered.as_ref().map_or(analysis.video.frames, |rendered| rendered.items);
    let summary = summary.close(one_after_the_other(statistics, rendered), 0, stopped, viewers)?;
    let redacted = redacted.and_then(|summary| summary.take());
    let listed = analysis.video.frames;
    Ok(LabelSummary { frames: written, listed, redacted, cut_off, explanations, ..summary })
}

/// The boxes to cover in each frame; none without redaction.
fn covered(redaction: Option<&Redaction>, analysis: &Analysis, decisions: &[Decision]) -> Vec<Vec<BBox>> {
    redaction.map(|redaction| redaction.of_video(analysis, decisions)).unwrap_or_default()
}

/// Adds the subscriber that writes the page.
fn add_page(
    subscribers: &mut Vec<Box<dyn Subscriber + '_>>,
    page: Option<PageJob>,
    annotator: &Annotator,
    redaction: Option<&Redaction>,
) {
    let redactor = redaction.map(|redaction| redaction.redactor);
    let writer = page.map(|page| PageWriter::new(page, annotator.colours().clone(), redactor));
    writer.into_iter().for_each(|writer| subscribers.push(Box::new(writer)));
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
    embeds: bool,
    mut builder: AnalysisBuilder,
    source: &mut Source,
    control: &Control,
    on_progress: &mut dyn FnMut(Progress<'_>),
    at_end: impl FnOnce() + Send,
) -> Result<Observed, LabelError> {
    let info = source.info().clone();
    let size = (info.width, info.height);
    on_progress(Progress::Opened { pass: Pass::Look, size, frames: info.frames, encoder: None });
    let how = Observe::of(job, embeds, false);
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
    open: impl FnOnce() -> Result<Outputs, LabelError>,
    control: &Control,
    on_progress: &mut dyn FnMut(Progress<'_>),
) -> Result<LabelSummary, LabelError> {
    let start = std::time::Instant::now();
    let analysis = job.analysis;
    let video = &analysis.video;
    let annotator = job.drawing.annotator(job.gallery.as_ref())?;
    add_page(&mut job.subscribers, job.page.take(), &annotator, job.redaction.as_ref());
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
    let writes = job.output.is_some() || job.view || want_pictures(&job.subscribers);
    let mut summary = RunSummary::new(&mut job.subscribers);
    let identifier = job.gallery.as_ref().map(Gallery::identifier);
    let decisions = decide(&analysis.observations, identifier, job.same_deg).map_err(RecogniseError::from)?;
    let explanations = Explanation::of(&analysis.observations, &decisions);
    let covered = covered(job.redaction.as_ref(), analysis, &decisions);
    let frames = labelled(analysis, analysis.observations.iter().cloned(), &decisions, &[], covered);
    summary.lasts_until(video.duration_ns);
    // The times of the others are not known.
    let mut with_faces = frames.iter().filter(|frame| !frame.faces.is_empty());
    with_faces.try_for_each(|frame| summary.enter(frame))?;
    let mut statistics = Statistics { wall: start.elapsed(), ..Statistics::default() };
    let (mut redacted, mut cut_off) = (None, None);
    let mut viewers = Viewers::none();
    let mut written = video.frames;
    if writes {
        let mut outputs = open()?;
        let redactor = job.redaction.as_ref().map(|redaction| redaction.redactor);
        let check = job.redaction.map(Redaction::check);
        redacted = check.as_ref().map(|check| check.summary.clone());
        viewers = outputs.viewers(check, job.subscribers);
        let drawer = Drawer::new(annotator, redactor, &viewers);
        let rendering = Rendering { drawer, frames, threads: job.threads, cut_off: None };
        let rendered = render(outputs, rendering, &mut viewers, control, on_progress)?;
        written = rendered.statistics.items;
        statistics = one_after_the_other(statistics, Some(rendered.statistics));
        cut_off = rendered.cut_off;
    }
    statistics.items = video.frames;
    let summary = summary.close(statistics, 0, control.is_stopping(), viewers)?;
    let redacted = redacted.and_then(|summary| summary.take());
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

/// Every frame of an analysis with its faces, which are `observations`. `moments` holds the times of frames
/// without faces, if known, and `covered` the boxes to cover in the frames, if any.
fn labelled(
    analysis: &Analysis,
    observations: impl IntoIterator<Item = Observation>,
    decisions: &[Decision],
    moments: &[(Moment, u64)],
    covered: Vec<Vec<BBox>>,
) -> Vec<LabelledFrame> {
    let mut covered = covered.into_iter();
    let empty = |index: u64| {
        let known = usize::try_from(index).ok().and_then(|index| moments.get(index));
        let (pts_ns, duration_ns) =
            known.map_or((0, 0), |(moment, duration_ns)| (moment.pts_ns, *duration_ns));
        let cut = analysis.cuts.binary_search(&index).is_ok();
        let covered = covered.next().unwrap_or_default();
        LabelledFrame { index, pts_ns, duration_ns, cut, covered, ..LabelledFrame::default() }
    };
    let mut frames: Vec<LabelledFrame> = (0..analysis.video.frames).map(empty).collect();
    for seen in observations {
        let frame = usize::try_from(seen.frame).ok().and_then(|index| frames.get_mut(index));
        let Some(frame) = frame else { continue };
        (frame.pts_ns, frame.duration_ns) = (seen.pts_ns, seen.duration_ns);
        let decision = Decision::about(decisions, seen.track);
        let face = IdentifiedFace::of_track(seen.face, seen.quality, seen.track, decision);
        frame.faces.push(IdentifiedFace { embedding: seen.embedding, ..face });
    }
    frames
}

/// The labels to draw on the frames of a video.
struct Rendering {
    drawer: Drawer,
    frames: Vec<LabelledFrame>,
    threads: usize,
    /// Why the video ended early in the first pass, if it did.
    cut_off: Option<String>,
}

/// Result of writing.
struct Rendered {
    statistics: Statistics,
    /// Why the video ended early, if it did.
    cut_off: Option<String>,
}

/// Gives the pictures of the video to the frames, draws on them and notifies the viewers.
fn render(
    mut outputs: Outputs,
    rendering: Rendering,
    viewers: &mut Viewers<'_>,
    control: &Control,
    on_progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Rendered, LabelError> {
    let Rendering { drawer, frames: labelled, threads, cut_off } = rendering;
    let was_cut_off = cut_off.is_some();
    let Outputs { source, encoder, stop, .. } = &mut outputs;
    let (info, threads) = (source.info(), threads.max(1));
    on_progress(Progress::Opened {
        pass: Pass::Write,
        size: (info.width, info.height),
        frames: Some(labelled.len() as u64),
        encoder: encoder.as_deref(),
    });
    let (drawer, from) = (&drawer, &mut *source);
    let mut labelled = labelled.into_iter();
    let statistics = graph::run(2 * threads + 4, control, |graph| {
        let frames = graph.source("decode", Overflow::Wait, move || {
            // An analysis that was stopped early has fewer frames than the video.
            let Some(labelled) = labelled.next() else {
                if was_cut_off || from.next_frame()?.is_some() {
                    stop.stop();
                }
                return Ok(None);
            };
            let decoded = from.next_frame()?;
            Ok(decoded.map(|Frame { pts_ns, duration_ns, picture, .. }| LabelledFrame {
                pts_ns,
                duration_ns,
                picture: Some(picture),
                ..labelled
            }))
        });
        let drawn = graph.map("annotate", threads, frames, || {
            |mut frame: LabelledFrame| {
                let named = drawer.draw(&mut frame);
                Ok((frame, named))
            }
        });
        graph.sink("write", drawn, |(frame, named)| {
            viewers.tell(frame, named)?;
            on_progress(Progress::Frame);
            Ok(())
        });
    })?;
    source.take_warnings().iter().for_each(|text| on_progress(Progress::Warning(text)));
    let cut_off = cut_off.or_else(|| source.cut_off().map(str::to_owned));
    Ok(Rendered { statistics, cut_off })
}
