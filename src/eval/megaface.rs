//! The MegaFace challenge: a few probes among up to a million distractors.
//!
//! - Identification: each of a person's images in turn is added to the distractors, and each other image of
//!   that person is a probe. The probe is found when its mate is nearer than every distractor; a tie is a
//!   miss. The rank-1 rate is the share of these (probe, mate) pairs that are found, with the first 10, 100,
//!   1,000, ... distractors.
//! - Verification: pairs of images of one person are genuine, pairs of a probe and a distractor are
//!   impostors. The true accept rate is reported at a false accept rate, 1e-6 in the challenge.
//!
//! Distractors are processed one after the other and not kept: memory grows with the probes and with the
//! impostors that the false accept rate allows.
//!
//! Kemelmacher-Shlizerman et al., "The MegaFace Benchmark: 1 Million Faces for Recognition at Scale", CVPR
//! 2016.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde::Serialize;

use super::EvalError;
use crate::embed::Embedding;

/// An image of a probe person.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Number of the person.
    pub person: usize,
    /// The image.
    pub embedding: Embedding,
}

/// The rank-1 result with a number of distractors.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RankOne {
    /// Distractors.
    pub distractors: u64,
    /// Pairs of a probe and its mate.
    pub pairs: u64,
    /// Of those, pairs whose mate is nearer than every distractor.
    pub found: u64,
}

/// True accept rate at a false accept rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Accepted {
    /// The false accept rate requested.
    pub far: f64,
    /// Impostor pairs.
    pub impostors: u64,
    /// The cosine above which a pair is accepted.
    pub threshold: f32,
    /// Share of genuine pairs that are accepted.
    pub tar: f64,
}

/// The results of the challenge.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// With 10, 100, ... distractors, and with all.
    pub rank_one: Vec<RankOne>,
    /// `None` if there are too few impostor pairs for the rate.
    pub verification: Option<Accepted>,
}

/// The challenge in progress.
#[derive(Debug)]
pub struct MegaFace {
    probes: Vec<Embedding>,
    /// For each probe, the cosines to the other images of its person.
    mates: Vec<Vec<f32>>,
    /// For each probe, the largest cosine to a distractor.
    nearest: Vec<f32>,
    far: f64,
    /// The largest impostor cosines, one more than the rate accepts.
    impostors: BinaryHeap<Reverse<Ordered>>,
    kept: usize,
    expected: u64,
    seen: u64,
    rank_one: Vec<RankOne>,
}

/// A finite number with a total order.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ordered(f32);

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl MegaFace {
    /// The challenge with a number of distractors and a false accept rate of more than 0 and less than 1.
    ///
    /// # Errors
    /// When nobody has two images, the embeddings are of several models, or the rate is out of range.
    pub fn new(probes: Vec<Probe>, distractors: u64, far: f64) -> Result<Self, EvalError> {
        if !(far > 0.0 && far < 1.0) {
            return Err(EvalError::TooLittle(format!("a false accept rate of {far} is not between 0 and 1")));
        }
        let mut mates = vec![Vec::new(); probes.len()];
        for (a, probe) in probes.iter().enumerate() {
            for other in
                probes.iter().enumerate().filter(|(b, other)| *b != a && other.person == probe.person)
            {
                mates[a].push(cosine(&probe.embedding, &other.1.embedding)?);
            }
        }
        if mates.iter().all(Vec::is_empty) {
            return Err(EvalError::TooLittle(
                "nobody among the probes has two images: the challenge searches for another image of each person"
                    .into(),
            ));
        }
        let allowed = far * probes.len() as f64 * distractors as f64;
        Ok(Self {
            nearest: vec![f32::NEG_INFINITY; probes.len()],
            probes: probes.into_iter().map(|probe| probe.embedding).collect(),
            mates,
            far,
            impostors: BinaryHeap::new(),
            kept: (allowed + 1e-9).floor() as usize + 1,
            expected: distractors,
            seen: 0,
            rank_one: Vec::new(),
        })
    }

    /// The next distractor.
    ///
    /// # Errors
    /// When it is of another model, or more come than were announced.
    pub fn see(&mut self, distractor: &Embedding) -> Result<(), EvalError> {
        if self.seen == self.expected {
            return Err(EvalError::TooLittle(format!(
                "more than the {} distractors announced",
                self.expected
            )));
        }
        for (probe, nearest) in self.probes.iter().zip(&mut self.nearest) {
            let cosine = cosine(probe, distractor)?;
            *nearest = nearest.max(cosine);
            if self.impostors.len() < self.kept {
                self.impostors.push(Reverse(Ordered(cosine)));
            } else if self.impostors.peek().is_some_and(|Reverse(least)| cosine > least.0) {
                self.impostors.pop();
                self.impostors.push(Reverse(Ordered(cosine)));
            }
        }
        self.seen += 1;
        if self.seen >= 10 && is_power_of_ten(self.seen) {
            self.rank_one.push(self.found());
        }
        Ok(())
    }

    /// The results.
    pub fn finish(mut self) -> Report {
        if self.rank_one.last().is_none_or(|last| last.distractors != self.seen) {
            self.rank_one.push(self.found());
        }
        Report { verification: self.accepted(), rank_one: self.rank_one }
    }

    fn found(&self) -> RankOne {
        let (mut pairs, mut found) = (0, 0);
        for (mates, nearest) in self.mates.iter().zip(&self.nearest) {
            pairs += mates.len() as u64;
            found += mates.iter().filter(|mate| *mate > nearest).count() as u64;
        }
        RankOne { distractors: self.seen, pairs, found }
    }

    fn accepted(&self) -> Option<Accepted> {
        let impostors = self.probes.len() as u64 * self.seen;
        let allowed = (self.far * impostors as f64 + 1e-9).floor() as usize;
        // The next impostor after those that may be accepted is the first that must not be.
        let mut all: Vec<f32> = self.impostors.iter().map(|Reverse(one)| one.0).collect();
        all.sort_unstable_by(|a, b| b.total_cmp(a));
        let threshold = *all.get(allowed).filter(|_| allowed > 0)?;
        let genuine: Vec<f32> = self.mates.iter().flatten().copied().collect();
        let accepted = genuine.iter().filter(|cosine| **cosine > threshold).count();
        Some(Accepted { far: self.far, impostors, threshold, tar: accepted as f64 / genuine.len() as f64 })
    }
}

fn is_power_of_ten(mut number: u64) -> bool {
    while number.is_multiple_of(10) && number > 0 {
        number /= 10;
    }
    number == 1
}

fn cosine(a: &Embedding, b: &Embedding) -> Result<f32, EvalError> {
    a.cosine(b).ok_or_else(|| EvalError::TooLittle("the embeddings are of different models".into()))
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::models::ModelId;

    fn embedding(random: &mut StdRng, near: Option<&Embedding>) -> Embedding {
        let mut values: Vec<f32> = (0..8).map(|_| random.random_range(-1.0f32..1.0)).collect();
        if let Some(near) = near {
            values.iter_mut().zip(near.as_slice()).for_each(|(x, n)| *x = 0.5 * *x + 1.4 * n);
        }
        Embedding::new(ModelId([1; 8]), values).unwrap()
    }

    /// Rank by rank and pair by pair, with everything in memory.
    fn plainly(probes: &[Probe], distractors: &[Embedding], far: f64) -> (u64, u64, Option<f64>) {
        let (mut pairs, mut found, mut genuine, mut impostors) = (0, 0, Vec::new(), Vec::new());
        for (a, probe) in probes.iter().enumerate() {
            let to = |other: &Embedding| probe.embedding.cosine(other).unwrap();
            impostors.extend(distractors.iter().map(to));
            for (b, mate) in probes.iter().enumerate() {
                if a != b && mate.person == probe.person {
                    pairs += 1;
                    let cosine = to(&mate.embedding);
                    genuine.push(cosine);
                    found += u64::from(distractors.iter().all(|distractor| to(distractor) < cosine));
                }
            }
        }
        impostors.sort_unstable_by(|a, b| b.total_cmp(a));
        let allowed = (far * impostors.len() as f64 + 1e-9) as usize;
        let tar = (allowed > 0).then(|| {
            let accepted = genuine.iter().filter(|cosine| **cosine > impostors[allowed]).count();
            accepted as f64 / genuine.len() as f64
        });
        (pairs, found, tar)
    }

    #[test]
    fn streamed_it_is_what_a_plain_computation_says() {
        let mut random = StdRng::seed_from_u64(7);
        let mut probes = Vec::new();
        for person in 0..12 {
            let centre = embedding(&mut random, None);
            for _ in 0..=person % 4 {
                probes.push(Probe { person, embedding: embedding(&mut random, Some(&centre)) });
            }
        }
        let distractors: Vec<Embedding> = (0..1234).map(|_| embedding(&mut random, None)).collect();
        for far in [1e-2, 1e-3, 1e-6] {
            let mut challenge = MegaFace::new(probes.clone(), distractors.len() as u64, far).unwrap();
            distractors.iter().for_each(|one| challenge.see(one).unwrap());
            assert!(challenge.see(&distractors[0]).is_err(), "one more than announced");
            let report = challenge.finish();
            let sizes: Vec<u64> = report.rank_one.iter().map(|one| one.distractors).collect();
            assert_eq!(sizes, [10, 100, 1000, 1234]);
            for one in &report.rank_one {
                let (pairs, found, _) = plainly(&probes, &distractors[..one.distractors as usize], far);
                assert_eq!((one.pairs, one.found), (pairs, found), "{one:?}");
                assert!(found < pairs, "some are missed");
            }
            let (_, _, tar) = plainly(&probes, &distractors, far);
            assert_eq!(report.verification.map(|one| one.tar), tar, "{far}");
        }
    }

    #[test]
    fn a_tie_with_a_distractor_is_a_miss_and_nobody_alone_is_looked_for() {
        let one = |x: f32| Embedding::new(ModelId([1; 8]), vec![x, 1.0]).unwrap();
        let probes = vec![
            Probe { person: 0, embedding: one(0.0) },
            Probe { person: 0, embedding: one(0.5) },
            Probe { person: 1, embedding: one(9.0) },
        ];
        let mut challenge = MegaFace::new(probes.clone(), 1, 0.5).unwrap();
        challenge.see(&one(0.5)).unwrap();
        let report = challenge.finish();
        assert_eq!(report.rank_one, [RankOne { distractors: 1, pairs: 2, found: 0 }]);
        assert!(MegaFace::new(probes[1..].to_vec(), 1, 0.5).is_err());
        assert!(MegaFace::new(probes, 1, 0.0).is_err());
    }
}
