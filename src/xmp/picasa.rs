//! Picasa's lists of named faces: `.picasa.ini`, one per folder of photos.
//!
//! The section of a photo has a line `faces=rect64(...),person;...`, and the section `Contacts2` (earlier
//! `Contacts`) has the names of the people. A rectangle is four 16-bit numbers, in 65,536ths of the picture:
//! left, top, right, bottom.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Area, Region, Regions, Scheme, XmpError};

/// Names of the lists, the usual one first.
const NAMES: [&str; 2] = [".picasa.ini", "Picasa.ini"];

/// The faces of a photo by the list in its folder; none without a list.
///
/// # Errors
/// When there is a list that cannot be read.
pub(super) fn beside(photo: &Path) -> Result<Regions, XmpError> {
    let Some(file) = photo.file_name().and_then(|name| name.to_str()) else { return Ok(Regions::default()) };
    match NAMES.map(|name| photo.with_file_name(name)).into_iter().find(|path| path.is_file()) {
        Some(path) => Ok(regions(&super::read_sidecar(&path)?, file)),
        None => Ok(Regions::default()),
    }
}

/// The faces of a file by the text of a list. Upper and lower case are equal, as in Windows.
pub(super) fn regions(text: &str, file: &str) -> Regions {
    let (mut contacts, mut exact, mut alike) = (BTreeMap::new(), None, None);
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if let Some((key, value)) = line.split_once('=') {
            match section {
                "Contacts2" | "Contacts" => {
                    let name = value.split(';').next().unwrap_or_default().trim();
                    contacts.entry(key.trim().to_ascii_lowercase()).or_insert(name);
                }
                _ if key.trim() != "faces" => {}
                name if name == file => exact = Some(value),
                name if name.eq_ignore_ascii_case(file) => alike = Some(value),
                _ => {}
            }
        }
    }
    let face = |text: &str| {
        let (area, person) = text.split_once(',')?;
        let name = contacts.get(&person.trim().to_ascii_lowercase()).filter(|name| !name.is_empty());
        let (name, area) = (name.map(|&name| name.to_owned()), rectangle(area)?);
        Some(Region { name, area, scheme: Scheme::Picasa, ours: false })
    };
    let faces = exact.or(alike).unwrap_or_default().split(';').filter_map(face).collect();
    Regions { faces, ..Regions::default() }
}

/// `rect64(...)` with up to 16 hexadecimal digits: leading zeros are omitted.
fn rectangle(text: &str) -> Option<Area> {
    let digits = text.trim().strip_prefix("rect64(")?.strip_suffix(')')?;
    let all = u64::from_str_radix(digits, 16).ok()?;
    let [left, top, right, bottom] = [48, 32, 16, 0].map(|shift| (all >> shift & 0xffff) as f64 / 65536.0);
    (left < right && top < bottom).then(|| Area::between([left, top], [right, bottom]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutations;

    const LIST: &str = "[Picasa]\r\nname=Summer\r\n[IMG_1.JPG]\r\nrotate=rotate(0)\r\n\
        faces=rect64(4000800080ffc000),8e62398ebda8c1a5;rect64(100020003000),FFFF0000ffff0000;rect64(c0001000d0002000),ffffffffffffffff;rect64(zz),1\r\n\
        [img_1.jpg]\r\nstar=yes\r\n[two.jpg]\r\nfaces=rect64(0),1\r\n\
        [Contacts2]\r\n8e62398ebda8c1a5=Ada Lovelace;;\r\nffff0000ffff0000=Boris;b@example.org;\r\n";

    #[test]
    fn faces_of_a_photo_are_found_with_their_names() {
        for file in ["IMG_1.JPG", "img_1.jpg"] {
            let found = regions(LIST, file);
            let names: Vec<_> = found.faces.iter().map(|face| face.name.as_deref()).collect();
            assert_eq!(names, [Some("Ada Lovelace"), Some("Boris"), None]);
            let area = found.faces[0].area;
            let expected = Area::between([0.25, 0.5], [0x80ff as f64 / 65536.0, 0.75]);
            assert_eq!(area, expected);
            let [small, large] = [found.faces[1].area, Area::between([0.0, 0.0625], [0.125, 0.1875])];
            assert_eq!(small, large, "zeros in front are left out");
        }
        mutations::survived_by("xmp_picasa", "list", LIST.as_bytes(), 500);
        assert_eq!(regions(LIST, "two.jpg").faces, [], "no area");
        assert_eq!(regions(LIST, "three.jpg").faces, []);
        assert_eq!(regions("[a.jpg\nfaces\n=\nfaces=x", "a.jpg").faces, []);
    }
}
