//! Winograd's filtering along one side of a tile: a filter of three taps with one product per input.

use crate::nn::simd::Simd;

/// F(m, 3) for `OUT` = m outputs of `IN` = m + 2 inputs. A tile takes one scheme for its columns
/// of pixels and one for its rows.
pub(crate) trait Scheme<const IN: usize, const OUT: usize> {
    /// G
    const WEIGHTS: [[f64; 3]; IN];
    /// B' d
    unsafe fn input<S: Simd>(d: [S::V; IN]) -> [S::V; IN];
    /// A' m
    unsafe fn output<S: Simd>(m: [S::V; IN]) -> [S::V; OUT];
}

/// G of the scheme for that many outputs.
pub(super) fn weights(outputs: usize) -> &'static [[f64; 3]] {
    match outputs {
        2 => &F2::WEIGHTS,
        3 => &F3::WEIGHTS,
        4 => &F4::WEIGHTS,
        5 => &F5::WEIGHTS,
        6 => &F6::WEIGHTS,
        _ => panic!("no scheme for {outputs} outputs"),
    }
}

/// F(2, 3) at the points 0, 1, -1 and infinity.
pub(super) struct F2;

impl Scheme<4, 2> for F2 {
    const WEIGHTS: [[f64; 3]; 4] = [[1., 0., 0.], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0., 0., 1.]];

    #[inline(always)]
    unsafe fn input<S: Simd>([a, b, c, d]: [S::V; 4]) -> [S::V; 4] {
        // SAFETY: see `Simd`.
        unsafe { [S::sub(a, c), S::add(b, c), S::sub(c, b), S::sub(b, d)] }
    }

    #[inline(always)]
    unsafe fn output<S: Simd>([a, b, c, d]: [S::V; 4]) -> [S::V; 2] {
        // SAFETY: see `Simd`.
        unsafe { [S::add(a, S::add(b, c)), S::sub(S::sub(b, c), d)] }
    }
}

/// F(3, 3) at the points 0, 1, -1, 2 and infinity.
pub(super) struct F3;

impl Scheme<5, 3> for F3 {
    const WEIGHTS: [[f64; 3]; 5] = [
        [1. / 2., 0., 0.],
        [-1. / 2., -1. / 2., -1. / 2.],
        [-1. / 6., 1. / 6., -1. / 6.],
        [1. / 6., 1. / 3., 2. / 3.],
        [0., 0., 1.],
    ];

    #[inline(always)]
    unsafe fn input<S: Simd>([a, b, c, d, e]: [S::V; 5]) -> [S::V; 5] {
        // SAFETY: see `Simd`.
        unsafe {
            let [two, minus_two] = [2.0, -2.0].map(|x| S::splat(x));
            let (db, dc) = (S::sub(d, b), S::sub(d, c));
            [
                S::fma(two, S::sub(a, c), db),
                S::fma(minus_two, b, dc),
                S::fma(two, S::sub(b, c), dc),
                db,
                S::fma(minus_two, db, S::sub(e, c)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn output<S: Simd>([m0, m1, m2, m3, m4]: [S::V; 5]) -> [S::V; 3] {
        // SAFETY: see `Simd`.
        unsafe {
            let [two, four] = [2.0, 4.0].map(|x| S::splat(x));
            let (sum, difference) = (S::add(m1, m2), S::sub(m1, m2));
            [S::add(S::add(m0, sum), m3), S::fma(two, m3, difference), S::fma(four, m3, S::add(sum, m4))]
        }
    }
}

/// F(4, 3) at the points 0, 1, -1, 2, -2 and infinity.
pub(crate) struct F4;

impl Scheme<6, 4> for F4 {
    const WEIGHTS: [[f64; 3]; 6] = [
        [1. / 4., 0., 0.],
        [-1. / 6., -1. / 6., -1. / 6.],
        [-1. / 6., 1. / 6., -1. / 6.],
        [1. / 24., 1. / 12., 1. / 6.],
        [1. / 24., -1. / 12., 1. / 6.],
        [0., 0., 1.],
    ];

    #[inline(always)]
    unsafe fn input<S: Simd>([d0, d1, d2, d3, d4, d5]: [S::V; 6]) -> [S::V; 6] {
        // SAFETY: see `Simd`.
        unsafe {
            let [two, minus4, four, minus5] = [2.0, -4.0, 4.0, -5.0].map(|x| S::splat(x));
            let even = S::fma(minus4, d2, d4); // d4 - 4 d2
            let odd = S::fma(minus4, d1, d3); // d3 - 4 d1
            let near = S::sub(d4, d2);
            let far = S::mul(two, S::sub(d3, d1));
            [
                S::fma(four, d0, S::fma(minus5, d2, d4)),
                S::add(even, odd),
                S::sub(even, odd),
                S::add(near, far),
                S::sub(near, far),
                S::fma(four, d1, S::fma(minus5, d3, d5)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn output<S: Simd>([m0, m1, m2, m3, m4, m5]: [S::V; 6]) -> [S::V; 4] {
        // SAFETY: see `Simd`.
        unsafe {
            let [two, four, eight] = [2.0, 4.0, 8.0].map(|x| S::splat(x));
            let (sum1, difference1) = (S::add(m1, m2), S::sub(m1, m2));
            let (sum2, difference2) = (S::add(m3, m4), S::sub(m3, m4));
            [
                S::add(m0, S::add(sum1, sum2)),
                S::fma(two, difference2, difference1),
                S::fma(four, sum2, sum1),
                S::fma(eight, difference2, S::add(difference1, m5)),
            ]
        }
    }
}

/// F(5, 3) at the points of [`F4`] and 1/2. The factor that the additional point adds to the polynomial of
/// every other, x - 1/2, is applied to the inputs first.
pub(super) struct F5;

impl Scheme<7, 5> for F5 {
    const WEIGHTS: [[f64; 3]; 7] = [
        [-1. / 2., 0., 0.],
        [-1. / 3., -1. / 3., -1. / 3.],
        [1. / 9., -1. / 9., 1. / 9.],
        [1. / 36., 1. / 18., 1. / 9.],
        [-1. / 60., 1. / 30., -1. / 15.],
        [32. / 45., 16. / 45., 8. / 45.],
        [0., 0., 1.],
    ];

    #[inline(always)]
    unsafe fn input<S: Simd>(d: [S::V; 7]) -> [S::V; 7] {
        // SAFETY: see `Simd`.
        unsafe {
            let [minus_half, four, minus5] = [-0.5, 4.0, -5.0].map(|x| S::splat(x));
            let less = |i: usize| S::fma(minus_half, d[i], d[i + 1]);
            let [a, b, c, e, f, g] = F4::input::<S>([less(0), less(1), less(2), less(3), less(4), less(5)]);
            [a, b, c, e, f, S::fma(four, d[1], S::fma(minus5, d[3], d[5])), g]
        }
    }

    #[inline(always)]
    unsafe fn output<S: Simd>([m0, m1, m2, m3, m4, m5, m6]: [S::V; 7]) -> [S::V; 5] {
        // SAFETY: see `Simd`.
        unsafe {
            let [two, four, eight, sixteen] = [2.0, 4.0, 8.0, 16.0].map(|x| S::splat(x));
            let [half, quarter, eighth, sixteenth] = [0.5, 0.25, 0.125, 0.0625].map(|x| S::splat(x));
            let (sum1, difference1) = (S::add(m1, m2), S::sub(m1, m2));
            let (sum2, difference2) = (S::add(m3, m4), S::sub(m3, m4));
            [
                S::add(S::add(m0, m5), S::add(sum1, sum2)),
                S::fma(half, m5, S::fma(two, difference2, difference1)),
                S::fma(quarter, m5, S::fma(four, sum2, sum1)),
                S::fma(eighth, m5, S::fma(eight, difference2, difference1)),
                S::fma(sixteenth, m5, S::fma(sixteen, sum2, S::add(sum1, m6))),
            ]
        }
    }
}

/// F(6, 3) at the points of [`F4`], 1/2 and -1/2, likewise with the factor x^2 - 1/4.
pub(super) struct F6;

impl Scheme<8, 6> for F6 {
    const WEIGHTS: [[f64; 3]; 8] = [
        [-1., 0., 0.],
        [-2. / 9., -2. / 9., -2. / 9.],
        [-2. / 9., 2. / 9., -2. / 9.],
        [1. / 90., 1. / 45., 2. / 45.],
        [1. / 90., -1. / 45., 2. / 45.],
        [32. / 45., 16. / 45., 8. / 45.],
        [32. / 45., -16. / 45., 8. / 45.],
        [0., 0., 1.],
    ];

    #[inline(always)]
    unsafe fn input<S: Simd>(d: [S::V; 8]) -> [S::V; 8] {
        // SAFETY: see `Simd`.
        unsafe {
            let [half, minus_half, minus_quarter, four, minus5] =
                [0.5, -0.5, -0.25, 4.0, -5.0].map(|x| S::splat(x));
            let less = |i: usize| S::fma(minus_quarter, d[i], d[i + 2]);
            let [a, b, c, e, f, g] = F4::input::<S>([less(0), less(1), less(2), less(3), less(4), less(5)]);
            let odd = S::fma(four, d[1], S::fma(minus5, d[3], d[5]));
            let even = S::fma(four, d[2], S::fma(minus5, d[4], d[6]));
            [a, b, c, e, f, S::fma(half, odd, even), S::fma(minus_half, odd, even), g]
        }
    }

    #[inline(always)]
    unsafe fn output<S: Simd>([m0, m1, m2, m3, m4, m5, m6, m7]: [S::V; 8]) -> [S::V; 6] {
        // SAFETY: see `Simd`.
        unsafe {
            let [two, four, eight, sixteen, many] = [2.0, 4.0, 8.0, 16.0, 32.0].map(|x| S::splat(x));
            let [half, quarter, eighth, sixteenth, few] =
                [0.5, 0.25, 0.125, 0.0625, 0.03125].map(|x| S::splat(x));
            let (sum1, difference1) = (S::add(m1, m2), S::sub(m1, m2));
            let (sum2, difference2) = (S::add(m3, m4), S::sub(m3, m4));
            let (sum3, difference3) = (S::add(m5, m6), S::sub(m5, m6));
            [
                S::add(S::add(m0, sum3), S::add(sum1, sum2)),
                S::fma(half, difference3, S::fma(two, difference2, difference1)),
                S::fma(quarter, sum3, S::fma(four, sum2, sum1)),
                S::fma(eighth, difference3, S::fma(eight, difference2, difference1)),
                S::fma(sixteenth, sum3, S::fma(sixteen, sum2, sum1)),
                S::fma(few, difference3, S::fma(many, difference2, S::add(difference1, m7))),
            ]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::simd::Portable;

    /// Compares a scheme with the sums it stands for, each input and tap by itself: exact but for
    /// the rounding of its fractions.
    fn check<W: Scheme<IN, OUT>, const IN: usize, const OUT: usize>() {
        assert_eq!(weights(OUT), W::WEIGHTS);
        for (input, tap) in (0..IN).flat_map(|input| (0..3).map(move |tap| (input, tap))) {
            let d = std::array::from_fn(|i| [f32::from(u8::from(i == input)); 4]);
            // SAFETY: the portable vectors are everywhere.
            let transformed: [[f32; 4]; IN] = unsafe { W::input::<Portable>(d) };
            let products = std::array::from_fn(|i| transformed[i].map(|d| d * W::WEIGHTS[i][tap] as f32));
            // SAFETY: as above.
            let outputs: [[f32; 4]; OUT] = unsafe { W::output::<Portable>(products) };
            for (i, y) in outputs.into_iter().enumerate() {
                let wanted = f32::from(u8::from(i + tap == input));
                assert!(y.iter().all(|y| (y - wanted).abs() < 2e-6), "{OUT}: d{input} w{tap} y{i} = {y:?}");
            }
        }
    }

    #[test]
    fn schemes_filter() {
        check::<F2, 4, 2>();
        check::<F3, 5, 3>();
        check::<F4, 6, 4>();
        check::<F5, 7, 5>();
        check::<F6, 8, 6>();
    }
}
