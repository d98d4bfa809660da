//! Peak arithmetic and memory bandwidth of this machine, with which the speed of the networks is compared.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

#[cfg(feature = "candle")]
use candle_core::{DType, Device, Tensor};

use super::Isa;
use super::buffer::Buffer;
use super::simd::{self, Kernel, Simd};

/// Independent sums: enough to hide the latency of a multiply-add, few enough to fit into the 16 registers of
/// AVX2 together with the operands.
const CHAINS: usize = 12;

/// Bytes each thread reads per round: far more than any cache holds.
const READ_BYTES: usize = 256 << 20;

/// Multiply-adds in registers, in GFLOP/s (two operations each) over all `threads`.
pub fn arithmetic_gflops(isa: Isa, threads: usize, time: Duration) -> f64 {
    const ROUNDS: usize = 100_000;
    let rate = together(threads, || {
        let mut lanes = 0;
        repeat(time, || {
            simd::run(isa, MultiplyAdd { rounds: ROUNDS, lanes: &mut lanes });
            ROUNDS * CHAINS * lanes * 2
        })
    });
    rate / 1e9
}

/// Sequential reads from memory, in GB/s over all `threads`.
pub fn memory_gb_per_s(isa: Isa, threads: usize, time: Duration) -> f64 {
    let rate = together(threads, || {
        let mut numbers = Buffer::new(READ_BYTES / size_of::<f32>());
        numbers.fill(1.0);
        repeat(time, || {
            simd::run(isa, Read(&numbers));
            READ_BYTES
        })
    });
    rate / 1e9
}

/// Peak of a device of the tensor library: matrix products of f32 in GFLOP/s, and copies with a sum, bytes
/// read and written, in GB/s.
///
/// # Errors
/// When the device fails, for example because it has too little memory.
#[cfg(feature = "candle")]
#[cfg_attr(not(feature = "train"), allow(dead_code))]
pub(crate) fn of_tensors(device: &Device, time: Duration) -> candle_core::Result<(f64, f64)> {
    // Several calls per measurement: memory that is free when the device is idle goes back to the driver, and
    // allocating it again takes longer than a copy.
    const TOGETHER: u32 = 8;
    // The CPU of the tensor library would take minutes for what keeps a GPU busy.
    let side = if device.is_cpu() { 256 } else { 8192 };
    // Not zeros: some devices are faster with zeros.
    let matrix = Tensor::arange(0u32, (side * side) as u32, device)?.to_dtype(DType::F32)?;
    let matrix = matrix.affine(1e-3, 0.1)?.sin()?.reshape((side, side))?;
    let repeat = |work: &dyn Fn() -> candle_core::Result<Tensor>| {
        work()?;
        device.synchronize()?;
        let (start, mut done) = (Instant::now(), 0);
        while done < 3 || start.elapsed() < time {
            for _ in 0..TOGETHER {
                work()?;
            }
            // Calls only enqueue work; the device does it later.
            device.synchronize()?;
            done += TOGETHER;
        }
        Ok::<_, candle_core::Error>(f64::from(done) / start.elapsed().as_secs_f64())
    };
    let products = repeat(&|| matrix.matmul(&matrix))?;
    let copies = repeat(&|| matrix.affine(0.5, 1.0))?;
    let numbers = (side * side) as f64;
    Ok((products * 2.0 * numbers * side as f64 / 1e9, copies * 8.0 * numbers / 1e9))
}

/// Sum of the rates that `threads` threads reach at the same time.
fn together(threads: usize, rate: impl Fn() -> f64 + Sync) -> f64 {
    let start = Barrier::new(threads);
    let work = || {
        start.wait();
        rate()
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        own + others.into_iter().map(|thread| thread.join().unwrap_or(0.0)).sum::<f64>()
    })
}

/// The sum of what `work` returns, per second, over at least `time`; the first call is for warming up.
fn repeat(time: Duration, mut work: impl FnMut() -> usize) -> f64 {
    work();
    let start = Instant::now();
    let mut done = 0.0;
    while start.elapsed() < time {
        done += work() as f64;
    }
    done / start.elapsed().as_secs_f64()
}

struct MultiplyAdd<'a> {
    rounds: usize,
    /// Receives the numbers in a vector.
    lanes: &'a mut usize,
}

impl Kernel for MultiplyAdd<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        *self.lanes = S::LANES;
        let mut out = [0.0f32; 64];
        // SAFETY: see `Simd`; no vector has more numbers than `out`.
        unsafe {
            let (factor, term) = (S::splat(0.5), S::splat(0.25));
            let mut sums = [S::splat(1.0); CHAINS];
            for _ in 0..self.rounds {
                for sum in &mut sums {
                    *sum = S::fma(*sum, factor, term);
                }
            }
            let total = sums.into_iter().fold(S::splat(0.0), |a, b| S::add(a, b));
            S::store(out.as_mut_ptr(), total);
        }
        std::hint::black_box(out);
    }
}

struct Read<'a>(&'a [f32]);

impl Kernel for Read<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut out = [0.0f32; 64];
        // SAFETY: see `Simd`; the loads stay inside whole chunks.
        unsafe {
            let mut sums = [S::splat(0.0); 8];
            for chunk in self.0.chunks_exact(8 * S::LANES) {
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = S::add(*sum, S::load(chunk.as_ptr().add(i * S::LANES)));
                }
            }
            let total = sums.into_iter().fold(S::splat(0.0), |a, b| S::add(a, b));
            S::store(out.as_mut_ptr(), total);
        }
        std::hint::black_box(out);
    }
}

#[cfg(all(test, feature = "candle"))]
mod tests {
    use super::*;

    #[test]
    fn a_device_of_the_tensor_library_has_a_peak() {
        let (gflops, gb_per_s) = of_tensors(&Device::Cpu, Duration::ZERO).unwrap();
        assert!(gflops.is_finite() && gflops > 0.0 && gb_per_s.is_finite() && gb_per_s > 0.0);
    }
}
