//! Tone mapping of pictures of high dynamic range (PQ and HLG, ITU-R BT.2100) to BT.709, limited range, 8
//! bits.
//!
//! Reference white (203 cd/m², ITU-R BT.2408) stays near white, darker values are unchanged, and highlights
//! up to 1000 cd/m² are compressed. So a face looks as in a video of standard range, with which the networks
//! were trained.

use crate::media::{Colorimetry, Matrix, Picture};

/// Luminance of reference white, in cd/m².
const WHITE: f32 = 203.0;
/// The luminance above which highlights clip, in units of reference white.
const PEAK: f32 = 1000.0 / WHITE;
/// The luminance from which highlights are compressed, in units of reference white.
const KNEE: f32 = 0.85;
/// Gamma of a standard range display (ITU-R BT.1886).
const SCREEN_GAMMA: f32 = 2.4;
/// System gamma of HLG at 1000 cd/m².
const HLG_SYSTEM_GAMMA: f32 = 1.2;
/// Entries of the tables.
const STEPS: usize = 4096;
/// BT.2020 to BT.709 primaries (ITU-R BT.2087).
const TO_709: [[f32; 3]; 3] =
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]];
/// Luma weights of red, green and blue.
const LUMA_2020: [f32; 3] = [0.2627, 0.6780, 0.0593];

/// The transfer function of a picture of high dynamic range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hdr {
    /// SMPTE ST 2084, absolute.
    Pq,
    /// ARIB STD-B67, relative.
    Hlg,
}

impl Hdr {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pq => "HDR (PQ)",
            Self::Hlg => "HDR (HLG)",
        }
    }
}

/// A plane of 10-bit samples, each in two bytes, the lower one first.
#[derive(Clone, Copy)]
pub(super) struct Plane<'a> {
    pub(super) bytes: &'a [u8],
    /// Bytes from one row to the next.
    pub(super) stride: usize,
}

impl Plane<'_> {
    fn row(&self, row: usize, width: usize) -> Option<&[[u8; 2]]> {
        let start = row * self.stride;
        Some(self.bytes.get(start..start + 2 * width)?.as_chunks().0)
    }
}

/// Two rows of luma and one of each chroma plane to be filled, and their number from the top.
type Rows<'a> = (usize, ((&'a mut [u8], &'a mut [u8]), &'a mut [u8]));

/// The tables that map pictures of one transfer function to standard range.
pub(super) struct ToneMap {
    hdr: Hdr,
    /// Light of a signal value, in units of reference white (PQ) or of the scene (HLG).
    light: Vec<f32>,
    /// The factor of the system gamma for HLG, by the root of the scene luminance.
    system: Vec<f32>,
    /// Signal of standard range, by the root of light.
    signal: Vec<f32>,
    luma: (f32, f32),
    chroma: (f32, [f32; 4]),
}

impl ToneMap {
    pub(super) fn new(hdr: Hdr, colorimetry: Colorimetry) -> Self {
        let table = |of: &dyn Fn(f32) -> f32| -> Vec<f32> {
            (0..STEPS).map(|step| of(step as f32 / (STEPS - 1) as f32)).collect()
        };
        let light = match hdr {
            Hdr::Pq => table(&|signal| pq_light(signal) / WHITE),
            Hdr::Hlg => table(&hlg_scene),
        };
        let system = table(&|root| PEAK * (root * root).powf(HLG_SYSTEM_GAMMA - 1.0));
        let signal = table(&|root| (root * root).powf(1.0 / SCREEN_GAMMA));
        let [kr, kg, kb] = match colorimetry.matrix {
            Matrix::Bt2020 => LUMA_2020,
            Matrix::Bt709 => [0.2126, 0.7152, 0.0722],
            Matrix::Bt601 => [0.299, 0.587, 0.114],
        };
        let (luma, scale) = match colorimetry.full_range {
            true => ((0.0, 1.0 / 1023.0), 1.0 / 1023.0),
            false => ((64.0, 1.0 / 876.0), 1.0 / 896.0),
        };
        let (r, b) = (2.0 * (1.0 - kr), 2.0 * (1.0 - kb));
        let chroma = (scale, [r, -b * kb / kg, -r * kr / kg, b]);
        Self { hdr, light, system, signal, luma, chroma }
    }

    /// The colorimetry of the result.
    pub(super) fn colorimetry() -> Colorimetry {
        Colorimetry { matrix: Matrix::Bt709, full_range: false }
    }

    /// A picture from its planes; `None` if they are too small.
    pub(super) fn picture(&self, planes: [Plane<'_>; 3], width: usize, height: usize) -> Option<Picture> {
        let (chroma_width, chroma_height) = (width.div_ceil(2), height.div_ceil(2));
        let mut data = vec![0; Picture::len_bytes(width, height)];
        let (luma, chroma) = data.split_at_mut(width * height);
        let (us, vs) = chroma.split_at_mut(chroma_width * chroma_height);
        let rows = luma.chunks_mut(2 * width);
        let rows = rows.zip(us.chunks_exact_mut(chroma_width)).zip(vs.chunks_exact_mut(chroma_width));
        let mut rows: Vec<Rows<'_>> = rows.enumerate().collect();
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        let share = chroma_height.div_ceil(workers).max(1);
        std::thread::scope(|scope| {
            let parts =
                rows.chunks_mut(share).map(|part| scope.spawn(move || self.rows(planes, width, part)));
            let parts: Vec<_> = parts.collect();
            parts.into_iter().map(|part| part.join().ok().flatten()).collect::<Option<Vec<()>>>()
        })?;
        Picture::from_i420(data, width, height, Self::colorimetry())
    }

    fn rows(&self, planes: [Plane<'_>; 3], width: usize, rows: &mut [Rows<'_>]) -> Option<()> {
        rows.iter_mut().try_for_each(|(row, ((luma, us), vs))| {
            self.two_rows(planes, *row, width, [&mut **luma, &mut **us, &mut **vs])
        })
    }

    /// Converts two rows of luma and their common row of chroma.
    fn two_rows(
        &self,
        [y, u, v]: [Plane<'_>; 3],
        row: usize,
        width: usize,
        [luma, us, vs]: [&mut [u8]; 3],
    ) -> Option<()> {
        let chroma_width = width.div_ceil(2);
        let (u, v) = (u.row(row, chroma_width)?, v.row(row, chroma_width)?);
        let mut colours = vec![[0.0f32; 4]; chroma_width];
        for (line, luma) in luma.chunks_mut(width).enumerate() {
            let y = y.row(2 * row + line, width)?;
            for (x, (y, luma)) in y.iter().zip(luma).enumerate() {
                let at = x / 2;
                let [r, g, b] = self.colour(*y, u[at], v[at]);
                *luma = byte(16.0 + 219.0 * (0.2126 * r + 0.7152 * g + 0.0722 * b));
                let sum = &mut colours[at];
                *sum = [sum[0] + r, sum[1] + g, sum[2] + b, sum[3] + 1.0];
            }
        }
        for ((colour, u), v) in colours.iter().zip(us).zip(vs) {
            let [r, g, b, count] = *colour;
            let [r, g, b] = [r / count, g / count, b / count];
            let luma = 0.2126 * r + 0.7152 * g + 0.0722 * b;
            *u = byte(128.0 + 224.0 * (b - luma) / 1.8556);
            *v = byte(128.0 + 224.0 * (r - luma) / 1.5748);
        }
        Some(())
    }

    /// The signal of standard range, 0 to 1, of a pixel.
    fn colour(&self, y: [u8; 2], u: [u8; 2], v: [u8; 2]) -> [f32; 3] {
        let sample = |bytes: [u8; 2]| f32::from(u16::from_le_bytes(bytes).min(1023));
        let (scale, [r_v, g_u, g_v, b_u]) = self.chroma;
        let luma = (sample(y) - self.luma.0) * self.luma.1;
        let (u, v) = ((sample(u) - 512.0) * scale, (sample(v) - 512.0) * scale);
        let light = |signal: f32| lookup(&self.light, signal);
        let mut rgb = [light(luma + r_v * v), light(luma + g_u * u + g_v * v), light(luma + b_u * u)];
        if self.hdr == Hdr::Hlg {
            let scene: f32 = rgb.iter().zip(LUMA_2020).map(|(c, k)| c * k).sum();
            let system = lookup(&self.system, scene.sqrt());
            rgb = rgb.map(|c| c * system);
        }
        let rgb = TO_709.map(|[r, g, b]| (r * rgb[0] + g * rgb[1] + b * rgb[2]).max(0.0));
        let most = rgb[0].max(rgb[1]).max(rgb[2]);
        let pressed = pressed(most) / most.max(1e-6);
        rgb.map(|c| lookup(&self.signal, (c * pressed).sqrt()))
    }
}

fn lookup(table: &[f32], at: f32) -> f32 {
    // Values beyond the table are clamped to its ends.
    let step = (at * (STEPS - 1) as f32 + 0.5) as usize;
    table[step.min(STEPS - 1)]
}

fn byte(value: f32) -> u8 {
    (value + 0.5) as u8
}

/// Light with compressed highlights, in units of reference white.
fn pressed(light: f32) -> f32 {
    if light <= KNEE {
        return light;
    }
    let (over, most) = ((light - KNEE) / (1.0 - KNEE), (PEAK - KNEE) / (1.0 - KNEE));
    (KNEE + (1.0 - KNEE) * over * (1.0 + over / (most * most)) / (1.0 + over)).min(1.0)
}

/// Luminance of a PQ signal in cd/m².
fn pq_light(signal: f32) -> f32 {
    let (m1, m2) = (2610.0 / 16384.0, 2523.0 / 4096.0 * 128.0);
    let (c1, c2, c3) = (3424.0 / 4096.0, 2413.0 / 4096.0 * 32.0, 2392.0 / 4096.0 * 32.0);
    let root = f64::from(signal).powf(1.0 / m2);
    (10_000.0 * ((root - c1).max(0.0) / (c2 - c3 * root)).powf(1.0 / m1)) as f32
}

/// Light of the scene, 0 to 1, of an HLG signal.
fn hlg_scene(signal: f32) -> f32 {
    let (a, b, c) = (0.178_832_77, 0.284_668_92, 0.559_910_7);
    match signal <= 0.5 {
        true => signal * signal / 3.0,
        false => (((signal - c) / a).exp() + b) / 12.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BT2020: Colorimetry = Colorimetry { matrix: Matrix::Bt2020, full_range: false };

    /// Luma of a grey picture of one signal value.
    fn grey(hdr: Hdr, signal: f32) -> u8 {
        let sample = ((64.0 + 876.0 * signal).round() as u16).to_le_bytes();
        let (luma, chroma) = (sample.repeat(15), 512u16.to_le_bytes().repeat(6));
        let plane = |bytes, stride| Plane { bytes, stride };
        let planes = [plane(&luma[..], 10), plane(&chroma, 6), plane(&chroma, 6)];
        let picture = ToneMap::new(hdr, BT2020).picture(planes, 5, 3).unwrap();
        assert!(picture.planes()[1].iter().chain(picture.planes()[2]).all(|c| c.abs_diff(128) <= 1));
        picture.planes()[0][0]
    }

    #[test]
    fn greys_keep_their_place_and_highlights_are_told_apart() {
        // A signal of standard range, shown at 203 cd/m², in PQ (ITU-R BT.2100, table 4).
        for (signal, wanted) in [(0.0, 16), (0.2753, 71), (0.4156, 126), (0.5098, 180)] {
            let luma = grey(Hdr::Pq, signal);
            assert!(luma.abs_diff(wanted) <= 3, "{signal}: {luma}, not {wanted}");
        }
        let steps: Vec<u8> = [0.55, 0.581, 0.65, 0.7, 0.7518].map(|signal| grey(Hdr::Pq, signal)).into();
        assert!(steps.is_sorted() && steps[0] < steps[1] && steps[1] + 3 < steps[4], "{steps:?}");
        assert!((224..=231).contains(&steps[1]), "reference white is {}", steps[1]);
        assert_eq!(steps[4], 235, "1000 cd/m²");
        assert_eq!(grey(Hdr::Pq, 1.0), 235);
        assert!((224..=231).contains(&grey(Hdr::Hlg, 0.75)), "{}", grey(Hdr::Hlg, 0.75));
        assert_eq!((grey(Hdr::Hlg, 0.0), grey(Hdr::Hlg, 1.0)), (16, 235));
    }

    #[test]
    fn planes_that_are_too_small_are_no_picture() {
        let plane = Plane { bytes: &[0; 20], stride: 10 };
        assert!(ToneMap::new(Hdr::Pq, BT2020).picture([plane; 3], 5, 3).is_none());
    }
}
