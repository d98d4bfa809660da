//! Events of a stream, with the best picture and the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use image::RgbImage;

use super::confirm::Confirm;
use super::cover::{boxes, cover};
use super::now_ms;
use super::store::{Event, Kind, NewEvent, NewSight, Store, StoreError, StrangerPicture, Subject};
use super::why::why;
use crate::annotate::Whom;
use crate::detect::BBox;
use crate::discover::cut_out;
use crate::embed::Embedding;
use crate::engine::{self, EventKind, Gallery, IdentifiedFace, LabelledFrame};
use crate::identify::{Identification, Who};
use crate::track::{is_distinct, weight_inside};

/// Maximum longer side of a stored picture, in pixels.
const PICTURE_PX: u32 = 480;
/// JPEG quality of stored pictures.
pub(super) const PICTURE_QUALITY: u8 = 88;
/// Ratio by which a view must be better to replace the previous one.
const BETTER: f32 = 1.1;

/// Turns the output of a stream into events of the store.
pub(super) struct Sightings {
    source: String,
    store: Arc<Store>,
    same_deg: Option<f64>,
    threshold_deg: Option<f64>,
    /// The enrolled people.
    people: BTreeSet<String>,
    best: BTreeMap<Who, Best>,
    /// From the stream's numbers of strangers to those of the store.
    strangers: BTreeMap<u32, i64>,
    confirm: Confirm,
    swept_ns: u64,
    /// The people whose faces are covered in pictures.
    redact: Option<Whom>,
}

/// The best view of a person in sight, and the last event about them.
#[derive(Clone)]
struct Best {
    weight: f32,
    /// Other people who must be covered are covered. The face itself is covered once its identity is known.
    portrait: RgbImage,
    /// The box of the face in it.
    face: BBox,
    embedded: Option<(f32, Embedding)>,
    identification: Identification,
    time_ms: i64,
    seen_ns: u64,
}

impl Sightings {
    /// Starts with nobody in sight. Strangers nearer than `same_deg` degrees are the same, and `confirm`
    /// decides when an event is sent.
    pub fn new(source: &str, store: Arc<Store>, same_deg: Option<f64>, confirm: Confirm) -> Self {
        Self {
            source: source.to_owned(),
            store,
            same_deg,
            threshold_deg: None,
            people: BTreeSet::new(),
            best: BTreeMap::new(),
            strangers: BTreeMap::new(),
            confirm,
            swept_ns: 0,
            redact: None,
        }
    }

    /// Sets the people whose faces are covered in pictures.
    pub fn redact(mut self, redact: Option<Whom>) -> Self {
        self.redact = redact;
        self
    }

    /// Uses another gallery from now on.
    pub fn set_gallery(&mut self, gallery: Option<&Gallery>) {
        self.threshold_deg = gallery.map(|gallery| gallery.threshold().angle_deg());
        self.people = gallery.into_iter().flat_map(Gallery::people).map(str::to_owned).collect();
    }

    /// Starts with another stream, which has other numbers of strangers.
    pub fn forget_numbers(&mut self) {
        self.strangers.clear();
        self.confirm.clear();
        self.best.retain(|who, _| matches!(who, Who::Named(_)));
    }

    /// The number that the store has for a stranger of the stream.
    pub fn number(&self, stranger: u32) -> Option<i64> {
        self.strangers.get(&stranger).map(|id| self.store.resolve(*id))
    }

    /// Takes the faces of a frame with its picture; returns the events that it confirmed, as recorded.
    ///
    /// # Errors
    /// When the store fails.
    pub fn see(&mut self, frame: &LabelledFrame) -> Result<Vec<Arc<Event>>, StoreError> {
        self.look(frame);
        let mut recorded = Vec::new();
        for event in self.confirm.see(frame) {
            recorded.extend(self.settle(&event)?);
        }
        Ok(recorded)
    }

    /// Keeps the best view of each person.
    fn look(&mut self, frame: &LabelledFrame) {
        let mut rgb: Option<RgbImage> = None;
        for face in frame.faces.iter().filter(|face| !face.transient) {
            let Some(who) = face.who() else { continue };
            let weight = weight_inside(&face.face, &face.quality);
            let held = self.best.get_mut(&who);
            let better = held.as_ref().is_none_or(|held| weight > held.weight * BETTER);
            if let Some(held) = held {
                held.identification.clone_from(&face.identification);
                held.time_ms = now_ms();
                held.seen_ns = frame.pts_ns;
                held.embed(face, weight);
                if !better {
                    continue;
                }
            }
            let Some(picture) = &frame.picture else { continue };
            let rgb = rgb.get_or_insert_with(|| picture.to_rgb());
            let Some((mut portrait, cut)) = cut_out(rgb, &face.face) else { continue };
            if let Some(whom) = &self.redact {
                let (own, (dx, dy)) =
                    (face.bbox(), (face.bbox().x1 - cut.bbox.x1, face.bbox().y1 - cut.bbox.y1));
                let others = boxes(whom, frame).filter(|bbox| *bbox != own);
                let moved = others.map(|BBox { x1, y1, x2, y2 }| BBox {
                    x1: x1 - dx,
                    y1: y1 - dy,
                    x2: x2 - dx,
                    y2: y2 - dy,
                });
                cover(&mut portrait, &moved.collect::<Vec<_>>());
            }
            let face_at = cut.bbox;
            match self.best.get_mut(&who) {
                Some(held) => {
                    (held.weight, held.portrait, held.face) = (weight, portrait, face_at);
                }
                None => {
                    let identification = face.identification.clone();
                    let (time_ms, seen_ns) = (now_ms(), frame.pts_ns);
                    let mut best = Best {
                        weight,
                        portrait,
                        face: face_at,
                        embedded: None,
                        identification,
                        time_ms,
                        seen_ns,
                    };
                    best.embed(face, weight);
                    self.best.insert(who, best);
                }
            }
        }
        self.forget_unseen(frame.pts_ns);
    }

    /// People without an event must not be kept for ever.
    fn forget_unseen(&mut self, now_ns: u64) {
        const TWO_HOURS_NS: u64 = 2 * 3600 * 1_000_000_000;
        if now_ns.saturating_sub(self.swept_ns) > TWO_HOURS_NS {
            self.swept_ns = now_ns;
            self.best.retain(|_, best| now_ns.saturating_sub(best.seen_ns) < TWO_HOURS_NS);
        }
    }

    /// Records an event once it is confirmed; returns the recorded events.
    ///
    /// # Errors
    /// When the store fails.
    pub fn tell(&mut self, event: engine::Event) -> Result<Vec<Arc<Event>>, StoreError> {
        if let EventKind::Renamed { from } = &event.kind {
            self.inherit(from, &event.who);
        }
        let verdict = self.confirm.take(event);
        if let Some(who) = &verdict.never {
            self.best.remove(who);
        }
        if let Some((from, to)) = &verdict.back {
            self.inherit(from, to);
        }
        let mut recorded = Vec::new();
        for event in &verdict.told {
            recorded.extend(self.settle(event)?);
        }
        Ok(recorded)
    }

    /// Records a confirmed event.
    fn settle(&mut self, event: &engine::Event) -> Result<Vec<Arc<Event>>, StoreError> {
        match &event.kind {
            EventKind::Appeared => {
                self.count_visit(&event.who)?;
                let Some(subject) = self.subject(&event.who)? else { return Ok(Vec::new()) };
                let appeared = self.record(Kind::Appeared, event, subject.clone(), None)?;
                match subject {
                    Subject::Stranger(_) => Ok(vec![appeared]),
                    person => Ok(vec![appeared, self.record(Kind::Recognised, event, person, None)?]),
                }
            }
            EventKind::Renamed { from } => self.renamed(event, from).map(|event| event.into_iter().collect()),
            EventKind::Left => {
                if self.is_forgotten(&event.who)? {
                    self.best.remove(&event.who);
                    return Ok(Vec::new());
                }
                let Some(subject) = self.subject(&event.who)? else {
                    self.best.remove(&event.who);
                    return Ok(Vec::new());
                };
                if let (Subject::Stranger(number), Some(best)) = (&subject, self.best.get(&event.who)) {
                    self.store.see_stranger(*number, &best.sight(&self.source, self.covers_strangers()))?;
                }
                let left = self.record(Kind::Left, event, subject, None)?;
                self.best.remove(&event.who);
                Ok(vec![left])
            }
        }
    }

    /// Counts the visit of a stranger whose number is already known.
    fn count_visit(&self, who: &Who) -> Result<(), StoreError> {
        let Who::Stranger(number) = who else { return Ok(()) };
        match self.number(*number) {
            Some(id) => self.store.stranger_came(id, &self.source, now_ms()),
            None => Ok(()),
        }
    }

    /// Whether a person was deleted while in sight: no more events are sent about them.
    fn is_forgotten(&mut self, who: &Who) -> Result<bool, StoreError> {
        match who {
            Who::Named(name) => Ok(!self.people.contains(name)),
            Who::Stranger(number) => match self.number(*number) {
                Some(known) => {
                    Ok(self.store.stranger(known)?.is_none() && self.strangers.remove(number).is_some())
                }
                None => Ok(false),
            },
            Who::Transient => Ok(true),
        }
    }

    fn renamed(&mut self, event: &engine::Event, from: &Who) -> Result<Option<Arc<Event>>, StoreError> {
        let was = match from {
            Who::Named(name) if self.people.contains(name) => Some(Subject::Person(name.clone())),
            // The person was deleted: nothing about them is kept, not even their earlier name.
            Who::Named(_) => None,
            Who::Stranger(number) => self.number(*number).map(Subject::Stranger),
            Who::Transient => None,
        };
        let Some(subject) = self.subject(&event.who)? else { return Ok(None) };
        // Two numbers of the stream may be one stranger of the store.
        if was.as_ref() == Some(&subject) {
            return Ok(None);
        }
        let kind = if matches!(subject, Subject::Person(_)) { Kind::Recognised } else { Kind::Corrected };
        self.record(kind, event, subject, was).map(Some)
    }

    /// A person whose name changes keeps the better view.
    fn inherit(&mut self, from: &Who, to: &Who) {
        let Some(before) = self.best.remove(from) else { return };
        match self.best.get_mut(to) {
            Some(now) if now.weight >= before.weight => {}
            Some(now) => {
                let identification = now.identification.clone();
                *now = Best { identification, time_ms: now.time_ms, seen_ns: now.seen_ns, ..before };
            }
            None => {
                self.best.insert(to.clone(), before);
            }
        }
    }

    fn record(
        &self,
        kind: Kind,
        event: &engine::Event,
        subject: Subject,
        was: Option<Subject>,
    ) -> Result<Arc<Event>, StoreError> {
        let best = self.best.get(&event.who);
        let covered = self.covers(&subject);
        let margin_deg = match &subject {
            Subject::Person(_) => best.and_then(|best| margin_deg(&best.identification, self.threshold_deg?)),
            Subject::Stranger(_) => None,
        };
        self.store.record(&NewEvent {
            time_ms: best.map_or_else(now_ms, |best| best.time_ms),
            kind,
            source: self.source.clone(),
            subject,
            was,
            angle_deg: event.angle_deg,
            margin_deg,
            why: why(best.map_or(&Identification::UNKNOWN, |best| &best.identification), self.threshold_deg),
            picture: best.map(|best| jpeg(&best.shown(covered))),
        })
    }

    /// The identity of a person in the store; a new stranger gets a number. `None` for a stranger that is
    /// ignored.
    fn subject(&mut self, who: &Who) -> Result<Option<Subject>, StoreError> {
        let number = match who {
            Who::Named(name) => return Ok(Some(Subject::Person(name.clone()))),
            Who::Stranger(number) => *number,
            Who::Transient => 0,
        };
        let known = self.number(number);
        if let Some(known) = known
            && self.store.stranger(known)?.is_some()
        {
            return Ok(Some(Subject::Stranger(known)));
        }
        let Some(best) = self.best.get(who) else {
            return Ok(Some(Subject::Stranger(known.unwrap_or_default())));
        };
        let sight = best.sight(&self.source, self.covers_strangers());
        let others: Vec<i64> = self.in_sight().collect();
        let like = match (&sight.embedding, self.same_deg) {
            (Some(embedding), Some(same_deg)) => self.store.stranger_like(embedding, same_deg, &others),
            _ => None,
        };
        let id = match like {
            Some(id) => {
                self.store.stranger_came(id, &self.source, sight.time_ms)?;
                if self.store.is_ignored(id)? {
                    return Ok(None);
                }
                id
            }
            None => self.store.add_stranger(&sight)?,
        };
        self.strangers.insert(number, id);
        Ok(Some(Subject::Stranger(id)))
    }

    /// Whether a person is covered in pictures.
    fn covers(&self, subject: &Subject) -> bool {
        let name = match subject {
            Subject::Person(name) => Some(name.as_str()),
            Subject::Stranger(_) => None,
        };
        self.redact.as_ref().is_some_and(|whom| whom.covers(name))
    }

    fn covers_strangers(&self) -> bool {
        self.redact.as_ref().is_some_and(|whom| whom.covers(None))
    }

    /// Strangers who are in sight with a number of the store.
    fn in_sight(&self) -> impl Iterator<Item = i64> {
        self.best.keys().filter_map(|who| match who {
            Who::Stranger(number) => self.number(*number),
            _ => None,
        })
    }
}

impl Best {
    /// Keeps the embedding of a view, if it has one and is better than the previous one.
    fn embed(&mut self, face: &IdentifiedFace, weight: f32) {
        if let Some(embedding) = &face.embedding
            && is_distinct(weight, face.face.score)
            && self.embedded.as_ref().is_none_or(|(held, _)| weight > *held)
        {
            self.embedded = Some((weight, embedding.clone()));
        }
    }

    /// The portrait, with the face covered if required.
    fn shown(&self, covered: bool) -> RgbImage {
        let mut portrait = self.portrait.clone();
        if covered {
            cover(&mut portrait, &[self.face]);
        }
        portrait
    }

    fn sight(&self, source: &str, covered: bool) -> NewSight {
        let (picture, face) = small(&self.shown(covered), self.face.centre());
        NewSight {
            time_ms: self.time_ms,
            source: source.to_owned(),
            weight: self.weight,
            embedding: self.embedded.as_ref().map(|(_, embedding)| embedding.clone()),
            picture: StrangerPicture { jpeg: encode(&picture, PICTURE_QUALITY), face },
        }
    }
}

/// The margin of a named face: degrees below the threshold.
fn margin_deg(identification: &Identification, threshold_deg: f64) -> Option<f32> {
    let nearest = identification.nearest.as_ref()?;
    Some(threshold_deg as f32 - nearest.handicap_deg - nearest.angle_deg)
}

fn jpeg(portrait: &RgbImage) -> Vec<u8> {
    encode(&small(portrait, [0.0; 2]).0, PICTURE_QUALITY)
}

/// A picture reduced to the stored size, and the new position of a point.
fn small(picture: &RgbImage, [x, y]: [f32; 2]) -> (RgbImage, [f32; 2]) {
    let longer = picture.width().max(picture.height());
    if longer <= PICTURE_PX {
        return (picture.clone(), [x, y]);
    }
    let scale = PICTURE_PX as f32 / longer as f32;
    let side = |side: u32| ((side as f32 * scale) as u32).max(1);
    let small = image::imageops::thumbnail(picture, side(picture.width()), side(picture.height()));
    (small, [x * scale, y * scale])
}

/// A picture as JPEG.
pub(super) fn encode(picture: &RgbImage, quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, quality);
    // In memory, encoding fails only for a picture without pixels, which shows nothing.
    if encoder.encode_image(picture).is_err() {
        bytes.clear();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{Face, Quality};
    use crate::embed::Embedding;
    use crate::media::Picture;
    use crate::models::ModelId;
    use crate::serve::store::EventQuery;
    use crate::track::TrackId;

    const SAME_DEG: f64 = 60.0;

    fn at(deg: f64) -> Embedding {
        let vector = vec![deg.to_radians().cos() as f32, deg.to_radians().sin() as f32];
        Embedding::new(ModelId([1; 8]), vector).unwrap()
    }

    /// A frame with a face of a person, `side` pixels large, with an embedding at `deg` degrees.
    fn frame(index: u64, who: &Who, side: f32, deg: f64) -> LabelledFrame {
        let bbox = BBox { x1: 100.0, y1: 50.0, x2: 100.0 + side, y2: 50.0 + side };
        let quality = Quality { size_px: side, yaw_deg: 0.0, pitch_deg: 0.0, roll_deg: 0.0, sharpness: 0.3 };
        let mut face = IdentifiedFace::unknown(Face { bbox, score: 1.0, landmarks: [[0.0; 2]; 5] }, quality);
        face.track = Some(TrackId(1));
        face.embedding = Some(at(deg));
        match who {
            Who::Named(name) => face.identification.name = Some(name.clone()),
            Who::Stranger(number) => face.stranger = Some(*number),
            Who::Transient => face.transient = true,
        }
        let picture = Picture::from_rgb(&RgbImage::from_pixel(640, 360, image::Rgb([90, 120, 60])));
        let pts_ns = index * 200_000_000;
        let (duration_ns, picture) = (200_000_000, Some(Arc::new(picture)));
        LabelledFrame { index, pts_ns, duration_ns, faces: vec![face], picture, ..LabelledFrame::default() }
    }

    fn event(kind: EventKind, who: &Who) -> engine::Event {
        let (track, who) = (TrackId(1), who.clone());
        engine::Event { kind, track, who, pts_ns: 0, frame: 0, angle_deg: Some(41.0) }
    }

    struct World {
        sightings: Sightings,
        store: Arc<Store>,
        _folder: tempfile::TempDir,
    }

    fn world() -> World {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path()).unwrap());
        let mut sightings = Sightings::new("door", Arc::clone(&store), Some(SAME_DEG), Confirm::new(1, 0));
        sightings.people.insert("Ada".into());
        World { sightings, store, _folder: folder }
    }

    impl World {
        fn tell(&mut self, kind: EventKind, who: &Who) -> Vec<String> {
            let told = self.sightings.tell(event(kind, who)).unwrap();
            Self::lines(&told)
        }

        /// Takes a frame; returns the events that it confirmed.
        fn see(&mut self, index: u64, who: &Who) -> Vec<String> {
            let told = self.sightings.see(&frame(index, who, 60.0, 0.0)).unwrap();
            Self::lines(&told)
        }

        fn lines(told: &[Arc<Event>]) -> Vec<String> {
            let one = |event: &Arc<Event>| match &event.was {
                Some(was) => format!("{} {}, was {was}", event.who, event.kind),
                None => format!("{} {}", event.who, event.kind),
            };
            told.iter().map(one).collect()
        }

        fn width_of_last_picture(&self) -> u32 {
            let last = self.store.last_event().unwrap();
            image::load_from_memory(&self.store.event_picture(last).unwrap().unwrap()).unwrap().width()
        }
    }

    #[test]
    fn a_stranger_who_turns_out_to_be_somebody_is_told_with_the_best_view_so_far() {
        let mut world = world();
        let (stranger, ada) = (Who::Stranger(7), Who::Named("Ada".into()));
        world.sightings.see(&frame(0, &stranger, 50.0, 0.0)).unwrap();
        assert_eq!(world.tell(EventKind::Appeared, &stranger), ["Unknown 1 appeared"]);
        assert_eq!(world.sightings.number(7), Some(1), "numbers are the store's");
        let small = world.width_of_last_picture();
        world.sightings.see(&frame(1, &stranger, 80.0, 0.0)).unwrap();
        world.sightings.see(&frame(2, &ada, 60.0, 0.0)).unwrap();
        let renamed = EventKind::Renamed { from: stranger };
        assert_eq!(world.tell(renamed, &ada), ["Ada recognised, was Unknown 1"]);
        assert!(world.width_of_last_picture() > small, "the view of the second frame");
        assert_eq!(world.tell(EventKind::Left, &ada), ["Ada left"]);
        assert!(world.sightings.best.is_empty());
        world.sightings.see(&frame(9, &ada, 60.0, 0.0)).unwrap();
        assert_eq!(world.tell(EventKind::Appeared, &ada), ["Ada appeared", "Ada recognised"]);
        let renamed = EventKind::Renamed { from: ada };
        world.sightings.see(&frame(10, &Who::Stranger(8), 60.0, 90.0)).unwrap();
        assert_eq!(world.tell(renamed, &Who::Stranger(8)), ["Unknown 2 corrected, was Ada"]);
    }

    #[test]
    fn a_stranger_keeps_the_number_over_visits_and_another_one_gets_another() {
        let mut world = world();
        let visit = |world: &mut World, number: u32, deg: f64| {
            let who = Who::Stranger(number);
            world.sightings.see(&frame(0, &who, 80.0, deg)).unwrap();
            let told = world.tell(EventKind::Appeared, &who);
            world.tell(EventKind::Left, &who);
            told
        };
        assert_eq!(visit(&mut world, 1, 0.0), ["Unknown 1 appeared"]);
        assert_eq!(visit(&mut world, 2, 90.0), ["Unknown 2 appeared"]);
        assert_eq!(visit(&mut world, 2, 90.0), ["Unknown 2 appeared"]);
        // Another stream, whose numbers start again.
        world.sightings.forget_numbers();
        assert_eq!(visit(&mut world, 1, 80.0), ["Unknown 2 appeared"]);
        assert_eq!(world.store.stranger(2).unwrap().unwrap().visits, 3);
        // Two people in one picture are different, however alike.
        let (one, other) = (Who::Stranger(5), Who::Stranger(6));
        world.sightings.see(&frame(1, &one, 80.0, 0.0)).unwrap();
        world.sightings.see(&frame(1, &other, 80.0, 1.0)).unwrap();
        assert_eq!(world.tell(EventKind::Appeared, &one), ["Unknown 1 appeared"]);
        assert_eq!(world.tell(EventKind::Appeared, &other), ["Unknown 3 appeared"]);
    }

    #[test]
    fn who_was_not_seen_often_enough_is_told_to_nobody_and_leaves_no_stranger_behind() {
        let mut world = world();
        world.sightings.confirm = Confirm::new(3, 300_000_000);
        let (stranger, ada) = (Who::Stranger(1), Who::Named("Ada".into()));
        let appear = |world: &mut World, index: u64, who: &Who| {
            assert_eq!(world.see(index, who), [""; 0]);
            let (track, pts_ns) = (TrackId(1), index * 200_000_000);
            let event = engine::Event {
                kind: EventKind::Appeared,
                track,
                who: who.clone(),
                pts_ns,
                frame: index,
                angle_deg: None,
            };
            assert!(world.sightings.tell(event).unwrap().is_empty());
        };
        // Two frames, and gone.
        appear(&mut world, 0, &stranger);
        assert_eq!(world.see(1, &stranger), [""; 0]);
        assert_eq!(world.tell(EventKind::Left, &stranger), [""; 0]);
        assert!(world.store.strangers().unwrap().is_empty() && world.sightings.best.is_empty());
        // Three frames.
        appear(&mut world, 10, &ada);
        assert_eq!(world.see(11, &ada), [""; 0]);
        assert_eq!(world.see(12, &ada), ["Ada appeared", "Ada recognised"]);
        // A name that lasts for one frame causes no event.
        world.see(13, &stranger);
        let renamed = |from: &Who| EventKind::Renamed { from: from.clone() };
        assert_eq!(world.tell(renamed(&ada), &stranger), [""; 0]);
        world.see(14, &ada);
        assert_eq!(world.tell(renamed(&stranger), &ada), [""; 0]);
        // A person who leaves under an unconfirmed name leaves under the confirmed one.
        world.see(15, &stranger);
        assert_eq!(world.tell(renamed(&ada), &stranger), [""; 0]);
        assert_eq!(world.tell(EventKind::Left, &stranger), ["Ada left"]);
        assert!(world.store.strangers().unwrap().is_empty() && world.sightings.best.is_empty());
        // Frames under the name before count: it is the same face.
        appear(&mut world, 20, &stranger);
        assert_eq!(world.see(21, &stranger), [""; 0]);
        world.see(22, &ada);
        let mut event = event(renamed(&stranger), &ada);
        event.pts_ns = 22 * 200_000_000;
        let told = world.sightings.tell(event).unwrap();
        assert_eq!(World::lines(&told), ["Ada appeared", "Ada recognised"]);
    }

    #[test]
    fn nothing_more_is_told_of_who_was_deleted_while_in_sight() {
        let mut world = world();
        let (ada, stranger) = (Who::Named("Ada".into()), Who::Stranger(1));
        world.sightings.see(&frame(0, &ada, 60.0, 0.0)).unwrap();
        world.tell(EventKind::Appeared, &ada);
        world.sightings.see(&frame(0, &stranger, 60.0, 90.0)).unwrap();
        world.tell(EventKind::Appeared, &stranger);
        world.sightings.set_gallery(None);
        world.store.forget_person("Ada").unwrap();
        world.store.forget_stranger(1).unwrap();
        assert_eq!(world.tell(EventKind::Left, &ada), [""; 0]);
        assert_eq!(world.tell(EventKind::Left, &stranger), [""; 0]);
        world.sightings.see(&frame(1, &Who::Stranger(2), 60.0, 0.0)).unwrap();
        let renamed = EventKind::Renamed { from: ada };
        assert_eq!(world.tell(renamed, &Who::Stranger(2)), ["Unknown 2 corrected"]);
        let left = world.store.events(&EventQuery::default()).unwrap();
        assert!(left.len() == 1 && left[0].was.is_none() && world.store.strangers().unwrap().len() == 1);
    }

    /// Whether the picture of the last event shows anything but black where its face is.
    fn shows_face(world: &World) -> bool {
        let last = world.store.last_event().unwrap();
        let picture = image::load_from_memory(&world.store.event_picture(last).unwrap().unwrap()).unwrap();
        let picture = picture.to_rgb8();
        picture.get_pixel(picture.width() / 2, picture.height() / 2).0.iter().any(|value| *value > 20)
    }

    #[test]
    fn strangers_are_covered_in_all_pictures_where_that_is_asked_for_and_nobody_else_is() {
        let mut world = world();
        world.sightings.redact = Some(Whom::Unknown);
        let (stranger, ada) = (Who::Stranger(1), Who::Named("Ada".into()));
        world.sightings.see(&frame(0, &stranger, 80.0, 0.0)).unwrap();
        world.tell(EventKind::Appeared, &stranger);
        assert!(!shows_face(&world), "the event");
        let picture = world.store.stranger_picture(1).unwrap().unwrap();
        let at = picture.face.map(|x| x as u32);
        let kept = image::load_from_memory(&picture.jpeg).unwrap().to_rgb8();
        assert!(kept.get_pixel(at[0], at[1]).0.iter().all(|value| *value < 20), "the stranger");
        // The same view, once it has a name.
        assert_eq!(
            world.tell(EventKind::Renamed { from: stranger }, &ada),
            ["Ada recognised, was Unknown 1"]
        );
        assert!(shows_face(&world));
        let corrected = EventKind::Renamed { from: ada.clone() };
        world.tell(corrected, &Who::Stranger(2));
        assert!(!shows_face(&world), "she is somebody else after all");
        // Beside a known person are a stranger, and a person outside the watched region.
        world.tell(EventKind::Left, &Who::Stranger(2));
        let mut both = frame(9, &ada, 80.0, 0.0);
        let mut other = both.faces[0].clone();
        other.identification.name = None;
        other.face.bbox = BBox { x1: 200.0, x2: 240.0, ..other.face.bbox };
        both.faces.push(other);
        both.elsewhere.push(BBox { x1: 60.0, y1: 50.0, x2: 70.0, y2: 60.0 });
        world.sightings.see(&both).unwrap();
        world.tell(EventKind::Appeared, &ada);
        assert!(shows_face(&world));
        let last = world.store.last_event().unwrap();
        let picture = world.store.event_picture(last).unwrap().unwrap();
        let picture = image::load_from_memory(&picture).unwrap().to_rgb8();
        let dark = |x: u32, y: u32| picture.get_pixel(x, y).0.iter().all(|value| *value < 20);
        // The distance of the portrait from the left and the top of the frame.
        let by = (0.6 * 80.0) as u32;
        let (left, top) = (100 - by, 50 - by);
        assert!(dark(210 - left, 90 - top) && dark(64 - left, 55 - top));
    }
}
