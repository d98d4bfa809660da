//! Stored pictures of faces: the best one per track.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::path::Path;

use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use serde::{Deserialize, Serialize};

use super::catalogue::Kind;
use crate::analysis::Analysis;
use crate::detect::{Face, Quality};
use crate::discover;
use crate::media::{self, Selection};
use crate::track::{Observation, Track};

/// Largest side of the box of a face in a stored picture, in pixels: the crop for the network is 112 pixels
/// high.
const FACE_PX: f32 = 160.0;
/// Quality of stored pictures.
const JPEG_QUALITY: u8 = 90;

/// A face in a stored picture.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PictureFace {
    pub face: Face,
    pub quality: Quality,
    pub frame: u64,
}

/// The position of a face in a stored picture as JSON, and the picture as JPEG.
pub(super) type Picture = (String, Vec<u8>);

/// The observation that shows a track best.
pub(super) fn best_view(track: &Track, analysis: &Analysis) -> Option<usize> {
    let rank = |at: usize| {
        let view = &analysis.observations[at];
        (view.embedding.is_some(), view.weight())
    };
    track.observations.iter().copied().max_by(|&i, &j| {
        let ((a, weight), (b, other)) = (rank(i), rank(j));
        a.cmp(&b).then(weight.total_cmp(&other)).then(j.cmp(&i))
    })
}

/// The pictures of these observations. A file that cannot be decoded a second time has none.
pub(super) fn pictures(
    path: &Path,
    kind: Kind,
    selection: Selection,
    analysis: &Analysis,
    views: impl Iterator<Item = usize>,
) -> Vec<Option<Picture>> {
    let views: Vec<&Observation> = views.map(|at| &analysis.observations[at]).collect();
    let mut wanted: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (at, view) in views.iter().enumerate() {
        wanted.entry(view.pts_ns).or_default().push(at);
    }
    let times_ns: BTreeSet<u64> = wanted.keys().copied().collect();
    let mut found = vec![None; views.len()];
    let mut each = |pts_ns: u64, picture: RgbImage| {
        for &at in wanted.get(&pts_ns).into_iter().flatten() {
            found[at] = picture_of(&picture, views[at]);
        }
    };
    match kind {
        Kind::Photo => drop(media::read_still(path).map(|picture| each(0, picture))),
        Kind::Video => drop(discover::pictures_within(path, selection, &times_ns, each)),
    }
    found
}

/// A face with its surroundings as JPEG, and its position there.
fn picture_of(frame: &RgbImage, view: &Observation) -> Option<Picture> {
    let (image, face) = discover::cut_out(frame, &view.face)?;
    let side = face.bbox.width().max(face.bbox.height());
    let (image, face) = if side > FACE_PX { smaller(&image, &face, FACE_PX / side) } else { (image, face) };
    let mut jpeg = Cursor::new(Vec::new());
    JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY).encode_image(&image).ok()?;
    let face = PictureFace { face, quality: view.quality, frame: view.frame };
    Some((serde_json::to_string(&face).ok()?, jpeg.into_inner()))
}

fn smaller(image: &RgbImage, face: &Face, by: f32) -> (RgbImage, Face) {
    let scaled = |side: u32| ((side as f32 * by).round() as u32).max(1);
    let (width, height) = (scaled(image.width()), scaled(image.height()));
    let (x, y) = (width as f32 / image.width() as f32, height as f32 / image.height() as f32);
    let image = image::imageops::resize(image, width, height, image::imageops::FilterType::Triangle);
    let b = face.bbox;
    let bbox = crate::detect::BBox { x1: b.x1 * x, y1: b.y1 * y, x2: b.x2 * x, y2: b.y2 * y };
    (image, Face { bbox, landmarks: face.landmarks.map(|[px, py]| [px * x, py * y]), ..*face })
}
