//! Reading of text files that were written by hand or saved from a spreadsheet, and formatting of text in our
//! files and messages.

use std::fmt::{self, Write};
use std::io;
use std::path::Path;

/// Reads a text file: UTF-8 with or without a byte-order mark, or UTF-16 with one.
///
/// # Errors
/// When it cannot be read, or is not text in one of these encodings.
pub fn read_text(path: &Path) -> io::Result<String> {
    decode(std::fs::read(path)?)
}

fn decode(mut bytes: Vec<u8>) -> io::Result<String> {
    let not_text = || io::Error::new(io::ErrorKind::InvalidData, "it is not text in UTF-8 or UTF-16");
    let utf16 = |unit: fn([u8; 2]) -> u16, bytes: &[u8]| {
        let (units, rest) = bytes.as_chunks::<2>();
        let units: Vec<u16> = units.iter().map(|two| unit(*two)).collect();
        String::from_utf16(&units).ok().filter(|_| rest.is_empty()).ok_or_else(not_text)
    };
    match bytes.as_slice() {
        [0xff, 0xfe, text @ ..] => utf16(u16::from_le_bytes, text),
        [0xfe, 0xff, text @ ..] => utf16(u16::from_be_bytes, text),
        [0xef, 0xbb, 0xbf, ..] => String::from_utf8(bytes.split_off(3)).map_err(|_| not_text()),
        _ => String::from_utf8(bytes).map_err(|_| not_text()),
    }
}

/// Text for elements and attributes of XML, SVG and HTML.
pub fn escaped(text: &str) -> String {
    let mut to = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => to += "&amp;",
            '<' => to += "&lt;",
            '>' => to += "&gt;",
            '"' => to += "&quot;",
            '\'' => to += "&#39;",
            // XML cannot hold control characters.
            c if c.is_control() => to.push(' '),
            c => to.push(c),
        }
    }
    to
}

/// A number and its noun, a regular one or `person`: `1 file`, `2 files`, `3 people`.
pub fn counted(count: impl fmt::Display, noun: &str) -> String {
    match (count.to_string().as_str(), noun) {
        ("1", noun) => format!("1 {noun}"),
        (count, "person") => format!("{count} people"),
        (count, noun) => format!("{count} {noun}s"),
    }
}

/// A path as a part of an address.
pub fn percent_encoded(path: &str) -> String {
    let mut to = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                to.push(byte.into())
            }
            byte => {
                let _ = write!(to, "%{byte:02X}");
            }
        }
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_counted_in_the_singular() {
        let told = [counted(0, "file"), counted(1, "new file"), counted(2, "track"), counted(3, "person")];
        assert_eq!(told, ["0 files", "1 new file", "2 tracks", "3 people"]);
        assert_eq!(counted(1, "person"), "1 person");
    }

    #[test]
    fn markup_and_control_characters_stay_text() {
        assert_eq!(escaped("<b> & \"c\"'\n"), "&lt;b&gt; &amp; &quot;c&quot;&#39; ");
    }

    #[test]
    fn every_byte_order_mark_is_taken_off() {
        let text = "Zoë\t1\n";
        let utf16 = |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(bytes).collect()
        };
        let marked = [b"\xef\xbb\xbf", text.as_bytes()].concat();
        for bytes in [text.into(), marked, utf16(u16::to_le_bytes), utf16(u16::to_be_bytes)] {
            assert_eq!(decode(bytes).unwrap(), text);
        }
        for bytes in [b"\xff\xfea".to_vec(), b"Zo\xeb".to_vec(), b"\xff\xfe\x00\xd8".to_vec()] {
            assert!(decode(bytes).is_err());
        }
    }
}
