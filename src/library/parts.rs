//! Long videos in parts for several workers.
//!
//! A part begins at a key frame and ends with the key frame at which the next part begins. Both parts analyse
//! that frame, so that its faces show which tracks continue. Each part has its own analysis until the last
//! part is done. Then they become the analysis of the file, in which tracks are [joined](track::join) as in a
//! file that was analysed as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::database::{Transaction, on_connection, on_pool};
use super::{Library, LibraryError, queue};
use crate::analysis::Analysis;
use crate::media::{Input, Selection, Source, SourceOptions, marks_key_frames};
use crate::track::{self, Observation, TrackId};

/// A video is cut if it is at least this many times as long as a part.
const LEAST_PARTS: f64 = 1.5;
/// Minimum overlap of two boxes of one frame that are one face.
const SAME_FACE: f32 = 0.5;

/// A task of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task<'a> {
    /// Analyse a file, or cut it into parts.
    File(&'a str),
    /// Analyse the part of that number.
    Part(&'a str, i64),
    /// Join the parts.
    Join(&'a str),
}

impl<'a> Task<'a> {
    /// The task with this text in the queue.
    pub fn of(text: &'a str) -> Self {
        match text.split_once('#') {
            None => Self::File(text),
            Some((content, "join")) => Self::Join(content),
            Some((content, number)) => Self::Part(content, number.parse().unwrap_or(-1)),
        }
    }

    /// Its text in the queue.
    fn text(self) -> String {
        match self {
            Self::File(content) => content.to_owned(),
            Self::Part(content, number) => format!("{content}#{number}"),
            Self::Join(content) => format!("{content}#join"),
        }
    }

    /// The digest of the file.
    pub fn content(self) -> &'a str {
        match self {
            Self::File(content) | Self::Part(content, _) | Self::Join(content) => content,
        }
    }
}

/// A part of a video.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// Its number, from 0.
    pub number: i64,
    /// Number of parts of the video.
    pub of: i64,
    /// Time before which it does not begin, in nanoseconds.
    pub from_ns: u64,
    /// Time before which it does not end; `None` for the end of the video.
    pub until_ns: Option<u64>,
}

impl Part {
    /// The frames to analyse, of those that are selected in the whole file.
    pub fn selection(&self, whole: Selection) -> Selection {
        Selection { from_ns: self.from_ns, until_ns: self.until_ns, ..whole }
    }
}

/// A part in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PartRow {
    pub part: Part,
    /// Whether it was analysed.
    pub done: bool,
    /// Why it ends early, if it does.
    pub remark: String,
    /// Time that it took, in milliseconds.
    pub work_ms: i64,
}

/// The parts of a video, of about `length` each; `None` if it is analysed as a whole: a short video, one
/// whose container does not mark key frames, or one that cannot be opened, for which the worker will report
/// the reason.
pub(super) fn cut(path: &Path, length: Duration) -> Option<Vec<Part>> {
    if length.is_zero() || !marks_key_frames(path) {
        return None;
    }
    let source = Source::open(&Input::File(path.to_owned()), &SourceOptions::default()).ok()?;
    equal_parts(source.info().duration_ns?, length)
}

fn equal_parts(duration_ns: u64, length: Duration) -> Option<Vec<Part>> {
    let ratio = duration_ns as f64 / length.as_nanos() as f64;
    if ratio < LEAST_PARTS {
        return None;
    }
    let of = ratio.round() as u64;
    let start = |number: u64| (u128::from(duration_ns) * u128::from(number) / u128::from(of)) as u64;
    let part = |number: u64| Part {
        number: number as i64,
        of: of as i64,
        from_ns: start(number),
        until_ns: (number + 1 < of).then(|| start(number + 1)),
    };
    Some((0..of).map(part).collect())
}

/// The joined analyses of the parts of a video.
pub(super) struct Joined {
    pub analysis: Analysis,
    /// For each observation, the part in which it was made and its track there.
    pub origins: Vec<(usize, TrackId)>,
    /// For each part, the number of its first frame.
    pub offsets: Vec<u64>,
}

/// Joins the analyses of all parts of a video, in order. `same_deg` is the largest angle between two views of
/// a person, in degrees. `None` if there is no part.
pub(super) fn join(parts: &[Analysis], same_deg: Option<f64>) -> Option<Joined> {
    let mut analysis = Analysis { observations: Vec::new(), cuts: Vec::new(), ..parts.first()?.clone() };
    analysis.video.frames = 0;
    // Workers with different CPUs may have analysed the parts. The whole is only as precise as its least
    // precise part.
    analysis.arithmetic = parts.iter().map(|part| part.arithmetic).max()?;
    let (mut origins, mut offsets) = (Vec::new(), Vec::new());
    // Global numbers of the tracks of the current part, and of those that continue in its last frame.
    let mut numbers: BTreeMap<TrackId, TrackId>;
    let mut going_on: Vec<(Observation, TrackId)> = Vec::new();
    let mut next = 1;
    for (at, part) in parts.iter().enumerate() {
        let offset = analysis.video.frames;
        offsets.push(offset);
        if part.video.frames == 0 {
            continue;
        }
        let goes_on = parts[at + 1..].iter().any(|later| later.video.frames > 0);
        let own = part.video.frames - u64::from(goes_on);
        numbers = continued(&going_on, part, &analysis.observations, same_deg);
        let mut last = Vec::new();
        for seen in &part.observations {
            let id = *numbers.entry(seen.track).or_insert_with(|| {
                next += 1;
                TrackId(next - 1)
            });
            if seen.frame < own {
                let frame = seen.frame + offset;
                analysis.observations.push(Observation { frame, track: id, ..seen.clone() });
                origins.push((at, seen.track));
            } else {
                last.push((seen.clone(), id));
            }
        }
        // No track continues across a cut.
        let cut = goes_on && part.cuts.contains(&own);
        going_on = if cut { Vec::new() } else { last };
        analysis.cuts.extend(
            part.cuts.iter().filter(|&&cut| cut < own || goes_on && cut == own).map(|cut| cut + offset),
        );
        analysis.video.frames += own;
        analysis.video.duration_ns = part.video.duration_ns;
    }
    track::join(&mut analysis.observations, &analysis.cuts, same_deg);
    Some(Joined { analysis, origins, offsets })
}

/// The tracks of a part that continue tracks of the earlier parts: those whose faces are at the same position
/// in the common frame, unless they look like two people.
fn continued(
    going_on: &[(Observation, TrackId)],
    part: &Analysis,
    before: &[Observation],
    same_deg: Option<f64>,
) -> BTreeMap<TrackId, TrackId> {
    let first: Vec<&Observation> = part.observations.iter().take_while(|seen| seen.frame == 0).collect();
    let mut pairs: Vec<(f32, usize, usize)> = Vec::new();
    for (a, (last, id)) in going_on.iter().enumerate() {
        for (b, seen) in first.iter().enumerate() {
            let overlap = last.face.bbox.iou(&seen.face.bbox);
            if overlap >= SAME_FACE && !differ(*id, before, seen.track, &part.observations, same_deg) {
                pairs.push((overlap, a, b));
            }
        }
    }
    pairs.sort_by(|x, y| y.0.total_cmp(&x.0).then((x.1, x.2).cmp(&(y.1, y.2))));
    let (mut numbers, mut taken) = (BTreeMap::new(), BTreeSet::new());
    for (_, a, b) in pairs {
        let (number, own) = (going_on[a].1, first[b].track);
        if !numbers.contains_key(&own) && taken.insert(number) {
            numbers.insert(own, number);
        }
    }
    numbers
}

/// Whether two tracks show two people.
fn differ(a: TrackId, of_a: &[Observation], b: TrackId, of_b: &[Observation], same_deg: Option<f64>) -> bool {
    let template =
        |track, all: &[Observation]| track::template(all.iter().filter(|seen| seen.track == track));
    let angle = || template(a, of_a)?.angle_deg(&template(b, of_b)?);
    same_deg.is_some_and(|same_deg| angle().is_some_and(|angle| angle > same_deg))
}

impl Library {
    /// The parts of a file, in order.
    pub(super) fn parts(&self, content: &str) -> Result<Vec<PartRow>, LibraryError> {
        type Row = (i64, i64, i64, String, String, i64);
        let rows: Vec<Row> = self.wait(async {
            on_pool!(&self.database, pool => {
                sqlx::query_as("SELECT part, from_ns, until_ns, state, remark, work_ms FROM part WHERE content = $1 ORDER BY part")
                    .bind(content).fetch_all(pool).await
            })
        })?;
        let of = rows.len() as i64;
        let parts = rows.into_iter().map(|(number, from_ns, until_ns, state, remark, work_ms)| {
            let (from_ns, until_ns) = (u64::try_from(from_ns).unwrap_or(0), u64::try_from(until_ns).ok());
            PartRow { part: Part { number, of, from_ns, until_ns }, done: state == "done", remark, work_ms }
        });
        Ok(parts.collect())
    }

    /// The pictures of the tracks of the parts of a file: by part and track, the face and the JPEG.
    #[expect(clippy::type_complexity, reason = "a map from a key to what the table holds")]
    pub(super) fn part_pictures(
        &self,
        content: &str,
    ) -> Result<BTreeMap<(i64, TrackId), (String, Vec<u8>)>, LibraryError> {
        let rows: Vec<(i64, i64, String, Vec<u8>)> = self.wait(async {
            on_pool!(&self.database, pool => {
                sqlx::query_as("SELECT part, track, face, jpeg FROM part_picture WHERE content = $1")
                    .bind(content).fetch_all(pool).await
            })
        })?;
        let key = |part, track| (part, TrackId(u32::try_from(track).unwrap_or(0)));
        Ok(rows.into_iter().map(|(part, track, face, jpeg)| (key(part, track), (face, jpeg))).collect())
    }
}

/// The name of the analysis of a part.
pub(super) fn name(content: &str, part: Part) -> String {
    // With another number of parts, the parts are different.
    format!("{content}.part-{}-of-{}.parquet", part.number, part.of)
}

/// Enters the parts of a file, and a task for each.
pub(super) async fn enter(
    transaction: &mut Transaction,
    content: &str,
    parts: &[Part],
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    remove(transaction, content).await?;
    for part in parts {
        let until_ns = part.until_ns.map_or(-1, |until_ns| until_ns as i64);
        on_connection!(&mut *transaction, c => {
            let statement = "INSERT INTO part (content, part, from_ns, until_ns, state, remark, work_ms) \
                             VALUES ($1, $2, $3, $4, 'due', '', 0)";
            let query = sqlx::query(statement).bind(content).bind(part.number).bind(part.from_ns as i64);
            query.bind(until_ns).execute(c).await.map(drop)
        })?;
    }
    let tasks: Vec<String> = parts.iter().map(|part| Task::Part(content, part.number).text()).collect();
    let priority = priority(transaction, content).await?;
    queue::push(transaction, &tasks, priority).await
}

/// Records that a part is done. After the last one, enters the task to join them.
pub(super) async fn done(
    transaction: &mut Transaction,
    content: &str,
    number: i64,
    remark: &str,
    milliseconds: i64,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // If two workers finish at the same time, the second waits here and sees the changes of the first.
    on_connection!(&mut *transaction, c => {
        sqlx::query("UPDATE file SET error = '' WHERE content = $1").bind(content).execute(c).await.map(drop)
    })?;
    on_connection!(&mut *transaction, c => {
        let statement = "UPDATE part SET state = 'done', remark = $3, work_ms = $4 WHERE content = $1 AND part = $2";
        let query = sqlx::query(statement).bind(content).bind(number).bind(remark).bind(milliseconds);
        query.execute(c).await.map(drop)
    })?;
    let (due,): (i64,) = on_connection!(&mut *transaction, c => {
        sqlx::query_as("SELECT COUNT(*) FROM part WHERE content = $1 AND state = 'due'").bind(content).fetch_one(c).await
    })?;
    if due > 0 {
        return Ok(());
    }
    let priority = priority(transaction, content).await?;
    queue::push(transaction, &[Task::Join(content).text()], priority).await
}

/// Stores the picture of a track of a part.
pub(super) async fn put_picture(
    transaction: &mut Transaction,
    content: &str,
    number: i64,
    track: TrackId,
    (face, jpeg): &(String, Vec<u8>),
) -> Result<(), sqlx::Error> {
    on_connection!(transaction, c => {
        let statement = "INSERT INTO part_picture (content, part, track, face, jpeg) VALUES ($1, $2, $3, $4, $5)";
        let query = sqlx::query(statement).bind(content).bind(number).bind(i64::from(track.0)).bind(face);
        query.bind(jpeg.as_slice()).execute(c).await.map(drop)
    })
}

/// Forgets the parts of a file.
pub(super) async fn remove(transaction: &mut Transaction, content: &str) -> Result<(), sqlx::Error> {
    for statement in ["DELETE FROM part WHERE content = $1", "DELETE FROM part_picture WHERE content = $1"] {
        on_connection!(&mut *transaction, c => sqlx::query(statement).bind(content).execute(c).await.map(drop))?;
    }
    Ok(())
}

async fn priority(transaction: &mut Transaction, content: &str) -> Result<u32, sqlx::Error> {
    let row: Option<(i64,)> = on_connection!(transaction, c => {
        sqlx::query_as("SELECT priority FROM file WHERE content = $1").bind(content).fetch_optional(c).await
    })?;
    Ok(row.and_then(|(priority,)| u32::try_from(priority).ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::Video;
    use crate::detect::{BBox, DetectorConfig, Face, Quality};
    use crate::embed::Embedding;
    use crate::models::ModelId;
    use crate::nn::Arithmetic;

    #[test]
    fn tasks_are_known_by_their_texts() {
        for task in [Task::File("ab12"), Task::Part("ab12", 3), Task::Join("ab12")] {
            assert_eq!(Task::of(&task.text()), task);
            assert_eq!(task.content(), "ab12");
        }
        assert_eq!(Task::of("ab12#x"), Task::Part("ab12", -1), "which no file has");
    }

    #[test]
    fn parts_cover_the_video_without_gaps() {
        const SECOND: u64 = 1_000_000_000;
        let parts = equal_parts(100 * SECOND, Duration::from_secs(30)).unwrap();
        let times: Vec<_> =
            parts.iter().map(|part| (part.from_ns / SECOND, part.until_ns.map(|ns| ns / SECOND))).collect();
        assert_eq!(times, [(0, Some(33)), (33, Some(66)), (66, None)]);
        assert!(parts.windows(2).all(|two| two[0].until_ns == Some(two[1].from_ns)));
        assert_eq!(
            parts.iter().map(|part| (part.number, part.of)).collect::<Vec<_>>(),
            [(0, 3), (1, 3), (2, 3)]
        );
        assert_eq!(equal_parts(44 * SECOND, Duration::from_secs(30)), None, "a short one");
        assert_eq!(cut(Path::new("Cargo.toml"), Duration::from_secs(1)), None, "no video");
        assert_eq!(cut(Path::new("samples/sample.mp4"), Duration::ZERO), None, "parts were not asked for");
    }

    /// A face at a frame and place, of that track, that looks in a direction.
    fn seen(frame: u64, x: f32, track: u32, deg: f64) -> Observation {
        let vector = vec![deg.to_radians().cos() as f32, deg.to_radians().sin() as f32];
        Observation {
            frame,
            pts_ns: frame * 40_000_000,
            duration_ns: 40_000_000,
            face: Face {
                bbox: BBox { x1: x, y1: 0.0, x2: x + 80.0, y2: 80.0 },
                score: 1.0,
                landmarks: [[0.0; 2]; 5],
            },
            quality: Quality { size_px: 80.0, yaw_deg: 0.0, pitch_deg: 0.0, roll_deg: 0.0, sharpness: 0.3 },
            embedding: Embedding::new(ModelId([1; 8]), vector),
            track: TrackId(track),
        }
    }

    fn part(frames: u64, cuts: &[u64], observations: Vec<Observation>) -> Analysis {
        let video = Video {
            name: "clip.mp4".into(),
            width: 640,
            height: 360,
            fps: Some((25, 1)),
            frames,
            duration_ns: frames,
            fingerprint: String::new(),
            sampled_fps: None,
            key_frames: false,
        };
        let detector = DetectorConfig::default();
        Analysis {
            video,
            model: Some(ModelId([1; 8])),
            arithmetic: Arithmetic::F32,
            mirror: true,
            detector,
            cuts: cuts.to_vec(),
            observations,
        }
    }

    /// Frame and track of each face.
    fn joined(parts: &[Analysis]) -> (Vec<(u64, u32)>, Vec<u64>, u64) {
        let Joined { analysis, origins, offsets } = join(parts, Some(60.0)).unwrap();
        assert_eq!(origins.len(), analysis.observations.len());
        assert_eq!(offsets.len(), parts.len());
        let faces = analysis.observations.iter().map(|one| (one.frame, one.track.0)).collect();
        (faces, analysis.cuts, analysis.video.frames)
    }

    #[test]
    fn who_is_there_in_the_frame_that_two_parts_share_goes_on() {
        // Ten frames, and the first frame of the next part.
        let first =
            part(11, &[4], vec![seen(9, 0.0, 1, 0.0), seen(10, 2.0, 1, 0.0), seen(10, 300.0, 2, 90.0)]);
        let second = part(5, &[3], vec![seen(0, 301.0, 1, 90.0), seen(0, 1.0, 2, 0.0), seen(1, 1.0, 2, 0.0)]);
        let (faces, cuts, frames) = joined(&[first, second]);
        assert_eq!(
            faces,
            [(9, 1), (10, 2), (10, 1), (11, 1)],
            "numbers are given in the order of appearance"
        );
        assert_eq!((cuts, frames), (vec![4, 13], 15));
    }

    #[test]
    fn a_cut_or_another_face_in_the_same_place_ends_a_track() {
        let first = |cuts: &[u64], deg| part(11, cuts, vec![seen(9, 0.0, 1, deg), seen(10, 0.0, 1, deg)]);
        let second = || part(5, &[], vec![seen(0, 0.0, 1, 0.0), seen(1, 0.0, 1, 0.0)]);
        let tracks = |parts: &[Analysis]| joined(parts).0.iter().map(|face| face.1).collect::<Vec<_>>();
        assert_eq!(tracks(&[first(&[], 0.0), second()]), [1, 1, 1]);
        assert_eq!(tracks(&[first(&[], 90.0), second()]), [1, 2, 2], "somebody else");
        assert_eq!(tracks(&[first(&[10], 0.0), second()]), [1, 2, 2], "after a cut");
        assert_eq!(joined(&[first(&[10], 0.0), second()]).1, [10]);
    }

    #[test]
    fn parts_without_frames_count_for_nothing() {
        let last = || part(5, &[], vec![seen(4, 0.0, 1, 0.0)]);
        let empty = || part(0, &[], Vec::new());
        assert_eq!(joined(&[last(), empty(), empty()]), (vec![(4, 1)], vec![], 5));
        let (faces, _, frames) = joined(&[part(5, &[], Vec::new()), empty(), last()]);
        assert_eq!((faces, frames), (vec![(8, 1)], 9));
        assert!(join(&[], None).is_none());
    }

    #[test]
    fn a_whole_is_as_precise_as_its_least_precise_part() {
        let in_bf16 = || Analysis { arithmetic: Arithmetic::Bf16, ..part(5, &[], Vec::new()) };
        let in_f32 = || part(5, &[], Vec::new());
        let arithmetic = |parts: &[Analysis]| join(parts, None).unwrap().analysis.arithmetic;
        assert_eq!(arithmetic(&[in_f32(), in_f32()]), Arithmetic::F32);
        assert_eq!(arithmetic(&[in_f32(), in_bf16()]), Arithmetic::Bf16);
        assert_eq!(arithmetic(&[in_bf16(), in_f32()]), Arithmetic::Bf16);
        let in_int8 = || Analysis { arithmetic: Arithmetic::Int8, ..part(5, &[], Vec::new()) };
        assert_eq!(arithmetic(&[in_bf16(), in_int8(), in_f32()]), Arithmetic::Int8);
    }
}
