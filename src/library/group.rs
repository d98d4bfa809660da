//! Grouping many tracks into people: average linkage, exact and independent of the order of the files.
//!
//! Two groups belong together if the mean of the cosines over all pairs of their members is at least that of the calibrated
//! angle; the nearest two are joined first. This is the rule of [`track::cluster`](crate::track::cluster) with
//! cosines in place of angles, which a group's sum of vectors gives in one product. For average linkage, joining any two
//! groups that are each other's nearest leads to the same result (Bruynooghe 1978; Murtagh 1983), so that no matrix of
//! all pairs is needed. Two groups can only be joined if some pair of their members is within the angle: those
//! pairs, found by blocks of matrix products, are all that is searched.

use std::collections::BTreeSet;

use crate::nn::gemm::{Matrix, multiply};

/// Rows and columns of a block of products.
const BLOCK: usize = 1024;
/// Rounding of a product of unit vectors, with room: the exact mean decides.
const ROUNDING: f32 = 1e-5;

/// What is to be grouped: unit vectors, with pairs that are known.
#[derive(Debug)]
pub(super) struct Tracks<'a> {
    /// `count` unit vectors, one after the other.
    pub vectors: &'a [f32],
    /// Values of a vector.
    pub length: usize,
    /// Tracks of two people: seen together, or told.
    pub apart: &'a [(usize, usize)],
    /// Tracks of one person: told.
    pub same: &'a [(usize, usize)],
}

/// A number for each track, from 0 in the order of the first members: those with the same number are one person. `cosine` is
/// that of the largest mean angle. What is told to be the same is so in any case.
pub(super) fn group(tracks: &Tracks<'_>, cosine: f64, threads: usize) -> Vec<usize> {
    let count = tracks.vectors.len().checked_div(tracks.length).unwrap_or(0);
    let mut groups = Groups::new(tracks, count, threads, cosine as f32 - ROUNDING);
    for &(a, b) in tracks.same {
        let (a, b) = (groups.find(a), groups.find(b));
        if a != b {
            groups.join(a.min(b), a.max(b));
        }
    }
    for start in 0..count {
        let mut chain = vec![groups.find(start)];
        while let Some(&last) = chain.last() {
            let before = chain.len().checked_sub(2).map(|at| chain[at]);
            match groups.nearest(last, before, cosine) {
                None => drop(chain.pop()),
                Some(near) if Some(near) == before => {
                    chain.truncate(chain.len() - 2);
                    groups.join(near.min(last), near.max(last));
                    if chain.is_empty() {
                        chain.push(near.min(last));
                    }
                }
                Some(near) => chain.push(near),
            }
        }
    }
    let mut numbers = vec![usize::MAX; count];
    let mut next = 0;
    (0..count)
        .map(|track| {
            let root = groups.find(track);
            if numbers[root] == usize::MAX {
                numbers[root] = next;
                next += 1;
            }
            numbers[root]
        })
        .collect()
}

/// Groups by their first members.
struct Groups {
    /// The group that a track, or a group that was joined, is in; itself for a group.
    parent: Vec<usize>,
    length: usize,
    /// Sums of the vectors of the members.
    sums: Vec<f64>,
    sizes: Vec<f64>,
    /// Groups with a member within the angle of one of this; may be out of date.
    near: Vec<Vec<u32>>,
    /// Groups that are known to be other people.
    apart: Vec<BTreeSet<u32>>,
    /// In which search a group was met last.
    met: Vec<u32>,
    search: u32,
}

impl Groups {
    fn new(tracks: &Tracks<'_>, count: usize, threads: usize, cosine: f32) -> Self {
        let mut apart = vec![BTreeSet::new(); count];
        for &(a, b) in tracks.apart {
            apart[a].insert(b as u32);
            apart[b].insert(a as u32);
        }
        Self {
            parent: (0..count).collect(),
            length: tracks.length,
            sums: tracks.vectors.iter().map(|&x| f64::from(x)).collect(),
            sizes: vec![1.0; count],
            near: pairs(tracks.vectors, count, tracks.length, cosine, threads),
            apart,
            met: vec![0; count],
            search: 0,
        }
    }

    fn find(&mut self, mut track: usize) -> usize {
        while self.parent[track] != track {
            self.parent[track] = self.parent[self.parent[track]];
            track = self.parent[track];
        }
        track
    }

    fn sum(&self, group: usize) -> &[f64] {
        &self.sums[group * self.length..][..self.length]
    }

    /// The mean cosine over all pairs.
    fn mean(&self, a: usize, b: usize) -> f64 {
        let (sizes, pairs) = (self.sizes[a] * self.sizes[b], self.sum(a).iter().zip(self.sum(b)));
        // Four sums run side by side in the registers of the CPU.
        let mut sums = [0.0; 4];
        for (at, (x, y)) in pairs.enumerate() {
            sums[at % 4] += x * y;
        }
        sums.iter().sum::<f64>() / sizes
    }

    /// The nearest group within the angle; of equals `before`, else the first.
    fn nearest(&mut self, group: usize, before: Option<usize>, cosine: f64) -> Option<usize> {
        self.search += 1;
        let list = std::mem::take(&mut self.near[group]);
        let mut best: Option<(f64, usize)> = None;
        let mut current = Vec::with_capacity(list.len());
        for &other in &list {
            let other = self.find(other as usize);
            if other == group || self.met[other] == self.search || self.apart[group].contains(&(other as u32))
            {
                continue;
            }
            self.met[other] = self.search;
            current.push(other as u32);
            let mean = self.mean(group, other);
            let better = best.is_none_or(|(held, at)| {
                let preferred = Some(at) != before && (Some(other) == before || other < at);
                mean > held || (mean == held && preferred)
            });
            if mean >= cosine && better {
                best = Some((mean, other));
            }
        }
        self.near[group] = current;
        best.map(|(_, other)| other)
    }

    /// Joins group `b` to `a`.
    fn join(&mut self, a: usize, b: usize) {
        self.parent[b] = a;
        for at in 0..self.length {
            self.sums[a * self.length + at] += self.sums[b * self.length + at];
        }
        self.sizes[a] += self.sizes[b];
        let more = std::mem::take(&mut self.near[b]);
        self.near[a].extend(more);
        for other in std::mem::take(&mut self.apart[b]) {
            self.apart[other as usize].remove(&(b as u32));
            if other as usize != a {
                self.apart[other as usize].insert(a as u32);
                self.apart[a].insert(other);
            }
        }
    }
}

/// For every vector, the others whose cosine to it is at least `cosine`.
fn pairs(vectors: &[f32], count: usize, length: usize, cosine: f32, threads: usize) -> Vec<Vec<u32>> {
    let mut near = vec![Vec::new(); count];
    if count == 0 {
        return near;
    }
    let matrix = Matrix::new(vectors, count, length);
    let mut products = vec![0.0; BLOCK * BLOCK];
    for first in (0..count).step_by(BLOCK) {
        let rows = first..(first + BLOCK).min(count);
        for second in (first..count).step_by(BLOCK) {
            let columns = second..(second + BLOCK).min(count);
            let products = &mut products[..rows.len() * columns.len()];
            let (a, b) = (matrix.block(rows.clone(), 0..length), matrix.block(columns.clone(), 0..length));
            multiply(products, a, b.t(), false, threads);
            for (i, line) in rows.clone().zip(products.chunks(columns.len())) {
                for (j, &product) in columns.clone().zip(line) {
                    if product >= cosine && i < j {
                        near[i].push(j as u32);
                        near[j].push(i as u32);
                    }
                }
            }
        }
    }
    near
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reproducible numbers from -1 to 1.
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> f32 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
        }
    }

    /// `people` people with `views` views each, scattered by `spread`, shuffled.
    fn crowd(people: usize, views: usize, length: usize, spread: f32) -> (Vec<f32>, Vec<usize>) {
        let mut numbers = Numbers(7);
        let centres: Vec<f32> = (0..people * length).map(|_| numbers.next()).collect();
        let mut list: Vec<(Vec<f32>, usize)> = (0..people * views)
            .map(|track| {
                let person = track % people;
                let centre = &centres[person * length..][..length];
                let vector: Vec<f32> = centre.iter().map(|x| x + spread * numbers.next()).collect();
                let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
                (vector.iter().map(|x| x / norm).collect(), person)
            })
            .collect();
        for at in (1..list.len()).rev() {
            list.swap(at, (numbers.next().abs() * at as f32) as usize);
        }
        let truth = list.iter().map(|(_, person)| *person).collect();
        (list.into_iter().flat_map(|(vector, _)| vector).collect(), truth)
    }

    /// The plain algorithm: joins the nearest two groups again and again, by the mean over all pairs.
    fn plainly(tracks: &Tracks<'_>, cosine: f64) -> Vec<usize> {
        let count = tracks.vectors.len() / tracks.length;
        let vector = |at: usize| &tracks.vectors[at * tracks.length..][..tracks.length];
        let mut groups: Vec<Vec<usize>> = (0..count).map(|at| vec![at]).collect();
        loop {
            let mut best: Option<(f64, usize, usize)> = None;
            for i in 0..groups.len() {
                for j in i + 1..groups.len() {
                    let all = || groups[i].iter().flat_map(|&a| groups[j].iter().map(move |&b| (a, b)));
                    let apart = all().any(|(a, b)| tracks.apart.contains(&(a.min(b), a.max(b))));
                    let one = |(a, b)| {
                        vector(a)
                            .iter()
                            .zip(vector(b))
                            .map(|(&x, &y)| f64::from(x) * f64::from(y))
                            .sum::<f64>()
                    };
                    let mean = all().map(one).sum::<f64>() / all().count() as f64;
                    if !apart && mean >= cosine && best.is_none_or(|(held, ..)| mean > held) {
                        best = Some((mean, i, j));
                    }
                }
            }
            let Some((_, i, j)) = best else { break };
            let more = groups.remove(j);
            groups[i].extend(more);
        }
        let mut numbers = vec![0; count];
        groups.iter_mut().for_each(|group| group.sort_unstable());
        groups.sort();
        groups
            .iter()
            .enumerate()
            .for_each(|(number, group)| group.iter().for_each(|&at| numbers[at] = number));
        numbers
    }

    #[test]
    fn groups_are_those_of_the_plain_algorithm() {
        for (people, views, spread) in [(6, 8, 0.5), (10, 5, 1.0), (20, 3, 1.5), (1, 30, 2.0)] {
            let (vectors, _) = crowd(people, views, 16, spread);
            let apart = [(0, 3), (1, 2), (4, 9), (5, 8)];
            let tracks = Tracks { vectors: &vectors, length: 16, apart: &apart, same: &[] };
            for cosine in [0.3, 0.5, 0.7, 0.9] {
                assert_eq!(
                    group(&tracks, cosine, 1),
                    plainly(&tracks, cosine),
                    "{people} {views} {spread} {cosine}"
                );
            }
        }
    }

    #[test]
    fn people_are_found_whatever_the_order() {
        let (vectors, truth) = crowd(40, 30, 64, 0.5);
        let tracks = Tracks { vectors: &vectors, length: 64, apart: &[], same: &[] };
        let groups = group(&tracks, 0.5, 2);
        assert_eq!(groups.iter().max(), Some(&39));
        let backwards: Vec<f32> = vectors.chunks(64).rev().flatten().copied().collect();
        let other = group(&Tracks { vectors: &backwards, ..tracks }, 0.5, 1);
        let count = truth.len();
        for a in 0..count {
            for b in 0..count {
                let same = truth[a] == truth[b];
                assert_eq!(groups[a] == groups[b], same);
                assert_eq!(other[count - 1 - a] == other[count - 1 - b], same);
            }
        }
    }

    #[test]
    fn what_is_told_is_kept() {
        let (vectors, truth) = crowd(2, 4, 16, 0.2);
        let of = |person: usize| truth.iter().position(|one| *one == person).unwrap();
        let pair = [(of(0).min(of(1)), of(0).max(of(1)))];
        let tracks = Tracks { vectors: &vectors, length: 16, apart: &[], same: &pair };
        assert_eq!(group(&tracks, 0.8, 1)[of(0)], group(&tracks, 0.8, 1)[of(1)]);
        let mut own = (0..8).filter(|&at| truth[at] == 0);
        let (a, b) = (own.next().unwrap(), own.next().unwrap());
        let apart = [(a, b)];
        let groups = group(&Tracks { apart: &apart, same: &[], ..tracks }, 0.8, 1);
        assert_ne!(groups[a], groups[b]);
        assert!(group(&Tracks { vectors: &[], length: 16, apart: &[], same: &[] }, 0.5, 1).is_empty());
    }
}
