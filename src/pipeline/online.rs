//! One pass: observe, decide with the frames so far, write.

use std::sync::Arc;

use super::LabelError;
use super::analysis_builder::{AnalysisBuilder, AnalysisWriter};
use super::draw::Drawer;
use super::graph::{self, Control};
use super::job::{LabelJob, LabelSummary, Mode, Pass, Progress};
use super::output::{Outputs, facts_of};
use super::run_summary::RunSummary;
use super::stages::{self, Observe};
use super::subscriber::tell_opened;
use crate::engine::observe::ObservedFrame;
use crate::engine::{Decider, Gallery, LabelledFrame, RecogniseError, Work, same_deg};
use crate::media::Picture;

/// A frame on its way to the subscribers.
struct Decided {
    frame: LabelledFrame,
    /// The picture with names, if it is needed.
    named: Option<Arc<Picture>>,
    work: Work,
}

/// Labels the frames of a source as they come.
pub(super) fn run(
    mut job: LabelJob<'_>,
    mut outputs: Outputs,
    control: &Control,
    on_progress: &mut dyn FnMut(Progress<'_>),
) -> Result<LabelSummary, LabelError> {
    let info = outputs.source.info().clone();
    on_progress(Progress::Opened {
        pass: Pass::Only,
        size: (info.width, info.height),
        frames: info.frames,
        encoder: outputs.encoder.as_deref(),
    });
    let embeds = job.embeds();
    let threads = job.engine.threads();
    let annotator = job.drawing.annotator(job.gallery.as_ref())?;
    let mut subscribers = std::mem::take(&mut job.subscribers);
    if let Some(path) = job.analysis.take() {
        let builder = AnalysisBuilder::new(&job.engine, true, &job.input, &info);
        subscribers.push(Box::new(AnalysisWriter::new(builder, path)?));
    }
    tell_opened(&mut subscribers, &facts_of(&info))?;
    let mut summary = RunSummary::new(&mut subscribers);
    let mut viewers = outputs.viewers(None, subscribers);
    let mut source = outputs.source;
    let drawer = &Drawer::new(annotator, None, &viewers);
    let job = &job;
    let how = Observe::of(job, embeds, !viewers.is_empty());
    let (warn, warnings) = crossbeam_channel::unbounded::<String>();
    let in_flight = how.in_flight(info.live, (info.width, info.height));
    let from = &mut source;
    let identifier = job.gallery.as_ref().map(Gallery::identifier);
    let mut decider = Decider::new(same_deg(&job.engine, job.gallery.as_ref()), job.mode == Mode::PerFrame);
    let statistics = graph::run(in_flight, control, |graph| {
        let observed = stages::stages(graph, from, warn, how, || {});
        let decided = graph.in_order("decide", observed, move |chunk: Vec<ObservedFrame>| {
            let one = |observed: ObservedFrame| {
                let work = observed.work;
                let frame = decider.decide(observed, identifier).map_err(RecogniseError::from)?;
                Ok(Decided { frame, named: None, work })
            };
            chunk.into_iter().map(one).collect::<Result<Vec<_>, LabelError>>()
        });
        let drawn = graph.map("annotate", threads, decided, || {
            |mut chunk: Vec<Decided>| {
                chunk.iter_mut().for_each(|one| one.named = drawer.draw(&mut one.frame));
                Ok(chunk)
            }
        });
        graph.sink("write", drawn, |chunk| {
            for Decided { frame, named, work } in chunk {
                summary.enter(&frame)?;
                summary.work += work;
                viewers.tell(frame, named)?;
                warnings.try_iter().for_each(|text| on_progress(Progress::Warning(&text)));
                on_progress(Progress::Frame);
            }
            Ok(())
        });
    })?;
    warnings.try_iter().for_each(|text| on_progress(Progress::Warning(&text)));
    let cut_off = source.cut_off().map(str::to_owned);
    let summary = summary.close(statistics, source.dropped(), control.is_stopping(), viewers)?;
    Ok(LabelSummary { cut_off, ..summary })
}
