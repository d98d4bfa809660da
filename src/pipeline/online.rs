//! One pass: look, decide with what was seen so far, write.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::graph::{self, Control};
use super::job::{Event, LabelError, LabelJob, LabelSummary, Mode, Pass};
use super::ledger::{Ledger, labels};
use super::look::{self, Look, Looked, LookedFace};
use super::outlet::Outlet;
use super::recognise::{RecogniseError, Sighting};
use super::recorder::Recorder;
use crate::gallery;
use crate::identify::{Decision, Identification, Identifier, IdentifyError, Online, View};
use crate::media::{Frame, Source};
use crate::track::{Moment, TrackId, Tracker};

/// A frame on its way to the outputs.
struct Decided {
    looked: Looked,
    tracks: Vec<TrackId>,
    sightings: Vec<Sighting>,
}

/// Labels the frames of `source` as they come.
pub(super) fn run(
    job: LabelJob<'_>,
    mut source: Source,
    mut outlet: Outlet,
    control: &Control,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<LabelSummary, LabelError> {
    let info = source.info().clone();
    on_event(Event::Opened {
        pass: Pass::Only,
        size: (info.width, info.height),
        frames: info.frames,
        encoder: outlet.encoder(),
    });
    let (annotator, threads, draws) = (job.annotator, job.threads.max(1), outlet.shows());
    let per_frame = job.mode == Mode::PerFrame;
    let how = Look { pictures: draws, ..Look::of(&job) };
    let mut recorder = job.analysis.is_some().then(|| Recorder::new(&job, &info));
    let mut ledger = Ledger::new(job.results);
    let (warn, warnings) = crossbeam_channel::unbounded::<String>();
    let in_flight = look::in_flight(&how, info.live, (info.width, info.height));
    let from = &mut source;
    let mut statistics = graph::run(in_flight, control, |graph| {
        let looked = look::stages(graph, from, warn, how, || {});
        let mut tracker = Tracker::new(job.same_deg);
        let mut online = Online::new(job.identifier, job.same_deg);
        let decided = graph.in_order("decide", looked, move |stretch: Vec<Looked>| {
            let one = |looked: Looked| {
                let tracks = looked.track(&mut tracker);
                let sightings = match job.identifier.filter(|_| per_frame) {
                    Some(identifier) => alone(&looked, &tracks, identifier),
                    None => together(&looked, &tracks, &mut online),
                };
                let sightings = sightings.map_err(RecogniseError::from)?;
                Ok(Decided { looked, tracks, sightings })
            };
            stretch.into_iter().map(one).collect::<Result<Vec<_>, LabelError>>()
        });
        let drawn = graph.map("annotate", threads, decided, || {
            move |mut stretch: Vec<Decided>| {
                for Decided { looked, sightings, .. } in &mut stretch {
                    if let Some(picture) = &mut looked.picture {
                        annotator.draw(Arc::make_mut(picture), &labels(sightings));
                    }
                }
                Ok(stretch)
            }
        });
        graph.sink("write", drawn, |stretch| {
            for Decided { looked, tracks, sightings } in stretch {
                let Moment { frame: index, pts_ns, .. } = looked.moment;
                ledger.enter(index, pts_ns, looked.duration_ns, &sightings)?;
                ledger.work += looked.work;
                ledger.lasts_until(pts_ns.saturating_add(looked.duration_ns));
                if let Some(recorder) = &mut recorder {
                    recorder.record(&looked, &tracks);
                }
                if let Some(picture) = looked.picture {
                    outlet
                        .show(Frame { index, pts_ns, duration_ns: looked.duration_ns, picture }, control)?;
                }
                warnings.try_iter().for_each(|text| on_event(Event::Warning(&text)));
                on_event(Event::Frame);
            }
            Ok(())
        });
    })?;
    warnings.try_iter().for_each(|text| on_event(Event::Warning(&text)));
    statistics.wall += outlet.finish(control)?;
    if let (Some(recorder), Some(path)) = (recorder, &job.analysis) {
        recorder.finish().write(path)?;
    }
    let cut_off = source.cut_off().map(str::to_owned);
    let summary = ledger.close(statistics, source.dropped(), control.is_stopping())?;
    Ok(LabelSummary { cut_off, ..summary })
}

/// Decides about each face by itself, as if there were no time.
fn alone(
    looked: &Looked,
    tracks: &[TrackId],
    identifier: &Identifier,
) -> Result<Vec<Sighting>, IdentifyError> {
    let one = |(one, &track): (&LookedFace, &TrackId)| {
        let identification = match &one.embedding {
            Some(embedding) => {
                identifier.identify(embedding, gallery::Viewpoint::of(&one.face, &one.quality))?
            }
            None => Identification::UNKNOWN,
        };
        let LookedFace { face, quality, .. } = *one;
        Ok(Sighting {
            face,
            quality,
            identification,
            track: Some(track),
            stranger: None,
            glimpse: false,
            votes: None,
            through: None,
        })
    };
    looked.faces.iter().zip(tracks).map(one).collect()
}

/// Decides about the tracks with what was seen of them so far.
fn together(
    looked: &Looked,
    tracks: &[TrackId],
    online: &mut Online<'_>,
) -> Result<Vec<Sighting>, IdentifyError> {
    let views: Vec<View<'_>> = looked
        .faces
        .iter()
        .zip(tracks)
        .map(|(one, &track)| View {
            track,
            face: &one.face,
            quality: &one.quality,
            embedding: one.embedding.as_ref(),
        })
        .collect();
    let decisions = online.decide(&looked.moment, &views)?;
    let by_track: BTreeMap<TrackId, &Decision> = decisions.iter().map(|one| (one.track, one)).collect();
    let one = |(one, track): (&LookedFace, &TrackId)| {
        let LookedFace { face, quality, .. } = *one;
        Sighting::of_track(face, quality, *track, by_track.get(track).copied())
    };
    Ok(looked.faces.iter().zip(tracks).map(one).collect())
}
