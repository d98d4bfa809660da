//! Sixteen channels at a time: the one vector type the kernels of this room are written in.
//!
//! Most layers of MTCNN have a multiple of 16 outputs, so a block of 16 is two
//! AVX2 registers, one AVX-512 register or four NEON registers, and one kernel source and one
//! packing of the weights serve them all.

/// Channels in one vector.
pub const LANES: usize = 16;

/// Sixteen f32 lanes of one instruction set.
///
/// # Safety
/// Every function may use the instruction set it is named for: call them only inside a
/// function compiled for it, on a machine that has it. Pointers must be valid for the
/// number of values named.
pub trait Lanes: Copy {
    /// Rows that a tile of a dense layer holds in registers.
    const ROWS: usize;

    /// All lanes zero.
    unsafe fn zero() -> Self;
    /// Sixteen values, unaligned.
    unsafe fn load(from: *const f32) -> Self;
    /// Writes sixteen values, unaligned.
    unsafe fn store(self, to: *mut f32);
    /// `self + *factor * with`, one factor for all lanes. Fused or not, by instruction set.
    unsafe fn add_scaled(self, factor: *const f32, with: Self) -> Self;
    /// `self + a * b`, lane by lane.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    /// `max(self, 0) + slope * min(self, 0)`.
    unsafe fn prelu(self, slope: Self) -> Self;
    /// The larger of each pair of lanes.
    unsafe fn max(self, other: Self) -> Self;
}

/// Plain Rust.
#[derive(Clone, Copy)]
pub struct Portable([f32; LANES]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut out = self;
        for (a, b) in out.0.iter_mut().zip(other.0) {
            *a = f(*a, b);
        }
        out
    }
}

impl Lanes for Portable {
    const ROWS: usize = 2;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; LANES])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for sixteen values; the array has no stricter alignment.
        Self(unsafe { from.cast::<[f32; LANES]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as for `load`.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn add_scaled(self, factor: *const f32, with: Self) -> Self {
        // SAFETY: the caller vouches for one value.
        let factor = unsafe { *factor };
        self.zip(with, |sum, value| sum + factor * value)
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        self.zip(a.zip(b, |a, b| a * b), |sum, product| sum + product)
    }

    #[inline(always)]
    unsafe fn prelu(self, slope: Self) -> Self {
        self.zip(slope, |x, slope| if x > 0.0 { x } else { slope * x })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lanes;
    use std::arch::x86_64::*;

    /// Two 256-bit registers.
    #[derive(Clone, Copy)]
    pub struct Avx2(__m256, __m256);

    // SAFETY (every block below): the caller vouches for AVX2, FMA and the pointers.
    impl Lanes for Avx2 {
        const ROWS: usize = 6;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm256_setzero_ps(), _mm256_setzero_ps()) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see above.
            unsafe {
                _mm256_storeu_ps(to, self.0);
                _mm256_storeu_ps(to.add(8), self.1);
            }
        }

        #[inline(always)]
        unsafe fn add_scaled(self, factor: *const f32, with: Self) -> Self {
            // SAFETY: see above.
            unsafe {
                let factor = _mm256_broadcast_ss(&*factor);
                Self(_mm256_fmadd_ps(factor, with.0, self.0), _mm256_fmadd_ps(factor, with.1, self.1))
            }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm256_fmadd_ps(a.0, b.0, self.0), _mm256_fmadd_ps(a.1, b.1, self.1)) }
        }

        #[inline(always)]
        unsafe fn prelu(self, slope: Self) -> Self {
            // SAFETY: see above.
            unsafe {
                let zero = _mm256_setzero_ps();
                let one = |x, slope| _mm256_fmadd_ps(slope, _mm256_min_ps(x, zero), _mm256_max_ps(x, zero));
                Self(one(self.0, slope.0), one(self.1, slope.1))
            }
        }

        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1)) }
        }
    }

    /// One 512-bit register.
    #[derive(Clone, Copy)]
    pub struct Avx512(__m512);

    // SAFETY (every block below): the caller vouches for AVX-512 F and the pointers.
    impl Lanes for Avx512 {
        const ROWS: usize = 8;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm512_setzero_ps()) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm512_loadu_ps(from)) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see above.
            unsafe { _mm512_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn add_scaled(self, factor: *const f32, with: Self) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm512_fmadd_ps(_mm512_set1_ps(*factor), with.0, self.0)) }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm512_fmadd_ps(a.0, b.0, self.0)) }
        }

        #[inline(always)]
        unsafe fn prelu(self, slope: Self) -> Self {
            // SAFETY: see above.
            unsafe {
                let zero = _mm512_setzero_ps();
                let negative = _mm512_min_ps(self.0, zero);
                Self(_mm512_fmadd_ps(slope.0, negative, _mm512_max_ps(self.0, zero)))
            }
        }

        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm512_max_ps(self.0, other.0)) }
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub use arm::Neon;

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::Lanes;
    use std::arch::aarch64::*;

    /// Four 128-bit registers.
    #[derive(Clone, Copy)]
    pub struct Neon(float32x4_t, float32x4_t, float32x4_t, float32x4_t);

    // SAFETY (every block below): the caller vouches for NEON and the pointers.
    impl Lanes for Neon {
        const ROWS: usize = 6;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: see above.
            unsafe { Self(vdupq_n_f32(0.0), vdupq_n_f32(0.0), vdupq_n_f32(0.0), vdupq_n_f32(0.0)) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see above.
            unsafe {
                Self(vld1q_f32(from), vld1q_f32(from.add(4)), vld1q_f32(from.add(8)), vld1q_f32(from.add(12)))
            }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see above.
            unsafe {
                vst1q_f32(to, self.0);
                vst1q_f32(to.add(4), self.1);
                vst1q_f32(to.add(8), self.2);
                vst1q_f32(to.add(12), self.3);
            }
        }

        #[inline(always)]
        unsafe fn add_scaled(self, factor: *const f32, with: Self) -> Self {
            // SAFETY: see above.
            unsafe {
                let factor = vld1q_dup_f32(factor);
                Self(
                    vfmaq_f32(self.0, factor, with.0),
                    vfmaq_f32(self.1, factor, with.1),
                    vfmaq_f32(self.2, factor, with.2),
                    vfmaq_f32(self.3, factor, with.3),
                )
            }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: see above.
            unsafe {
                Self(
                    vfmaq_f32(self.0, a.0, b.0),
                    vfmaq_f32(self.1, a.1, b.1),
                    vfmaq_f32(self.2, a.2, b.2),
                    vfmaq_f32(self.3, a.3, b.3),
                )
            }
        }

        #[inline(always)]
        unsafe fn prelu(self, slope: Self) -> Self {
            // SAFETY: see above.
            unsafe {
                let zero = vdupq_n_f32(0.0);
                let one = |x, slope| vfmaq_f32(vmaxq_f32(x, zero), slope, vminq_f32(x, zero));
                Self(one(self.0, slope.0), one(self.1, slope.1), one(self.2, slope.2), one(self.3, slope.3))
            }
        }

        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe {
                Self(
                    vmaxq_f32(self.0, other.0),
                    vmaxq_f32(self.1, other.1),
                    vmaxq_f32(self.2, other.2),
                    vmaxq_f32(self.3, other.3),
                )
            }
        }
    }
}
