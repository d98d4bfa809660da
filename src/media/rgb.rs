//! Rows of planar YUV to packed RGB. Every frame is converted, so the code is written for the compiler's
//! auto-vectorisation. All arithmetic is in integers: the same bytes on every machine.

/// Fixed-point (16 bit) YUV to RGB coefficients.
#[derive(Debug, Clone, Copy)]
pub struct Coefficients {
    /// Factor of luma.
    pub y: i32,
    /// Luma of black.
    pub y_offset: i32,
    /// Of V in red.
    pub r_v: i32,
    /// Of U in green.
    pub g_u: i32,
    /// Of V in green.
    pub g_v: i32,
    /// Of U in blue.
    pub b_u: i32,
}

/// Pixels converted together.
const BLOCK: usize = 32;

/// Converts a row of luma, and of the two chroma planes with one value per two pixels, to RGB of three bytes
/// per pixel.
pub fn convert_row(k: &Coefficients, planes: [&[u8]; 3], out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn avx2(k: &Coefficients, planes: [&[u8]; 3], out: &mut [u8]) {
            convert(k, planes, out);
        }
        // SAFETY: this machine has AVX2, as just checked.
        return unsafe { avx2(k, planes, out) };
    }
    convert(k, planes, out);
}

#[inline(always)]
fn convert(k: &Coefficients, [ys, us, vs]: [&[u8]; 3], out: &mut [u8]) {
    let chroma = us.chunks(BLOCK / 2).zip(vs.chunks(BLOCK / 2));
    for ((out, ys), (us, vs)) in out.chunks_mut(3 * BLOCK).zip(ys.chunks(BLOCK)).zip(chroma) {
        // The rest of a row is converted as a whole block, too.
        let (mut y, mut u, mut v) = ([0; BLOCK], [0; BLOCK / 2], [0; BLOCK / 2]);
        y[..ys.len()].copy_from_slice(ys);
        u[..us.len()].copy_from_slice(us);
        v[..vs.len()].copy_from_slice(vs);
        out.copy_from_slice(&convert_block(k, &y, &u, &v)[..out.len()]);
    }
}

#[inline(always)]
fn convert_block(
    k: &Coefficients,
    y: &[u8; BLOCK],
    u: &[u8; BLOCK / 2],
    v: &[u8; BLOCK / 2],
) -> [u8; 3 * BLOCK] {
    let mut wide = [[0; BLOCK]; 2];
    for i in 0..BLOCK / 2 {
        (wide[0][2 * i], wide[0][2 * i + 1]) = (u[i], u[i]);
        (wide[1][2 * i], wide[1][2 * i + 1]) = (v[i], v[i]);
    }
    let [mut red, mut green, mut blue] = [[0; BLOCK]; 3];
    let level = |sum: i32| (sum >> 16).clamp(0, 255) as u8;
    for i in 0..BLOCK {
        let (u, v) = (i32::from(wide[0][i]) - 128, i32::from(wide[1][i]) - 128);
        let luma = k.y * (i32::from(y[i]) - k.y_offset) + (1 << 15);
        red[i] = level(luma + k.r_v * v);
        green[i] = level(luma + k.g_u * u + k.g_v * v);
        blue[i] = level(luma + k.b_u * u);
    }
    let mut rgb = [0; 3 * BLOCK];
    for i in 0..BLOCK {
        rgb[3 * i] = red[i];
        rgb[3 * i + 1] = green[i];
        rgb[3 * i + 2] = blue[i];
    }
    rgb
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pixel_of_rows_of_any_length_is_what_the_formula_says() {
        let k = Coefficients { y: 76309, y_offset: 16, r_v: 117489, g_u: -13975, g_v: -34925, b_u: 138438 };
        for width in (1..=70usize).chain([640]) {
            let noise = |length: usize, step: usize| -> Vec<u8> {
                (1..=length).map(|i| (i * step % 256) as u8).collect()
            };
            let chroma = width.div_ceil(2);
            let (ys, us, vs) = (noise(width, 97), noise(chroma, 61), noise(chroma, 139));
            let expected: Vec<u8> = (0..width)
                .flat_map(|x| {
                    let luma = k.y * (i32::from(ys[x]) - k.y_offset);
                    let (u, v) = (i32::from(us[x / 2]) - 128, i32::from(vs[x / 2]) - 128);
                    [luma + k.r_v * v, luma + k.g_u * u + k.g_v * v, luma + k.b_u * u]
                })
                .map(|sum| (f64::from(sum) / 65536.0 + 0.5).floor().clamp(0.0, 255.0) as u8)
                .collect();
            let mut out = vec![0; 3 * width];
            convert_row(&k, [&ys, &us, &vs], &mut out);
            assert_eq!(out, expected, "{width}");
            convert(&k, [&ys, &us, &vs], &mut out);
            assert_eq!(out, expected, "{width}, without vector instructions");
        }
    }
}
