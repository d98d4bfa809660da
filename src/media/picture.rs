//! Planar 4:2:0 pictures, the format of decoders and encoders.

use std::ops::Range;

use image::RgbImage;

use super::rgb::{self, Coefficients};

/// The matrix that converted RGB to YUV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matrix {
    /// ITU-R BT.601 (standard definition).
    Bt601,
    /// ITU-R BT.709 (high definition).
    Bt709,
    /// ITU-R BT.2020 (ultra-high definition), non-constant luminance.
    Bt2020,
}

/// The interpretation of the samples of a [`Picture`] as colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colorimetry {
    /// The conversion matrix.
    pub matrix: Matrix,
    /// `true` when luma spans 0..=255, `false` for 16..=235.
    pub full_range: bool,
}

impl Default for Colorimetry {
    /// BT.601, limited range: the default for a stream that states nothing.
    fn default() -> Self {
        Self { matrix: Matrix::Bt601, full_range: false }
    }
}

/// An I420 picture: a full-size luma plane, then two chroma planes of half the size
/// (rounded up), each row tightly packed, all in one allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    data: Vec<u8>,
    width: usize,
    height: usize,
    colorimetry: Colorimetry,
}

impl Picture {
    /// Bytes needed for a picture of `width` x `height` pixels.
    pub fn len_bytes(width: usize, height: usize) -> usize {
        width * height + 2 * width.div_ceil(2) * height.div_ceil(2)
    }

    /// A picture from packed I420 bytes (Y rows, then U, then V).
    ///
    /// Returns `None` when `data` is not exactly [`Picture::len_bytes`] long or a side is 0.
    pub fn from_i420(data: Vec<u8>, width: usize, height: usize, colorimetry: Colorimetry) -> Option<Self> {
        (width > 0 && height > 0 && data.len() == Self::len_bytes(width, height)).then_some(Self {
            data,
            width,
            height,
            colorimetry,
        })
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The interpretation of the samples.
    pub fn colorimetry(&self) -> Colorimetry {
        self.colorimetry
    }

    /// The packed I420 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.data
    }

    /// Width and height of the chroma planes.
    pub fn chroma_size(&self) -> (usize, usize) {
        (self.width.div_ceil(2), self.height.div_ceil(2))
    }

    /// The Y, U and V planes.
    pub fn planes(&self) -> [&[u8]; 3] {
        let (y, rest) = self.data.split_at(self.width * self.height);
        let (u, v) = rest.split_at(rest.len() / 2);
        [y, u, v]
    }

    /// The Y, U and V planes, to draw on.
    pub fn planes_mut(&mut self) -> [&mut [u8]; 3] {
        let (y, rest) = self.data.split_at_mut(self.width * self.height);
        let half = rest.len() / 2;
        let (u, v) = rest.split_at_mut(half);
        [y, u, v]
    }

    /// The picture as 8-bit RGB. Chroma is replicated over its 2x2 pixels.
    pub fn to_rgb(&self) -> RgbImage {
        self.to_rgb_rows(0..self.height)
    }

    /// The same with only these rows, as far as there are such. The others are black.
    pub fn to_rgb_rows(&self, rows: Range<usize>) -> RgbImage {
        let k = self.colorimetry.coefficients();
        let [y_plane, u_plane, v_plane] = self.planes();
        let (chroma_width, _) = self.chroma_size();
        let mut rgb = vec![0u8; self.width * self.height * 3];
        let rows = rows.start..rows.end.min(self.height);
        let lines = rgb.chunks_exact_mut(self.width * 3).enumerate();
        for (row, out) in lines.take(rows.end).skip(rows.start) {
            let y_row = &y_plane[row * self.width..][..self.width];
            let u_row = &u_plane[row / 2 * chroma_width..][..chroma_width];
            let v_row = &v_plane[row / 2 * chroma_width..][..chroma_width];
            rgb::convert_row(&k, [y_row, u_row, v_row], out);
        }
        RgbImage::from_raw(self.width as u32, self.height as u32, rgb)
            .expect("the buffer has three bytes per pixel")
    }

    /// An RGB image as a full-range BT.601 picture (the JPEG convention).
    pub fn from_rgb(rgb: &RgbImage) -> Self {
        let (width, height) = (rgb.width() as usize, rgb.height() as usize);
        let colorimetry = Colorimetry { matrix: Matrix::Bt601, full_range: true };
        let mut picture = Self { data: vec![0; Self::len_bytes(width, height)], width, height, colorimetry };
        let (chroma_width, chroma_height) = picture.chroma_size();
        let pixels = rgb.as_raw();
        let yuv = |x: usize, y: usize| {
            let p = &pixels[(y * width + x) * 3..][..3];
            colorimetry.yuv([p[0], p[1], p[2]].map(f32::from))
        };
        let [y_plane, u_plane, v_plane] = picture.planes_mut();
        for y in 0..height {
            for x in 0..width {
                y_plane[y * width + x] = yuv(x, y)[0].round().clamp(0.0, 255.0) as u8;
            }
        }
        for cy in 0..chroma_height {
            for cx in 0..chroma_width {
                let (mut u, mut v, mut n) = (0.0, 0.0, 0.0);
                for y in 2 * cy..(2 * cy + 2).min(height) {
                    for x in 2 * cx..(2 * cx + 2).min(width) {
                        let sample = yuv(x, y);
                        (u, v, n) = (u + sample[1], v + sample[2], n + 1.0);
                    }
                }
                u_plane[cy * chroma_width + cx] = (u / n).round().clamp(0.0, 255.0) as u8;
                v_plane[cy * chroma_width + cx] = (v / n).round().clamp(0.0, 255.0) as u8;
            }
        }
        picture
    }
}

impl Picture {
    /// The same colours in another colorimetry.
    pub fn recoloured(&self, to: Colorimetry) -> Self {
        let from = self.colorimetry;
        let mut picture = Self { colorimetry: to, ..self.clone() };
        let change = Recolouring::new(from, to);
        let (width, (chroma_width, _)) = (self.width, self.chroma_size());
        let [ys, us, vs] = picture.planes_mut();
        for (row, ys) in ys.chunks_exact_mut(width).enumerate() {
            let chroma = row / 2 * chroma_width;
            let (us, vs) = (&us[chroma..][..chroma_width], &vs[chroma..][..chroma_width]);
            for (ys, (u, v)) in ys.chunks_mut(2).zip(us.iter().zip(vs)) {
                ys.iter_mut().for_each(|y| *y = change.luma(*y, *u, *v));
            }
        }
        for (u, v) in us.iter_mut().zip(vs) {
            (*u, *v) = change.chroma(*u, *v);
        }
        picture
    }
}

/// Conversion from one colorimetry to another, in fixed-point numbers with 16 fractional bits. Grey stays
/// grey, so luma depends on all three samples, and chroma on chroma alone.
struct Recolouring {
    y: i32,
    y_from_chroma: [i32; 2],
    offset: i32,
    u: [i32; 2],
    v: [i32; 2],
}

impl Recolouring {
    fn new(from: Colorimetry, to: Colorimetry) -> Self {
        let scales = |one: Colorimetry| if one.full_range { (255.0, 255.0) } else { (219.0, 224.0) };
        let black = |one: Colorimetry| if one.full_range { 0.0 } else { 16.0 };
        let ((y_from, c_from), (y_to, c_to)) = (scales(from), scales(to));
        let ((kr, kb), (to_kr, to_kb)) = (from.weights(), to.weights());
        // Red and blue minus luma, for chroma from -0.5 to 0.5, and green, which compensates for them.
        let (r_v, b_u) = (2.0 * (1.0 - kr), 2.0 * (1.0 - kb));
        let (g_u, g_v) = (-kb * b_u / (1.0 - kr - kb), -kr * r_v / (1.0 - kr - kb));
        let to_kg = 1.0 - to_kr - to_kb;
        let luma = [to_kb * b_u + to_kg * g_u, to_kr * r_v + to_kg * g_v];
        let chroma = c_to / c_from;
        let fixed = |x: f32| (x * 65536.0).round() as i32;
        let scaled = |pair: [f32; 2], by: f32| pair.map(|x| fixed(x * by));
        Self {
            y: fixed(y_to / y_from),
            y_from_chroma: scaled(luma, y_to / c_from),
            offset: fixed(black(to) - black(from) * y_to / y_from + 0.5),
            u: scaled([b_u - luma[0], -luma[1]], chroma / (2.0 * (1.0 - to_kb))),
            v: scaled([-luma[0], r_v - luma[1]], chroma / (2.0 * (1.0 - to_kr))),
        }
    }

    fn luma(&self, y: u8, u: u8, v: u8) -> u8 {
        let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
        let [of_u, of_v] = self.y_from_chroma;
        level(self.y * i32::from(y) + of_u * u + of_v * v + self.offset)
    }

    fn chroma(&self, u: u8, v: u8) -> (u8, u8) {
        let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
        let of = |[of_u, of_v]: [i32; 2]| level(of_u * u + of_v * v + (257 << 15));
        (of(self.u), of(self.v))
    }
}

fn level(sum: i32) -> u8 {
    (sum >> 16).clamp(0, 255) as u8
}

impl Colorimetry {
    /// Red and blue luma weights of the matrix (ITU-R BT.601, BT.709, BT.2020).
    fn weights(self) -> (f32, f32) {
        match self.matrix {
            Matrix::Bt601 => (0.299, 0.114),
            Matrix::Bt709 => (0.2126, 0.0722),
            Matrix::Bt2020 => (0.2627, 0.0593),
        }
    }

    fn coefficients(self) -> Coefficients {
        let (kr, kb) = self.weights();
        let kg = 1.0 - kr - kb;
        let (y, chroma) = if self.full_range { (1.0, 1.0) } else { (255.0 / 219.0, 255.0 / 224.0) };
        let fixed = |x: f32| (x * 65536.0).round() as i32;
        Coefficients {
            y: fixed(y),
            y_offset: if self.full_range { 0 } else { 16 },
            r_v: fixed(2.0 * (1.0 - kr) * chroma),
            g_u: fixed(-2.0 * (1.0 - kb) * kb / kg * chroma),
            g_v: fixed(-2.0 * (1.0 - kr) * kr / kg * chroma),
            b_u: fixed(2.0 * (1.0 - kb) * chroma),
        }
    }

    /// The Y, U, V sample values (0..=255 scale, not rounded) of an RGB colour in 0..=255.
    pub fn yuv(self, [r, g, b]: [f32; 3]) -> [f32; 3] {
        let (kr, kb) = self.weights();
        let luma = kr * r + (1.0 - kr - kb) * g + kb * b;
        let (u, v) = ((b - luma) / (2.0 * (1.0 - kb)), (r - luma) / (2.0 * (1.0 - kr)));
        if self.full_range {
            [luma, u + 128.0, v + 128.0]
        } else {
            [luma * 219.0 / 255.0 + 16.0, u * 224.0 / 255.0 + 128.0, v * 224.0 / 255.0 + 128.0]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colour_survives_the_round_trip_through_every_colorimetry_and_odd_sizes() {
        for matrix in [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020] {
            for full_range in [false, true] {
                let colorimetry = Colorimetry { matrix, full_range };
                for colour in [[255, 255, 255], [0, 0, 0], [200, 30, 60], [10, 120, 240]] {
                    let yuv = colorimetry.yuv(colour.map(f32::from)).map(|x| x.round() as u8);
                    let (width, height) = (5, 3);
                    let mut data = vec![yuv[0]; 15];
                    data.extend([yuv[1]; 6]);
                    data.extend([yuv[2]; 6]);
                    let picture = Picture::from_i420(data, width, height, colorimetry).unwrap();
                    for pixel in picture.to_rgb().pixels() {
                        for (a, b) in pixel.0.iter().zip(colour) {
                            assert!(a.abs_diff(b) <= 3, "{colorimetry:?} {colour:?} came back as {pixel:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn colours_are_the_same_told_in_any_way() {
        let ways = [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020]
            .into_iter()
            .flat_map(|matrix| [false, true].map(|full_range| Colorimetry { matrix, full_range }));
        let ways: Vec<Colorimetry> = ways.collect();
        for from in &ways {
            for to in &ways {
                for colour in [[255u8, 255, 255], [0, 0, 0], [200, 30, 60], [10, 120, 240], [120, 120, 120]] {
                    let yuv = from.yuv(colour.map(f32::from)).map(|x| x.round() as u8);
                    let data = [vec![yuv[0]; 15], vec![yuv[1]; 6], vec![yuv[2]; 6]].concat();
                    let told = Picture::from_i420(data, 5, 3, *from).unwrap().recoloured(*to);
                    assert_eq!(told.colorimetry(), *to);
                    let wanted = to.yuv(colour.map(f32::from));
                    for (plane, wanted) in told.planes().iter().zip(wanted) {
                        let off = plane.iter().map(|v| (f32::from(*v) - wanted).abs()).fold(0.0, f32::max);
                        assert!(off < 1.2, "{from:?} to {to:?}: {colour:?} is off by {off}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_wrong_length_is_no_picture() {
        assert!(Picture::from_i420(vec![0; 10], 4, 2, Colorimetry::default()).is_none());
        assert!(Picture::from_i420(Vec::new(), 0, 2, Colorimetry::default()).is_none());
    }
}
