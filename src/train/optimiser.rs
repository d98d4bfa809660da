//! The optimisers.

use super::config::{OptimiserConfig, OptimiserKind};
use super::parameters::Parameter;

/// An optimiser with its state.
#[derive(Debug, Clone)]
pub struct Optimiser {
    config: OptimiserConfig,
    /// State per parameter: the momentum, and for AdamW the second moment.
    pub memory: Vec<[Vec<f32>; 2]>,
}

/// AdamW's epsilon.
const EPSILON: f64 = 1e-8;

impl Optimiser {
    /// An optimiser without state.
    pub fn new(config: OptimiserConfig, parameters: &[Parameter]) -> Self {
        let second = config.kind == OptimiserKind::AdamW;
        let zeros = |p: &Parameter, wanted: bool| vec![0.0; if wanted { p.value.len() } else { 0 }];
        let memory = parameters.iter().map(|p| [zeros(p, true), zeros(p, second)]).collect();
        Self { config, memory }
    }

    /// Norm of the gradient of all parameters together.
    pub fn gradient_length(parameters: &[Parameter]) -> f64 {
        let square = |p: &Parameter| p.gradient.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>();
        parameters.iter().filter(|p| p.rate > 0.0).map(square).sum::<f64>().sqrt()
    }

    /// One step, the `t`-th (from 1), at a learning rate, given the norm of the gradient.
    ///
    /// - sgd, as Caffe: v = momentum v + rate (g + decay w), w = w - v, so that a momentum gathered at one
    ///   rate keeps that rate when it is lowered.
    /// - adamw: Loshchilov and Hutter, 2019.
    pub fn step(&mut self, parameters: &mut [Parameter], rate: f64, t: u64, length: f64) {
        let OptimiserConfig { kind, momentum, second_momentum, decay, clip, .. } = self.config;
        let scale = if clip > 0.0 && length > clip { clip / length } else { 1.0 } as f32;
        for (p, [first, second]) in parameters.iter_mut().zip(&mut self.memory) {
            if p.rate == 0.0 {
                continue;
            }
            let rate = rate * p.rate;
            match kind {
                OptimiserKind::Sgd => {
                    let (momentum, rate, decay) = (momentum as f32, rate as f32, (decay * p.decay) as f32);
                    for ((w, &g), v) in p.value.iter_mut().zip(&p.gradient).zip(first) {
                        *v = momentum * *v + rate * (scale * g + decay * *w);
                        *w -= *v;
                    }
                }
                OptimiserKind::AdamW => {
                    let (b1, b2) = (momentum as f32, second_momentum as f32);
                    let t = t.min(1 << 30) as i32;
                    let root = (1.0 - second_momentum.powi(t)).sqrt();
                    let step = (rate * root / (1.0 - momentum.powi(t))) as f32;
                    let epsilon = (EPSILON * root) as f32;
                    let shrink = (1.0 - rate * decay * p.decay) as f32;
                    for (((w, &g), m), v) in p.value.iter_mut().zip(&p.gradient).zip(first).zip(second) {
                        let g = scale * g;
                        *m = b1 * *m + (1.0 - b1) * g;
                        *v = b2 * *v + (1.0 - b2) * g * g;
                        *w = shrink * *w - step * *m / (v.sqrt() + epsilon);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(rate: f64, decay: f64) -> Parameter {
        Parameter { rate, decay, gradient: vec![0.5], ..Parameter::filled("w", vec![1], 2.0) }
    }

    #[test]
    fn sgd_has_momentum_and_every_parameter_its_own_rate_and_decay() {
        let config = OptimiserConfig { decay: 0.1, ..OptimiserConfig::default() };
        let mut list = [parameter(1.0, 1.0), parameter(2.0, 0.0), parameter(0.0, 0.0)];
        let mut optimiser = Optimiser::new(config, &list);
        optimiser.step(&mut list, 0.1, 1, 1.0);
        let values = |list: &[Parameter]| list.iter().map(|p| p.value[0]).collect::<Vec<_>>();
        assert_eq!(values(&list), [2.0 - 0.1 * (0.5 + 0.2), 2.0 - 0.2 * 0.5, 2.0]);
        // The momentum keeps the rate at which it was gathered.
        optimiser.step(&mut list, 0.01, 2, 1.0);
        let expected = 1.93 - (0.9 * 0.07 + 0.01 * (0.5 + 0.1 * 1.93));
        assert!((list[0].value[0] - expected as f32).abs() < 1e-6);
    }

    #[test]
    fn a_long_gradient_is_scaled_down() {
        let config = OptimiserConfig { decay: 0.0, clip: 0.25, ..OptimiserConfig::default() };
        let mut list = [parameter(1.0, 1.0)];
        let length = Optimiser::gradient_length(&list);
        assert_eq!(length, 0.5);
        Optimiser::new(config, &list).step(&mut list, 1.0, 1, length);
        assert_eq!(list[0].value[0], 1.75);
    }

    #[test]
    fn the_first_step_of_adamw_is_as_long_as_the_rate() {
        let config = OptimiserConfig { kind: OptimiserKind::AdamW, decay: 0.1, ..OptimiserConfig::default() };
        let mut list = [parameter(1.0, 1.0)];
        Optimiser::new(config, &list).step(&mut list, 0.01, 1, 1.0);
        assert!((list[0].value[0] - (2.0 * (1.0 - 0.01 * 0.1) - 0.01)).abs() < 1e-6, "{}", list[0].value[0]);
    }
}
