//! The cascade: pyramid, P-Net, R-Net, O-Net, and the boxes between them.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use image::RgbImage;

use super::area::{AreaResize, Level, Pyramid, Region};
use super::config::{DetectError, DetectorConfig, MinFace};
use super::proposal::{Cell, ProposalNet, ProposalScratch, cells};
use super::refine::{RefineNet, RefineScratch};
#[cfg(feature = "candle")]
use super::tensors;
use super::{BBox, Face};
use crate::models::Weights;
use crate::nn::conv::STRIP;
use crate::nn::team::Team;
use crate::nn::{Device, Isa};

/// Finds faces. Shared by any number of threads, each with its own [`Scratch`].
#[derive(Debug)]
pub struct Detector {
    config: DetectorConfig,
    isa: Isa,
    networks: Networks,
}

/// The three networks. Images are resized and boxes filtered on the CPU in both cases.
#[derive(Debug)]
enum Networks {
    /// On our kernels.
    Kernels(Box<(ProposalNet, RefineNet, RefineNet)>),
    /// Through the tensor library.
    #[cfg(feature = "candle")]
    Tensors(Box<(tensors::ProposalNet, tensors::RefineNet, tensors::RefineNet)>),
}

/// The networks that classify single squares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refiner {
    /// R-Net, 24x24.
    R,
    /// O-Net, 48x48.
    O,
}

impl Refiner {
    /// Side of the crops in pixels.
    fn side(self) -> usize {
        match self {
            Refiner::R => 24,
            Refiner::O => 48,
        }
    }

    /// Output values per crop: two of the softmax, four sides, and ten of landmarks or none.
    fn outputs(self) -> usize {
        match self {
            Refiner::R => 6,
            Refiner::O => 16,
        }
    }

    /// The one of this stage.
    fn of<N>(self, refine: N, output: N) -> N {
        match self {
            Refiner::R => refine,
            Refiner::O => output,
        }
    }
}

/// Working memory of one user of the detector, and the threads that share its work. It grows to the needs of
/// the largest image and is then reused.
#[derive(Debug)]
pub struct Scratch {
    team: Team,
    pyramid: Pyramid,
    /// One per thread, locked only by that thread.
    workers: Vec<Mutex<DetectorWorker>>,
}

/// Working memory of one thread.
#[derive(Debug, Default)]
struct DetectorWorker {
    proposal: ProposalScratch,
    /// For R-Net and for O-Net.
    refine: [RefineScratch; 2],
    resize: AreaResize,
    crops: Vec<f32>,
}

/// Classifies, or cuts out, a batch of candidates with the memory of a thread.
type OneBatch<'a> = dyn Fn(&mut DetectorWorker, &[Candidate], &mut Vec<f32>) + Sync + 'a;

#[cfg(feature = "candle")]
/// Crops that one thread cuts out per item of work when a device runs the networks.
const CROPS_CUT: usize = 16;

/// The fewest rows of cells per band: each band computes one more strip than its rows need.
const BAND_ROWS: usize = 16;

impl Scratch {
    /// Memory, and `threads` threads (the calling one included) that share the work on an image. The result
    /// does not depend on their number.
    pub fn new(threads: usize) -> Self {
        let team = Team::new(threads);
        let workers = (0..team.threads()).map(|_| Mutex::default()).collect();
        Self { team, pyramid: Pyramid::default(), workers }
    }
}

impl Default for Scratch {
    /// One thread.
    fn default() -> Self {
        Self::new(1)
    }
}

/// Locks a mutex. Poisoning is ignored, because the next holder reads nothing that a panic could leave half
/// done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A box in the cascade.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    bbox: BBox,
    score: f32,
    regression: [f32; 4],
}

/// The area that the intersection of two boxes is compared with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Overlap {
    /// Their union; sides are x2 - x1.
    Union,
    /// The smaller of them; sides are x2 - x1 + 1.
    Smaller,
}

/// Squares classified around an expected face: shift to the right and down as fractions of its side, and
/// size. R-Net was trained on squares that overlap a face by 0.65 and more.
const NEAR: [[f32; 3]; 7] = [
    [0.0, 0.0, 1.0],
    [0.0, 0.0, 1.25],
    [0.0, 0.0, 0.8],
    [0.15, 0.0, 1.0],
    [-0.15, 0.0, 1.0],
    [0.0, 0.15, 1.0],
    [0.0, -0.15, 1.0],
];

/// Overlap above which two squares around an expected face look the same to O-Net.
const SAME_SQUARE: f32 = 0.8;

impl Detector {
    /// Prepares the networks. `weights` hold the tensors named in the [room's documentation](super).
    ///
    /// # Errors
    /// When a setting is invalid, a tensor is missing or misshapen, or this machine cannot
    /// run the instruction set.
    pub fn new(weights: &Weights, config: DetectorConfig, isa: Isa) -> Result<Self, DetectError> {
        let refine = RefineNet::refine(weights, isa)?;
        let networks = (ProposalNet::new(weights, isa)?, refine, RefineNet::output(weights, isa)?);
        Self::with(Networks::Kernels(Box::new(networks)), config, isa)
    }

    /// The same networks through the tensor library on `device`, their weights copied there; `isa` is for the
    /// parts that stay on the CPU. Threads that detect at the same time share batches, so sums may be rounded
    /// differently from one run to the next if the device does so.
    ///
    /// # Errors
    /// As for [`new`](Self::new), and when the device fails.
    #[cfg(feature = "candle")]
    pub fn on_tensors(
        weights: &Weights,
        config: DetectorConfig,
        isa: Isa,
        device: &candle_core::Device,
    ) -> Result<Self, DetectError> {
        let refine = tensors::RefineNet::refine(weights, device)?;
        let output = tensors::RefineNet::output(weights, device)?;
        let networks = (tensors::ProposalNet::new(weights, device)?, refine, output);
        Self::with(Networks::Tensors(Box::new(networks)), config, isa)
    }

    /// The same on `device`: on the kernels of the CPU, or on a GPU.
    ///
    /// # Errors
    /// As for [`new`](Self::new), and when the device fails.
    pub fn on(weights: &Weights, config: DetectorConfig, device: &Device) -> Result<Self, DetectError> {
        #[cfg(feature = "candle")]
        if let Some(tensors) = device.tensors() {
            return Self::on_tensors(weights, config, device.isa(), tensors);
        }
        Self::new(weights, config, device.isa())
    }

    fn with(networks: Networks, config: DetectorConfig, isa: Isa) -> Result<Self, DetectError> {
        config.validate()?;
        if !isa.is_available() {
            return Err(DetectError::Isa(isa));
        }
        Ok(Self { config, isa, networks })
    }

    /// The settings it was made with.
    pub fn config(&self) -> &DetectorConfig {
        &self.config
    }

    /// The faces of an image of any size, the most certain first (equal scores: from top to
    /// bottom, then from left to right). Boxes and landmarks may reach a little beyond the image.
    ///
    /// # Errors
    /// When the device fails; the kernels never do.
    pub fn detect(&self, image: &RgbImage, scratch: &mut Scratch) -> Result<Vec<Face>, DetectError> {
        let proposals = self.candidates(&self.config, image, scratch)?;
        let refined = self.refine(image, proposals, scratch)?;
        self.output(image, refined, scratch)
    }

    /// The faces of a part of an image, `smallest_px` pixels and larger or as the settings say,
    /// whichever is more, as if there were nothing around it for P-Net to see. In the order of
    /// [`detect`](Self::detect); a part outside the image has no faces.
    ///
    /// # Errors
    /// As for [`detect`](Self::detect).
    pub fn detect_in(
        &self,
        image: &RgbImage,
        part: &BBox,
        smallest_px: f32,
        scratch: &mut Scratch,
    ) -> Result<Vec<Face>, DetectError> {
        // Regions count pixels from 1.
        let counted = BBox { x1: part.x1 + 1.0, y1: part.y1 + 1.0, ..*part };
        let Some(Region { x, y, width, height }) = region(&counted, image) else { return Ok(Vec::new()) };
        let smallest_px = self.config.min_face.px(image.height()).max(smallest_px);
        let config = DetectorConfig { min_face: MinFace::Px(smallest_px), ..self.config };
        let view = image::imageops::crop_imm(image, x as u32, y as u32, width as u32, height as u32);
        let mut proposals = self.candidates(&config, &view.to_image(), scratch)?;
        for Candidate { bbox, .. } in &mut proposals {
            let BBox { x1, y1, x2, y2 } = bbox;
            [x1, x2].into_iter().for_each(|side| *side += x as f32);
            [y1, y2].into_iter().for_each(|side| *side += y as f32);
        }
        let refined = self.refine(image, proposals, scratch)?;
        self.output(image, refined, scratch)
    }

    /// The faces near places where faces are expected (boxes as [`detect`](Self::detect) gives
    /// them, a little off): R-Net and O-Net on a few squares around each, without the pyramid and P-Net. In
    /// the order of `detect`. Faces elsewhere are not found.
    ///
    /// # Errors
    /// As for [`detect`](Self::detect).
    pub fn detect_near(
        &self,
        image: &RgbImage,
        places: &[BBox],
        scratch: &mut Scratch,
    ) -> Result<Vec<Face>, DetectError> {
        let around = |place: &BBox| {
            let BBox { x1, y1, .. } = square(*place);
            let side = place.width().max(place.height());
            NEAR.map(|[right, down, larger]| {
                let grown = side * larger;
                let x1 = x1 + right * side - (grown - side) / 2.0;
                let y1 = y1 + down * side - (grown - side) / 2.0;
                let bbox = BBox { x1, y1, x2: x1 + grown, y2: y1 + grown };
                Candidate { bbox, score: 0.0, regression: [0.0; 4] }
            })
        };
        let finite = |place: &&BBox| place.area().is_finite() && place.area() > 0.0;
        let proposals = places.iter().filter(finite).flat_map(around).collect();
        let refined = self.refine(image, proposals, scratch)?;
        // Squares that R-Net moved to the same place are given to O-Net only once. In a search of the whole
        // frame this lost 2 of 784 clear faces (docs/experiments.md), so it is done only here.
        let refined = suppress(refined, SAME_SQUARE, Overlap::Union);
        self.output(image, refined, scratch)
    }

    /// The squares that P-Net proposes, the most likely first: the first stage of [`detect`](Self::detect)
    /// alone, for benchmarks and inspection.
    ///
    /// # Errors
    /// As for [`detect`](Self::detect).
    pub fn propose(&self, image: &RgbImage, scratch: &mut Scratch) -> Result<Vec<BBox>, DetectError> {
        let proposals = self.candidates(&self.config, image, scratch)?;
        Ok(proposals.into_iter().map(|candidate| candidate.bbox).collect())
    }

    /// The probability of a face in every square by R-Net or O-Net: one of the later stages of
    /// [`detect`](Self::detect) alone. Squares that lie outside the image are left out.
    ///
    /// # Errors
    /// As for [`detect`](Self::detect).
    pub fn judge(
        &self,
        network: Refiner,
        image: &RgbImage,
        squares: &[BBox],
        scratch: &mut Scratch,
    ) -> Result<Vec<f32>, DetectError> {
        let one = |&bbox| Candidate { bbox, score: 0.0, regression: [0.0; 4] };
        let mut candidates = squares.iter().map(one).collect();
        let answers = self.look(network, image, &mut candidates, scratch)?;
        Ok(answers.chunks_exact(network.outputs()).map(probability).collect())
    }

    /// Stage 1: P-Net over the pyramid.
    fn candidates(
        &self,
        config: &DetectorConfig,
        image: &RgbImage,
        scratch: &mut Scratch,
    ) -> Result<Vec<Candidate>, DetectError> {
        let [threshold, ..] = config.thresholds;
        let scales = config.scales(image.width(), image.height());
        let sizes = config.pyramid(image.width(), image.height());
        if sizes.is_empty() {
            return Ok(Vec::new());
        }
        scratch.pyramid.build(self.isa, image, &sizes, &mut scratch.team);
        let found = match &self.networks {
            Networks::Kernels(networks) => self.scan(&networks.0, threshold, scratch),
            #[cfg(feature = "candle")]
            Networks::Tensors(networks) => networks.0.run(scratch.pyramid.take(), threshold)?,
        };
        let level = |(cells, &scale): (&Vec<Cell>, &f64)| {
            let level = cells.iter().map(|cell| candidate(cell, scale as f32)).collect();
            suppress(level, 0.5, Overlap::Union)
        };
        let all = found.iter().zip(&scales).flat_map(level).collect();
        let mut kept = suppress(all, 0.7, Overlap::Union);
        for candidate in &mut kept {
            candidate.bbox = square(regress(candidate, 0.0));
        }
        Ok(kept)
    }

    /// The likely cells of every level of the pyramid by the kernels, band by band.
    fn scan(&self, network: &ProposalNet, threshold: f32, scratch: &mut Scratch) -> Vec<Vec<Cell>> {
        let Scratch { team, pyramid, workers } = scratch;
        let levels = pyramid.levels();
        let bands = bands(levels, team.threads());
        let found: Vec<Mutex<Vec<Cell>>> = bands.iter().map(|_| Mutex::default()).collect();
        team.run(bands.len(), &|thread, item| {
            let (level, rows) = &bands[item];
            let (memory, mut found) = (&mut lock(&workers[thread]).proposal, lock(&found[item]));
            let push = |cell| found.push(cell);
            network.run(&levels[*level], rows.clone(), threshold, memory, push);
        });
        let mut by_level = vec![Vec::new(); levels.len()];
        for ((level, _), found) in bands.iter().zip(found) {
            by_level[*level].append(&mut lock(&found));
        }
        by_level
    }

    /// Stage 2: R-Net on the proposals of P-Net.
    fn refine(
        &self,
        image: &RgbImage,
        mut candidates: Vec<Candidate>,
        scratch: &mut Scratch,
    ) -> Result<Vec<Candidate>, DetectError> {
        let [_, threshold, _] = self.config.thresholds;
        let answers = self.look(Refiner::R, image, &mut candidates, scratch)?;
        let outputs = answers.chunks_exact(Refiner::R.outputs());
        let likely = candidates
            .iter()
            .zip(outputs)
            .map(|(candidate, out)| Candidate {
                score: probability(out),
                regression: std::array::from_fn(|side| out[2 + side]),
                ..*candidate
            })
            .filter(|candidate| candidate.score > threshold)
            .collect();
        let mut kept = suppress(likely, 0.7, Overlap::Union);
        for candidate in &mut kept {
            candidate.bbox = square(regress(candidate, 1.0));
        }
        Ok(kept)
    }

    /// Stage 3: O-Net on the remaining candidates of R-Net.
    fn output(
        &self,
        image: &RgbImage,
        mut candidates: Vec<Candidate>,
        scratch: &mut Scratch,
    ) -> Result<Vec<Face>, DetectError> {
        let [.., threshold] = self.config.thresholds;
        let answers = self.look(Refiner::O, image, &mut candidates, scratch)?;
        let outputs = answers.chunks_exact(Refiner::O.outputs());
        let mut likely = Vec::new();
        for (candidate, out) in candidates.iter().zip(outputs) {
            let score = probability(out);
            if score > threshold {
                let regression = std::array::from_fn(|side| out[2 + side]);
                let BBox { x1, y1, .. } = candidate.bbox;
                let (width, height) = (candidate.bbox.width() + 1.0, candidate.bbox.height() + 1.0);
                let points = &out[6..];
                let landmarks = std::array::from_fn(|i| {
                    [width * points[i] + x1 - 1.0, height * points[5 + i] + y1 - 1.0]
                });
                let bbox = regress(&Candidate { regression, ..*candidate }, 1.0);
                likely.push(Face { bbox, score, landmarks });
            }
        }
        let mut faces = suppress(likely, 0.7, Overlap::Smaller);
        faces.sort_by(|a, b| {
            let position = a.bbox.y1.total_cmp(&b.bbox.y1).then(a.bbox.x1.total_cmp(&b.bbox.x1));
            b.score.total_cmp(&a.score).then(position)
        });
        Ok(faces)
    }

    /// Cuts every candidate out of the image, drops those outside it, and runs the network on the rest.
    /// Returns the outputs of its heads, [candidates, outputs].
    fn look(
        &self,
        network: Refiner,
        image: &RgbImage,
        candidates: &mut Vec<Candidate>,
        scratch: &mut Scratch,
    ) -> Result<Vec<f32>, DetectError> {
        candidates.retain(|candidate| region(&candidate.bbox, image).is_some());
        let length = network.side() * network.side() * 3;
        let Scratch { team, workers, .. } = scratch;
        let cut = |candidates: &[Candidate], resize: &mut AreaResize, crops: &mut Vec<f32>| {
            crops.resize(candidates.len() * length, 0.0);
            for (candidate, crop) in candidates.iter().zip(crops.chunks_exact_mut(length)) {
                let Some(region) = region(&candidate.bbox, image) else { continue };
                resize.prepare((region.width, region.height), network.side(), network.side());
                for (y, row) in crop.chunks_exact_mut(network.side() * 3).enumerate() {
                    resize.row(self.isa, image, region, y, row);
                }
            }
        };
        let mut batched = |batch: usize, one: &OneBatch<'_>| {
            let batches: Vec<&[Candidate]> = candidates.chunks(batch).collect();
            let made: Vec<Mutex<Vec<f32>>> = batches.iter().map(|_| Mutex::default()).collect();
            team.run(batches.len(), &|thread, item| {
                one(&mut lock(&workers[thread]), batches[item], &mut lock(&made[item]));
            });
            made.iter().flat_map(|made| std::mem::take(&mut *lock(made))).collect::<Vec<f32>>()
        };
        match &self.networks {
            Networks::Kernels(networks) => {
                let kernels = network.of(&networks.1, &networks.2);
                Ok(batched(kernels.batch(), &|worker, batch, answers| {
                    let DetectorWorker { refine, resize, crops, .. } = worker;
                    cut(batch, resize, crops);
                    let [rnet, onet] = refine;
                    let refine = network.of(rnet, onet);
                    kernels.run(crops, batch.len(), refine);
                    answers.clone_from(&refine.out);
                }))
            }
            #[cfg(feature = "candle")]
            Networks::Tensors(networks) => {
                let crops = batched(CROPS_CUT, &|worker, batch, crops| cut(batch, &mut worker.resize, crops));
                network.of(&networks.1, &networks.2).run(crops)
            }
        }
    }
}

/// Levels of the pyramid and bands of their rows of cells, in order: whole levels for one thread,
/// enough parts for more.
fn bands(levels: &[Level], threads: usize) -> Vec<(usize, Range<usize>)> {
    let rows = |level: usize| cells(levels[level].size.0).unwrap_or(0);
    let band = match threads {
        1 => usize::MAX,
        _ => (rows(0) / (2 * threads)).max(BAND_ROWS).next_multiple_of(STRIP),
    };
    let of_level = |level: usize| {
        let rows = rows(level);
        (0..rows)
            .step_by(band.min(rows.max(1)))
            .map(move |first| (level, first..first.saturating_add(band).min(rows)))
    };
    (0..levels.len()).flat_map(of_level).collect()
}

/// The image box of a P-Net cell at that scale.
fn candidate(cell: &Cell, scale: f32) -> Candidate {
    let (x, y) = (2.0 * cell.column as f32, 2.0 * cell.row as f32);
    Candidate {
        bbox: BBox {
            x1: ((x + 1.0) / scale).floor(),
            y1: ((y + 1.0) / scale).floor(),
            x2: ((x + 12.0) / scale).floor(),
            y2: ((y + 12.0) / scale).floor(),
        },
        score: cell.score,
        regression: cell.regression,
    }
}

/// The box moved by its regression, which is in fractions of its sides; sides are x2 - x1 + `inclusive`.
fn regress(candidate: &Candidate, inclusive: f32) -> BBox {
    let Candidate { bbox, regression: [x1, y1, x2, y2], .. } = *candidate;
    let (width, height) = (bbox.width() + inclusive, bbox.height() + inclusive);
    BBox {
        x1: bbox.x1 + x1 * width,
        y1: bbox.y1 + y1 * height,
        x2: bbox.x2 + x2 * width,
        y2: bbox.y2 + y2 * height,
    }
}

/// The square around the same centre with the longer side.
fn square(bbox: BBox) -> BBox {
    let side = bbox.width().max(bbox.height());
    let x1 = bbox.x1 + bbox.width() * 0.5 - side * 0.5;
    let y1 = bbox.y1 + bbox.height() * 0.5 - side * 0.5;
    BBox { x1, y1, x2: x1 + side, y2: y1 + side }
}

/// The pixels of a box that lie in the image. Boxes count pixels from 1, both ends inclusive,
/// as MATLAB does.
fn region(bbox: &BBox, image: &RgbImage) -> Option<Region> {
    let span = |from: f32, to: f32, side: u32| {
        let first = (from as i64).max(1);
        let last = (to as i64).min(side.into());
        let length = usize::try_from(last - first + 1).ok().filter(|&length| length > 0)?;
        Some((usize::try_from(first - 1).ok()?, length))
    };
    let (x, width) = span(bbox.x1, bbox.x2, image.width())?;
    let (y, height) = span(bbox.y1, bbox.y2, image.height())?;
    Some(Region { x, y, width, height })
}

/// Softmax of the first two values, the second one's share.
fn probability(out: &[f32]) -> f32 {
    1.0 / (1.0 + (out[0] - out[1]).exp())
}

/// Something with a box and a score.
trait Scored {
    fn bbox(&self) -> &BBox;
    fn score(&self) -> f32;
}

impl Scored for Candidate {
    fn bbox(&self) -> &BBox {
        &self.bbox
    }
    fn score(&self) -> f32 {
        self.score
    }
}

impl Scored for Face {
    fn bbox(&self) -> &BBox {
        &self.bbox
    }
    fn score(&self) -> f32 {
        self.score
    }
}

/// Non-maximum suppression: the best of every group of boxes that overlap by more than
/// `threshold`, in order of score (equal scores: in the order given).
fn suppress<T: Scored>(mut boxes: Vec<T>, threshold: f32, overlap: Overlap) -> Vec<T> {
    boxes.sort_by(|a, b| b.score().total_cmp(&a.score()));
    let mut kept: Vec<T> = Vec::new();
    for candidate in boxes {
        let lost = kept.iter().any(|better| share(better.bbox(), candidate.bbox(), overlap) > threshold);
        if !lost {
            kept.push(candidate);
        }
    }
    kept
}

/// The intersection as a fraction of the area that `overlap` names.
fn share(a: &BBox, b: &BBox, overlap: Overlap) -> f32 {
    let extra = if overlap == Overlap::Smaller { 1.0 } else { 0.0 };
    let width = (a.x2.min(b.x2) - a.x1.max(b.x1) + extra).max(0.0);
    let height = (a.y2.min(b.y2) - a.y1.max(b.y1) + extra).max(0.0);
    let area = |bbox: &BBox| (bbox.width() + extra) * (bbox.height() + extra);
    let intersection = width * height;
    match overlap {
        Overlap::Union => intersection / (area(a) + area(b) - intersection),
        Overlap::Smaller => intersection / area(a).min(area(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::MinFace;
    use crate::detect::golden::noise_image;
    use crate::models::MTCNN;

    fn detector(config: DetectorConfig, isa: Isa) -> Detector {
        Detector::new(&MTCNN.weights().unwrap(), config, isa).unwrap()
    }

    #[test]
    fn images_of_any_size_are_looked_at() {
        let eager = DetectorConfig {
            min_face: MinFace::Px(12.0),
            thresholds: [0.0, 0.0, 0.0],
            ..DetectorConfig::default()
        };
        for isa in Isa::available() {
            let (fussy, eager) = (detector(DetectorConfig::default(), isa), detector(eager, isa));
            let mut scratch = Scratch::default();
            for (width, height) in
                [(0, 0), (1, 1), (11, 11), (12, 12), (13, 40), (1, 2000), (2000, 12), (45, 47)]
            {
                let image = noise_image(width, height);
                fussy.detect(&image, &mut scratch).unwrap();
                let faces = eager.detect(&image, &mut scratch).unwrap();
                assert_eq!(faces.is_empty(), width.min(height) < 12, "{width}x{height}");
                assert!(faces.is_sorted_by(|a, b| a.score >= b.score));
                assert_eq!(faces, eager.detect(&image, &mut Scratch::new(3)).unwrap());
            }
        }
    }

    #[test]
    fn weights_of_another_network_are_refused() {
        let mut weights = MTCNN.weights().unwrap();
        weights.tensors.remove("onet.conv3.bias");
        let refused = Detector::new(&weights, DetectorConfig::default(), Isa::Portable).unwrap_err();
        assert!(refused.to_string().contains("onet.conv3.bias"), "{refused}");
    }

    #[test]
    fn the_smallest_face_sets_the_largest_level() {
        let config = DetectorConfig { min_face: MinFace::FrameFraction(0.1), ..DetectorConfig::default() };
        let scales = config.scales(640, 400);
        assert!((scales[0] - 12.0 / 40.0).abs() < 1e-6);
        assert!((scales[1] - 0.709 * 12.0 / 40.0).abs() < 1e-6);
        assert!(scales.iter().all(|scale| scale * 400.0 >= 12.0 - 1e-9));
    }

    #[test]
    fn a_box_is_cut_off_at_the_image() {
        let image = RgbImage::new(100, 50);
        let bbox = |x1, y1, x2, y2| BBox { x1, y1, x2, y2 };
        let inside = region(&bbox(11.9, 21.2, 30.8, 40.0), &image);
        assert_eq!(inside, Some(Region { x: 10, y: 20, width: 20, height: 20 }));
        let over = region(&bbox(-10.5, 31.0, 2000.0, 60.0), &image);
        assert_eq!(over, Some(Region { x: 0, y: 30, width: 100, height: 20 }));
        for nothing in [bbox(-20.0, 5.0, -3.0, 9.0), bbox(101.0, 1.0, 120.0, 9.0), bbox(9.0, 9.0, 4.0, 4.0)] {
            assert_eq!(region(&nothing, &image), None);
        }
    }

    #[test]
    fn the_best_of_overlapping_boxes_stays() {
        let face = |x1: f32, side: f32, score| Face {
            bbox: BBox { x1, y1: 0.0, x2: x1 + side, y2: side },
            score,
            landmarks: [[0.0; 2]; 5],
        };
        let faces = vec![face(0.0, 100.0, 0.8), face(10.0, 100.0, 0.9), face(200.0, 100.0, 0.7)];
        let scores = |faces: Vec<Face>| faces.iter().map(|face| face.score).collect::<Vec<_>>();
        assert_eq!(scores(suppress(faces, 0.7, Overlap::Union)), [0.9, 0.7]);
        // A small box inside a large one: little of the union, all of the smaller.
        let faces = vec![face(0.0, 100.0, 0.8), face(10.0, 20.0, 0.9)];
        assert_eq!(scores(suppress(faces.clone(), 0.7, Overlap::Union)), [0.9, 0.8]);
        assert_eq!(scores(suppress(faces, 0.7, Overlap::Smaller)), [0.9]);
    }
}
