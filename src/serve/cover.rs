//! Redaction of pictures of a source.

use image::RgbImage;

use crate::annotate::{Cover, Redactor, Whom};
use crate::detect::BBox;
use crate::engine::LabelledFrame;

/// The boxes of a frame to cover: of the people in `whom`, and of faces outside the regions, because their
/// identity is unknown.
pub(super) fn boxes<'a>(whom: &'a Whom, frame: &'a LabelledFrame) -> impl Iterator<Item = BBox> + 'a {
    // Transient tracks too: they are probably not faces, but might be.
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
        // If covering fails, the whole picture is made black.
        Err(_) => picture.fill(0),
    }
}
