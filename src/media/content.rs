//! The content of a file by its first bytes. Names are unreliable: browsers save JPEG as .jfif, chat programs
//! without an extension.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes that are enough to recognise the content.
const HEAD: u64 = 64;

/// The content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// One picture, or the first of several.
    Still(Still),
    /// A container of video or sound.
    Video,
    /// Something else, or unreadable.
    Unknown,
}

/// Formats of stills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Still {
    Jpeg,
    /// png, webp, bmp, tiff or gif.
    Other,
    /// HEIC or AVIF. Its boxes show which one, and whether it can be read.
    Heif,
    /// A format that is not supported, by its name.
    Foreign(&'static str),
}

impl Content {
    /// The content of a file. Other than regular files are not examined, since reading may consume their
    /// bytes.
    pub(super) fn of_file(path: &Path) -> Self {
        let head = || {
            let mut head = Vec::new();
            // A FIFO must not be opened and closed again: its writer would end.
            path.metadata().ok().filter(|metadata| metadata.is_file())?;
            File::open(path).ok()?.take(HEAD).read_to_end(&mut head).ok()?;
            Some(head)
        };
        head().map_or(Self::Unknown, |head| Self::of(&head))
    }

    /// The content by the first bytes of a file.
    pub(super) fn of(head: &[u8]) -> Self {
        let at = |place: usize, wanted: &[u8]| head.get(place..place + wanted.len()) == Some(wanted);
        let begins = |wanted: &[u8]| at(0, wanted);
        if begins(b"\xff\xd8\xff") {
            return Self::Still(Still::Jpeg);
        }
        let other = begins(b"\x89PNG\r\n\x1a\n")
            || begins(b"GIF87a")
            || begins(b"GIF89a")
            || begins(b"II*\0")
            || begins(b"MM\0*")
            || (begins(b"RIFF") && at(8, b"WEBP"))
            || is_bmp(head);
        if other {
            return Self::Still(Still::Other);
        }
        if at(4, b"ftyp") {
            return of_brands(head);
        }
        let foreign: [(&[u8], &str); 7] = [
            (b"\xff\x0a", "JPEG XL"),
            (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
            (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
            (b"\xff\x4f\xff\x51", "JPEG 2000"),
            (b"8BPS", "Photoshop"),
            (b"v/1\x01", "OpenEXR"),
            (b"FUJIFILMCCD-RAW", "camera raw"),
        ];
        if let Some((_, name)) = foreign.iter().find(|(magic, _)| begins(magic)) {
            return Self::Still(Still::Foreign(name));
        }
        let video = begins(b"\x1a\x45\xdf\xa3")
            || (begins(b"RIFF") && at(8, b"AVI "))
            || begins(b"FLV")
            || begins(b"OggS")
            || begins(b"\0\0\x01\xba")
            || at(4, b"moov")
            || at(4, b"mdat");
        if video { Self::Video } else { Self::Unknown }
    }
}

fn is_bmp(head: &[u8]) -> bool {
    let size = head.get(14..18).and_then(|bytes| Some(u32::from_le_bytes(bytes.try_into().ok()?)));
    head.starts_with(b"BM")
        && size.is_some_and(|size| matches!(size, 12 | 16 | 40 | 52 | 56 | 64 | 108 | 124))
}

/// ISO base media files are videos, unless their major brand is one of stills.
fn of_brands(head: &[u8]) -> Content {
    let brand = |at: usize| head.get(at..at + 4);
    let length =
        head.get(..4).map_or(0, |bytes| bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)));
    let still = |brand: &[u8]| matches!(brand, b"heic" | b"heix" | b"heim" | b"heis" | b"avif" | b"mif1");
    match brand(8) {
        Some(major) if still(major) => Content::Still(Still::Heif),
        Some(b"crx ") => Content::Still(Still::Foreign("camera raw")),
        // Image sequences, which also have a main picture.
        Some(b"hevc" | b"hevx" | b"msf1" | b"avis")
            if (16..length.min(head.len())).step_by(4).filter_map(brand).any(still) =>
        {
            Content::Still(Still::Heif)
        }
        _ => Content::Video,
    }
}

/// The part that is missing in a truncated JPEG file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// The last rows, because the file is stored row by row.
    Rows,
    /// Detail: the whole picture is there, but coarse.
    Detail,
}

/// Whether a JPEG file ends before its picture does.
pub(super) fn cut_jpeg(bytes: &[u8]) -> Option<Cut> {
    let mut at = 2;
    let mut progressive = false;
    let mut scans = 0;
    loop {
        // Any number of 0xff may precede a marker.
        let found = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == 0xff));
        let Some(place) = found else { break };
        at += place + 1;
        match bytes.get(at) {
            Some(0xd9) => return None,
            // Stuffed bytes and restart markers belong to the picture, further 0xff bytes to the marker.
            Some(0x00 | 0x01 | 0xd0..=0xd8) => at += 1,
            Some(0xff) => {}
            Some(marker) => {
                progressive |= matches!(marker, 0xc2 | 0xc6 | 0xca | 0xce);
                scans += usize::from(*marker == 0xda);
                let length =
                    bytes.get(at + 1..at + 3).map(|two| usize::from(two[0]) << 8 | usize::from(two[1]));
                let Some(length) = length else { break };
                at += 1 + length.max(2);
            }
            None => break,
        }
    }
    Some(if progressive && scans > 0 { Cut::Detail } else { Cut::Rows })
}

/// The remark about an animation that is used as a still.
pub const ONLY_FIRST: &str = "it is an animation, of which only the first picture is used";

/// Whether an image file holds an animation: a GIF, PNG or WebP file, or a HEIC or AVIF file, of several pictures.
/// As a still, only the first one is read.
pub fn is_animated(bytes: &[u8]) -> bool {
    if bytes.starts_with(b"GIF8") {
        return gif_pictures(bytes, 2) > 1;
    }
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return png_pictures(bytes).is_some_and(|count| count > 1);
    }
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return webp_pictures(bytes) > 1;
    }
    // The brand of a sequence comes first if the sequence is what the file is for.
    Content::of(bytes) == Content::Still(Still::Heif)
        && matches!(bytes.get(8..12), Some(b"hevc" | b"hevx" | b"msf1" | b"avis"))
}

/// The number of pictures in a GIF file, up to `most`.
fn gif_pictures(bytes: &[u8], most: usize) -> usize {
    let palette = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << (usize::from(flags & 7) + 1) };
    let Some(&flags) = bytes.get(10) else { return 0 };
    let (mut at, mut count) = (13 + palette(flags), 0);
    while count < most
        && let Some(kind) = bytes.get(at)
    {
        at += match kind {
            // An extension, with its label.
            0x21 => 2,
            0x2c => {
                let Some(flags) = bytes.get(at + 9) else { break };
                count += 1;
                // Followed by the number of bits of the first codes.
                10 + palette(*flags) + 1
            }
            _ => break,
        };
        // Blocks of data, of which an empty one is the last.
        while let Some(&length) = bytes.get(at) {
            at += 1 + usize::from(length);
            if length == 0 {
                break;
            }
        }
    }
    count
}

/// The number of pictures that an animated PNG file states; `None` if it is not animated.
fn png_pictures(bytes: &[u8]) -> Option<u32> {
    let mut at = 8;
    loop {
        let head = bytes.get(at..at + 8)?;
        let length = u32::from_be_bytes(head[..4].try_into().ok()?);
        match &head[4..] {
            b"acTL" => return Some(u32::from_be_bytes(bytes.get(at + 8..at + 12)?.try_into().ok()?)),
            // The animation is announced before the pixels.
            b"IDAT" => return None,
            _ => at = at.checked_add(usize::try_from(length).ok()?)?.checked_add(12)?,
        }
    }
}

/// The number of pictures of an animation in a WebP file.
fn webp_pictures(bytes: &[u8]) -> usize {
    let (mut at, mut count) = (12, 0);
    while let Some(head) = bytes.get(at..at + 8) {
        count += usize::from(head.starts_with(b"ANMF"));
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        at = at.saturating_add(8).saturating_add(length.next_multiple_of(2));
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutations;

    /// An animated PNG file begins with a picture for programs that know no animations.
    fn animated_png(pictures: u32) -> Vec<u8> {
        let mut plain = std::io::Cursor::new(Vec::new());
        image::RgbImage::new(3, 2).write_to(&mut plain, image::ImageFormat::Png).unwrap();
        let plain = plain.into_inner();
        let control = [&[0, 0, 0, 8][..], b"acTL", &pictures.to_be_bytes(), &[0; 4], &[0; 4]].concat();
        // After the header, which is the first chunk.
        [&plain[..33], &control, &plain[33..]].concat()
    }

    fn webp(chunks: &[&[u8; 4]]) -> Vec<u8> {
        let chunks: Vec<u8> =
            chunks.iter().flat_map(|kind| [&kind[..], &[3, 0, 0, 0, 1, 2, 3, 0]].concat()).collect();
        [&b"RIFF"[..], &(chunks.len() as u32 + 4).to_le_bytes(), b"WEBP", &chunks].concat()
    }

    #[test]
    fn pictures_of_an_animation_are_counted() {
        let gif = |pictures: usize| {
            let mut bytes = Vec::new();
            let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
            for _ in 0..pictures {
                encoder.encode_frame(image::Frame::new(image::RgbaImage::new(4, 3))).unwrap();
            }
            drop(encoder);
            bytes
        };
        for (bytes, animated) in [
            (gif(1), false),
            (gif(2), true),
            (gif(5), true),
            (animated_png(1), false),
            (animated_png(2), true),
            (webp(&[b"VP8X", b"ANIM", b"ANMF"]), false),
            (webp(&[b"VP8X", b"ANIM", b"ANMF", b"ANMF"]), true),
            (webp(&[b"VP8 "]), false),
            (b"\0\0\0\x18ftypavis\0\0\0\0avisavif".to_vec(), true),
            (b"\0\0\0\x18ftypavif\0\0\0\0avifmif1".to_vec(), false),
            (b"\xff\xd8\xff\xe0".to_vec(), false),
            (Vec::new(), false),
        ] {
            let head = &bytes[..bytes.len().min(12)];
            assert_eq!(is_animated(&bytes), animated, "{} of {} bytes", head.escape_ascii(), bytes.len());
            // Any part of a file and any change to it is survived.
            for end in 0..bytes.len() {
                is_animated(&bytes[..end]);
            }
        }
        mutations::survived_by("still", "animated.gif", &gif(3), 300);
        mutations::survived_by("still", "animated.png", &animated_png(2), 300);
        mutations::survived_by("still", "animated.webp", &webp(&[b"VP8X", b"ANIM", b"ANMF", b"ANMF"]), 300);
    }

    #[test]
    fn the_first_bytes_tell_stills_from_videos() {
        let brands = |brands: &str| {
            let mut head = vec![0, 0, 0, 8 + brands.len() as u8];
            head.extend(b"ftyp");
            head.extend(brands.as_bytes());
            head
        };
        let bmp = [&b"BM"[..], &[0; 12], &[40, 0, 0, 0]].concat();
        for (head, content) in [
            (&b"\xff\xd8\xff\xe0"[..], Content::Still(Still::Jpeg)),
            (b"\x89PNG\r\n\x1a\n", Content::Still(Still::Other)),
            (b"RIFF\x10\0\0\0WEBPVP8 ", Content::Still(Still::Other)),
            (b"RIFF\x10\0\0\0AVI LIST", Content::Video),
            (b"GIF89a", Content::Still(Still::Other)),
            (&bmp, Content::Still(Still::Other)),
            (b"BMused about it", Content::Unknown),
            (b"\xff\x0a\0", Content::Still(Still::Foreign("JPEG XL"))),
            (&brands("heic\0\0\0\0mif1heic"), Content::Still(Still::Heif)),
            (&brands("mif1\0\0\0\0mif1avif"), Content::Still(Still::Heif)),
            (&brands("avis\0\0\0\0avisavif"), Content::Still(Still::Heif)),
            (&brands("isom\0\0\0\0isommif1"), Content::Video),
            (&brands("qt  \0\0\0\0qt  "), Content::Video),
            (b"\x1a\x45\xdf\xa3", Content::Video),
            (b"hello", Content::Unknown),
            (b"", Content::Unknown),
        ] {
            assert_eq!(Content::of(head), content, "{}", head.escape_ascii());
        }
    }

    #[test]
    fn a_jpeg_is_whole_up_to_its_last_byte() {
        let mut whole = Vec::new();
        let picture = image::RgbImage::from_fn(40, 40, |x, y| image::Rgb([(x * y) as u8, x as u8, 9]));
        let mut encoder = image::codecs::jpeg::JpegEncoder::new(&mut whole);
        encoder.encode_image(&picture).unwrap();
        assert_eq!(cut_jpeg(&whole), None);
        for end in 2..whole.len() - 1 {
            assert_eq!(cut_jpeg(&whole[..end]), Some(Cut::Rows), "{end}");
        }
        assert_eq!(cut_jpeg(&[&whole[..], b"and a trailer"].concat()), None);
        mutations::survived_by("still", "plain.jpg", &whole, 500);
    }
}
