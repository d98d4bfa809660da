//! Grouping many tracks into people: average linkage, exact and independent of the order of the files.
//!
//! Two groups belong together if the mean of the cosines over all pairs of their members is at least that of
//! the calibrated angle; the nearest two are joined first. This is the rule of
//! [`track::cluster`](crate::track::cluster) with cosines in place of angles, because the sum of a group's
//! vectors gives the mean cosine in one product. For average linkage, joining any two groups that are each
//! other's nearest leads to the same result (Bruynooghe 1978; Murtagh 1983), so no matrix of all pairs is
//! needed. Two groups can only be joined if some pair of their members is within the angle. So only those
//! pairs, found by blocks of matrix products, are searched.

use std::collections::{BTreeMap, BTreeSet};

use crate::nn::gemm::{Matrix, multiply};

/// Rows and columns of a block of products.
const BLOCK: usize = 1024;
/// Bound on the rounding error of a product of unit vectors. The exact mean decides.
const ROUNDING: f32 = 1e-5;

/// The tracks to be grouped: unit vectors, with known pairs.
#[derive(Debug)]
pub(super) struct Tracks<'a> {
    /// `count` consecutive unit vectors.
    pub vectors: &'a [f32],
    /// Values per vector.
    pub length: usize,
    /// Pairs of tracks of two people: seen together, or stated by the user.
    pub apart: &'a [(usize, usize)],
    /// Pairs of tracks of one person, as stated by the user.
    pub same: &'a [(usize, usize)],
}

/// One number per track, from 0 in the order of the first members: tracks with the same number are one
/// person. `cosine` is that of the largest mean angle. Pairs in `same` are always joined.
#[cfg(any(test, feature = "train"))]
pub(super) fn group(tracks: &Tracks<'_>, cosine: f64, threads: usize) -> Vec<usize> {
    let before = vec![None; tracks.count()];
    numbers(tracks.count(), &regroup(tracks, &before, &mut |_| None, cosine, threads))
}

/// Tracks that a chain of pairs within the angle connects. No group reaches beyond its component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Component {
    /// Its tracks, in order.
    pub members: Vec<usize>,
    /// The group of each, from 0 in the order of the first members.
    pub groups: Vec<usize>,
    /// Whether it is unchanged.
    pub kept: bool,
}

/// The groups of all tracks, found faster if most of them were grouped before. `cosine` is that of the
/// largest mean angle. Pairs in `same` are always joined. `before` has the previous component of each track,
/// `None` for a new one. `unchanged` is called with the members of a component without new ones. It returns
/// their groups if the members and all statements about them are unchanged.
pub(super) fn regroup(
    tracks: &Tracks<'_>,
    before: &[Option<u32>],
    unchanged: &mut dyn FnMut(&[usize]) -> Option<Vec<usize>>,
    cosine: f64,
    threads: usize,
) -> Vec<Component> {
    let count = tracks.count();
    let least = cosine as f32 - ROUNDING;
    let (new, old): (Vec<usize>, Vec<usize>) = (0..count).partition(|&at| before[at].is_none());
    let mut pairs: Vec<(u32, u32)> = Vec::new();
    let mut enter = |a: usize, b: usize| pairs.push((a as u32, b as u32));
    tracks.pairs(&new, None, least, threads, &mut enter);
    tracks.pairs(&new, Some(&old), least, threads, &mut enter);

    let mut sets = Sets::new(count);
    let mut firsts = BTreeMap::new();
    for &at in &old {
        sets.unite(*firsts.entry(before[at]).or_insert(at), at);
    }
    pairs.iter().for_each(|&(a, b)| sets.unite(a as usize, b as usize));
    tracks.same.iter().for_each(|&(a, b)| sets.unite(a, b));

    let mut components = Vec::new();
    let mut open = Vec::new();
    for members in sets.members() {
        let known = members.iter().all(|&at| before[at].is_some());
        match known.then(|| unchanged(&members)).flatten() {
            Some(groups) => components.push(Component { members, groups, kept: true }),
            None => {
                // Pairs with new tracks are known already.
                let old: Vec<usize> = members.iter().copied().filter(|&at| before[at].is_some()).collect();
                tracks.pairs(&old, None, least, threads, &mut |a, b| pairs.push((a as u32, b as u32)));
                open.extend(members);
            }
        }
    }
    open.sort_unstable();
    components.extend(open_components(tracks, &open, &pairs, cosine));
    components.sort_by_key(|component| component.members.first().copied());
    components
}

/// Groups the tracks `open`, of which all `pairs` within the angle are known.
fn open_components(tracks: &Tracks<'_>, open: &[usize], pairs: &[(u32, u32)], cosine: f64) -> Vec<Component> {
    let mut local = vec![usize::MAX; tracks.count()];
    open.iter().enumerate().for_each(|(at, &track)| local[track] = at);
    let here = |a: usize, b: usize| {
        let pair = (local[a], local[b]);
        (pair.0 != usize::MAX && pair.1 != usize::MAX).then_some(pair)
    };
    let own = |list: &[(usize, usize)]| list.iter().filter_map(|&(a, b)| here(a, b)).collect::<Vec<_>>();
    let (apart, same) = (own(tracks.apart), own(tracks.same));
    let mut near = vec![Vec::new(); open.len()];
    let mut sets = Sets::new(open.len());
    for (a, b) in pairs.iter().filter_map(|&(a, b)| here(a as usize, b as usize)) {
        near[a].push(b as u32);
        near[b].push(a as u32);
        sets.unite(a, b);
    }
    // In the order of the tracks, so that the result does not depend on which of them are new.
    near.iter_mut().for_each(|list| list.sort_unstable());
    same.iter().for_each(|&(a, b)| sets.unite(a, b));
    let vectors = tracks.some(open);
    let tracks = Tracks { vectors: &vectors, length: tracks.length, apart: &apart, same: &same };
    let groups = grouped(&tracks, near, cosine);
    let component = |members: Vec<usize>| {
        let mut firsts: BTreeMap<usize, usize> = BTreeMap::new();
        let mut number = |group: usize| {
            let next = firsts.len();
            *firsts.entry(group).or_insert(next)
        };
        let groups = members.iter().map(|&at| number(groups[at])).collect();
        Component { members: members.iter().map(|&at| open[at]).collect(), groups, kept: false }
    };
    sets.members().into_iter().map(component).collect()
}

/// A number for each track, from 0 in the order of the first members of the groups.
pub(super) fn numbers(count: usize, components: &[Component]) -> Vec<usize> {
    let mut place = vec![(0, 0); count];
    for (number, component) in components.iter().enumerate() {
        component.members.iter().zip(&component.groups).for_each(|(&at, &group)| place[at] = (number, group));
    }
    let mut numbers = BTreeMap::new();
    let number = |key| {
        let next = numbers.len();
        *numbers.entry(key).or_insert(next)
    };
    place.into_iter().map(number).collect()
}

/// The group of each track, as the number of its first member. `near` has for each track those within the
/// angle.
fn grouped(tracks: &Tracks<'_>, near: Vec<Vec<u32>>, cosine: f64) -> Vec<usize> {
    let count = tracks.count();
    let mut groups = Groups::new(tracks, near);
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
    (0..count).map(|track| groups.find(track)).collect()
}

/// Disjoint sets of numbers.
struct Sets {
    parent: Vec<usize>,
}

impl Sets {
    fn new(count: usize) -> Self {
        Self { parent: (0..count).collect() }
    }

    fn find(&mut self, mut at: usize) -> usize {
        while self.parent[at] != at {
            self.parent[at] = self.parent[self.parent[at]];
            at = self.parent[at];
        }
        at
    }

    /// The first member of a set is its representative.
    fn unite(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        self.parent[a.max(b)] = a.min(b);
    }

    /// The members of each set, in order.
    fn members(&mut self) -> Vec<Vec<usize>> {
        let mut sets: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for at in 0..self.parent.len() {
            sets.entry(self.find(at)).or_default().push(at);
        }
        sets.into_values().collect()
    }
}

/// Groups by their first members.
struct Groups {
    /// The tracks of each group.
    sets: Sets,
    length: usize,
    /// Sums of the vectors of the members.
    sums: Vec<f64>,
    sizes: Vec<f64>,
    /// Groups with a member within the angle of one of this group; may be out of date.
    near: Vec<Vec<u32>>,
    /// Groups that are known to be different people.
    apart: Vec<BTreeSet<u32>>,
    /// The last search in which a group was met.
    met: Vec<u32>,
    search: u32,
}

impl Groups {
    fn new(tracks: &Tracks<'_>, near: Vec<Vec<u32>>) -> Self {
        let count = tracks.count();
        let mut apart = vec![BTreeSet::new(); count];
        for &(a, b) in tracks.apart {
            apart[a].insert(b as u32);
            apart[b].insert(a as u32);
        }
        Self {
            sets: Sets::new(count),
            length: tracks.length,
            sums: tracks.vectors.iter().map(|&x| f64::from(x)).collect(),
            sizes: vec![1.0; count],
            near,
            apart,
            met: vec![0; count],
            search: 0,
        }
    }

    fn find(&mut self, track: usize) -> usize {
        self.sets.find(track)
    }

    fn sum(&self, group: usize) -> &[f64] {
        &self.sums[group * self.length..][..self.length]
    }

    /// The mean cosine over all pairs.
    fn mean(&self, a: usize, b: usize) -> f64 {
        let (sizes, pairs) = (self.sizes[a] * self.sizes[b], self.sum(a).iter().zip(self.sum(b)));
        // Four independent sums, which the CPU adds in parallel.
        let mut sums = [0.0; 4];
        for (at, (x, y)) in pairs.enumerate() {
            sums[at % 4] += x * y;
        }
        sums.iter().sum::<f64>() / sizes
    }

    /// The nearest group within the angle; of equal ones `before`, else the first.
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

    /// Joins group `b` to `a`, which comes first.
    fn join(&mut self, a: usize, b: usize) {
        self.sets.unite(a, b);
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

impl Tracks<'_> {
    fn count(&self) -> usize {
        self.vectors.len().checked_div(self.length).unwrap_or(0)
    }

    /// The vectors of some tracks.
    fn some(&self, tracks: &[usize]) -> Vec<f32> {
        let vector = |&at: &usize| &self.vectors[at * self.length..][..self.length];
        tracks.iter().flat_map(vector).copied().collect()
    }

    /// Calls `each` with every pair of a track of `rows` and one of `columns`, or two of `rows`, whose cosine
    /// is at least `cosine`.
    fn pairs(
        &self,
        rows: &[usize],
        columns: Option<&[usize]>,
        cosine: f32,
        threads: usize,
        each: &mut dyn FnMut(usize, usize),
    ) {
        if rows.is_empty() || columns.is_some_and(<[usize]>::is_empty) {
            return;
        }
        let length = self.length;
        let a = self.some(rows);
        let b = columns.map(|columns| self.some(columns));
        let left = Matrix::new(&a, rows.len(), length);
        let right = b.as_ref().zip(columns).map(|(b, columns)| Matrix::new(b, columns.len(), length));
        let (right, others) = (right.as_ref().unwrap_or(&left), columns.unwrap_or(rows));
        let mut products = vec![0.0; BLOCK.min(rows.len()) * BLOCK.min(others.len())];
        for first in (0..rows.len()).step_by(BLOCK) {
            let high = first..(first + BLOCK).min(rows.len());
            let start = if columns.is_some() { 0 } else { first };
            for second in (start..others.len()).step_by(BLOCK) {
                let wide = second..(second + BLOCK).min(others.len());
                let products = &mut products[..high.len() * wide.len()];
                let blocks = (left.block(high.clone(), 0..length), right.block(wide.clone(), 0..length));
                multiply(products, blocks.0, blocks.1.t(), false, threads);
                for (i, line) in high.clone().zip(products.chunks(wide.len())) {
                    for (j, &product) in wide.clone().zip(line) {
                        if product >= cosine && (columns.is_some() || i < j) {
                            each(rows[i], others[j]);
                        }
                    }
                }
            }
        }
    }
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

    /// Grouping again after tracks were added, removed or separated gives the same result as grouping all of
    /// them, and keeps the components that did not change.
    #[test]
    fn grouping_again_is_grouping_all() {
        let (vectors, _) = crowd(30, 12, 16, 0.8);
        let cosine = 0.75;
        let some = |which: &[usize]| -> Vec<f32> {
            which.iter().flat_map(|&at| vectors[at * 16..][..16].to_vec()).collect()
        };
        let first: Vec<usize> = (0..360).filter(|at| at % 7 != 0).collect();
        let tracks = Tracks { vectors: &some(&first), length: 16, apart: &[(3, 9)], same: &[] };
        let held = regroup(&tracks, &vec![None; first.len()], &mut |_| None, cosine, 1);
        assert!(held.len() > 10, "{} components", held.len());
        // By the index in `vectors`: component, and members with their groups.
        let component = |at: usize| {
            let own = first.iter().position(|&one| one == at)?;
            held.iter().position(|held| held.members.contains(&own))
        };
        for (come, go) in
            [(vec![], vec![]), (vec![0, 7, 14], vec![]), (vec![], vec![5]), (vec![21, 70], vec![1, 100])]
        {
            let now: Vec<usize> =
                (0..360).filter(|at| (at % 7 != 0 || come.contains(at)) && !go.contains(at)).collect();
            let place = |at: usize| now.iter().position(|&one| one == at).unwrap();
            let apart = [(place(first[3]), place(first[9]))];
            let tracks = Tracks { vectors: &some(&now), length: 16, apart: &apart, same: &[] };
            let before: Vec<Option<u32>> = now.iter().map(|&at| Some(component(at)? as u32)).collect();
            let mut unchanged = |members: &[usize]| {
                let own = &held[before[members[0]]? as usize];
                let all: Vec<usize> = own.members.iter().map(|&at| first[at]).collect();
                let here: Vec<usize> = members.iter().map(|&at| now[at]).collect();
                (all == here).then(|| own.groups.clone())
            };
            let again = regroup(&tracks, &before, &mut unchanged, cosine, 1);
            assert_eq!(numbers(now.len(), &again), group(&tracks, cosine, 1), "{come:?} {go:?}");
            let anew = again.iter().filter(|one| !one.kept).count();
            let most = 3 * (come.len() + go.len());
            assert!(anew <= most, "{anew} components were grouped anew after {come:?} {go:?}");
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
