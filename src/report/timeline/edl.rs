//! An edit decision list (CMX 3600) with the markers of DaVinci Resolve in its comments.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Mark, Timeline, colour};

const COLOURS: [&str; 16] = [
    "Blue", "Green", "Red", "Yellow", "Cyan", "Pink", "Purple", "Mint", "Rose", "Lemon", "Sky", "Fuchsia",
    "Lavender", "Sand", "Cocoa", "Cream",
];

pub(super) fn text(timeline: &Timeline<'_>) -> String {
    let mode = if timeline.numbering.drop { "DROP FRAME" } else { "NON-DROP FRAME" };
    let mut text = format!("TITLE: {}\nFCM: {mode}\n\n", plain(timeline.title()));
    let mut taken = BTreeSet::new();
    let mut marks: Vec<Mark<'_>> = timeline.marks.clone();
    for mark in &mut marks {
        // Resolve has one marker per frame: if people appear together, each later one begins a frame later.
        while !taken.insert(mark.first) {
            mark.first += 1;
            mark.length = (mark.length - 1).max(1);
        }
    }
    marks.sort_by_key(|mark| mark.first);
    for (number, Mark { name, person, first, length }) in (1..).zip(&marks) {
        let (from, to) = (timeline.timecode(*first), timeline.timecode(first + 1));
        let (name, colour) = (plain(name), colour(&COLOURS, *person));
        let _ = write!(
            text,
            "{number:03}  001      V     C        {from} {to} {from} {to}  \n |C:ResolveColor{colour} |M:{name} |D:{length}\n\n"
        );
    }
    text
}

/// A name without separators of fields and lines.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c == '|' || c.is_control() { ' ' } else { c }).collect()
}
