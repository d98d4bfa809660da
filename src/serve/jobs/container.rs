//! Recognition of video containers: an uploaded playlist could make the service open other files and
//! addresses.

/// The number of bytes at the beginning that show the format of a file.
pub(in crate::serve) const LOOK_AT_BYTES: usize = 400;

/// Whether a file with this beginning is a container that holds its own pictures.
pub(in crate::serve) fn is_video(beginning: &[u8]) -> bool {
    let at = |offset: usize, magic: &[u8]| beginning.get(offset..offset + magic.len()) == Some(magic);
    let box_of_mp4 = [&b"ftyp"[..], b"moov", b"mdat", b"free", b"wide", b"skip", b"pnot"];
    box_of_mp4.iter().any(|kind| at(4, kind))
        // Matroska and WebM.
        || at(0, &[0x1a, 0x45, 0xdf, 0xa3])
        || (at(0, b"RIFF") && at(8, b"AVI "))
        || at(0, b"OggS")
        || at(0, b"FLV\x01")
        // ASF.
        || at(0, &[0x30, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11])
        // MPEG: program stream, and transport streams of packets of 188 or 192 bytes.
        || at(0, &[0, 0, 1, 0xba])
        || (at(0, b"G") && at(188, b"G"))
        || (at(4, b"G") && at(196, b"G"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn playlists_pictures_and_texts_are_no_videos() {
        let sample = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/samples/sample.mp4")).unwrap();
        assert!(is_video(&sample[..LOOK_AT_BYTES]));
        let mut stream = vec![0; LOOK_AT_BYTES];
        (stream[0], stream[188]) = (b'G', b'G');
        assert!(is_video(&stream));
        for other in [
            &b""[..],
            b"#EXTM3U\n#EXT-X-VERSION:3\nhttp://127.0.0.1/",
            b"<smil><video src=\"file:///etc/passwd\"/></smil>",
            b"<?xml version=\"1.0\"?><MPD>",
            b"ffconcat version 1.0\nfile '/etc/passwd'",
            b"RTSPtextRTSP://127.0.0.1/",
            b"[playlist]\nFile1=http://127.0.0.1/",
            b"G is a text",
            b"\xff\xd8\xff\xe0\0\x10JFIF",
            b"RIFF\0\0\0\0WEBP",
        ] {
            assert!(!is_video(other), "{}", String::from_utf8_lossy(other));
        }
    }
}
