//! Intel AMX by inline assembly: its intrinsics are not stable in Rust.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::marker::PhantomData;
use std::sync::OnceLock;

use super::{ConfiguredTiles, LINE, STRIDE, TILE, TileNumbers, TileProduct, WHOLE_TILES};

/// Whether the CPU has AMX for bfloat16 and 8-bit integers and the operating system lets this process use it. The system is asked at
/// the first call.
pub(super) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| cpu_has_it() && system_grants_it())
}

/// Whether the CPU has AMX for bfloat16 and 8-bit integers, as all so far, with the tiles that the kernels count on, and the operating system saves
/// their state.
fn cpu_has_it() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const AMX_TILE_INT8_AND_BF16: u32 = 1 << 25 | 1 << 24 | 1 << 22;
    const TILE_CONFIGURATION_AND_DATA: u64 = 1 << 17 | 1 << 18;
    // SAFETY: every x86-64 CPU has CPUID, and no leaf is asked for beyond the last.
    #[allow(unused_unsafe, reason = "the functions are safe in newer versions of Rust")]
    let (saves, features, palette) = unsafe {
        if __cpuid(0).eax < 0x1d {
            return false;
        }
        (__cpuid(1).ecx & OSXSAVE != 0, __cpuid_count(7, 0).edx, __cpuid_count(0x1d, 1))
    };
    if !saves || features & AMX_TILE_INT8_AND_BF16 != AMX_TILE_INT8_AND_BF16 {
        return false;
    }
    let tiles = [palette.eax >> 16, palette.ebx & 0xffff, palette.ebx >> 16, palette.ecx & 0xffff];
    // SAFETY: the system has enabled XGETBV, as just checked.
    let enabled = unsafe { _xgetbv(0) };
    // Bytes of a tile and of a row, tiles, and rows.
    tiles == [1024, 64, 8, 16] && enabled & TILE_CONFIGURATION_AND_DATA == TILE_CONFIGURATION_AND_DATA
}

/// Asks Linux for leave to use the tiles: without it the first instruction that does ends the process. Leave is for
/// all threads of the process and those forked from it.
#[cfg(target_os = "linux")]
fn system_grants_it() -> bool {
    const ARCH_PRCTL: isize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XFEATURE_XTILEDATA: usize = 18;
    let result: isize;
    // SAFETY: the call takes two numbers and touches no memory of this process. Besides the result, `syscall`
    // changes two registers, both named.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// How other systems are asked is not known here.
#[cfg(not(target_os = "linux"))]
fn system_grants_it() -> bool {
    false
}

/// The tiles of this thread, configured. They are released when it is dropped.
pub(super) struct Amx {
    /// A configuration belongs to a thread: no other may have this.
    this_thread: PhantomData<*const ()>,
}

impl Amx {
    /// Configures whole tiles.
    ///
    /// # Safety
    /// AMX must be available, see [`is_available`].
    pub(super) unsafe fn configure() -> Self {
        // SAFETY: AMX is there, says the caller. The configuration is 64 bytes that are only read, and is valid for
        // palette 1. All tiles become zero, and all are named.
        unsafe {
            asm!(
                "ldtilecfg [{configuration}]",
                configuration = in(reg) &raw const WHOLE_TILES,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags, readonly),
            );
        }
        Self { this_thread: PhantomData }
    }
}

impl Drop for Amx {
    fn drop(&mut self) {
        // SAFETY: AMX is there: these tiles were configured. Nobody else on this thread uses them.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags, nomem),
            );
        }
    }
}

/// Tiles need not keep their values from one block of assembly to the next. So one block adds up all products and stores
/// the sums.
impl ConfiguredTiles for Amx {
    unsafe fn multiply(&mut self, product: &TileProduct<'_>) {
        debug_assert!(product.is_aligned());
        if product.offsets.is_empty() {
            if !product.add {
                // SAFETY: the caller's.
                unsafe { product.sums.write_bytes(0, 2 * TILE * product.left.len()) };
            }
            return;
        }
        // SAFETY: the caller's; there is a product.
        unsafe {
            match (product.numbers, product.left) {
                (TileNumbers::Bf16, &[one]) => bf16::multiply_one(product, one),
                (TileNumbers::Bf16, &[first, second]) => bf16::multiply_two(product, [first, second]),
                (TileNumbers::Int8, &[one]) => int8::multiply_one(product, one),
                (TileNumbers::Int8, &[first, second]) => int8::multiply_two(product, [first, second]),
                _ => unreachable!("one or two tiles at a time"),
            }
        }
    }
}

/// Bytes of a tile.
const BYTES: usize = STRIDE * TILE / LINE;

/// The kernels with one of the instructions `tdpbf16ps` and `tdpbssd`.
macro_rules! kernels {
    ($name:ident, $instruction:literal) => {
        mod $name {
            use super::*;

            /// Sums in tmm0 and tmm1, A in tmm4, B in tmm6 and tmm7.
            ///
            /// # Safety
            /// As [`ConfiguredTiles::multiply`]. Whole tiles must be configured, and there must be a product.
            pub(super) unsafe fn multiply_one(product: &TileProduct<'_>, left: *const f32) {
                // SAFETY: tiles are configured and memory is there, says the caller. Every register that is changed is named.
                unsafe {
                    asm!(
                        "test {at}, {at}",
                        "jnz 3f",
                        "tilezero tmm0",
                        "tilezero tmm1",
                        "jmp 2f",
                        "3:",
                        "tileloadd tmm0, [{sums} + {stride}]",
                        "tileloadd tmm1, [{sums} + {stride} + {bytes}]",
                        "2:",
                        "mov {at}, [{offset}]",
                        "lea {at}, [{left} + 4 * {at}]",
                        "tileloadd tmm6, [{right} + {stride}]",
                        "tileloadd tmm4, [{at} + {stride}]",
                        "tileloadd tmm7, [{beside} + {stride}]",
                        concat!($instruction, " tmm0, tmm4, tmm6"),
                        concat!($instruction, " tmm1, tmm4, tmm7"),
                        "add {right}, {step}",
                        "add {beside}, {step}",
                        "add {offset}, 8",
                        "dec {count}",
                        "jnz 2b",
                        "tilestored [{sums} + {stride}], tmm0",
                        "tilestored [{sums} + {stride} + {bytes}], tmm1",
                        bytes = const BYTES,
                        stride = in(reg) STRIDE,
                        sums = in(reg) product.sums,
                        left = in(reg) left,
                        // First whether sums are added to.
                        at = inout(reg) usize::from(product.add) => _,
                        right = inout(reg) product.right[0] => _,
                        beside = inout(reg) product.right[1] => _,
                        step = in(reg) size_of::<f32>() * product.right_step,
                        offset = inout(reg) product.offsets.as_ptr() => _,
                        count = inout(reg) product.offsets.len() => _,
                        out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                        options(nostack),
                    );
                }
            }

            /// Sums in tmm0 to tmm3, A in tmm4 and tmm5, B in tmm6 and tmm7.
            ///
            /// # Safety
            /// As [`multiply_one`].
            pub(super) unsafe fn multiply_two(product: &TileProduct<'_>, [first, second]: [*const f32; 2]) {
                // SAFETY: as above.
                unsafe {
                    asm!(
                        "test {at}, {at}",
                        "jnz 3f",
                        "tilezero tmm0",
                        "tilezero tmm1",
                        "tilezero tmm2",
                        "tilezero tmm3",
                        "jmp 2f",
                        "3:",
                        "tileloadd tmm0, [{sums} + {stride}]",
                        "tileloadd tmm1, [{sums} + {stride} + {bytes}]",
                        "tileloadd tmm2, [{sums} + {stride} + {two}]",
                        "tileloadd tmm3, [{sums} + {stride} + {three}]",
                        "2:",
                        "mov {offset}, [{offsets}]",
                        "lea {at}, [{first} + 4 * {offset}]",
                        "tileloadd tmm6, [{right} + {stride}]",
                        "tileloadd tmm4, [{at} + {stride}]",
                        "lea {at}, [{second} + 4 * {offset}]",
                        "tileloadd tmm5, [{at} + {stride}]",
                        "tileloadd tmm7, [{beside} + {stride}]",
                        concat!($instruction, " tmm0, tmm4, tmm6"),
                        concat!($instruction, " tmm2, tmm5, tmm6"),
                        concat!($instruction, " tmm1, tmm4, tmm7"),
                        concat!($instruction, " tmm3, tmm5, tmm7"),
                        "add {right}, {step}",
                        "add {beside}, {step}",
                        "add {offsets}, 8",
                        "dec {count}",
                        "jnz 2b",
                        "tilestored [{sums} + {stride}], tmm0",
                        "tilestored [{sums} + {stride} + {bytes}], tmm1",
                        "tilestored [{sums} + {stride} + {two}], tmm2",
                        "tilestored [{sums} + {stride} + {three}], tmm3",
                        bytes = const BYTES,
                        two = const 2 * BYTES,
                        three = const 3 * BYTES,
                        stride = in(reg) STRIDE,
                        sums = in(reg) product.sums,
                        first = in(reg) first,
                        second = in(reg) second,
                        // First whether sums are added to.
                        at = inout(reg) usize::from(product.add) => _,
                        offset = out(reg) _,
                        right = inout(reg) product.right[0] => _,
                        beside = inout(reg) product.right[1] => _,
                        step = in(reg) size_of::<f32>() * product.right_step,
                        offsets = inout(reg) product.offsets.as_ptr() => _,
                        count = inout(reg) product.offsets.len() => _,
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        options(nostack),
                    );
                }
            }
        }
    };
}
kernels!(bf16, "tdpbf16ps");
kernels!(int8, "tdpbssd");
