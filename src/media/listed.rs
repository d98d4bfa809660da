//! The tracks that a file lists in its header, as far as GStreamer's demuxers do not report them.

/// A track of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// Its number in the file.
    pub(super) number: u32,
    /// How players treat it.
    pub(super) flags: Flags,
    /// What it is, in words, if a demuxer may pass over it in silence.
    pub(super) silent: Option<&'static str>,
    /// Whether the upper field of its interlaced pictures is shown first, if the file says so.
    pub(super) top_first: Option<bool>,
}

/// How players treat a track.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// Whether it is played unless another one is chosen; `None` if the file does not say.
    pub(super) default: Option<bool>,
    /// Whether subtitles are shown even to those who chose none.
    pub(super) forced: bool,
    /// Whether it is made for people who do not hear well.
    pub(super) for_deaf: bool,
    /// Whether it describes the pictures to people who do not see well.
    pub(super) for_blind: bool,
    /// Whether its language is that of the original.
    pub(super) original: bool,
    /// Whether it is a commentary.
    pub(super) commentary: bool,
}

/// What the tracks of an input are, but not of the output, in one sentence each.
pub(super) fn left_out(listed: &[Listed], seen: &[u32]) -> Vec<String> {
    let unseen = listed.iter().filter(|track| !seen.contains(&track.number));
    let mut sentences: Vec<String> = Vec::new();
    for what in unseen.filter_map(|track| track.silent) {
        let verb = if what.ends_with('s') { "are" } else { "is" };
        let sentence = format!("its {what} {verb} left out");
        if !sentences.contains(&sentence) {
            sentences.push(sentence);
        }
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracks_that_no_demuxer_gives_are_told_once_each() {
        let track = |number, silent| Listed { number, flags: Flags::default(), silent, top_first: None };
        let listed = [
            track(1, None),
            track(2, Some("timecode track")),
            track(3, Some("subtitles")),
            track(4, Some("subtitles")),
        ];
        assert_eq!(left_out(&listed, &[1]), ["its timecode track is left out", "its subtitles are left out"]);
        assert_eq!(left_out(&listed, &[2, 3]), ["its subtitles are left out"]);
        assert_eq!(left_out(&listed, &[2, 3, 4]), Vec::<String>::new());
    }
}
