//! The number format of the products of an embedding network.

use std::fmt;
use std::str::FromStr;

use super::tiles::TileUnit;
use super::{Device, Isa, simd};

/// The number format in which the CPU computes the products of an embedding network, the most precise first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Arithmetic {
    /// 24 bits of precision, as all sums except those of [`Int8`](Self::Int8).
    #[default]
    F32,
    /// bfloat16, 8 bits of precision and half the memory: faster on some of the CPUs with an instruction for
    /// it. Angles between embeddings differ from those of f32 by less than half a degree.
    Bf16,
    /// Integers of 8 bits with sums of 32 bits, on CPUs with AMX, for models that have scales for it. Layers with few channels
    /// and the last one are computed as in bf16. Angles between embeddings differ from those of f32 by several degrees, and
    /// slightly more faces are missed.
    Int8,
}

/// Why an arithmetic cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArithmeticError {
    /// Not the name of an arithmetic.
    #[error("`{0}` is not a number format: write f32, bf16 or int8")]
    Unknown(String),
    /// Neither the name of an arithmetic nor `auto`.
    #[error("`{0}` is not a number format: write auto, f32, bf16 or int8")]
    UnknownChoice(String),
    /// The CPU has no instruction for it.
    #[error(
        "bf16 would be slower than f32 here: {0} code has no instruction for it (AVX-512 BF16 and AMX have one); omit --precision bf16"
    )]
    Slow(Isa),
    /// The CPU does not multiply tiles of 8-bit integers.
    #[error(
        "int8 needs a CPU with AMX, and this machine has none or does not let programs use it: choose another number format"
    )]
    NoTiles,
    /// On a GPU, the library chooses the arithmetic.
    #[error("--precision {0} is for the CPU: omit it, or choose --device cpu")]
    OnGpu(Arithmetic),
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
            (false, _) => Err(ArithmeticError::OnGpu(self)),
        }
    }

    /// Whether it is worth using with `isa` on this machine.
    ///
    /// # Errors
    /// When the CPU has no instruction for it. bf16 works without one, but slowly.
    pub fn check(self, isa: Isa) -> Result<(), ArithmeticError> {
        match self {
            Self::F32 => Ok(()),
            Self::Bf16 if simd::multiplies_pairs(isa) || TileUnit::of_this_machine(isa).is_some() => Ok(()),
            Self::Bf16 => Err(ArithmeticError::Slow(isa)),
            Self::Int8 if TileUnit::of_this_machine(isa).is_some() => Ok(()),
            Self::Int8 => Err(ArithmeticError::NoTiles),
        }
    }
}

impl FromStr for Arithmetic {
    type Err = ArithmeticError;

    fn from_str(text: &str) -> Result<Self, ArithmeticError> {
        [Self::F32, Self::Bf16, Self::Int8]
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
            Self::Int8 => "int8",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arithmetic_has_a_name_and_is_checked_against_the_machine() {
        for one in [Arithmetic::F32, Arithmetic::Bf16, Arithmetic::Int8] {
            assert_eq!(one.to_string().parse(), Ok(one));
        }
        for text in ["", "BF16", "f16", "int4"] {
            assert_eq!(text.parse::<Arithmetic>(), Err(ArithmeticError::Unknown(text.into())));
        }
        for isa in Isa::available() {
            assert_eq!(Arithmetic::F32.check(isa), Ok(()));
            let checked = Arithmetic::Bf16.check(isa);
            assert!(checked == Ok(()) && isa == Isa::Avx512 || checked == Err(ArithmeticError::Slow(isa)));
            let unit = TileUnit::of_this_machine(isa);
            assert_eq!(Arithmetic::Int8.check(isa), unit.map(|_| ()).ok_or(ArithmeticError::NoTiles));
        }
    }
}
