//! Counters of the work done on a video.

use std::fmt;

/// The work done on a video.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Frames analysed.
    pub frames: u64,
    /// Frames with a full detection pass.
    pub searched: u64,
    /// Faces found in them.
    pub faces: u64,
    /// Faces embedded.
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
