//! The best views of a track, and stills made from them.

use image::RgbImage;

use super::DiscoverError;
use crate::align;
use crate::analysis::Analysis;
use crate::detect::{BBox, Face};
use crate::gallery::{Examined, NewStill};
use crate::track::{Observation, TrackId};

/// Maximum number of stills per track: more views of one shot add little.
pub const MAX_STILLS: usize = 3;

/// Margin around a face in its still, as a fraction of the longer side of the box on every side: enough to
/// recognise the person and the place.
const SURROUNDINGS: f32 = 0.6;

/// The observations of a track to keep as stills, at most `most`: the best view first, then always the one
/// with the largest product of its weight and its angle to the nearest kept one, so that they are good and
/// different. Views with less than a third of the best weight are skipped.
///
/// # Errors
/// [`DiscoverError::NoTrack`] when there is no such track.
pub fn best_views(
    analysis: &Analysis,
    track: TrackId,
    most: usize,
) -> Result<Vec<&Observation>, DiscoverError> {
    let all: Vec<&Observation> = analysis.observations.iter().filter(|one| one.track == track).collect();
    if all.is_empty() {
        let (name, tracks) = (analysis.video.name.clone(), analysis.tracks().len());
        return Err(DiscoverError::NoTrack { name, track, tracks });
    }
    let best = all.iter().map(|one| one.weight()).fold(0.0, f32::max);
    let mut left: Vec<&Observation> = all.into_iter().filter(|one| one.weight() * 3.0 >= best).collect();
    let mut kept: Vec<&Observation> = Vec::new();
    while kept.len() < most && !left.is_empty() {
        let worth = |one: &Observation| {
            let apart = kept.iter().map(|kept| unlikeness(one, kept));
            one.weight() * apart.fold(1.0, f32::min)
        };
        // Of equal ones, the first.
        let (index, value) =
            left.iter().map(|one| worth(one)).enumerate().fold((0, f32::NEG_INFINITY), |held, (i, value)| {
                if value > held.1 { (i, value) } else { held }
            });
        if !kept.is_empty() && value <= 0.0 {
            break;
        }
        kept.push(left.remove(index));
    }
    Ok(kept)
}

/// The distance of two views, 0 (the same) to 1: by their embeddings if both have one, otherwise by the pose.
fn unlikeness(a: &Observation, b: &Observation) -> f32 {
    let cosine = a.embedding.as_ref().zip(b.embedding.as_ref()).and_then(|(a, b)| a.cosine(b));
    match cosine {
        Some(cosine) => ((1.0 - cosine) / 2.0).clamp(0.0, 1.0),
        None => ((a.quality.yaw_deg - b.quality.yaw_deg).abs() / 180.0).clamp(0.0, 1.0),
    }
}

/// A still of an observation: the face with its surroundings cut out of its frame, ready for the gallery
/// under a name that states its source. `None` when the landmarks are degenerate or the face is outside the
/// frame.
pub fn still(video: &str, frame: &RgbImage, observation: &Observation) -> Option<NewStill> {
    let (image, face) = cut_out(frame, &observation.face)?;
    let crop = align::align(&image, &face.landmarks)?;
    let mut png = std::io::Cursor::new(Vec::new());
    image.write_to(&mut png, image::ImageFormat::Png).ok()?;
    let stem = video.rsplit_once('.').map_or(video, |(stem, _)| stem);
    let Observation { frame, track, quality, .. } = observation;
    Some(NewStill {
        file_name: format!("{stem}-track{track}-frame{frame}.png"),
        bytes: png.into_inner(),
        examined: Examined {
            face,
            quality: *quality,
            faces: vec![face],
            number: 1,
            crop,
            already_aligned: false,
        },
    })
}

/// A face with its surroundings; `None` when it is outside the frame.
pub fn portrait(frame: &RgbImage, face: &Face) -> Option<RgbImage> {
    cut_out(frame, face).map(|(image, _)| image)
}

/// A face with its surroundings, and its position in them.
pub(crate) fn cut_out(frame: &RgbImage, face: &Face) -> Option<(RgbImage, Face)> {
    let BBox { x1, y1, x2, y2 } = face.bbox;
    let by = SURROUNDINGS * face.bbox.width().max(face.bbox.height());
    // `as u32` saturates: negative becomes 0.
    let (left, top) = ((x1 - by).floor() as u32, (y1 - by).floor() as u32);
    let (right, bottom) =
        (((x2 + by).ceil() as u32).min(frame.width()), ((y2 + by).ceil() as u32).min(frame.height()));
    if left >= right || top >= bottom {
        return None;
    }
    let image = image::imageops::crop_imm(frame, left, top, right - left, bottom - top).to_image();
    let (dx, dy) = (left as f32, top as f32);
    let bbox = BBox { x1: x1 - dx, y1: y1 - dy, x2: x2 - dx, y2: y2 - dy };
    let landmarks = face.landmarks.map(|[x, y]| [x - dx, y - dy]);
    Some((image, Face { bbox, landmarks, ..*face }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::align::TEMPLATE;
    use crate::analysis::Video;
    use crate::detect::{DetectorConfig, Quality};
    use crate::embed::Embedding;
    use crate::models::ModelId;
    use crate::nn::Arithmetic;

    const MODEL: ModelId = ModelId([1; 8]);

    fn view(frame: u64, sharpness: f32, deg: f32) -> Observation {
        let vector = vec![deg.to_radians().cos(), deg.to_radians().sin()];
        Observation {
            frame,
            pts_ns: frame * 40,
            duration_ns: 40,
            face: Face {
                bbox: BBox { x1: 100.0, y1: 80.0, x2: 196.0, y2: 192.0 },
                score: 0.9,
                landmarks: TEMPLATE.map(|[x, y]| [x + 100.0, y + 80.0]),
            },
            quality: Quality { size_px: 100.0, yaw_deg: 0.0, pitch_deg: 0.0, roll_deg: 0.0, sharpness },
            embedding: Embedding::new(MODEL, vector),
            track: TrackId(7),
        }
    }

    fn analysis(observations: Vec<Observation>) -> Analysis {
        let video = Video {
            name: "clip.mp4".into(),
            width: 640,
            height: 360,
            fps: None,
            frames: 100,
            duration_ns: 4000,
            fingerprint: String::new(),
            sampled_fps: None,
            key_frames: false,
        };
        let detector = DetectorConfig::default();
        Analysis {
            video,
            model: Some(MODEL),
            arithmetic: Arithmetic::F32,
            mirror: true,
            detector,
            cuts: Vec::new(),
            observations,
        }
    }

    #[test]
    fn stills_are_good_and_unlike() {
        let views = vec![
            view(0, 0.25, 1.0),
            view(1, 0.3, 0.0),
            view(2, 0.29, 1.0),
            view(3, 0.25, 40.0),
            view(4, 0.05, 90.0),
        ];
        let analysis = analysis(views);
        let frames = |most| -> Vec<u64> {
            best_views(&analysis, TrackId(7), most).unwrap().iter().map(|one| one.frame).collect()
        };
        assert_eq!(frames(1), [1]);
        assert_eq!(frames(2), [1, 3], "the blurred one is the most unlike, and no good");
        assert_eq!(frames(9).len(), 3, "the same view twice says nothing new");
        let error = best_views(&analysis, TrackId(2), 1).unwrap_err().to_string();
        assert!(error.contains("clip.mp4 has no track 2"), "{error}");
    }

    #[test]
    fn a_still_shows_the_same_face_as_its_frame() {
        let frame =
            RgbImage::from_fn(640, 360, |x, y| image::Rgb([(x * 7) as u8, (y * 5) as u8, (x ^ y) as u8]));
        let observation = view(12, 0.3, 0.0);
        let still = still("a/clip.mp4", &frame, &observation).unwrap();
        assert_eq!(still.file_name, "a/clip-track7-frame12.png");
        let whole = align::align(&frame, &observation.face.landmarks).unwrap();
        assert_eq!(still.examined.crop.as_rgb(), whole.as_rgb());
        let image = image::load_from_memory(&still.bytes).unwrap().into_rgb8();
        assert!(image.width() < 300 && image.height() < 300);
        let again = align::align(&image, &still.examined.face.landmarks).unwrap();
        assert_eq!(again.as_rgb(), whole.as_rgb());
    }
}
