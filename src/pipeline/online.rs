//! One pass: observe, decide with the frames so far, write.

use std::sync::Arc;

use super::LabelError;
use super::analysis_builder::{AnalysisBuilder, AnalysisWriter};
use super::graph::{self, Control};
use super::job::{LabelJob, LabelSummary, Mode, Pass, Progress};
use super::output::FrameOutput;
use super::run_summary::{APPEARANCE_GAP_NS, RunSummary, labels};
use super::stages::{self, Observe};
use super::subscriber::{Subscribers, tell_opened};
use super::two_pass::facts_of;
use crate::engine::observe::ObservedFrame;
use crate::engine::{Decider, Gallery, LabelledFrame, RecogniseError, Work, same_deg};
use crate::media::{Frame, Picture, Source};

/// A frame on its way to the outputs.
struct Decided {
    frame: LabelledFrame,
    /// The picture to draw on.
    drawn: Option<Arc<Picture>>,
    work: Work,
}

/// Labels the frames of `source` as they come.
pub(super) fn run(
    mut job: LabelJob<'_>,
    mut source: Source,
    mut output: FrameOutput,
    control: &Control,
    on_progress: &mut dyn FnMut(Progress<'_>),
) -> Result<LabelSummary, LabelError> {
    let info = source.info().clone();
    on_progress(Progress::Opened {
        pass: Pass::Only,
        size: (info.width, info.height),
        frames: info.frames,
        encoder: output.encoder(),
    });
    let (threads, draws) = (job.engine.threads(), output.shows());
    let annotator = job.drawing.annotator(job.gallery.as_ref())?;
    let annotator = &annotator;
    let mut subscribers = std::mem::take(&mut job.subscribers);
    tell_opened(&mut subscribers, &facts_of(&info))?;
    let job = &job;
    if let Some(path) = job.analysis.clone() {
        let builder = AnalysisBuilder::new(&job.engine, true, &job.input, &info);
        subscribers.push(Box::new(AnalysisWriter { builder, path }));
    }
    let mut viewers = Subscribers::pick(&mut subscribers, true, APPEARANCE_GAP_NS);
    let mut summary = RunSummary::new(&mut subscribers);
    let watched = !viewers.is_empty();
    let how = Observe::of(job, draws || watched);
    let (warn, warnings) = crossbeam_channel::unbounded::<String>();
    let in_flight = how.in_flight(info.live, (info.width, info.height));
    let from = &mut source;
    let identifier = job.gallery.as_ref().map(Gallery::identifier);
    let mut decider = Decider::new(same_deg(&job.engine, job.gallery.as_ref()), job.mode == Mode::PerFrame);
    let mut statistics = graph::run(in_flight, control, |graph| {
        let observed = stages::stages(graph, from, warn, how, || {});
        let decided = graph.in_order("decide", observed, move |chunk: Vec<ObservedFrame>| {
            let one = |observed: ObservedFrame| {
                let work = observed.work;
                let mut frame = decider.decide(observed, identifier).map_err(RecogniseError::from)?;
                let drawn = if watched { frame.picture.clone() } else { frame.picture.take() };
                Ok(Decided { frame, drawn: drawn.filter(|_| draws), work })
            };
            chunk.into_iter().map(one).collect::<Result<Vec<_>, LabelError>>()
        });
        let drawn = graph.map("annotate", threads, decided, || {
            move |mut chunk: Vec<Decided>| {
                for Decided { frame, drawn, .. } in &mut chunk {
                    if let Some(picture) = drawn {
                        annotator.draw(Arc::make_mut(picture), &labels(&frame.faces));
                    }
                }
                Ok(chunk)
            }
        });
        graph.sink("write", drawn, |chunk| {
            for Decided { frame, drawn, work } in chunk {
                let LabelledFrame { index, pts_ns, duration_ns, .. } = frame;
                summary.enter(&frame)?;
                summary.work += work;
                viewers.tell(&frame)?;
                if let Some(picture) = drawn {
                    output.show(Frame { index, pts_ns, duration_ns, picture }, control)?;
                }
                warnings.try_iter().for_each(|text| on_progress(Progress::Warning(&text)));
                on_progress(Progress::Frame);
            }
            Ok(())
        });
    })?;
    warnings.try_iter().for_each(|text| on_progress(Progress::Warning(&text)));
    statistics.wall += output.finish(control)?;
    let cut_off = source.cut_off().map(str::to_owned);
    let summary = summary.close(statistics, source.dropped(), control.is_stopping(), Some(viewers))?;
    Ok(LabelSummary { cut_off, ..summary })
}
