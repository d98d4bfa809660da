//! Agglomerative clustering with average linkage.

use super::Member;
use crate::identify::angle_deg;

/// Groups tracks into people: the two groups with the smallest mean angle between their tracks
/// become one, again and again, as long as that angle is below `max_angle_deg`. Two tracks that
/// are in the picture at once never end up together. Groups come by their first member, the
/// members of a group in order; the result depends on nothing but the input.
///
/// Average linkage (Sokal and Michener, 1958): a single view between two people cannot chain
/// them together, and one bad view does not keep a person apart. Time and memory grow with the
/// square of the number of tracks.
pub fn cluster(members: &[Member], max_angle_deg: f64) -> Vec<Vec<usize>> {
    let count = members.len();
    let mut groups: Vec<Vec<usize>> = (0..count).map(|i| vec![i]).collect();
    let mut apart: Vec<Vec<f64>> = (0..count)
        .map(|i| (0..count).map(|j| angle_between(&members[i], &members[j])).collect())
        .collect();
    // The nearest later group of each, kept up to date: finding the closest pair is then linear.
    let nearest_of = |apart: &[Vec<f64>], groups: &[Vec<usize>], i: usize| {
        let later = (i + 1..count).filter(|&j| !groups[j].is_empty());
        later.map(|j| (apart[i][j], j)).min_by(|a, b| a.0.total_cmp(&b.0))
    };
    let mut nearest: Vec<Option<(f64, usize)>> = (0..count).map(|i| nearest_of(&apart, &groups, i)).collect();
    loop {
        let closest = (0..count).filter(|&i| !groups[i].is_empty()).filter_map(|i| Some((i, nearest[i]?)));
        let Some((into, (angle, from))) = closest.min_by(|a, b| a.1.0.total_cmp(&b.1.0)) else { break };
        if angle >= max_angle_deg {
            break;
        }
        let moved = std::mem::take(&mut groups[from]);
        let (a, b) = (groups[into].len() as f64, moved.len() as f64);
        groups[into].extend(moved);
        for other in (0..count).filter(|&other| other != into && !groups[other].is_empty()) {
            // Infinite where two of them were seen together, and stays so.
            let mean = (a * apart[into][other] + b * apart[from][other]) / (a + b);
            (apart[into][other], apart[other][into]) = (mean, mean);
        }
        nearest[from] = None;
        for i in (0..count).filter(|&i| !groups[i].is_empty()) {
            let stale = nearest[i].is_some_and(|(_, j)| j == from || j == into);
            if i == into || stale {
                nearest[i] = nearest_of(&apart, &groups, i);
            } else if i < into && nearest[i].is_none_or(|(least, _)| apart[i][into] < least) {
                nearest[i] = Some((apart[i][into], into));
            }
        }
    }
    groups.retain(|group| !group.is_empty());
    groups.iter_mut().for_each(|group| group.sort_unstable());
    groups.sort_unstable();
    groups
}

/// The angle between two tracks in degrees; infinite when they cannot be one person.
fn angle_between(a: &Member, b: &Member) -> f64 {
    match a.template.cosine(&b.template) {
        Some(cosine) if !a.meets(b) => f64::from(angle_deg(cosine)),
        _ => f64::INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::Embedding;
    use crate::nn::ModelId;
    use crate::track::TrackId;

    /// A track at `deg` degrees in a plane, in file `file`, on screen from `start` for 10.
    fn member(file: usize, start: u64, deg: f64) -> Member {
        let vector = vec![deg.to_radians().cos() as f32, deg.to_radians().sin() as f32];
        Member {
            file,
            track: TrackId(1),
            start_ns: start,
            end_ns: start + 10,
            template: Embedding::new(ModelId([1; 8]), vector).unwrap(),
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
        assert_eq!(cluster(&members, 40.0), [vec![0, 2, 5], vec![1, 3], vec![4]]);
        assert_eq!(cluster(&members, 1.0).len(), 6);
        assert_eq!(cluster(&[], 40.0), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn two_in_the_picture_at_once_are_two_however_alike() {
        let members = [member(0, 0, 0.0), member(0, 9, 1.0), member(0, 30, 2.0)];
        let groups = cluster(&members, 60.0);
        assert_eq!(groups, [vec![0], vec![1, 2]], "the nearest pair that may be one");
    }

    #[test]
    fn a_chain_of_neighbours_is_not_one_person() {
        let members: Vec<Member> = (0..10).map(|i| member(i, 0, 20.0 * i as f64)).collect();
        let groups = cluster(&members, 30.0);
        assert!(groups.len() >= 4, "{groups:?}");
        for group in groups {
            assert!(group.len() <= 3, "{group:?}");
        }
    }

    #[test]
    fn it_agrees_with_the_plain_algorithm() {
        let members: Vec<Member> = (0..60u64)
            .map(|i| {
                let mixed = (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as f64;
                member((i % 3) as usize, i * 7, mixed % 360.0)
            })
            .collect();
        for limit in [5.0, 20.0, 60.0, 120.0] {
            assert_eq!(cluster(&members, limit), plain(&members, limit), "{limit}");
        }
    }

    /// The definition, without any shortcut.
    fn plain(members: &[Member], limit: f64) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = (0..members.len()).map(|i| vec![i]).collect();
        loop {
            let mut best = (f64::INFINITY, 0, 0);
            for i in 0..groups.len() {
                for j in i + 1..groups.len() {
                    let pairs = groups[i].iter().flat_map(|&a| groups[j].iter().map(move |&b| (a, b)));
                    let sum: f64 = pairs.map(|(a, b)| angle_between(&members[a], &members[b])).sum();
                    let mean = sum / (groups[i].len() * groups[j].len()) as f64;
                    if mean < best.0 {
                        best = (mean, i, j);
                    }
                }
            }
            let (angle, i, j) = best;
            if angle >= limit {
                break;
            }
            let moved = groups.remove(j);
            groups[i].extend(moved);
        }
        groups.iter_mut().for_each(|group| group.sort_unstable());
        groups.sort_unstable();
        groups
    }
}
