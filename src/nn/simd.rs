//! One kernel source for every instruction set: vectors behind a trait, and a way to run a
//! kernel compiled for the current instruction set.

use half::{bf16, f16};

use super::Isa;

/// Vectors of `f32` of one instruction set.
///
/// # Safety
/// The methods may be called only where the instruction set is available. They are meant to be inlined into a
/// function that enables it ([`run`] does both).
pub(crate) trait Simd: Copy + 'static {
    /// A vector of [`Simd::LANES`] numbers.
    type V: Copy;
    /// Numbers in a vector.
    const LANES: usize;
    /// Numbers across a tile of the matrix product: [`Simd::tile`] is that wide.
    const PANEL: usize;
    /// Rows of the largest tile of the matrix product.
    const ROWS: usize;
    /// Whether [`Simd::load_half`] is one instruction.
    const HALVES: bool;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    /// Loads numbers of half precision.
    #[inline(always)]
    unsafe fn load_half(from: *const f16) -> Self::V {
        let mut values = [0.0; MOST_LANES];
        for (i, value) in values.iter_mut().enumerate().take(Self::LANES) {
            // SAFETY: the caller's pointer.
            *value = unsafe { from.add(i).read_unaligned() }.to_f32();
        }
        // SAFETY: there are at least as many.
        unsafe { Self::load(values.as_ptr()) }
    }
    /// Loads integers of three bytes, the lowest first, times 256, with their lowest byte repeated below:
    /// that saves the instruction that would clear it. Reads up to [`SPILL`] bytes behind them.
    #[inline(always)]
    unsafe fn load_packed(from: *const [u8; 3]) -> Self::V {
        let mut values = [0.0; MOST_LANES];
        for (i, value) in values.iter_mut().enumerate().take(Self::LANES) {
            // SAFETY: the caller's pointer.
            let [low, middle, high] = unsafe { *from.add(i) };
            *value = i32::from_le_bytes([low, low, middle, high]) as f32;
        }
        // SAFETY: there are at least as many.
        unsafe { Self::load(values.as_ptr()) }
    }
    unsafe fn store(to: *mut f32, v: Self::V);
    /// Stores numbers rounded to bfloat16, two to a number of `to`.
    #[inline(always)]
    unsafe fn store_pairs(to: *mut f32, v: Self::V) {
        let mut values = [0.0; MOST_LANES];
        // SAFETY: room for a vector here, the caller's for half of one there.
        unsafe {
            Self::store(values.as_mut_ptr(), v);
            for (i, value) in values.iter().enumerate().take(Self::LANES) {
                to.cast::<bf16>().add(i).write_unaligned(bf16::from_f32(*value));
            }
        }
    }
    /// The same with the numbers of two vectors, one after the other.
    #[inline(always)]
    unsafe fn store_pairs_of_two(to: *mut f32, first: Self::V, second: Self::V) {
        // SAFETY: room for a vector, which is half of each.
        unsafe {
            Self::store_pairs(to, first);
            Self::store_pairs(to.add(Self::LANES / 2), second);
        }
    }
    /// `c` plus both products of the bfloat16 numbers in `a` and `b`, each of whose numbers holds two.
    #[inline(always)]
    unsafe fn fma_pairs(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: both parts of a pair are numbers of their own, in lanes like the others.
        unsafe {
            let ([a0, a1], [b0, b1]) = (halves_of_pairs::<Self>(a), halves_of_pairs::<Self>(b));
            Self::fma(a0, b0, Self::fma(a1, b1, c))
        }
    }
    /// The numbers of a vector whose bits are integers of 32 bits.
    #[inline(always)]
    unsafe fn of_integers(v: Self::V) -> Self::V {
        let mut values = [0.0_f32; MOST_LANES];
        // SAFETY: room for a vector.
        unsafe {
            Self::store(values.as_mut_ptr(), v);
            Self::load(values.map(|x| x.to_bits().cast_signed() as f32).as_ptr())
        }
    }
    /// Stores numbers rounded to the nearest integers of 8 bits, halves to the even one; 127 for what is no number.
    #[inline(always)]
    unsafe fn store_bytes(to: *mut i8, v: Self::V) {
        let mut values = [0.0_f32; MOST_LANES];
        // SAFETY: room for a vector here, the caller's for as many bytes there.
        unsafe {
            Self::store(values.as_mut_ptr(), v);
            for (i, value) in values.iter().enumerate().take(Self::LANES) {
                to.add(i).write(value.min(127.0).round_ties_even() as i8);
            }
        }
    }
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// Prefetches the cache line at `at`, which need not be valid memory.
    unsafe fn prefetch(at: *const f32);
    /// The sum of the products of two lists of one length. No partial sum may leave the range of `i32`.
    #[inline(always)]
    unsafe fn dot(a: &[i16], b: &[i8]) -> i32 {
        a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum()
    }
    /// Computes a tile of `rows` (1 to [`Simd::ROWS`]) x [`Simd::PANEL`].
    unsafe fn tile<T: Tile>(rows: usize, tile: T);
    /// The same with a tile of half a panel.
    unsafe fn half_tile<T: Tile>(rows: usize, tile: T);
}

/// Bytes that [`Simd::load_packed`] may read beyond what it loads.
pub(crate) const SPILL: usize = 16;

/// Numbers in a vector of any instruction set, at most.
const MOST_LANES: usize = 16;

/// The first and the second numbers of pairs of bfloat16, widened.
///
/// # Safety
/// See [`Simd`].
#[inline(always)]
unsafe fn halves_of_pairs<S: Simd>(pairs: S::V) -> [S::V; 2] {
    let mut values = [[0.0; MOST_LANES]; 2];
    // SAFETY: room for a vector each.
    unsafe {
        S::store(values[0].as_mut_ptr(), pairs);
        for i in 0..S::LANES {
            let bits = values[0][i].to_bits();
            values[0][i] = f32::from_bits(bits << 16);
            values[1][i] = f32::from_bits(bits & 0xffff_0000);
        }
        values.map(|values| S::load(values.as_ptr()))
    }
}

/// A tile of a matrix product for any number of rows and vectors per row.
pub(crate) trait Tile {
    /// # Safety
    /// As the implementation says.
    unsafe fn compute<S: Simd, const ROWS: usize, const VECTORS: usize>(self);
}

/// Code that can be compiled for any instruction set; `run` must be `#[inline(always)]`.
pub(crate) trait Kernel {
    /// # Safety
    /// The instruction set of `S` must be available.
    unsafe fn run<S: Simd>(self);
}

/// Like [`Kernel`], for code that trusts its fields: it follows pointers, or does not check sizes again that
/// were checked before. It can only be run through [`Vouched`].
pub(crate) trait RawKernel {
    /// # Safety
    /// The instruction set of `S` must be available, and the fields must be as the
    /// implementation says.
    unsafe fn run<S: Simd>(self);
}

/// A [`RawKernel`] whose creator guarantees that its fields are valid.
pub(crate) struct Vouched<K>(K);

impl<K: RawKernel> Vouched<K> {
    /// A kernel to run.
    ///
    /// # Safety
    /// Its fields must be as its implementation of [`RawKernel`] says, for as long as it runs: pointers must
    /// be valid for what it reads and writes, and no other thread may access what it writes.
    pub(crate) unsafe fn new(kernel: K) -> Self {
        Self(kernel)
    }
}

impl<K: RawKernel> Kernel for Vouched<K> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller's instruction set; the rest was promised to `new`.
        unsafe { self.0.run::<S>() }
    }
}

/// Numbers across a tile for `isa`: channel counts are padded to multiples of it.
pub(crate) fn panel(isa: Isa) -> usize {
    sizes(isa)[1]
}

/// Numbers in a vector of `isa`.
pub(crate) fn lanes(isa: Isa) -> usize {
    sizes(isa)[0]
}

/// Whether `isa` has an instruction that loads numbers of half precision.
pub(crate) fn reads_halves(isa: Isa) -> bool {
    sizes(isa)[2] != 0
}

fn sizes(isa: Isa) -> [usize; 3] {
    fn of<S: Simd>() -> [usize; 3] {
        [S::LANES, S::PANEL, usize::from(S::HALVES)]
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => of::<Avx2>(),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => of::<Avx512>(),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => of::<Neon>(),
        _ => of::<Portable>(),
    }
}

/// Runs `kernel` compiled for `isa`.
///
/// # Panics
/// When this machine does not have `isa`.
pub(crate) fn run<K: Kernel>(isa: Isa, kernel: K) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn avx2<K: Kernel>(kernel: K) {
        // SAFETY: the caller has checked for AVX2, FMA and F16C.
        unsafe { kernel.run::<Avx2>() }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx2,fma")]
    unsafe fn avx512<K: Kernel>(kernel: K) {
        // SAFETY: the caller has checked for AVX-512 F.
        unsafe { kernel.run::<Avx512>() }
    }
    #[cfg(target_arch = "aarch64")]
    #[target_feature(enable = "neon")]
    unsafe fn neon<K: Kernel>(kernel: K) {
        // SAFETY: the caller has checked for NEON.
        unsafe { kernel.run::<Neon>() }
    }
    assert!(isa.is_available(), "this machine cannot run {isa} code");
    // SAFETY: the instruction set is available, as just checked.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512(kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => neon(kernel),
            _ => kernel.run::<Portable>(),
        }
    }
}

/// Whether this machine has an instruction for [`Simd::fma_pairs`] among those of `isa`.
pub(crate) fn multiplies_pairs(isa: Isa) -> bool {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => is_x86_feature_detected!("avx512bf16"),
        _ => false,
    }
}

/// [`run`], with the instruction for [`Simd::fma_pairs`] if there is one; elsewhere it takes many
/// instructions.
///
/// # Panics
/// When this machine does not have `isa`.
pub(crate) fn run_pairs<K: Kernel>(isa: Isa, kernel: K) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bf16,avx2,fma")]
        unsafe fn avx512_bf16<K: Kernel>(kernel: K) {
            // SAFETY: the caller has checked for AVX-512 F and BF16.
            unsafe { kernel.run::<Avx512Bf16>() }
        }
        if multiplies_pairs(isa) && isa.is_available() {
            // SAFETY: as just checked.
            return unsafe { avx512_bf16(kernel) };
        }
    }
    run(isa, kernel);
}

/// Whether [`Simd::load_packed`] takes a few instructions, where [`run_packed`] runs it.
pub(crate) fn unpacks(isa: Isa) -> bool {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => true,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => is_x86_feature_detected!("avx512vbmi"),
        _ => false,
    }
}

/// [`run`], with the instruction for [`Simd::load_packed`] if there is one.
///
/// # Panics
/// When this machine does not have `isa`.
pub(crate) fn run_packed<K: Kernel>(isa: Isa, kernel: K) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512vbmi,avx2,fma")]
        unsafe fn avx512_vbmi<K: Kernel>(kernel: K) {
            // SAFETY: the caller has checked for AVX-512 F and VBMI.
            unsafe { kernel.run::<Avx512Vbmi>() }
        }
        if isa == Isa::Avx512 && unpacks(isa) && isa.is_available() {
            // SAFETY: as just checked.
            return unsafe { avx512_vbmi(kernel) };
        }
    }
    run(isa, kernel);
}

/// [`Simd::tile`] for the given numbers of rows.
macro_rules! tile_of_rows {
    ($vectors:literal $half:literal: $($rows:literal)+) => {
        #[inline(always)]
        unsafe fn tile<T: Tile>(rows: usize, tile: T) {
            match rows {
                // SAFETY: the caller's, passed on.
                $($rows => unsafe { tile.compute::<Self, $rows, $vectors>() },)+
                _ => unreachable!("a tile of {rows} rows"),
            }
        }

        #[inline(always)]
        unsafe fn half_tile<T: Tile>(rows: usize, tile: T) {
            match rows {
                // SAFETY: the caller's, passed on.
                $($rows => unsafe { tile.compute::<Self, $rows, $half>() },)+
                _ => unreachable!("a tile of {rows} rows"),
            }
        }
    };
}

/// Plain Rust, which compilers turn into the vectors that the target always has.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Portable {
    #[inline(always)]
    fn zip(a: [f32; 4], b: [f32; 4], f: impl Fn(f32, f32) -> f32) -> [f32; 4] {
        [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
    }
}

// SAFETY of the methods: plain Rust except for the pointers, whose validity the caller promises.
impl Simd for Portable {
    type V = [f32; 4];
    const LANES: usize = 4;
    const PANEL: usize = 8;
    const ROWS: usize = 6;
    const HALVES: bool = false;

    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; 4] {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 4] {
        // SAFETY: the caller's pointer.
        unsafe { from.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: [f32; 4]) {
        // SAFETY: the caller's pointer.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        Self::zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        Self::zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        Self::zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        // Two roundings: a fused multiply-add would be a library call on machines without the instruction.
        Self::zip(Self::zip(a, b, |a, b| a * b), c, |ab, c| ab + c)
    }
    #[inline(always)]
    unsafe fn max(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        Self::zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        Self::zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn prefetch(_at: *const f32) {}
    tile_of_rows!(2 1: 1 2 3 4 5 6);
}

/// The methods of [`Simd`] that are one intrinsic each.
macro_rules! intrinsics {
    ($($name:ident($($arg:ident: $of:ty),*) $(-> $out:ty)? = $call:expr;)+) => {
        $(#[inline(always)]
        unsafe fn $name($($arg: $of),*) $(-> $out)? {
            // SAFETY: the instruction set is available and pointers are valid, says the caller.
            unsafe { $call }
        })+
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::mem::transmute;

    use half::f16;

    use super::{Simd, Tile};

    /// [`Simd::dot`], 32 products at a time.
    ///
    /// # Safety
    /// AVX2 must be available.
    #[inline(always)]
    unsafe fn dot(a: &[i16], b: &[i8]) -> i32 {
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<32>(), b.as_chunks::<32>());
        // SAFETY: the caller has AVX2, and every load is of 32 bytes of a chunk of 32 numbers.
        let sum = unsafe {
            let mut sums = [_mm256_setzero_si256(); 2];
            for (a, b) in a.iter().zip(b) {
                let (a, b) = (a.as_ptr().cast::<__m256i>(), b.as_ptr().cast::<__m128i>());
                for half in 0..2 {
                    let wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(b.add(half)));
                    let products = _mm256_madd_epi16(_mm256_loadu_si256(a.add(half)), wide);
                    sums[half] = _mm256_add_epi32(sums[half], products);
                }
            }
            let sum = _mm256_add_epi32(sums[0], sums[1]);
            let sum = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
            let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b01_00_11_10>(sum));
            _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32::<0b10_11_00_01>(sum)))
        };
        sum + a_rest.iter().zip(b_rest).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum::<i32>()
    }

    /// 256-bit vectors; 6 x 16 tiles keep 12 sums in 16 registers.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2;

    impl Simd for Avx2 {
        type V = __m256;
        const LANES: usize = 8;
        const PANEL: usize = 16;
        const ROWS: usize = 6;
        const HALVES: bool = true;
        intrinsics! {
            splat(x: f32) -> __m256 = _mm256_set1_ps(x);
            load(from: *const f32) -> __m256 = _mm256_loadu_ps(from);
            load_half(from: *const f16) -> __m256 = _mm256_cvtph_ps(_mm_loadu_si128(from.cast()));
            load_packed(from: *const [u8; 3]) -> __m256 = {
                // The upper half from eight bytes on, so that it ends with the numbers.
                let low = _mm_loadu_si128(from.cast());
                let high = _mm_loadu_si128(from.cast::<u8>().add(8).cast());
                let spread = _mm256_setr_epi8(
                    0, 0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9, 10, 11,
                    4, 4, 5, 6, 7, 7, 8, 9, 10, 10, 11, 12, 13, 13, 14, 15,
                );
                _mm256_cvtepi32_ps(_mm256_shuffle_epi8(_mm256_set_m128i(high, low), spread))
            };
            store(to: *mut f32, v: __m256) = _mm256_storeu_ps(to, v);
            add(a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
            sub(a: __m256, b: __m256) -> __m256 = _mm256_sub_ps(a, b);
            mul(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
            fma(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
            max(a: __m256, b: __m256) -> __m256 = _mm256_max_ps(a, b);
            min(a: __m256, b: __m256) -> __m256 = _mm256_min_ps(a, b);
            prefetch(at: *const f32) = _mm_prefetch::<_MM_HINT_T1>(at.cast());
            dot(a: &[i16], b: &[i8]) -> i32 = dot(a, b);
        }
        tile_of_rows!(2 1: 1 2 3 4 5 6);
    }

    /// [`Simd`] with 512-bit vectors, with the given extensions beyond AVX-512 F.
    macro_rules! avx512 {
        ($(#[$doc:meta])+ $name:ident { $($more:tt)* }) => {
            $(#[$doc])+
            #[derive(Clone, Copy)]
            pub(crate) struct $name;

            impl Simd for $name {
                type V = __m512;
                const LANES: usize = 16;
                const PANEL: usize = 32;
                const ROWS: usize = 12;
                const HALVES: bool = true;
                intrinsics! {
                    splat(x: f32) -> __m512 = _mm512_set1_ps(x);
                    load(from: *const f32) -> __m512 = _mm512_loadu_ps(from);
                    load_half(from: *const f16) -> __m512 = _mm512_cvtph_ps(_mm256_loadu_si256(from.cast()));
                    store(to: *mut f32, v: __m512) = _mm512_storeu_ps(to, v);
                    add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
                    sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
                    mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
                    fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
                    max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
                    min(a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
                    prefetch(at: *const f32) = _mm_prefetch::<_MM_HINT_T1>(at.cast());
                    dot(a: &[i16], b: &[i8]) -> i32 = dot(a, b);
                    of_integers(v: __m512) -> __m512 = _mm512_cvtepi32_ps(_mm512_castps_si512(v));
                    store_bytes(to: *mut i8, v: __m512) = {
                        // Too low a number becomes the least of 32 bits, which becomes the least of 8.
                        let integers = _mm512_cvtps_epi32(_mm512_min_ps(v, _mm512_set1_ps(127.0)));
                        _mm_storeu_si128(to.cast(), _mm512_cvtsepi32_epi8(integers));
                    };
                    $($more)*
                }
                tile_of_rows!(2 1: 1 2 3 4 5 6 7 8 9 10 11 12);
            }
        };
    }

    avx512! {
        /// 512-bit vectors; 12 x 32 tiles keep 24 sums in 32 registers.
        Avx512 {}
    }

    /// For each byte of a vector of 32-bit numbers the byte of packed numbers that it comes from.
    const SPREAD: [u8; 64] = {
        let mut spread = [0; 64];
        let mut i = 0;
        while i < spread.len() {
            let byte = if i % 4 == 0 { 0 } else { i % 4 - 1 };
            spread[i] = (i / 4 * 3 + byte) as u8;
            i += 1;
        }
        spread
    };

    avx512! {
        /// The same with the instructions for bytes.
        Avx512Vbmi {
            load_packed(from: *const [u8; 3]) -> __m512 = {
                let spread = _mm512_loadu_si512(SPREAD.as_ptr().cast());
                _mm512_cvtepi32_ps(_mm512_permutexvar_epi8(spread, _mm512_loadu_si512(from.cast())))
            };
        }
    }

    avx512! {
        /// The same with the instructions for bfloat16.
        Avx512Bf16 {
            store_pairs(to: *mut f32, v: __m512) =
                _mm256_storeu_si256(to.cast(), transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v)));
            store_pairs_of_two(to: *mut f32, first: __m512, second: __m512) =
                _mm512_storeu_si512(to.cast(), transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first)));
            fma_pairs(a: __m512, b: __m512, c: __m512) -> __m512 =
                _mm512_dpbf16_ps(c, transmute::<__m512, __m512bh>(a), transmute::<__m512, __m512bh>(b));
        }
    }
}
#[cfg(target_arch = "x86_64")]
use x86::{Avx2, Avx512, Avx512Bf16, Avx512Vbmi};

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;

    use super::{Simd, Tile};

    /// 128-bit vectors; 6 x 16 tiles keep 24 sums in 32 registers.
    #[derive(Clone, Copy)]
    pub(crate) struct Neon;

    impl Simd for Neon {
        type V = float32x4_t;
        const LANES: usize = 4;
        const PANEL: usize = 16;
        const ROWS: usize = 6;
        const HALVES: bool = false;
        intrinsics! {
            splat(x: f32) -> float32x4_t = vdupq_n_f32(x);
            load(from: *const f32) -> float32x4_t = vld1q_f32(from);
            store(to: *mut f32, v: float32x4_t) = vst1q_f32(to, v);
            add(a: float32x4_t, b: float32x4_t) -> float32x4_t = vaddq_f32(a, b);
            sub(a: float32x4_t, b: float32x4_t) -> float32x4_t = vsubq_f32(a, b);
            mul(a: float32x4_t, b: float32x4_t) -> float32x4_t = vmulq_f32(a, b);
            fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t = vfmaq_f32(c, a, b);
            max(a: float32x4_t, b: float32x4_t) -> float32x4_t = vmaxq_f32(a, b);
            min(a: float32x4_t, b: float32x4_t) -> float32x4_t = vminq_f32(a, b);
        }
        #[inline(always)]
        unsafe fn prefetch(_at: *const f32) {}
        tile_of_rows!(4 2: 1 2 3 4 5 6);
    }
}
#[cfg(target_arch = "aarch64")]
use arm::Neon;
