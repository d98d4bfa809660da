//! Convolutions of stride 2 on tiles of 2 x 2 outputs.
//!
//! Along a row the outputs are y[i] = (w[0] d[2i] + w[2] d[2i + 2]) + w[1] d[2i + 1]: a filter of two
//! taps on the even pixels and one of a single tap on the odd ones. The first is F(2, 2) at the points 0, 1
//! and infinity. A single tap has no part at infinity, so the second needs the points 0 and 1 only. Both have
//! the same output transform, and the matrix product adds them: at each point it runs over the inputs from
//! even and odd rows and columns. That makes 25 products per four outputs and pair of channels instead of 36.

use std::ops::Range;

use super::super::{Activation, padded};
use super::{Filters, Form, Number, Scheme, Step, Weights, Winograd};
use crate::nn::Isa;
use crate::nn::simd::Simd;

/// The scheme of the three even pixels, and the output transform of both.
pub(super) struct Halving;

/// Points along a side of a transformed tile; the last is infinity.
const SIDE: usize = 3;

/// Output pixels along a side of a tile.
const OUT: usize = 2;

/// Input pixels along a side of a tile.
const IN: usize = 5;

/// G for the odd pixels.
const ODD: [[f64; 3]; OUT] = [[0., 1., 0.]; OUT];

impl Scheme<SIDE, OUT> for Halving {
    const WEIGHTS: [[f64; 3]; SIDE] = [[1., 0., 0.], [1., 0., 1.], [0., 0., 1.]];

    #[inline(always)]
    unsafe fn input<S: Simd>([a, b, c]: [S::V; SIDE]) -> [S::V; SIDE] {
        // SAFETY: see `Simd`.
        unsafe { [S::sub(a, b), b, S::sub(c, b)] }
    }

    #[inline(always)]
    unsafe fn output<S: Simd>([a, b, c]: [S::V; SIDE]) -> [S::V; OUT] {
        // SAFETY: see `Simd`.
        unsafe { [S::add(a, b), S::add(b, c)] }
    }
}

/// The number of kinds of rows, or of columns, that have a part at a point: even and odd ones, or even ones
/// only.
const fn kinds(at: usize) -> usize {
    if at < OUT { 2 } else { 1 }
}

/// Steps of the matrix product, in units of the input channels, before those for even or odd rows
/// and columns (0 and 1) at a point of column `column`.
const fn run(row_kind: usize, column_kind: usize, column: usize) -> usize {
    row_kind * kinds(column) + column_kind
}

impl Halving {
    /// Steps of the matrix product at a point, in units of the input channels.
    pub(super) const fn runs(point: usize) -> usize {
        kinds(point / SIDE) * kinds(point % SIDE)
    }

    /// B' d of odd pixels.
    ///
    /// # Safety
    /// See [`Simd`].
    #[inline(always)]
    unsafe fn odd<S: Simd>([a, b]: [S::V; OUT]) -> [S::V; OUT] {
        // SAFETY: the caller's.
        unsafe { [S::sub(a, b), b] }
    }
}

impl Winograd {
    /// A convolution of stride 2 onto maps of half the height and width; `weight` [out, in, 3, 3].
    /// The maps that come in have [`padded`] channels.
    pub(crate) fn halving(
        isa: Isa,
        form: Form,
        weight: &[f32],
        inputs: usize,
        activation: Activation,
    ) -> Self {
        let (stored, outputs) = (padded(inputs, isa), padded(weight.len() / (9 * inputs), isa));
        assert!(activation.len() >= outputs);
        let filters: [[f64; 3]; SIDE + OUT] = std::array::from_fn(|i| match i.checked_sub(SIDE) {
            Some(odd) => ODD[odd],
            None => Halving::WEIGHTS[i],
        });
        let place = |y: usize, x: usize| {
            let [row, column] = [y, x].map(|i| (i / SIDE, i % SIDE));
            (row.1 * SIDE + column.1, run(row.0, column.0, column.1))
        };
        let runs: Vec<usize> = (0..SIDE * SIDE).map(Halving::runs).collect();
        let filters = Filters { sides: [&filters; 2], place: &place, runs: &runs };
        let weights = Weights::new(isa, form, weight, [inputs, stored], outputs, &filters);
        Self { isa, tile: [OUT; 2], stride: 2, weights, inputs: stored, outputs, run: stored, activation }
    }
}

impl Step<'_> {
    /// Transforms some tiles of the input of a convolution of stride 2.
    ///
    /// # Safety
    /// As checked by [`Winograd::apply`].
    #[inline(always)]
    pub(super) unsafe fn halved_input<S: Simd, N: Number>(&self, tiles: Range<usize>) {
        let channels = self.layer.inputs;
        let point = self.input_point();
        let pitch = self.from.pitch();
        for tile in tiles {
            let (map, y, x) = self.place(tile);
            let corner = map * self.from.len() + (self.from.at(2 * y, 2 * x) - self.from.at(0, 0));
            let corner = self.input[corner..].as_ptr();
            for c in (0..channels).step_by(S::LANES) {
                // SAFETY: the maps hold whole tiles with their border, the block `tiles` tiles, and
                // every point `runs` times the channels of each.
                unsafe {
                    let zero = S::splat(0.0);
                    // The transforms of the even rows, then of the odd ones.
                    let mut half = [[zero; IN]; SIDE + OUT];
                    for x in 0..IN {
                        let mut d = [zero; IN];
                        for (y, value) in d.iter_mut().enumerate() {
                            *value = S::load(corner.add(y * pitch + x * channels + c));
                        }
                        let even = Halving::input::<S>([d[0], d[2], d[4]]);
                        let odd = Halving::odd::<S>([d[1], d[3]]);
                        for y in 0..SIDE {
                            half[y][x] = even[y];
                        }
                        for y in 0..OUT {
                            half[SIDE + y][x] = odd[y];
                        }
                    }
                    for (y, d) in half.into_iter().enumerate() {
                        let (row_kind, row) = (y / SIDE, y % SIDE);
                        let even = Halving::input::<S>([d[0], d[2], d[4]]);
                        let odd = Halving::odd::<S>([d[1], d[3]]);
                        for column in 0..SIDE {
                            let at = row * SIDE + column;
                            let depth = Halving::runs(at) * channels / N::CHANNELS;
                            let to = self.input_tiles.add(at * point + tile * depth);
                            let part = |run| (run * channels + c) / N::CHANNELS;
                            N::store::<S>(to.add(part(run(row_kind, 0, column))), even[column]);
                            if column < OUT {
                                N::store::<S>(to.add(part(run(row_kind, 1, column))), odd[column]);
                            }
                        }
                    }
                }
            }
        }
    }
}
