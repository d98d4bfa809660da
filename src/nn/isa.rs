//! The instruction set of the CPU kernels.

use std::fmt;

/// Instruction sets the kernels are written for, best last on its own architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust, for every machine; also the reference the others are tested against.
    Portable,
    /// 64-bit Arm with 128-bit vectors.
    Neon,
    /// x86-64 with AVX2, FMA and F16C, 256-bit vectors.
    Avx2,
    /// x86-64 with AVX-512 F, 512-bit vectors.
    Avx512,
}

/// Environment variable that forces a lower instruction set.
pub const ISA_VARIABLE: &str = "SPHEREFACE_ISA";

/// Why an instruction set requested by name cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IsaError {
    /// Not one of the names.
    #[error("{ISA_VARIABLE}={0} is not an instruction set: use portable, neon, avx2 or avx512")]
    Unknown(String),
    /// This machine does not have it.
    #[error("this machine cannot run {0} code: unset {ISA_VARIABLE} or choose one of {1}")]
    Unsupported(Isa, String),
}

impl Isa {
    /// Every instruction set, lowest first.
    pub const ALL: [Isa; 4] = [Isa::Portable, Isa::Neon, Isa::Avx2, Isa::Avx512];

    /// The instruction sets this machine can run, lowest first.
    pub fn available() -> Vec<Isa> {
        Self::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// The best instruction set of this machine.
    pub fn best() -> Isa {
        Self::available().pop().unwrap_or(Isa::Portable)
    }

    /// The instruction set that [`ISA_VARIABLE`] names, else the best of this machine.
    ///
    /// # Errors
    /// When the variable holds no known name, or one that this machine cannot run.
    pub fn from_environment() -> Result<Isa, IsaError> {
        match std::env::var(ISA_VARIABLE) {
            Ok(name) if !name.is_empty() => Self::from_name(&name),
            _ => Ok(Self::best()),
        }
    }

    /// The instruction set of that name, if this machine can run it.
    ///
    /// # Errors
    /// When the name is unknown, or this machine cannot run that code.
    pub fn from_name(name: &str) -> Result<Isa, IsaError> {
        let isa = Self::ALL
            .into_iter()
            .find(|isa| isa.to_string() == name)
            .ok_or_else(|| IsaError::Unknown(name.to_owned()))?;
        if isa.is_available() {
            return Ok(isa);
        }
        let names: Vec<String> = Self::available().iter().map(Isa::to_string).collect();
        Err(IsaError::Unsupported(isa, names.join(", ")))
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isa::Portable => "portable",
            Isa::Neon => "neon",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_against_the_machine() {
        assert_eq!(Isa::from_name("portable"), Ok(Isa::Portable));
        assert_eq!(Isa::from_name("sse9"), Err(IsaError::Unknown("sse9".into())));
        for isa in Isa::ALL {
            assert_eq!(Isa::from_name(&isa.to_string()).is_ok(), isa.is_available());
        }
    }
}
