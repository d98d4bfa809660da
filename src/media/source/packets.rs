//! Transport streams that lost packets.
//!
//! tsdemux throws away the rest of a picture after a lost packet, and with a key picture all that
//! follow from it. A decoder conceals what is missing, so the packets are numbered anew before
//! tsdemux sees them: it notices no loss, and hands on what is there.

use std::collections::{HashMap, HashSet};

/// Sizes of packets: plain, with a time before each (Blu-ray), with check bytes after each.
const SIZES: [u64; 3] = [188, 192, 204];
const SYNC: u8 = 0x47;
/// Packets that must begin where they should for a file to be a transport stream.
const CERTAIN: u64 = 5;
/// Bytes of a packet up to the number.
const HEAD: usize = 4;
/// Losses beyond so many are not counted.
const MOST_GAPS: usize = 1 << 20;
/// Packets that only fill.
const FILLING: u16 = 0x1fff;

/// The streams that a transport stream begins with: the list of programs and that of their names.
const TABLES: [u16; 2] = [0x00, 0x11];

/// Numbers the packets of a transport stream without gaps, in the order in which they are read.
#[derive(Debug, Default)]
pub(super) struct Numbering {
    layout: Layout,
    /// Where the next bytes begin that go on from those before.
    next: u64,
    /// The head of a packet that the last bytes broke off in.
    head: Vec<u8>,
    /// By stream: the number that came last, and the one that was written.
    last: HashMap<u16, (u8, u8)>,
    lost: u64,
    /// Packets before which some were lost; parts of a file are read more than once.
    gaps: HashSet<u64>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Layout {
    #[default]
    Unknown,
    /// Not a transport stream.
    Other,
    Packets {
        size: u64,
        /// Where the first one begins.
        first: u64,
    },
}

impl Numbering {
    /// Whether bytes at `offset` may have to be changed. The first ones tell what the stream is.
    pub(super) fn touches(&mut self, offset: u64, bytes: &[u8]) -> bool {
        if self.layout == Layout::Unknown && offset == 0 {
            self.layout = Layout::of(bytes);
        }
        matches!(self.layout, Layout::Packets { .. })
    }

    /// Numbers the packets in `bytes`, which begin at `offset` of the stream; `u64::MAX` goes on
    /// from those before.
    pub(super) fn apply(&mut self, offset: u64, bytes: &mut [u8]) {
        let Layout::Packets { size, first } = self.layout else { return };
        let offset = if offset == u64::MAX { self.next } else { offset };
        if offset != self.next {
            // Read elsewhere: what comes there says nothing of a loss.
            self.last.clear();
            self.head.clear();
        }
        self.next = offset + bytes.len() as u64;
        // What was begun is complete with these bytes.
        let begun = self.head.len();
        if begun > 0 {
            let missing = (HEAD - begun).min(bytes.len());
            self.head.extend_from_slice(&bytes[..missing]);
            if let Ok(head) = <[u8; HEAD]>::try_from(&self.head[..]) {
                bytes[missing - 1] = self.renumbered(head, offset - begun as u64);
                self.head.clear();
            }
        }
        let into = (offset + size - first % size) % size;
        let mut at = ((size - into) % size) as usize;
        while at < bytes.len() {
            match bytes.get(at..at + HEAD).and_then(|head| <[u8; HEAD]>::try_from(head).ok()) {
                Some(head) => bytes[at + HEAD - 1] = self.renumbered(head, offset + at as u64),
                None => self.head.extend_from_slice(&bytes[at..]),
            }
            at += size as usize;
        }
    }

    /// Packets that did not come.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// The last byte of the head of a packet at `offset`, with the number that follows the one before.
    fn renumbered(&mut self, head: [u8; HEAD], offset: u64) -> u8 {
        let [sync, high, low, flags] = head;
        let stream = u16::from(high & 0x1f) << 8 | u16::from(low);
        let damaged = high & 0x80 != 0;
        if sync != SYNC || damaged || stream == FILLING {
            return flags;
        }
        let number = flags & 0x0f;
        let step = u8::from(flags & 0x10 != 0);
        let written = match self.last.get(&stream) {
            None => number,
            // A packet may come twice.
            Some((before, written)) if step == 1 && number == *before => *written,
            Some((before, written)) => {
                let gap = number.wrapping_sub(before + step) & 0x0f;
                if gap > 0 && TABLES.contains(&stream) {
                    // Where files were joined every count begins anew, that of the tables first.
                    self.last.clear();
                    self.last.insert(stream, (number, number));
                    return flags;
                }
                if gap > 0 && self.gaps.len() < MOST_GAPS && self.gaps.insert(offset) {
                    self.lost += u64::from(gap);
                }
                (written + step) & 0x0f
            }
        };
        self.last.insert(stream, (number, written));
        flags & 0xf0 | written
    }
}

impl Layout {
    fn of(bytes: &[u8]) -> Self {
        let begins = |at: u64| usize::try_from(at).ok().and_then(|at| bytes.get(at)) == Some(&SYNC);
        for size in SIZES {
            let first = if size == 192 { 4 } else { 0 };
            if (0..CERTAIN).all(|packet| begins(first + packet * size)) {
                return Self::Packets { size, first };
            }
        }
        Self::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(stream: u16, number: u8, size: usize) -> Vec<u8> {
        let mut packet = vec![0; size - 188];
        if size == 204 {
            packet.clear();
        }
        packet.extend([SYNC, (stream >> 8) as u8, stream as u8, 0x10 | number & 0x0f]);
        packet.resize(size, 0xaa);
        packet
    }

    fn numbers(bytes: &[u8], size: usize, stream: u16) -> Vec<u8> {
        let first = if size == 192 { 4 } else { 0 };
        let heads = bytes.chunks(size).map(|packet| &packet[first..first + 4]);
        heads.filter(|head| head[2] == stream as u8).map(|head| head[3] & 0x0f).collect()
    }

    #[test]
    fn packets_are_numbered_without_gaps_however_they_are_read() {
        for size in [188, 192, 204] {
            let sent = [0, 1, 2, 5, 6, 6, 7, 14, 15, 0, 1];
            let stream: Vec<u8> = sent
                .iter()
                .flat_map(|number| [packet(7, *number, size), packet(9, 3, size)].concat())
                .collect();
            for step in [1, 3, 187, 188, 190, 4096, 100_000] {
                let mut numbering = Numbering::default();
                let mut bytes = stream.clone();
                assert!(numbering.touches(0, &bytes));
                let mut offset = 0;
                for part in bytes.chunks_mut(step) {
                    numbering.apply(offset, part);
                    offset += part.len() as u64;
                }
                assert_eq!(numbers(&bytes, size, 7), [0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9], "{size} {step}");
                assert_eq!(numbers(&bytes, size, 9), [3; 11], "{size} {step}: all one packet");
                assert_eq!(numbering.lost(), 2 + 6, "{size} {step}");
            }
        }
    }

    #[test]
    fn what_is_read_elsewhere_is_no_loss() {
        let mut numbering = Numbering::default();
        let mut bytes: Vec<u8> = (0..8).flat_map(|number| packet(7, number, 188)).collect();
        assert!(numbering.touches(0, &bytes));
        numbering.apply(0, &mut bytes);
        let mut later = packet(7, 3, 188);
        numbering.apply(188 * 1000, &mut later);
        assert_eq!((numbers(&later, 188, 7), numbering.lost()), (vec![3], 0));
        let lossy = [packet(7, 1, 188), packet(7, 4, 188)].concat();
        for _ in 0..3 {
            numbering.apply(0, &mut lossy.clone());
        }
        assert_eq!(numbering.lost(), 2, "counted once");
    }

    #[test]
    fn other_files_are_left_alone() {
        let mut numbering = Numbering::default();
        assert!(!numbering.touches(0, &[SYNC; 100]));
        assert!(!numbering.touches(0, b"ftyp"));
    }
}
