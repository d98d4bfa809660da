//! Writing an XMP packet into a JPEG file, whose other bytes do not change.

use super::XmpError;

/// Signature of the segment of a packet.
const NAME: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
/// Signature of the further segments of a packet that is larger than one segment.
const MORE: &[u8] = b"http://ns.adobe.com/xmp/extension/\0";
/// Signature of the segment with the positions of further pictures, relative to itself.
const PICTURES: &[u8] = b"MPF\0";

/// The most bytes of a packet: a segment has 65,535, two of them its length.
pub(super) const MOST_BYTES: usize = 65_535 - 2 - NAME.len();

const APP0: u8 = 0xe0;
const APP1: u8 = 0xe1;
const APP2: u8 = 0xe2;
const START_OF_SCAN: u8 = 0xda;

/// A segment before the pixels.
struct Segment<'a> {
    marker: u8,
    /// All its bytes, with marker and length.
    whole: &'a [u8],
}

impl<'a> Segment<'a> {
    fn content(&self) -> &'a [u8] {
        self.whole.get(4..).unwrap_or_default()
    }

    fn is(&self, marker: u8, name: &[u8]) -> bool {
        self.marker == marker && self.content().starts_with(name)
    }
}

/// The JPEG file with this packet: in place of its current one, or else after the first headers.
///
/// # Errors
/// When the bytes are not a JPEG file, the packet is too large, or the file has a packet that cannot be
/// changed alone.
pub fn embed(jpeg: &[u8], packet: &str) -> Result<Vec<u8>, XmpError> {
    if packet.len() > MOST_BYTES {
        return Err(XmpError::TooLarge(packet.len()));
    }
    let (segments, rest) = segments(jpeg).ok_or(XmpError::NotJpeg)?;
    if segments.iter().any(|segment| segment.is(APP1, MORE)) {
        return Err(XmpError::Fixed("continues in further segments"));
    }
    let old = segments.iter().position(|segment| segment.is(APP1, NAME));
    let pictures = segments.iter().position(|segment| segment.is(APP2, PICTURES));
    if old.zip(pictures).is_some_and(|(old, pictures)| pictures < old) {
        return Err(XmpError::Fixed("lies between the list of the file's pictures and the pictures"));
    }
    let header = |segment: &Segment<'_>| segment.marker == APP0 || segment.is(APP1, b"Exif\0");
    let first = segments.iter().position(|segment| !header(segment)).unwrap_or(segments.len());
    let place = old.unwrap_or(first);
    let length = (2 + NAME.len() + packet.len()) as u16;
    let new = [&[0xff, APP1], &length.to_be_bytes()[..], NAME, packet.as_bytes()].concat();
    let mut file = Vec::with_capacity(jpeg.len() + new.len());
    file.extend_from_slice(&jpeg[..2]);
    for (number, segment) in segments.iter().enumerate() {
        if number == place {
            file.extend_from_slice(&new);
        }
        if !segment.is(APP1, NAME) {
            file.extend_from_slice(segment.whole);
        }
    }
    if place == segments.len() {
        file.extend_from_slice(&new);
    }
    file.extend_from_slice(rest);
    Ok(file)
}

/// The segments up to the pixels, and the rest of the file.
fn segments(jpeg: &[u8]) -> Option<(Vec<Segment<'_>>, &[u8])> {
    let mut rest = jpeg.strip_prefix(&[0xff, 0xd8])?;
    let mut segments = Vec::new();
    loop {
        // Any number of 0xff bytes may precede a marker.
        let filled = rest.iter().take_while(|&&byte| byte == 0xff).count();
        let (marker, length) = (*rest.get(filled)?, rest.get(filled + 1..)?.first_chunk::<2>()?);
        if filled == 0 || marker == 0 {
            return None;
        }
        if marker == START_OF_SCAN {
            return Some((segments, rest));
        }
        let end = filled + 1 + usize::from(u16::from_be_bytes(*length)).max(2);
        let (whole, after) = rest.split_at_checked(end)?;
        segments.push(Segment { marker, whole: &whole[filled - 1..] });
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::StillMetadata;
    use crate::mutations;

    fn jpeg() -> Vec<u8> {
        let mut bytes = Vec::new();
        let picture = image::RgbImage::from_fn(24, 16, |x, y| image::Rgb([x as u8 * 9, y as u8 * 9, 40]));
        image::codecs::jpeg::JpegEncoder::new(&mut bytes).encode_image(&picture).unwrap();
        bytes
    }

    fn packet(bytes: &[u8]) -> Option<String> {
        StillMetadata::of_bytes(bytes)?.xmp.map(|packet| String::from_utf8(packet).unwrap())
    }

    #[test]
    fn a_packet_goes_in_and_is_replaced_and_nothing_else_changes() {
        let plain = jpeg();
        assert_eq!(packet(&plain), None);
        let first = embed(&plain, "<a>one</a>").unwrap();
        assert_eq!(packet(&first).as_deref(), Some("<a>one</a>"));
        assert_eq!(first.len(), plain.len() + 4 + NAME.len() + 10);
        let second = embed(&first, "<a>another one</a>").unwrap();
        assert_eq!(packet(&second).as_deref(), Some("<a>another one</a>"));
        assert_eq!(embed(&second, "<a>one</a>").unwrap(), first);
        // Without the packet, the file is unchanged.
        let at = first.windows(NAME.len()).position(|part| part == NAME).unwrap() - 4;
        assert_eq!([&first[..at], &first[at + 4 + NAME.len() + 10..]].concat(), plain);
        assert_eq!(plain[at - 20..at], first[at - 20..at], "behind the first header");
        assert_eq!(image::load_from_memory(&second).unwrap(), image::load_from_memory(&plain).unwrap());
    }

    #[test]
    fn what_cannot_hold_a_packet_is_refused() {
        let large = "x".repeat(MOST_BYTES);
        assert_eq!(packet(&embed(&jpeg(), &large).unwrap()), Some(large.clone()));
        assert!(matches!(embed(&jpeg(), &(large + "x")), Err(XmpError::TooLarge(_))));
        for bytes in [&b""[..], b"\xff\xd8", b"\x89PNG\r\n\x1a\n", &jpeg()[..40]] {
            assert!(matches!(embed(bytes, "x"), Err(XmpError::NotJpeg)), "{bytes:?}");
        }
        let with = |marker: u8, content: &[u8]| {
            let length = (content.len() as u16 + 2).to_be_bytes();
            [&jpeg()[..2], &[0xff, marker], &length, content, &jpeg()[2..]].concat()
        };
        assert!(matches!(embed(&with(APP1, MORE), "x"), Err(XmpError::Fixed(_))));
        let old = embed(&jpeg(), "x").unwrap();
        let list = [&old[..2], &[0xff, APP2, 0, 6], PICTURES, &old[2..]].concat();
        assert!(matches!(embed(&list, "y"), Err(XmpError::Fixed(_))));
        let list = with(APP2, PICTURES);
        let place =
            |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).position(|one| one == part).unwrap();
        let new = embed(&list, "x").unwrap();
        assert!(place(&new, NAME) < place(&new, PICTURES), "offsets are counted from the list on");
    }

    #[test]
    fn files_of_any_bytes_are_survived() {
        let with = embed(&jpeg(), "<a/>").unwrap();
        mutations::survived_by("xmp_jpeg", "packet.jpg", &with, 300);
    }
}
