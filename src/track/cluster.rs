//! Clustering of tracks into strangers.

use crate::embed::Embedding;

/// Groups templates of tracks by average linkage: as long as two groups lie less than
/// `same_deg` degrees apart on average (over all pairs of their members) the two nearest are joined. Two
/// members for which `apart` holds (for example two in one picture) are never in one group.
///
/// The result has one group number per template, from 0 in the order of their first members. A track without
/// a template is its own group.
pub fn cluster(
    templates: &[Option<Embedding>],
    apart: impl Fn(usize, usize) -> bool,
    same_deg: f64,
) -> Vec<usize> {
    let count = templates.len();
    // Angles between groups; infinite where they must not be joined. A group has the index of its first
    // member.
    let mut angle = vec![f64::INFINITY; count * count];
    for a in 0..count {
        for b in a + 1..count {
            let between = templates[a].as_ref().zip(templates[b].as_ref());
            if let Some(deg) = between.and_then(|(a, b)| a.angle_deg(b)).filter(|_| !apart(a, b)) {
                (angle[a * count + b], angle[b * count + a]) = (deg, deg);
            }
        }
    }
    let mut group: Vec<usize> = (0..count).collect();
    let mut size = vec![1.0; count];
    let mut alive: Vec<usize> = (0..count).collect();
    loop {
        let mut best = (same_deg, None);
        for (i, &a) in alive.iter().enumerate() {
            for &b in &alive[i + 1..] {
                if angle[a * count + b] < best.0 {
                    best = (angle[a * count + b], Some((a, b)));
                }
            }
        }
        let Some((a, b)) = best.1 else { break };
        for &c in alive.iter().filter(|&&c| c != a && c != b) {
            // Lance and Williams' update of average linkage; infinity stays.
            let joint =
                (size[a] * angle[a * count + c] + size[b] * angle[b * count + c]) / (size[a] + size[b]);
            (angle[a * count + c], angle[c * count + a]) = (joint, joint);
        }
        size[a] += size[b];
        alive.retain(|&other| other != b);
        group.iter_mut().filter(|member| **member == b).for_each(|member| *member = a);
    }
    group.iter().map(|first| alive.partition_point(|place| place < first)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::ModelId;

    fn at(degs: &[f64]) -> Vec<Option<Embedding>> {
        let one = |deg: &f64| {
            let values = vec![deg.to_radians().cos() as f32, deg.to_radians().sin() as f32];
            Embedding::new(ModelId([1; 8]), values)
        };
        degs.iter().map(one).collect()
    }

    #[test]
    fn groups_are_people_in_the_order_of_appearance() {
        let mut templates = at(&[90.0, 0.0, 95.0, 20.0, 170.0]);
        templates.push(None);
        assert_eq!(cluster(&templates, |_, _| false, 30.0), [0, 1, 0, 1, 2, 3]);
        assert_eq!(cluster(&templates, |_, _| false, 1.0), [0, 1, 2, 3, 4, 5]);
        assert!(cluster(&[], |_, _| false, 30.0).is_empty());
    }

    #[test]
    fn a_chain_of_neighbours_is_not_one_person() {
        let templates = at(&[0.0, 25.0, 50.0, 75.0]);
        assert_eq!(cluster(&templates, |_, _| false, 30.0), [0, 0, 1, 1]);
    }

    #[test]
    fn two_in_one_picture_are_two_whatever_joins_them() {
        let templates = at(&[0.0, 10.0, 5.0]);
        let groups = cluster(&templates, |a, b| (a, b) == (0, 1), 60.0);
        assert_ne!(groups[0], groups[1]);
    }
}
