//! Names of people, and the folder names made of them.

use std::fmt;

use unicode_normalization::UnicodeNormalization;

use super::GalleryError;

/// Longest display name in characters.
const MAX_NAME_CHARS: usize = 200;
/// Longest folder or file name made of a text, in bytes; file systems allow 255.
const MAX_FILE_BYTES: usize = 120;

/// The display name of a person: any Unicode, normalised so that one name has one spelling
/// (NFC, no space at the ends, single spaces inside). Upper and lower case differ.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersonName(String);

impl PersonName {
    /// Normalises `text`.
    ///
    /// # Errors
    /// [`GalleryError::Name`] when nothing is left, it is longer than 200 characters, or it
    /// holds control characters.
    pub fn new(text: &str) -> Result<Self, GalleryError> {
        let refused = |reason| GalleryError::Name { name: text.escape_debug().to_string(), reason };
        let name: String = text.split_whitespace().collect::<Vec<_>>().join(" ").nfc().collect();
        if name.is_empty() {
            return Err(refused("it is empty"));
        }
        if name.chars().any(char::is_control) {
            return Err(refused("it holds control characters"));
        }
        if name.chars().any(turns_text) {
            return Err(refused("it holds marks that change the direction of text"));
        }
        if name.chars().all(is_invisible) {
            return Err(refused("none of its characters can be seen"));
        }
        if name == "." || name == ".." {
            return Err(refused("it stands for a folder"));
        }
        if name.chars().count() > MAX_NAME_CHARS {
            return Err(refused("it is longer than 200 characters"));
        }
        Ok(Self(name))
    }

    /// The normalised name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PersonName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a character has no width: between others it may have a meaning, alone it cannot be seen.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{fe00}'..='\u{fe0f}')
}

/// Whether a character makes text run in another direction than its letters do, up to another such character: a text
/// around the name would be turned, too.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A name close to `text` that every file system accepts for a folder or file: letters, digits, spaces, `-`,
/// `_` and inner dots are kept, everything else becomes `_`. Never empty, never hidden, never a path, never a
/// device name of Windows.
pub(super) fn file_name(text: &str) -> String {
    let kept = |c: char| if c.is_alphanumeric() || " -_.".contains(c) { c } else { '_' };
    let mut name = String::new();
    for c in text.nfc().map(kept) {
        if name.len() + c.len_utf8() > MAX_FILE_BYTES {
            break;
        }
        name.push(c);
    }
    let name = name.trim_matches([' ', '.']);
    let stem = name.split('.').next().unwrap_or_default().to_ascii_uppercase();
    let numbered = |prefix: &str| stem.strip_prefix(prefix).is_some_and(|n| n.len() == 1);
    let reserved =
        ["CON", "PRN", "AUX", "NUL"].contains(&stem.as_str()) || numbered("COM") || numbered("LPT");
    if name.is_empty() || reserved { format!("_{name}") } else { name.to_owned() }
}

/// `name`, or `name-2`, `name-3`, ... (before the extension, if any): the first for which
/// `taken` is false.
pub(super) fn free_name(name: &str, taken: impl Fn(&str) -> bool) -> String {
    if !taken(name) {
        return name.to_owned();
    }
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem, format!(".{extension}")),
        _ => (name, String::new()),
    };
    (2u64..).map(|n| format!("{stem}-{n}{extension}")).find(|name| !taken(name)).unwrap_or_default()
}

/// Whether two file names are one on a file system that ignores case.
pub(super) fn same_file(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_has_one_spelling() {
        let composed = PersonName::new("  Zoë   Saldaña ").unwrap();
        let decomposed = PersonName::new("Zoe\u{308} Saldan\u{303}a").unwrap();
        assert_eq!(composed, decomposed);
        assert_eq!(composed.as_str(), "Zoë Saldaña");
        assert!(PersonName::new("王小明").is_ok() && PersonName::new("Ann 🙂").is_ok());
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for wrong in ["", "  \t", "a\u{7}b", &"x".repeat(201), ".", " .. ", "\u{200b}", "\u{202e}adA"] {
            assert!(PersonName::new(wrong).is_err(), "{wrong:?}");
        }
        // A joiner between letters belongs to the spelling of some languages, and to some pictures.
        for right in ["...", "ن\u{200c}ا", "👩\u{200d}🔬", "❤\u{fe0f}"] {
            assert!(PersonName::new(right).is_ok(), "{right:?}");
        }
    }

    #[test]
    fn folder_names_are_safe_and_close_to_the_name() {
        for (name, folder) in [
            ("Lin-Manuel Miranda", "Lin-Manuel Miranda"),
            ("王小明", "王小明"),
            ("../../etc/passwd", "_.._etc_passwd"),
            ("..", "_"),
            ("/", "_"),
            ("a\\b:c", "a_b_c"),
            (".hidden.", "hidden"),
            ("con", "_con"),
            ("LPT1.x", "_LPT1.x"),
            ("company", "company"),
        ] {
            assert_eq!(file_name(name), folder, "{name}");
        }
        assert!(file_name(&"王".repeat(200)).len() <= MAX_FILE_BYTES);
    }

    #[test]
    fn taken_names_are_numbered() {
        let taken = ["a.jpg", "a-2.jpg", "b"];
        let free = |name: &str| free_name(name, |candidate| taken.contains(&candidate));
        assert_eq!(free("a.jpg"), "a-3.jpg");
        assert_eq!(free("b"), "b-2");
        assert_eq!(free("c.png"), "c.png");
    }
}
