//! The cross-entropy over classes whose logits are products with a vector, times a factor.

use crate::nn::gemm::Number;
use crate::nn::simd::{Kernel, Simd};

/// Sums that are added up independently, so that a vector holds them.
const LANES: usize = 8;

/// Replaces the products in `row` by derivatives.
pub(super) struct Softmax<'a, T> {
    /// Products, then `factor` times the probability of each class.
    pub(super) row: &'a mut [T],
    /// Reusable memory.
    pub(super) logits: &'a mut Vec<f64>,
    /// The logit of a product is `factor` times it, and so is the derivative.
    pub(super) factor: f64,
    /// The target class and its logit.
    pub(super) own: (usize, f64),
    pub(super) result: &'a mut Sums,
}

/// What the probabilities add up to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sums {
    /// The probability of the target class, and the negative of its logarithm.
    pub(super) own: f64,
    pub(super) loss: f64,
    /// The sum over all other classes of probability times logit.
    pub(super) mean_of_others: f64,
}

impl<T: Number> Kernel for Softmax<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { row, logits, factor, own: (label, own), result } = self;
        logits.clear();
        logits.extend(row.iter().map(|&product| {
            let product: f64 = product.into();
            factor * product
        }));
        logits[label] = own;
        let most =
            fold(logits, f64::NEG_INFINITY, |most, &mut logit| if logit > most { logit } else { most })
                .into_iter()
                .fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = fold(logits, 0.0, |sum, logit| {
            *logit = exp(*logit - most);
            sum + *logit
        })
        .into_iter()
        .sum();
        let by_total = 1.0 / total;
        result.own = logits[label] * by_total;
        result.loss = total.ln() - (own - most);
        // Not of the target class: its product is not its logit.
        logits[label] = 0.0;
        let mut sums = [0.0; LANES];
        for (row, logits) in row.chunks_mut(LANES).zip(logits.chunks(LANES)) {
            for ((to, &exponential), sum) in row.iter_mut().zip(logits).zip(&mut sums) {
                let (p, product): (f64, f64) = (exponential * by_total, (*to).into());
                *sum += p * (factor * product);
                *to = T::from_f64(p * factor);
            }
        }
        result.mean_of_others = sums.iter().sum();
    }
}

/// Folds every [`LANES`]-th number on its own.
#[inline(always)]
fn fold(numbers: &mut [f64], start: f64, step: impl Fn(f64, &mut f64) -> f64) -> [f64; LANES] {
    let mut lanes = [start; LANES];
    let (whole, rest) = numbers.as_chunks_mut::<LANES>();
    for numbers in whole {
        for (lane, number) in lanes.iter_mut().zip(numbers) {
            *lane = step(*lane, number);
        }
    }
    for (lane, number) in lanes.iter_mut().zip(rest) {
        *lane = step(*lane, number);
    }
    lanes
}

/// e to the power of a number that is not positive, without a branch, so that vectors hold several: below -708 it is that
/// of -708, which is nearly the smallest number. The polynomial is Taylor's, for at most half of ln 2 on either side.
#[inline(always)]
fn exp(x: f64) -> f64 {
    const LEAST: f64 = -708.0;
    // ln 2 in two parts, the first of which has so few bits that its multiples are exact (Cody and Waite).
    const LN_2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];
    // Adding it rounds to an integer, which is then in the lowest bits.
    const ROUNDING: f64 = 6_755_399_441_055_744.0;
    let x = if x > LEAST { x } else { LEAST };
    let shifted = x * std::f64::consts::LOG2_E + ROUNDING;
    let powers = shifted - ROUNDING;
    let r = (x - powers * LN_2[0]) - powers * LN_2[1];
    // 1 / n!, from the last on.
    const FACTORS: [f64; 12] = [
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
    ];
    let sum = FACTORS.iter().fold(1.0 / 6_227_020_800.0, |sum, factor| sum * r + factor);
    let power = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1.0_f64.to_bits()));
    power * (sum * r + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_that_of_the_standard_library() {
        for x in (0..=70_800).map(|i| f64::from(i) / -100.0).chain([-1e-300, -0.346_573_590_28, -1e-9]) {
            let (found, wanted) = (exp(x), x.exp());
            assert!((found - wanted).abs() <= 4e-16 * wanted, "{x}: {found:e} {wanted:e}");
        }
        for x in [-709.0, -1e6, f64::NEG_INFINITY] {
            assert!((0.0..1e-300).contains(&exp(x)), "{x}");
        }
    }
}
