//! The number format of the products of an embedding network.

use std::fmt;
use std::str::FromStr;

use super::tiles::TileUnit;
use super::{Device, Isa, simd};

/// The number format in which the CPU computes the products of an embedding network. Sums are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Arithmetic {
    /// 24 bits of precision.
    #[default]
    F32,
    /// bfloat16, 8 bits of precision and half the memory: faster on some of the CPUs with an instruction for
    /// it. Angles between embeddings differ from those of f32 by less than half a degree.
    Bf16,
}

/// Why an arithmetic cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArithmeticError {
    /// Not the name of an arithmetic.
    #[error("`{0}` is not a number format: write f32 or bf16")]
    Unknown(String),
    /// Neither the name of an arithmetic nor `auto`.
    #[error("`{0}` is not a number format: write auto, f32 or bf16")]
    UnknownChoice(String),
    /// The CPU has no instruction for it.
    #[error(
        "bf16 would be slower than f32 here: {0} code has no instruction for it (AVX-512 BF16 and AMX have one); omit --precision bf16"
    )]
    Slow(Isa),
    /// On a GPU, the library chooses the arithmetic.
    #[error("--precision bf16 is for the CPU: omit it, or choose --device cpu")]
    OnGpu,
}

impl Arithmetic {
    /// Whether it is worth using on `device`.
    ///
    /// # Errors
    /// As for [`check`](Self::check), and on a GPU for anything but f32.
    pub fn check_on(self, device: &Device) -> Result<(), ArithmeticError> {
        match (device.is_cpu(), self) {
            (true, _) => self.check(device.isa()),
            (false, Self::F32) => Ok(()),
            (false, _) => Err(ArithmeticError::OnGpu),
        }
    }

    /// Whether it is worth using with `isa` on this machine.
    ///
    /// # Errors
    /// When the CPU has no instruction for it. It works without one, but slowly.
    pub fn check(self, isa: Isa) -> Result<(), ArithmeticError> {
        match self {
            Self::F32 => Ok(()),
            Self::Bf16 if simd::multiplies_pairs(isa) || TileUnit::of_this_machine(isa).is_some() => Ok(()),
            Self::Bf16 => Err(ArithmeticError::Slow(isa)),
        }
    }
}

impl FromStr for Arithmetic {
    type Err = ArithmeticError;

    fn from_str(text: &str) -> Result<Self, ArithmeticError> {
        [Self::F32, Self::Bf16]
            .into_iter()
            .find(|one| one.to_string() == text)
            .ok_or_else(|| ArithmeticError::Unknown(text.into()))
    }
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arithmetic_has_a_name_and_is_checked_against_the_machine() {
        for one in [Arithmetic::F32, Arithmetic::Bf16] {
            assert_eq!(one.to_string().parse(), Ok(one));
        }
        for text in ["", "BF16", "f16", "int8"] {
            assert_eq!(text.parse::<Arithmetic>(), Err(ArithmeticError::Unknown(text.into())));
        }
        for isa in Isa::available() {
            assert_eq!(Arithmetic::F32.check(isa), Ok(()));
            let checked = Arithmetic::Bf16.check(isa);
            assert!(checked == Ok(()) && isa == Isa::Avx512 || checked == Err(ArithmeticError::Slow(isa)));
        }
    }
}
