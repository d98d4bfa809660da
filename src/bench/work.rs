//! Operations of the networks: two per multiply-add of the convolutions and fully connected layers in direct
//! form, however they are computed.

use crate::detect::{DetectorConfig, Refiner};
use crate::embed::{Architecture, Family};

/// Operations of an embedding network on one crop.
pub fn family(family: &Family) -> f64 {
    match family {
        Family::SphereFace(architecture) => embedding(architecture),
        Family::Imported(plan) => plan.operations(),
    }
}

/// Operations of a SphereFace network on one crop.
pub fn embedding(architecture: &Architecture) -> f64 {
    architecture.plan().operations()
}

/// Operations of P-Net over the pyramid of a picture.
pub fn proposal(config: &DetectorConfig, (width, height): (u32, u32)) -> f64 {
    let mut total = 0;
    for (width, height) in config.pyramid(width, height) {
        let first = [width - 2, height - 2];
        let second = first.map(|side| side.div_ceil(2) - 2);
        let third = second.map(|side| side - 2);
        total += first[0] * first[1] * 27 * 10
            + second[0] * second[1] * 90 * 16
            + third[0] * third[1] * (144 * 32 + 32 * 6);
    }
    2.0 * total as f64
}

/// Operations of R-Net or O-Net on one square.
pub fn refine(network: Refiner) -> f64 {
    let total = match network {
        Refiner::R => 22 * 22 * 27 * 28 + 9 * 9 * 252 * 48 + 3 * 3 * 192 * 64 + 576 * 128 + 128 * 6,
        Refiner::O => {
            46 * 46 * 27 * 32
                + 21 * 21 * 288 * 64
                + 8 * 8 * 576 * 64
                + 3 * 3 * 256 * 128
                + 1152 * 256
                + 256 * 16
        }
    };
    2.0 * f64::from(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_those_the_literature_counts() {
        let sphere20 = Architecture::of_depth(20).unwrap();
        assert_eq!((embedding(&sphere20) / 1e8).round(), 35.0);
        // Multiply-adds over 9 levels, counted separately.
        let config = DetectorConfig::default();
        assert_eq!(config.pyramid(1280, 720).len(), 9);
        assert_eq!((proposal(&config, (1280, 720)) / 2e6).round(), 281.0);
    }
}
