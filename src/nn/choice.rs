//! The arithmetic of the embedding network, and the reason for it.

use std::fmt;
use std::str::FromStr;

use super::tiles::TileUnit;
use super::{Arithmetic, ArithmeticError, Device, Isa, simd};

/// The arithmetic that a user requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ArithmeticChoice {
    /// The fastest on this CPU that keeps the accuracy of f32. It depends on the CPU, the device and the kind
    /// of network only: the same machine always makes the same choice.
    #[default]
    Auto,
    /// That one, or an error.
    Fixed(Arithmetic),
}

/// The arithmetic of an embedding network, and why it was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChosenArithmetic {
    /// The arithmetic.
    pub arithmetic: Arithmetic,
    /// The reason.
    pub reason: ArithmeticReason,
}

/// Why an arithmetic was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArithmeticReason {
    /// The user requested it.
    Asked,
    /// bf16 was measured to be faster on CPUs of this family.
    Faster,
    /// bf16 was not measured to be faster than f32 on CPUs of this family.
    NotMeasured,
    /// This CPU has no bf16 instruction within this instruction set.
    NoInstruction(Isa),
    /// Imported networks have f32 kernels only.
    Imported,
    /// On a GPU, the library chooses the arithmetic.
    Gpu,
}

impl ArithmeticChoice {
    /// The arithmetic on `device`. `sphereface` tells whether the network is a SphereFace network: imported
    /// ones are computed in f32 only.
    ///
    /// # Errors
    /// When `device` cannot compute in the arithmetic that was requested; never for
    /// [`ArithmeticChoice::Auto`].
    pub fn resolve(self, device: &Device, sphereface: bool) -> Result<ChosenArithmetic, ArithmeticError> {
        match self {
            Self::Fixed(arithmetic) => {
                arithmetic.check_on(device)?;
                Ok(ChosenArithmetic::asked(arithmetic))
            }
            Self::Auto => Ok(fastest(&Facts {
                on_cpu: device.is_cpu(),
                isa: device.isa(),
                multiplies_bf16: simd::multiplies_pairs(device.isa()),
                has_tiles: TileUnit::of_this_machine(device.isa()).is_some(),
                sphereface,
                cpu: CpuFamily::of_this_machine(),
            })),
        }
    }
}

impl ChosenArithmetic {
    /// An arithmetic that was requested.
    pub fn asked(arithmetic: Arithmetic) -> Self {
        Self { arithmetic, reason: ArithmeticReason::Asked }
    }
}

/// The vendor and the family of a CPU, as CPUID gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CpuFamily {
    vendor: [u8; 12],
    family: u32,
}

/// CPUs on which bf16 was measured to be faster than f32 with the built-in networks and SphereFace-20, in
/// batches of 1, 4 and 16, on one and two threads (BENCHMARKS.md, `benches/peers/precision.py`). The
/// instruction alone says little: Intel's Sapphire Rapids has it too, and bf16 is slower than f32 with it
/// there. With AMX, bf16 was measured to be faster on Emerald Rapids, and every CPU with AMX multiplies at least eight
/// times as many numbers in bf16 per cycle as in f32.
const FASTER_IN_BF16: [CpuFamily; 2] = [
    // Zen 4. Zen 3 belongs to the same family but lacks the instruction.
    CpuFamily { vendor: *b"AuthenticAMD", family: 0x19 },
    // Zen 5.
    CpuFamily { vendor: *b"AuthenticAMD", family: 0x1a },
];

impl CpuFamily {
    /// The family of the CPU that this program runs on; `None` for one without CPUID.
    #[cfg(target_arch = "x86_64")]
    fn of_this_machine() -> Option<Self> {
        use std::arch::x86_64::__cpuid;
        // SAFETY: every x86-64 CPU has CPUID with these two leaves.
        #[allow(unused_unsafe, reason = "the function is safe in newer versions of Rust")]
        let (names, numbers) = unsafe { (__cpuid(0), __cpuid(1)) };
        let mut vendor = [0; 12];
        for (part, register) in vendor.chunks_exact_mut(4).zip([names.ebx, names.edx, names.ecx]) {
            part.copy_from_slice(&register.to_le_bytes());
        }
        Some(Self { vendor, family: family(numbers.eax) })
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn of_this_machine() -> Option<Self> {
        None
    }
}

/// The family in the first register of leaf 1: an extension is added to the largest number of the base field.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "there is no CPUID"))]
fn family(eax: u32) -> u32 {
    let base = eax >> 8 & 0xf;
    if base == 0xf { base + (eax >> 20 & 0xff) } else { base }
}

/// The facts that decide [`ArithmeticChoice::Auto`].
#[derive(Debug, Clone, Copy)]
struct Facts {
    on_cpu: bool,
    isa: Isa,
    /// Whether the CPU has a bf16 instruction within `isa`.
    multiplies_bf16: bool,
    /// Whether it multiplies tiles in bf16 (AMX), and the system lets this process use them.
    has_tiles: bool,
    sphereface: bool,
    cpu: Option<CpuFamily>,
}

/// The fastest arithmetic that keeps the accuracy of f32: bf16 where that was measured, else f32.
fn fastest(facts: &Facts) -> ChosenArithmetic {
    let measured = facts.cpu.is_some_and(|cpu| FASTER_IN_BF16.contains(&cpu));
    let (arithmetic, reason) = match facts {
        Facts { on_cpu: false, .. } => (Arithmetic::F32, ArithmeticReason::Gpu),
        Facts { sphereface: false, .. } => (Arithmetic::F32, ArithmeticReason::Imported),
        Facts { has_tiles: true, .. } => (Arithmetic::Bf16, ArithmeticReason::Faster),
        Facts { multiplies_bf16: false, isa, .. } => (Arithmetic::F32, ArithmeticReason::NoInstruction(*isa)),
        _ if !measured => (Arithmetic::F32, ArithmeticReason::NotMeasured),
        _ => (Arithmetic::Bf16, ArithmeticReason::Faster),
    };
    ChosenArithmetic { arithmetic, reason }
}

impl From<Arithmetic> for ArithmeticChoice {
    fn from(arithmetic: Arithmetic) -> Self {
        Self::Fixed(arithmetic)
    }
}

impl FromStr for ArithmeticChoice {
    type Err = ArithmeticError;

    fn from_str(text: &str) -> Result<Self, ArithmeticError> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => text.parse().map(Self::Fixed).map_err(|_| ArithmeticError::UnknownChoice(text.into())),
        }
    }
}

impl fmt::Display for ArithmeticChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Fixed(arithmetic) => arithmetic.fmt(f),
        }
    }
}

impl fmt::Display for ChosenArithmetic {
    /// The arithmetic and the reason for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.arithmetic, self.reason)
    }
}

impl fmt::Display for ArithmeticReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("requested"),
            Self::Faster => f.write_str("faster than f32 on this CPU"),
            Self::NotMeasured => f.write_str("bf16 was not measured to be faster on this CPU"),
            Self::NoInstruction(isa) => write!(f, "{isa} code has no instruction for bf16 here"),
            Self::Imported => f.write_str("imported networks are computed in f32 only"),
            Self::Gpu => f.write_str("the GPU computes in f32"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::DeviceChoice;

    #[test]
    fn a_choice_is_auto_or_an_arithmetic() {
        for (text, choice) in [
            ("auto", ArithmeticChoice::Auto),
            ("f32", ArithmeticChoice::Fixed(Arithmetic::F32)),
            ("bf16", Arithmetic::Bf16.into()),
        ] {
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(choice.to_string(), text);
        }
        for text in ["", "Auto", "f16"] {
            let error = text.parse::<ArithmeticChoice>().unwrap_err();
            assert_eq!(error, ArithmeticError::UnknownChoice(text.into()));
        }
    }

    #[test]
    fn bf16_is_chosen_only_on_cpus_where_it_was_measured_to_be_faster() {
        let [amd, intel, hygon] = [b"AuthenticAMD", b"GenuineIntel", b"HygonGenuine"];
        for (name, vendor, family, multiplies_bf16, expected) in [
            ("Zen 2", amd, 0x17, false, ArithmeticReason::NoInstruction(Isa::Avx512)),
            ("Zen 3", amd, 0x19, false, ArithmeticReason::NoInstruction(Isa::Avx512)),
            ("Zen 4", amd, 0x19, true, ArithmeticReason::Faster),
            ("Zen 5", amd, 0x1a, true, ArithmeticReason::Faster),
            ("a later AMD CPU", amd, 0x1b, true, ArithmeticReason::NotMeasured),
            ("Cooper Lake, or Sapphire Rapids without AMX", intel, 0x6, true, ArithmeticReason::NotMeasured),
            (
                "an Intel CPU with the number of an AMD family",
                intel,
                0x19,
                true,
                ArithmeticReason::NotMeasured,
            ),
            ("Skylake", intel, 0x6, false, ArithmeticReason::NoInstruction(Isa::Avx512)),
            ("Dhyana", hygon, 0x18, false, ArithmeticReason::NoInstruction(Isa::Avx512)),
            ("a later Hygon CPU", hygon, 0x19, true, ArithmeticReason::NotMeasured),
        ] {
            let cpu = Some(CpuFamily { vendor: *vendor, family });
            let isa = Isa::Avx512;
            let facts = Facts { on_cpu: true, isa, multiplies_bf16, has_tiles: false, sphereface: true, cpu };
            let chosen = fastest(&facts);
            assert_eq!(chosen.reason, expected, "{name}");
            let is_bf16 = chosen.arithmetic == Arithmetic::Bf16;
            assert_eq!(is_bf16, chosen.reason == ArithmeticReason::Faster, "{name}");
            // Never on a GPU or for an imported network.
            let f32_for = |facts, reason| {
                let expected = ChosenArithmetic { arithmetic: Arithmetic::F32, reason };
                assert_eq!(fastest(&facts), expected, "{name}");
            };
            f32_for(Facts { on_cpu: false, ..facts }, ArithmeticReason::Gpu);
            f32_for(Facts { sphereface: false, ..facts }, ArithmeticReason::Imported);
            // With AMX whatever else the CPU has, but there neither.
            let tiles = Facts { has_tiles: true, ..facts };
            assert_eq!(fastest(&tiles).reason, ArithmeticReason::Faster, "{name}");
            f32_for(Facts { on_cpu: false, ..tiles }, ArithmeticReason::Gpu);
            f32_for(Facts { sphereface: false, ..tiles }, ArithmeticReason::Imported);
        }
        let arm = Facts {
            on_cpu: true,
            isa: Isa::Neon,
            multiplies_bf16: false,
            has_tiles: false,
            sphereface: true,
            cpu: None,
        };
        assert_eq!(fastest(&arm).reason, ArithmeticReason::NoInstruction(Isa::Neon));
        assert_eq!(fastest(&Facts { multiplies_bf16: true, ..arm }).reason, ArithmeticReason::NotMeasured);
    }

    #[test]
    fn families_are_read_as_their_vendors_number_them() {
        // Zen 4, Zen 5 and Sapphire Rapids.
        assert_eq!([0x00a6_0f12, 0x00b4_0f40, 0x0008_06f8].map(family), [0x19, 0x1a, 0x6]);
    }

    #[test]
    fn what_was_chosen_can_be_computed_in_on_this_machine() {
        for isa in Isa::available() {
            let device = Device::open(DeviceChoice::Cpu, isa).unwrap();
            let chosen = ArithmeticChoice::Auto.resolve(&device, true).unwrap();
            println!("{isa}: {chosen}");
            assert_eq!(chosen.arithmetic.check_on(&device), Ok(()), "{isa}");
            assert_eq!(ArithmeticChoice::Auto.resolve(&device, true), Ok(chosen), "always the same");
            let imported = ArithmeticChoice::Auto.resolve(&device, false).unwrap();
            assert_eq!(imported.arithmetic, Arithmetic::F32);
            let asked = ArithmeticChoice::Fixed(Arithmetic::F32).resolve(&device, true);
            assert_eq!(asked, Ok(ChosenArithmetic::asked(Arithmetic::F32)));
            let asked = ArithmeticChoice::from(Arithmetic::Bf16).resolve(&device, true);
            assert_eq!(asked.is_ok(), Arithmetic::Bf16.check(isa).is_ok(), "{isa}");
        }
    }
}
