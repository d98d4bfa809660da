//! Who was never named: tracks of strangers grouped into people, within a video and over
//! several, and the views of a track that are worth keeping.

mod cluster;
mod pictures;
mod views;

pub use cluster::cluster;
pub use pictures::pictures;
pub use views::{MAX_STILLS, best_views, portrait, still};

use crate::analysis::Analysis;
use crate::embed::Embedding;
use crate::nn::ModelId;
use crate::track::{self, TrackId};

/// Why tracks cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// An analysis of another model.
    #[error(
        "{name} was analysed with model {found} and an earlier one with {expected}: analyse all videos with one model"
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
    #[error("{0} was analysed without embeddings, so that nobody in it can be compared: analyse it with a gallery or a model")]
    NoEmbeddings(String),
    /// No such track.
    #[error("{name} has no track {track}: it has {}", Count(*.tracks))]
    NoTrack {
        /// The video.
        name: String,
        /// The track asked for.
        track: TrackId,
        /// Tracks there are.
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
    /// Which of the analyses it belongs to.
    pub file: usize,
    /// Its number there.
    pub track: TrackId,
    /// When it begins, in nanoseconds since the start of its video.
    pub start_ns: u64,
    /// When it ends.
    pub end_ns: u64,
    /// Where it lies on the hypersphere, all views together.
    pub template: Embedding,
    /// Views with an embedding.
    pub views: usize,
    /// Its best view among the observations of its analysis.
    pub best: usize,
}

impl Member {
    /// Whether both are in the picture at once: they are two people then.
    fn meets(&self, other: &Member) -> bool {
        self.file == other.file && self.start_ns < other.end_ns && other.start_ns < self.end_ns
    }
}

/// The tracks of `analyses` that have at least `min_views` views with an embedding.
///
/// # Errors
/// [`DiscoverError::OtherModel`] or [`DiscoverError::NoEmbeddings`].
pub fn members(analyses: &[Analysis], min_views: usize) -> Result<Vec<Member>, DiscoverError> {
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
            if let (Some((best, _)), Some(template)) = (best, template)
                && views >= min_views
            {
                let (start_ns, end_ns) = (track.start_ns, track.end_ns);
                members.push(Member { file, track: track.id, start_ns, end_ns, template, views, best });
            }
        }
    }
    Ok(members)
}
