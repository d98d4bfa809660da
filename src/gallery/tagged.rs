//! The people that photo software has named in a photo.

use std::path::Path;

use image::RgbImage;

use super::{Examined, NewStill, StillError, examine_all};
use crate::detect::Detector;
use crate::media::{self, Still, StillMetadata};
use crate::xmp::{self, Area, Frame, Region, XmpError};

/// Least intersection over union of a region and a face in it. Photo software draws regions up to twice as
/// wide as the box of a face.
const LEAST_OVERLAP: f64 = 0.15;

/// Intersection over union of two regions with one name that are one region in two schemes.
const SAME_REGION: f64 = 0.5;

/// Why the people named in a photo cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaggedError {
    /// Its regions cannot be read.
    #[error(transparent)]
    Xmp(#[from] XmpError),
    /// It is not a picture, or cannot be searched for faces.
    #[error(transparent)]
    Still(#[from] StillError),
    /// Its regions were drawn on a picture of another shape.
    #[error(
        "its regions apply to a picture of {}x{}, but it has {}x{}: it was cropped afterwards; let your photo software write them again",
        .applied_to[0], .applied_to[1], .stored[0], .stored[1]
    )]
    OtherPicture {
        /// Width and height that the regions apply to.
        applied_to: [f64; 2],
        /// Width and height of the photo as stored, in pixels.
        stored: [u32; 2],
    },
}

/// The people named in a photo.
#[derive(Debug, Clone, Default)]
pub struct Tagged {
    /// Names, each with the face in its region.
    pub faces: Vec<(String, NewStill)>,
    /// Names whose region has no face, or only a face that another region fits better.
    pub without_face: Vec<String>,
}

impl Tagged {
    /// The people named in the photo at `path`, by its sidecar or by the packet inside; `None` if nobody is.
    ///
    /// # Errors
    /// When the regions or the photo cannot be read, or do not belong together.
    pub fn read(path: &Path, detector: &Detector) -> Result<Option<Self>, TaggedError> {
        let bytes = std::fs::read(path).map_err(StillError::Read)?;
        let metadata = StillMetadata::of_bytes(&bytes);
        let regions = xmp::regions_of(path, metadata.as_ref())?;
        let named = named(&regions.faces);
        if named.is_empty() {
            return Ok(None);
        }
        let Still { picture, damage, .. } = media::still_of_bytes(path, &bytes).map_err(StillError::from)?;
        if let Some(damage) = damage {
            return Err(StillError::Damaged(damage).into());
        }
        let upright = [picture.width(), picture.height()];
        // For a format without a known orientation, only the picture as shown is available.
        let (stored, orientation) =
            metadata.map_or((upright, 1), |metadata| (metadata.stored, metadata.orientation));
        let frames = regions.frames(stored, orientation);
        if frames.is_empty() {
            let applied_to = regions.applied_to.unwrap_or_default();
            return Err(TaggedError::OtherPicture { applied_to, stored });
        }
        let faces = examine_all(&picture, detector).map_err(StillError::from)?;
        let areas: Vec<Area> = faces.iter().map(|face| area(face, &picture)).collect();
        let matched = |frame: &Frame| {
            let places: Vec<Area> =
                named.iter().map(|region| frame.upright(&region.area, orientation)).collect();
            matches(&places, &areas)
        };
        // The faces decide which frame of reference the regions have. Of equal ones, the first is more
        // likely.
        let found = |pairs: &Vec<Option<usize>>| pairs.iter().flatten().count();
        let pairs = frames
            .iter()
            .map(matched)
            .reduce(|best, next| if found(&next) > found(&best) { next } else { best })
            .unwrap_or_default();
        let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut tagged = Self::default();
        for (region, face) in named.iter().zip(pairs) {
            let name = region.name.clone().unwrap_or_default();
            match face {
                Some(face) => {
                    let (file_name, bytes) = (file_name.clone(), bytes.clone());
                    let still = NewStill { file_name, bytes, examined: faces[face].clone() };
                    tagged.faces.push((name, still));
                }
                None => tagged.without_face.push(name),
            }
        }
        Ok(Some(tagged))
    }
}

/// The regions with a name, each once.
fn named(regions: &[Region]) -> Vec<&Region> {
    let mut named: Vec<&Region> = Vec::new();
    for region in regions.iter().filter(|region| region.name.is_some()) {
        let again =
            |other: &&Region| other.name == region.name && other.area.iou(&region.area) >= SAME_REGION;
        if !named.iter().any(again) {
            named.push(region);
        }
    }
    named
}

/// Where a face is in its picture.
fn area(face: &Examined, picture: &RgbImage) -> Area {
    let [x1, y1, x2, y2] = face.face.bbox.sides().map(|x| f64::from(x) + 0.5);
    let (width, height) = (f64::from(picture.width()), f64::from(picture.height()));
    Area::between([x1 / width, y1 / height], [x2 / width, y2 / height])
}

/// The face of each region: the best pairs first, each face for one region only.
fn matches(regions: &[Area], faces: &[Area]) -> Vec<Option<usize>> {
    let mut pairs = Vec::new();
    for (place, region) in regions.iter().enumerate() {
        for (face, area) in faces.iter().enumerate() {
            let overlap = region.iou(area);
            if overlap >= LEAST_OVERLAP && region.holds(area.centre()) {
                pairs.push((overlap, place, face));
            }
        }
    }
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut found = vec![None; regions.len()];
    for (_, place, face) in pairs {
        if found[place].is_none() && !found.contains(&Some(face)) {
            found[place] = Some(face);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xmp::Scheme;

    fn at(left: f64) -> Area {
        Area { left, top: 0.4, width: 0.1, height: 0.2 }
    }

    #[test]
    fn every_region_gets_the_face_that_fits_best() {
        let wide = Area { left: 0.05, top: 0.3, width: 0.2, height: 0.4 };
        assert_eq!(matches(&[at(0.5), wide], &[at(0.1), at(0.52)]), [Some(1), Some(0)]);
        assert_eq!(matches(&[at(0.5), at(0.52)], &[at(0.52)]), [None, Some(0)], "a face has one name");
        let huge = Area { left: 0.0, top: 0.0, width: 1.0, height: 1.0 };
        assert_eq!(matches(&[huge, at(0.8)], &[at(0.1)]), [None, None]);
    }

    #[test]
    fn a_person_in_both_schemes_is_one() {
        let region = |name: Option<&str>, left, scheme| Region {
            name: name.map(str::to_owned),
            area: at(left),
            scheme,
            ours: false,
        };
        let regions = [
            region(Some("Ada"), 0.1, Scheme::Mwg),
            region(None, 0.3, Scheme::Mwg),
            region(Some("Ada"), 0.101, Scheme::Microsoft),
            region(Some("Ada"), 0.6, Scheme::Microsoft),
        ];
        let found: Vec<f64> = named(&regions).iter().map(|region| region.area.left).collect();
        assert_eq!(found, [0.1, 0.6], "twice in a photo, as in a mirror");
    }
}
