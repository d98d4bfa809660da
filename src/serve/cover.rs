//! Whose faces are covered in pictures of a source.

use image::RgbImage;

use crate::annotate::{Cover, Redactor, Whom};
use crate::detect::BBox;
use crate::engine::LabelledFrame;

/// Boxes of a frame that are to be covered: of those whom `whom` covers, and of faces that do not count, because
/// nobody knows whose they are.
pub(super) fn boxes<'a>(whom: &'a Whom, frame: &'a LabelledFrame) -> impl Iterator<Item = BBox> + 'a {
    // Also what is probably no face: it might be one.
    let seen = frame.faces.iter().filter(|face| whom.covers(face.name())).map(|face| face.bbox());
    let elsewhere = frame.elsewhere.iter().filter(|_| whom.covers(None)).copied();
    seen.chain(elsewhere)
}

/// Covers boxes so that nothing of them can be recognised.
pub(super) fn cover(picture: &mut RgbImage, boxes: &[BBox]) {
    match Redactor::new(Cover::Solid, Redactor::GROW) {
        Ok(redactor) => {
            redactor.draw_rgb(picture, boxes);
        }
        // Without a method nothing is shown.
        Err(_) => picture.fill(0),
    }
}
