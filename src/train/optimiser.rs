//! The optimisers.

use super::config::{OptimiserConfig, OptimiserKind};
use super::parameters::Parameter;
use crate::nn::Isa;
use crate::nn::simd::{self, Kernel, Simd};
use crate::nn::team::{Parts, Team};

/// An optimiser with its state.
#[derive(Debug, Clone)]
pub struct Optimiser {
    config: OptimiserConfig,
    /// State per parameter: the momentum, and for AdamW the second moment.
    pub memory: Vec<[Vec<f32>; 2]>,
}

/// AdamW's epsilon.
const EPSILON: f64 = 1e-8;

/// Numbers that a thread takes at a time.
pub(super) const PART: usize = 1 << 16;

impl Optimiser {
    /// An optimiser without state.
    pub fn new(config: OptimiserConfig, parameters: &[Parameter]) -> Self {
        let second = config.kind == OptimiserKind::AdamW;
        let zeros = |p: &Parameter, wanted: bool| vec![0.0; if wanted { p.value.len() } else { 0 }];
        let memory = parameters.iter().map(|p| [zeros(p, true), zeros(p, second)]).collect();
        Self { config, memory }
    }

    /// Norm of the gradient of all parameters together.
    pub(crate) fn gradient_length(parameters: &[Parameter], team: &mut Team) -> f64 {
        let square = |x: f32| f64::from(x) * f64::from(x);
        let of_part = |part: &[f32]| {
            // Independent sums, which the CPU adds in parallel.
            let mut sums = [0.0; 8];
            let (eights, rest) = part.as_chunks::<8>();
            for eight in eights {
                sums.iter_mut().zip(eight).for_each(|(sum, &x)| *sum += square(x));
            }
            sums.iter().sum::<f64>() + rest.iter().map(|&x| square(x)).sum::<f64>()
        };
        let mut sum = 0.0;
        for Parameter { gradient, .. } in parameters.iter().filter(|p| p.rate > 0.0) {
            let parts = gradient.len().div_ceil(PART);
            let sums = team.map(parts, |part| {
                let start = part * PART;
                of_part(&gradient[start..gradient.len().min(start + PART)])
            });
            sum += sums.iter().sum::<f64>();
        }
        sum.sqrt()
    }

    /// One step, the `t`-th (from 1), at a learning rate, given the norm of the gradient.
    ///
    /// - sgd, as Caffe: v = momentum v + rate (g + decay w), w = w - v, so that a momentum gathered at one
    ///   rate keeps that rate when it is lowered.
    /// - adamw: Loshchilov and Hutter, 2019.
    pub(crate) fn step(
        &mut self,
        parameters: &mut [Parameter],
        (rate, t, length): (f64, u64, f64),
        isa: Isa,
        team: &mut Team,
    ) {
        let OptimiserConfig { kind, momentum, second_momentum, decay, clip, .. } = self.config;
        let scale = if clip > 0.0 && length > clip { clip / length } else { 1.0 } as f32;
        for (p, [first, second]) in parameters.iter_mut().zip(&mut self.memory) {
            if p.rate == 0.0 {
                continue;
            }
            let rate = rate * p.rate;
            let rule = match kind {
                OptimiserKind::Sgd => Rule::Sgd {
                    scale,
                    momentum: momentum as f32,
                    rate: rate as f32,
                    decay: (decay * p.decay) as f32,
                },
                OptimiserKind::AdamW => {
                    let t = t.min(1 << 30) as i32;
                    let root = (1.0 - second_momentum.powi(t)).sqrt();
                    Rule::AdamW {
                        scale,
                        momenta: [momentum as f32, second_momentum as f32],
                        step: (rate * root / (1.0 - momentum.powi(t))) as f32,
                        epsilon: (EPSILON * root) as f32,
                        shrink: (1.0 - rate * decay * p.decay) as f32,
                    }
                }
            };
            let gradient = &p.gradient;
            let (first, second) = (Parts::new(first, PART), Parts::new(second, PART));
            team.run_parts(&mut p.value, PART, |_, part, value| {
                let start = part * PART;
                let gradient = &gradient[start..start + value.len()];
                // SAFETY: every item takes its own part. There is no second moment but for AdamW.
                let (first, second) = unsafe {
                    let second = if part < second.count() { second.get(part) } else { &mut [] };
                    (first.get(part), second)
                };
                simd::run(isa, Update { rule, value, gradient, first, second });
            });
        }
    }
}

/// How parameters follow from their gradients.
#[derive(Debug, Clone, Copy)]
enum Rule {
    Sgd { scale: f32, momentum: f32, rate: f32, decay: f32 },
    AdamW { scale: f32, momenta: [f32; 2], step: f32, epsilon: f32, shrink: f32 },
}

/// A step of some numbers.
struct Update<'a> {
    rule: Rule,
    value: &'a mut [f32],
    gradient: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
}

impl Kernel for Update<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { rule, value, gradient, first, second } = self;
        match rule {
            Rule::Sgd { scale, momentum, rate, decay } => {
                for ((w, &g), v) in value.iter_mut().zip(gradient).zip(first) {
                    *v = momentum * *v + rate * (scale * g + decay * *w);
                    *w -= *v;
                }
            }
            Rule::AdamW { scale, momenta: [b1, b2], step, epsilon, shrink } => {
                for (((w, &g), m), v) in value.iter_mut().zip(gradient).zip(first).zip(second) {
                    let g = scale * g;
                    *m = b1 * *m + (1.0 - b1) * g;
                    *v = b2 * *v + (1.0 - b2) * g * g;
                    *w = shrink * *w - step * *m / (v.sqrt() + epsilon);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(optimiser: &mut Optimiser, list: &mut [Parameter], rate: f64, t: u64, length: f64) {
        optimiser.step(list, (rate, t, length), Isa::best(), &mut Team::new(2));
    }

    /// Parts of several threads and vectors give what one number after the other gives.
    #[test]
    fn steps_do_not_depend_on_parts_threads_or_instructions() {
        for kind in [OptimiserKind::Sgd, OptimiserKind::AdamW] {
            let config = OptimiserConfig { kind, decay: 0.01, clip: 1.0, ..OptimiserConfig::default() };
            let number = |i: usize| (i * 37 % 101) as f32 / 64.0 - 0.75;
            let long = 2 * PART + 5;
            let of = |range: std::ops::Range<usize>| {
                let gradient = range.clone().map(number).collect();
                let value = range.clone().map(|i| number(i + 50)).collect();
                Parameter { gradient, value, ..Parameter::filled("w", vec![range.len()], 0.0) }
            };
            let mut whole = [of(0..long)];
            let length = Optimiser::gradient_length(&whole, &mut Team::new(3));
            let squares: f64 = (0..long).map(|i| f64::from(number(i)).powi(2)).sum();
            assert!((length - squares.sqrt()).abs() < 1e-9 * length);
            assert_eq!(length, Optimiser::gradient_length(&whole, &mut Team::new(1)));
            let mut single: Vec<[Parameter; 1]> =
                [0, PART - 1, PART, long - 1].map(|i| [of(i..i + 1)]).into();
            let mut optimiser = Optimiser::new(config.clone(), &whole);
            let mut singles: Vec<_> = single.iter().map(|one| Optimiser::new(config.clone(), one)).collect();
            for t in 1..4 {
                optimiser.step(&mut whole, (0.1, t, length), Isa::best(), &mut Team::new(3));
                for (optimiser, one) in singles.iter_mut().zip(&mut single) {
                    optimiser.step(one, (0.1, t, length), Isa::Portable, &mut Team::new(1));
                }
            }
            for (i, one) in [0, PART - 1, PART, long - 1].into_iter().zip(&single) {
                assert_eq!(whole[0].value[i].to_bits(), one[0].value[0].to_bits(), "{kind:?} {i}");
            }
        }
    }

    fn parameter(rate: f64, decay: f64) -> Parameter {
        Parameter { rate, decay, gradient: vec![0.5], ..Parameter::filled("w", vec![1], 2.0) }
    }

    #[test]
    fn sgd_has_momentum_and_every_parameter_its_own_rate_and_decay() {
        let config = OptimiserConfig { decay: 0.1, ..OptimiserConfig::default() };
        let mut list = [parameter(1.0, 1.0), parameter(2.0, 0.0), parameter(0.0, 0.0)];
        let mut optimiser = Optimiser::new(config, &list);
        step(&mut optimiser, &mut list, 0.1, 1, 1.0);
        let values = |list: &[Parameter]| list.iter().map(|p| p.value[0]).collect::<Vec<_>>();
        assert_eq!(values(&list), [2.0 - 0.1 * (0.5 + 0.2), 2.0 - 0.2 * 0.5, 2.0]);
        // The momentum keeps the rate at which it was gathered.
        step(&mut optimiser, &mut list, 0.01, 2, 1.0);
        let expected = 1.93 - (0.9 * 0.07 + 0.01 * (0.5 + 0.1 * 1.93));
        assert!((list[0].value[0] - expected as f32).abs() < 1e-6);
    }

    #[test]
    fn a_long_gradient_is_scaled_down() {
        let config = OptimiserConfig { decay: 0.0, clip: 0.25, ..OptimiserConfig::default() };
        let mut list = [parameter(1.0, 1.0)];
        let length = Optimiser::gradient_length(&list, &mut Team::default());
        assert_eq!(length, 0.5);
        step(&mut Optimiser::new(config, &list), &mut list, 1.0, 1, length);
        assert_eq!(list[0].value[0], 1.75);
    }

    #[test]
    fn the_first_step_of_adamw_is_as_long_as_the_rate() {
        let config = OptimiserConfig { kind: OptimiserKind::AdamW, decay: 0.1, ..OptimiserConfig::default() };
        let mut list = [parameter(1.0, 1.0)];
        step(&mut Optimiser::new(config, &list), &mut list, 0.01, 1, 1.0);
        assert!((list[0].value[0] - (2.0 * (1.0 - 0.01 * 0.1) - 0.01)).abs() < 1e-6, "{}", list[0].value[0]);
    }
}
