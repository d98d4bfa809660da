//! The readers of this module for [`fuzzing`](crate::fuzzing).

use super::{Area, NewRegion, embed, picasa as picasas, read, write};

/// The text of a packet, read and written.
pub(crate) fn packet(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(regions) = read(&text) {
        for frame in regions.frames([400, 200], 6) {
            for face in &regions.faces {
                frame.upright(&face.area, 6);
            }
        }
    }
    let area = Area::between([0.25, 0.25], [0.5, 0.5]);
    let new = NewRegion { name: "Ada & co".into(), area, angle_deg: 50.0 };
    if let Ok(written) = write(Some(&text), &[new], [400, 200], 6) {
        let again = read(&written);
        assert!(again.is_ok(), "what was written cannot be read: {again:?}");
    }
}

/// A JPEG file that a packet is written into.
pub(crate) fn jpeg(bytes: &[u8]) {
    drop(embed(bytes, "<b/>"));
}

/// A list of Picasa.
pub(crate) fn picasa(bytes: &[u8]) {
    picasas::regions(&String::from_utf8_lossy(bytes), "IMG_1.JPG");
}
