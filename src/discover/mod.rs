//! Grouping the tracks of strangers into people, within one or several videos, and choosing the best views
//! of a track.

mod pictures;
mod views;

pub use pictures::pictures;
#[cfg(feature = "library")]
pub(crate) use pictures::pictures_within;
#[cfg(any(feature = "library", feature = "serve"))]
pub(crate) use views::cut_out;
pub use views::{MAX_STILLS, best_views, portrait, still};

use crate::analysis::Analysis;
use crate::embed::Embedding;
use crate::models::ModelId;
use crate::track::{self, TrackId};

/// Why tracks cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// An analysis of another model.
    #[error(
        "{name} was analysed with model {found}, but an earlier one with {expected}: analyse all videos with one model"
    )]
    OtherModel {
        /// The video.
        name: String,
        /// Its model.
        found: ModelId,
        /// That of the first.
        expected: ModelId,
    },
    /// An analysis without embeddings.
    #[error(
        "{0} was analysed without embeddings, so nobody in it can be compared: analyse it again with a gallery or a model"
    )]
    NoEmbeddings(String),
    /// No such track.
    #[error("{name} has no track {track}: it has {}", Count(*.tracks))]
    NoTrack {
        /// The video.
        name: String,
        /// The track requested.
        track: TrackId,
        /// Number of tracks.
        tracks: usize,
    },
}

struct Count(usize);

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => f.write_str("none"),
            n => write!(f, "tracks 1 to {n}"),
        }
    }
}

/// A track as a whole.
#[derive(Debug, Clone)]
pub struct Member {
    /// Index of its analysis.
    pub file: usize,
    /// Its number there.
    pub track: TrackId,
    /// Start in nanoseconds since the start of its video.
    pub start_ns: u64,
    /// End, likewise.
    pub end_ns: u64,
    /// The embedding of all its views together.
    pub template: Embedding,
    /// Whether it [shows enough](track::is_distinct) to recognise the same person in another track.
    pub distinct: bool,
    /// Views with an embedding.
    pub views: usize,
    /// Its best view among the observations of its analysis.
    pub best: usize,
}

impl Member {
    /// Whether both are in the picture at once, which means that they are two people.
    fn meets(&self, other: &Member) -> bool {
        self.file == other.file && self.start_ns < other.end_ns && other.start_ns < self.end_ns
    }
}

/// The tracks of `analyses` with at least `min_views` embedded views, and a view with a score of at least
/// `min_score`, because false detections would be grouped with each other.
///
/// # Errors
/// [`DiscoverError::OtherModel`] or [`DiscoverError::NoEmbeddings`].
pub fn members(
    analyses: &[Analysis],
    min_views: usize,
    min_score: f32,
) -> Result<Vec<Member>, DiscoverError> {
    let mut members = Vec::new();
    let mut expected = None;
    for (file, analysis) in analyses.iter().enumerate() {
        let name = || analysis.video.name.clone();
        let found = analysis.model.ok_or_else(|| DiscoverError::NoEmbeddings(name()))?;
        let expected = *expected.get_or_insert(found);
        if found != expected {
            return Err(DiscoverError::OtherModel { name: name(), found, expected });
        }
        for track in analysis.tracks() {
            let seen = || track.observations.iter().map(|&index| (index, &analysis.observations[index]));
            let embedded = || seen().filter(|(_, observation)| observation.embedding.is_some());
            let views = embedded().count();
            let best = embedded().max_by(|(i, a), (j, b)| a.weight().total_cmp(&b.weight()).then(j.cmp(i)));
            let template = track::template(seen().map(|(_, observation)| observation));
            let score = seen().map(|(_, observation)| observation.face.score).fold(0.0, f32::max);
            if let (Some((best, view)), Some(template)) = (best, template)
                && views >= min_views
                && score >= min_score
            {
                members.push(Member {
                    file,
                    track: track.id,
                    start_ns: track.start_ns,
                    end_ns: track.end_ns,
                    template,
                    distinct: track::is_distinct(view.weight(), score),
                    views,
                    best,
                });
            }
        }
    }
    Ok(members)
}

/// Groups tracks into people by [`track::cluster`]; two tracks that are in one picture are two people, and a
/// track that is not to be `grouped` is its own group. Groups come in the order of their first members, the
/// members of a group in order.
pub fn people(members: &[Member], same_deg: f64, grouped: impl Fn(&Member) -> bool) -> Vec<Vec<usize>> {
    let template = |one: &Member| grouped(one).then(|| one.template.clone());
    let templates: Vec<Option<Embedding>> = members.iter().map(template).collect();
    let groups = track::cluster(&templates, |a, b| members[a].meets(&members[b]), same_deg);
    let mut people = vec![Vec::new(); groups.iter().max().map_or(0, |most| most + 1)];
    for (member, group) in groups.into_iter().enumerate() {
        people[group].push(member);
    }
    people
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A track at `deg` degrees in a plane, in file `file`, on screen from `start` for 10.
    fn member(file: usize, start: u64, deg: f64) -> Member {
        let vector = vec![deg.to_radians().cos() as f32, deg.to_radians().sin() as f32];
        Member {
            file,
            track: TrackId(1),
            start_ns: start,
            end_ns: start + 10,
            template: Embedding::new(ModelId([1; 8]), vector).unwrap(),
            distinct: true,
            views: 1,
            best: 0,
        }
    }

    #[test]
    fn people_are_found_within_and_over_files() {
        let members = [
            member(0, 0, 0.0),
            member(0, 20, 90.0),
            member(1, 0, 8.0),
            member(1, 0, 100.0),
            member(2, 5, 180.0),
            member(0, 40, 4.0),
        ];
        let all = |_: &Member| true;
        assert_eq!(people(&members, 40.0, all), [vec![0, 2, 5], vec![1, 3], vec![4]]);
        assert_eq!(people(&members, 1.0, all).len(), 6);
        assert_eq!(people(&[], 40.0, all), Vec::<Vec<usize>>::new());
        let but_the_third = people(&members, 40.0, |one| (one.file, one.start_ns) != (1, 0));
        assert_eq!(but_the_third, [vec![0, 5], vec![1], vec![2], vec![3], vec![4]]);
    }

    #[test]
    fn two_in_the_picture_at_once_are_two_however_alike() {
        let members = [member(0, 0, 0.0), member(0, 9, 1.0), member(1, 9, 0.4)];
        assert_eq!(people(&members, 60.0, |_| true), [vec![0, 2], vec![1]], "another video is another time");
    }
}
