//! Two passes: look at the whole video, decide with all of it in view, write.

use std::sync::Arc;

use super::graph::{self, Control, Overflow};
use super::job::{Event, LabelError, LabelJob, LabelSummary, Pass, RelabelJob};
use super::ledger::{Ledger, labels};
use super::look::{self, Look};
use super::outlet::{Making, Opened, Outlet};
use super::recognise::{RecogniseError, Sighting};
use super::recorder::Recorder;
use super::redact::{Covered, Redaction};
use super::statistics::{Statistics, Work};
use crate::analysis::Analysis;
use crate::annotate::{Annotator, Region};
use crate::identify::{Decision, decide};
use crate::media::{Frame, Source};
use crate::report::{AuditSummary, Explanation};
use crate::track::{self, Observation, Tracker};

/// Looks at a video file, decides, and writes.
pub(super) fn run(
    job: LabelJob<'_>,
    opened: Opened,
    making: Making,
    control: &Control,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<LabelSummary, LabelError> {
    let Opened { mut source, encoder, .. } = opened;
    let writes = job.output.is_some() || job.view;
    let again = || making.open(&job.input, job.live, control);
    let mut early = None;
    let info = source.info().clone();
    on_event(Event::Opened {
        pass: Pass::Look,
        size: (info.width, info.height),
        frames: info.frames,
        encoder: None,
    });
    let how = Look { pictures: false, ..Look::of(&job) };
    let mut recorder = Recorder::new(&job, &info);
    let mut tracker = Tracker::new(job.same_deg);
    let mut work = Work::default();
    let (warn, warnings) = crossbeam_channel::unbounded::<String>();
    let from = &mut source;
    let in_flight = look::in_flight(&how, info.live, (info.width, info.height));
    let statistics = graph::run(in_flight, control, |graph| {
        // The end of the first way leaves room for the beginning of the second.
        let looked = look::stages(graph, from, warn, how, || early = writes.then(again));
        graph.sink("track", looked, |stretch| {
            for looked in stretch {
                let tracks = looked.track(&mut tracker);
                recorder.record(&looked, &tracks);
                work += looked.work;
                warnings.try_iter().for_each(|text| on_event(Event::Warning(&text)));
                on_event(Event::Frame);
            }
            Ok(())
        });
    })?;
    warnings.try_iter().for_each(|text| on_event(Event::Warning(&text)));
    let mut cut_off = source.cut_off().map(str::to_owned);
    drop(source);
    let stopped = control.is_stopping();
    // What was seen until then is still written.
    control.resume();
    let mut analysis = recorder.finish();
    track::join(&mut analysis.observations, &analysis.cuts, job.same_deg);
    if let Some(path) = &job.analysis {
        analysis.write(path)?;
    }
    let mut ledger = Ledger::new(job.results);
    ledger.work = work;
    let decisions =
        decide(&analysis.observations, job.identifier, job.same_deg).map_err(RecogniseError::from)?;
    let sightings = enter(&mut ledger, &analysis, &decisions)?;
    let covered = job.redaction.as_ref().map(|redaction| redaction.cover(&analysis, &decisions));
    let (rendered, redacted) = match writes {
        true => {
            // What a stop ended must begin anew.
            let opening = early.transpose()?.filter(|opening| !opening.is_stopped());
            let opened = opening.map_or_else(again, Ok)?.finish()?;
            let (source, outlet) = making.outlet(Opened { encoder, ..opened })?;
            let drawing = Drawing {
                annotator: job.annotator,
                sightings: &sightings,
                redaction: job.redaction.zip(covered.as_ref()),
                threads: job.threads,
                cut_off: cut_off.take(),
            };
            let rendered = render(source, outlet, drawing, control, on_event)?;
            cut_off = rendered.cut_off;
            (Some(rendered.statistics), rendered.redacted)
        }
        false => (None, None),
    };
    if let Some(page) = job.page {
        page.write(&analysis, &decisions, &ledger.people(), covered.as_ref(), job.annotator.colours())?;
    }
    let stopped = stopped || control.is_stopping();
    let frames = rendered.as_ref().map_or(analysis.video.frames, |rendered| rendered.items);
    let mut summary = ledger.close(together(statistics, rendered), 0, stopped)?;
    (summary.frames, summary.listed) = (frames, analysis.video.frames);
    summary.redacted = redacted;
    summary.cut_off = cut_off;
    summary.explanations = Explanation::of(&analysis.observations, &decisions);
    Ok(summary)
}

/// Decides anew about an analysed video, and writes.
pub(super) fn relabel(
    job: RelabelJob<'_>,
    outlet: impl FnOnce() -> Result<(Source, Outlet), LabelError>,
    control: &Control,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<LabelSummary, LabelError> {
    let start = std::time::Instant::now();
    let mut ledger = Ledger::new(job.results);
    let decisions =
        decide(&job.analysis.observations, job.identifier, job.same_deg).map_err(RecogniseError::from)?;
    let sightings = enter(&mut ledger, job.analysis, &decisions)?;
    let mut statistics = Statistics { wall: start.elapsed(), ..Statistics::default() };
    let covered = job.redaction.as_ref().map(|redaction| redaction.cover(job.analysis, &decisions));
    let (mut redacted, mut cut_off) = (None, None);
    let mut frames = job.analysis.video.frames;
    if job.output.is_some() || job.view {
        let (source, outlet) = outlet()?;
        let drawing = Drawing {
            annotator: job.annotator,
            sightings: &sightings,
            redaction: job.redaction.zip(covered.as_ref()),
            threads: job.threads,
            cut_off: None,
        };
        let rendered = render(source, outlet, drawing, control, on_event)?;
        frames = rendered.statistics.items;
        statistics = together(statistics, Some(rendered.statistics));
        (redacted, cut_off) = (rendered.redacted, rendered.cut_off);
    }
    if let Some(page) = job.page {
        page.write(job.analysis, &decisions, &ledger.people(), covered.as_ref(), job.annotator.colours())?;
    }
    statistics.items = job.analysis.video.frames;
    let explanations = Explanation::of(&job.analysis.observations, &decisions);
    let summary = ledger.close(statistics, 0, control.is_stopping())?;
    Ok(LabelSummary { redacted, explanations, frames, cut_off, ..summary })
}

/// What two runs took, one after the other.
fn together(mut first: Statistics, second: Option<Statistics>) -> Statistics {
    if let Some(second) = second {
        first.wall += second.wall;
        first.stages.extend(second.stages);
    }
    first
}

/// Enters every frame into the ledger; the answer has the faces of each.
fn enter(
    ledger: &mut Ledger,
    analysis: &Analysis,
    decisions: &[Decision],
) -> Result<Vec<Vec<Sighting>>, LabelError> {
    ledger.lasts_until(analysis.video.duration_ns);
    let mut frames: Vec<Vec<Sighting>> = Vec::new();
    frames.resize_with(usize::try_from(analysis.video.frames).unwrap_or(0), Vec::new);
    for seen in analysis.observations.chunk_by(|a, b| a.frame == b.frame) {
        let Some(first) = seen.first() else { continue };
        let sightings: Vec<Sighting> = seen.iter().map(|one| sighting(one, decisions)).collect();
        ledger.enter(first.frame, first.pts_ns, first.duration_ns, &sightings)?;
        if let Some(frame) = usize::try_from(first.frame).ok().and_then(|frame| frames.get_mut(frame)) {
            *frame = sightings;
        }
    }
    Ok(frames)
}

fn sighting(seen: &Observation, decisions: &[Decision]) -> Sighting {
    Sighting::of_track(seen.face, seen.quality, seen.track, Decision::about(decisions, seen.track))
}

/// What is drawn on the frames of a video.
struct Drawing<'a> {
    annotator: &'a Annotator,
    /// The faces of each frame.
    sightings: &'a [Vec<Sighting>],
    /// What is covered, and where.
    redaction: Option<(Redaction, &'a Covered)>,
    threads: usize,
    /// Why the video could not be followed to its end when it was looked at.
    cut_off: Option<String>,
}

/// What was written.
struct Rendered {
    statistics: Statistics,
    redacted: Option<AuditSummary>,
    /// Why the video could not be followed to its end.
    cut_off: Option<String>,
}

/// Draws what was decided and writes it.
fn render(
    mut source: Source,
    mut outlet: Outlet,
    drawing: Drawing<'_>,
    control: &Control,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<Rendered, LabelError> {
    let Drawing { annotator, sightings, redaction, threads, cut_off } = drawing;
    let was_cut_off = cut_off.is_some();
    let (info, threads) = (source.info().clone(), threads.max(1));
    let (mut redaction, covered) = redaction.unzip();
    on_event(Event::Opened {
        pass: Pass::Write,
        size: (info.width, info.height),
        frames: Some(sightings.len() as u64),
        encoder: outlet.encoder(),
    });
    let from = &mut source;
    let mut left = sightings.len();
    let stop = outlet.stop.clone();
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
                let here = index.and_then(|index| sightings.get(index));
                if let Some(here) = here.filter(|here| !here.is_empty()) {
                    annotator.draw(Arc::make_mut(&mut frame.picture), &labels(here));
                }
                Ok((frame, areas))
            }
        });
        graph.sink("write", drawn, |(frame, areas): (Frame, Vec<Region>)| {
            if let Some(redaction) = &mut redaction {
                let here = usize::try_from(frame.index).ok().and_then(|index| sightings.get(index));
                let (size, here) = ((info.width, info.height), here.map_or(&[][..], Vec::as_slice));
                redaction.check((frame.index, frame.pts_ns), size, here, &areas)?;
            }
            outlet.show(frame, control)?;
            on_event(Event::Frame);
            Ok(())
        });
    })?;
    source.take_warnings().iter().for_each(|text| on_event(Event::Warning(text)));
    let cut_off = cut_off.or_else(|| source.cut_off().map(str::to_owned));
    let redacted = redaction.map(|redaction| redaction.audit.finish()).transpose()?;
    statistics.wall += outlet.finish(control)?;
    Ok(Rendered { statistics, redacted, cut_off })
}
