//! Repair of the one thing that makes mp4mux's files unreadable: a track that never got a sample.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

/// Removes the tracks without any sample from a finished file whose index lies at its end, as
/// mp4mux writes it. A file laid out otherwise is left alone.
pub(super) fn drop_empty_tracks(file: &mut File) -> io::Result<()> {
    let length = file.metadata()?.len();
    let mut at = 0;
    while at + 8 <= length {
        file.seek(SeekFrom::Start(at))?;
        let mut head = [0; 16];
        let header = if length - at >= 16 { 16 } else { 8 };
        file.read_exact(&mut head[..header])?;
        let Some((kind, size)) = box_head(&head[..header], length - at) else { return Ok(()) };
        if kind == *b"moov" {
            if at + size != length {
                return Ok(());
            }
            let mut index = vec![0; size as usize];
            file.seek(SeekFrom::Start(at))?;
            file.read_exact(&mut index)?;
            let kept = without_empty_tracks(&index);
            if kept.len() < index.len() {
                file.seek(SeekFrom::Start(at))?;
                file.write_all(&kept)?;
                file.set_len(at + kept.len() as u64)?;
            }
            return Ok(());
        }
        at += size;
    }
    Ok(())
}

/// Kind and whole size of the box that starts here, when it lies within `available` bytes.
fn box_head(bytes: &[u8], available: u64) -> Option<([u8; 4], u64)> {
    let size = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
    let kind = bytes.get(4..8)?.try_into().ok()?;
    let size = match size {
        0 => available,
        1 => u64::from_be_bytes(bytes.get(8..16)?.try_into().ok()?),
        size => u64::from(size),
    };
    (8..=available).contains(&size).then_some((kind, size))
}

/// The boxes inside `bytes`, each with its header.
fn boxes(mut bytes: &[u8]) -> Vec<([u8; 4], &[u8])> {
    let mut found = Vec::new();
    while let Some((kind, size)) = box_head(bytes, bytes.len() as u64) {
        let (whole, rest) = bytes.split_at(size as usize);
        found.push((kind, whole));
        bytes = rest;
    }
    found
}

/// The index box again, without tracks whose sample description (stsd) is empty.
fn without_empty_tracks(index: &[u8]) -> Vec<u8> {
    let mut kept = index[..8].to_vec();
    for (kind, whole) in boxes(&index[8..]) {
        if kind != *b"trak" || has_samples(whole) != Some(false) {
            kept.extend_from_slice(whole);
        }
    }
    let size = (kept.len() as u32).to_be_bytes();
    kept[..4].copy_from_slice(&size);
    kept
}

/// Whether a track describes any sample; `None` when it is not built as expected.
fn has_samples(track: &[u8]) -> Option<bool> {
    let mut inside = track.get(8..)?;
    for wanted in [b"mdia", b"minf", b"stbl", b"stsd"] {
        inside = boxes(inside).into_iter().find(|(kind, _)| kind == wanted)?.1.get(8..)?;
    }
    // Version and flags, then the number of entries.
    Some(u32::from_be_bytes(inside.get(4..8)?.try_into().ok()?) > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(kind: &[u8; 4], inside: &[u8]) -> Vec<u8> {
        let mut made = ((inside.len() + 8) as u32).to_be_bytes().to_vec();
        made.extend(kind);
        made.extend(inside);
        made
    }

    fn track(entries: u32) -> Vec<u8> {
        let mut table = vec![0; 4];
        table.extend(entries.to_be_bytes());
        let table = make(b"stbl", &[make(b"free", &[]), make(b"stsd", &table)].concat());
        make(b"trak", &make(b"mdia", &make(b"minf", &table)))
    }

    #[test]
    fn only_tracks_without_samples_go() {
        let data = [make(b"ftyp", b"isom"), make(b"mdat", &[7; 50])].concat();
        let whole = |tracks: &[Vec<u8>]| [data.clone(), make(b"moov", &tracks.concat())].concat();
        for (before, after) in [
            (whole(&[track(1), track(0), track(2)]), whole(&[track(1), track(2)])),
            (whole(&[track(1)]), whole(&[track(1)])),
            (vec![1, 2, 3], vec![1, 2, 3]),
            (data.clone(), data.clone()),
        ] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&before).unwrap();
            drop_empty_tracks(&mut file).unwrap();
            let mut found = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut found).unwrap();
            assert_eq!(found, after);
        }
    }
}
