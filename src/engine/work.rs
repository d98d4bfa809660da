//! What finding out about a video took.

use std::fmt;

/// What was done to find out what is in a video.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Frames looked at.
    pub frames: u64,
    /// Of those, frames that were searched as a whole.
    pub searched: u64,
    /// Faces found in them.
    pub faces: u64,
    /// Of those, faces that were embedded.
    pub embedded: u64,
}

impl std::ops::AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.frames += other.frames;
        self.searched += other.searched;
        self.faces += other.faces;
        self.embedded += other.embedded;
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frames, searched, faces, embedded } = self;
        write!(f, "{searched} of {frames} frames searched as a whole, {embedded} of {faces} faces embedded")
    }
}
