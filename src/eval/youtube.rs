//! YouTube Faces: pairs of videos, ten splits.
//!
//! A video's embedding is the mean of its frames', normalised; the score of a pair is the cosine. The
//! threshold of each split is chosen on the others, as for LFW. Wolf, Hassner, Maoz, "Face Recognition in
//! Unconstrained Videos with Matched Background Similarity", CVPR 2011.

use std::collections::BTreeMap;
use std::path::Path;

use super::verification::{Pair, Verification, cross_validate};
use super::{EvalError, read};
use crate::embed::Embedding;

/// A list of pairs of videos.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoPairs {
    /// The folder of every video that a pair names, once.
    pub videos: Vec<String>,
    /// The pairs, as indices into `videos`.
    pub pairs: Vec<Pair>,
}

impl VideoPairs {
    /// Reads the list in its published format: `split number, first name, second name, is same person`, with
    /// or without a header line. More columns between the names and the last one are ignored.
    ///
    /// # Errors
    /// When the file cannot be read or a line is invalid; with its number.
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        let text = read(path)?;
        let (mut indices, mut pairs) = (BTreeMap::new(), Vec::new());
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            let row = match fields.as_slice() {
                [split, first, second, .., same @ ("0" | "1")] => split
                    .parse::<usize>()
                    .ok()
                    .and_then(|split| split.checked_sub(1))
                    .map(|fold| (fold, first, second, *same == "1")),
                _ => None,
            };
            match row {
                Some((fold, first, second, same)) => {
                    let mut number = |name: &str| {
                        let next = indices.len();
                        *indices.entry(name.to_owned()).or_insert(next)
                    };
                    pairs.push(Pair { first: number(first), second: number(second), same, fold });
                }
                None if index == 0 => {}
                None => {
                    let cause = "not `split, video, video, 0|1`".into();
                    return Err(EvalError::List { path: path.into(), line: index + 1, cause });
                }
            }
        }
        let mut videos: Vec<(String, usize)> = indices.into_iter().collect();
        videos.sort_by_key(|(_, index)| *index);
        Ok(Self { videos: videos.into_iter().map(|(name, _)| name).collect(), pairs })
    }

    /// Runs the protocol; `videos` has the embedding of each video, `None` without a face. Pairs with such a
    /// video are omitted; the result has their number.
    ///
    /// # Errors
    /// As for [`cross_validate`].
    pub fn verify(&self, videos: &[Option<Embedding>]) -> Result<(Verification, usize), EvalError> {
        let score = |pair: &Pair| {
            let (first, second) = (videos.get(pair.first)?.as_ref()?, videos.get(pair.second)?.as_ref()?);
            Some((*pair, f64::from(first.cosine(second)?)))
        };
        let scored: Vec<(Pair, f64)> = self.pairs.iter().filter_map(score).collect();
        let (pairs, scores): (Vec<Pair>, Vec<f64>) = scored.into_iter().unzip();
        let left_out = self.pairs.len() - pairs.len();
        Ok((cross_validate(&pairs, |_| scores.clone())?, left_out))
    }
}

/// The mean of the frames of a video, normalised; `None` without frames, or if they cancel each other.
pub fn mean(frames: &[Embedding]) -> Option<Embedding> {
    let first = frames.first()?;
    let mut sum = vec![0.0f64; first.as_slice().len()];
    for frame in frames {
        sum.iter_mut().zip(frame.as_slice()).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    Embedding::new(first.model(), sum.into_iter().map(|x| x as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::ModelId;

    fn at(deg: f64) -> Embedding {
        let (sin, cos) = deg.to_radians().sin_cos();
        Embedding::new(ModelId([1; 8]), vec![cos as f32, sin as f32]).unwrap()
    }

    #[test]
    fn a_video_is_the_mean_of_its_frames() {
        let video = mean(&[at(10.0), at(30.0)]).unwrap();
        assert!(video.angle_deg(&at(20.0)).unwrap() < 1e-3);
        let one = |x: f32| Embedding::new(ModelId([1; 8]), vec![x, 0.0]).unwrap();
        assert!(mean(&[]).is_none() && mean(&[one(1.0), one(-1.0)]).is_none());
    }

    #[test]
    fn splits_are_read_and_scored_as_by_hand() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("splits.txt");
        let text = "split number, first name, second name, is same\r\n\
                    1, A/0, A/1, 1\n1, A/0, B/0, 0\n2, B/0, B/1, 1\n2, A/1, B/1, 0\n2, A/0, C/0, 0\n";
        std::fs::write(&path, text).unwrap();
        let list = VideoPairs::read(&path).unwrap();
        assert_eq!(list.videos, ["A/0", "A/1", "B/0", "B/1", "C/0"]);
        assert_eq!(list.pairs[3], Pair { first: 1, second: 3, same: false, fold: 1 });
        // In split 1, 40 and 90 degrees; in split 2, 60 and 70.
        let videos = [Some(at(0.0)), Some(at(40.0)), Some(at(90.0)), Some(at(150.0)), None];
        let (result, left_out) = list.verify(&videos).unwrap();
        assert_eq!((result.same, result.different, left_out), (2, 2, 1));
        // A threshold between 40 and 90 degrees that is right on the other split: between 60 and 110.
        assert_eq!(result.folds.iter().map(|fold| fold.accuracy).collect::<Vec<_>>(), [1.0, 1.0]);
        std::fs::write(&path, "1, A/0, A/1, 1\n0, A/0, B/0, 0\n").unwrap();
        assert!(VideoPairs::read(&path).unwrap_err().to_string().starts_with("line 2 of "));
    }
}
