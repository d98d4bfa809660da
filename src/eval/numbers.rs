//! Whether a stranger's number stands for one person, and a person has one number.

use std::collections::BTreeMap;

use serde::Serialize;

/// A person as far as the truth identifies them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Somebody {
    /// A person with that name, in any shot.
    Named(String),
    /// A person without a name, by the id of a continuous face: in each shot a different one.
    Unnamed(String),
    /// A false detection, by its track.
    Nothing(u32),
}

/// Counts of faces with a stranger's number, as in "Unknown 3".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct NumberCounts {
    /// Faces of people that the truth distinguishes, and false detections if the truth lists every face.
    pub numbered: u64,
    /// Of those, faces with a number that more faces of another person have.
    pub shared: u64,
    /// Of those, faces with another number than most faces of the same person.
    pub split: u64,
}

/// Numbers given to people, added one by one.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    faces: BTreeMap<(Somebody, u32), u64>,
}

impl Numbers {
    /// A face of `who` has the number.
    pub(super) fn see(&mut self, who: Somebody, number: u32) {
        *self.faces.entry((who, number)).or_default() += 1;
    }

    /// The counts over all of them.
    pub(super) fn count(&self) -> NumberCounts {
        let mut of_number: BTreeMap<u32, u64> = BTreeMap::new();
        let mut of_person: BTreeMap<&Somebody, u64> = BTreeMap::new();
        for ((who, number), &faces) in &self.faces {
            for most in [of_number.entry(*number).or_default(), of_person.entry(who).or_default()] {
                *most = faces.max(*most);
            }
        }
        let numbered = self.faces.values().sum();
        let but_the_most = |most: u64| numbered - most;
        NumberCounts {
            numbered,
            shared: but_the_most(of_number.values().sum()),
            split: but_the_most(of_person.values().sum()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shared_and_people_are_split() {
        let mut numbers = Numbers::default();
        let ann = || Somebody::Named("ann".into());
        let faces = [
            (ann(), 1, 5),
            (ann(), 2, 3),
            (Somebody::Unnamed("7".into()), 1, 2),
            (Somebody::Nothing(4), 2, 4),
            (Somebody::Nothing(5), 3, 1),
        ];
        for (who, number, times) in faces {
            (0..times).for_each(|_| numbers.see(who.clone(), number));
        }
        // Two of the other under Ann's 1, three of Ann under the 2 of a false detection.
        assert_eq!(numbers.count(), NumberCounts { numbered: 15, shared: 5, split: 3 });
        assert_eq!(Numbers::default().count(), NumberCounts::default());
    }
}
