//! The operations of layers other than matrix products: on a GPU the kernels of `kernels.cu`, on the tensor
//! library's CPU the same in plain loops, so that they can be checked on any machine.

use candle_core::{CpuStorage, CustomOp3, Error, Layout, Result, Shape, Tensor};
#[cfg(feature = "cuda")]
use candle_core::{CudaStorage, cuda_backend};

/// Runs of maps in one call; see `Run` in `kernels.cu`.
pub(super) const RUNS: usize = 32;

/// Maps of one size that lie one after another, what they become, and where both begin (in places).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Run {
    pub first_in: u32,
    pub first_out: u32,
    pub rows_in: u32,
    pub columns_in: u32,
    pub rows_out: u32,
    pub columns_out: u32,
}

/// The arguments of a kernel, field by field as in `kernels.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Arguments {
    channels: u32,
    total: u32,
    quads: u32,
    with_other: u32,
    window: Window,
    runs: u32,
    run: [Run; RUNS],
}

/// The window of an output pixel in the input.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Window {
    /// Rows and columns.
    pub side: u32,
    /// Steps from one output to the next.
    pub stride: u32,
    /// Zeros around the input.
    pub padding: u32,
    /// Distance of the input's pixels, with zeros between them: 1 for none.
    pub spread: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gather,
    Pool,
    Finish,
    FinishBack,
}

/// An operation on maps [places, channels].
#[derive(Debug, Clone, Copy)]
struct Operation {
    kind: Kind,
    arguments: Arguments,
    /// Shape of the output.
    shape: (usize, usize),
}

/// The window of every output pixel (im2col): [places, side * side * channels]. `places` are the pixels of
/// the output.
pub(super) fn gather(maps: &Tensor, window: Window, runs: &[Run], places: usize) -> Result<Tensor> {
    let channels = maps.dim(1)?;
    let quads = channels.is_multiple_of(4) && maps.layout().start_offset().is_multiple_of(4);
    let channels_each = if quads { channels / 4 } else { channels };
    let shape = (places, (window.side * window.side) as usize * channels);
    let mut operation = Operation::new(Kind::Gather, channels_each, places * channels_each, shape)?;
    operation.arguments.quads = quads.into();
    operation.see(window, runs)?;
    operation.run(maps, maps, maps)
}

/// The largest value per channel in the window of every output pixel.
pub(super) fn pool(maps: &Tensor, window: Window, runs: &[Run], places: usize) -> Result<Tensor> {
    let channels = maps.dim(1)?;
    let mut operation = Operation::new(Kind::Pool, channels, places * channels, (places, channels))?;
    operation.see(window, runs)?;
    operation.run(maps, maps, maps)
}

/// PReLU of sums and biases, and another map added to it. `layer` is [2, channels]: biases and
/// slopes.
pub(super) fn finish(sums: &Tensor, layer: &Tensor, other: Option<&Tensor>) -> Result<Tensor> {
    let (places, channels) = sums.dims2()?;
    let mut operation = Operation::new(Kind::Finish, channels, places * channels, (places, channels))?;
    operation.arguments.with_other = other.is_some().into();
    operation.run(sums, layer, other.unwrap_or(sums))
}

/// The backward pass of [`finish`], except for the other map, whose gradient is that with respect to the
/// output: the gradients with respect to the sums, and each pixel's part of those with respect to the slopes,
/// [2 * places, channels].
pub(super) fn finish_back(sums: &Tensor, layer: &Tensor, by_output: &Tensor) -> Result<Tensor> {
    let (places, channels) = sums.dims2()?;
    Operation::new(Kind::FinishBack, channels, places * channels, (2 * places, channels))?
        .run(sums, layer, by_output)
}

impl Operation {
    fn new(kind: Kind, channels: usize, total: usize, shape: (usize, usize)) -> Result<Self> {
        let number = |n: usize| u32::try_from(n).map_err(|_| Error::Msg(format!("{n} numbers are too many")));
        let arguments =
            Arguments { channels: number(channels)?, total: number(total)?, ..Arguments::default() };
        Ok(Self { kind, arguments, shape })
    }

    fn see(&mut self, window: Window, runs: &[Run]) -> Result<()> {
        let Some(run) = self.arguments.run.get_mut(..runs.len()) else {
            return Err(Error::Msg(format!("{} sizes of maps at a time, at most {RUNS}", runs.len())));
        };
        run.copy_from_slice(runs);
        self.arguments.runs = runs.len() as u32;
        self.arguments.window = window;
        Ok(())
    }

    fn run(&self, a: &Tensor, b: &Tensor, c: &Tensor) -> Result<Tensor> {
        a.apply_op3_no_bwd(b, c, self)
    }

    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Gather => "gather",
            Kind::Pool => "pool",
            Kind::Finish => "finish",
            Kind::FinishBack => "finish_back",
        }
    }

    /// The kernels in plain loops.
    fn on_cpu(&self, a: &[f32], layer: &[f32], c: &[f32]) -> Vec<f32> {
        let Arguments { channels, window, with_other, runs, run, .. } = &self.arguments;
        let Window { side, stride, padding, spread } = *window;
        let (channels, runs) = (*channels as usize, &run[..*runs as usize]);
        let (places, width) = self.shape;
        match self.kind {
            Kind::Gather | Kind::Pool => {
                let channels = if self.arguments.quads == 0 { channels } else { 4 * channels };
                let mut out =
                    vec![if self.kind == Kind::Pool { f32::NEG_INFINITY } else { 0.0 }; places * width];
                for (place, out) in out.chunks_exact_mut(width).enumerate() {
                    let Some(run) = runs.iter().rev().find(|run| run.first_out as usize <= place) else {
                        continue;
                    };
                    let each = (run.rows_out * run.columns_out) as usize;
                    let in_run = place - run.first_out as usize;
                    let (map, row, column) = (
                        in_run / each,
                        (in_run % each) as u32 / run.columns_out,
                        (in_run % each) as u32 % run.columns_out,
                    );
                    let first = run.first_in as usize + map * (run.rows_in * run.columns_in) as usize;
                    // The position of a step of the window in the input, if it is inside.
                    let within = |at: u32, step: u32, size: u32| {
                        let at = (at * stride + step).checked_sub(padding)?;
                        (at < size * spread && at % spread == 0).then_some(at / spread)
                    };
                    for step in 0..side * side {
                        let place = within(row, step / side, run.rows_in).zip(within(
                            column,
                            step % side,
                            run.columns_in,
                        ));
                        let Some((row, column)) = place else { continue };
                        let at = first + (row * run.columns_in + column) as usize;
                        let from = &a[at * channels..][..channels];
                        if self.kind == Kind::Gather {
                            out[step as usize * channels..][..channels].copy_from_slice(from);
                        } else {
                            out.iter_mut().zip(from).for_each(|(most, x)| *most = most.max(*x));
                        }
                    }
                }
                out
            }
            Kind::Finish => {
                let each = |(i, sum): (usize, &f32)| {
                    let sum = sum + layer[i % channels];
                    let value = if sum > 0.0 { sum } else { layer[channels + i % channels] * sum };
                    if *with_other == 0 { value } else { value + c[i] }
                };
                a.iter().enumerate().map(each).collect()
            }
            Kind::FinishBack => {
                let pairs = || a.iter().zip(c).enumerate();
                let sum = |i: usize, sum: &f32| sum + layer[i % channels];
                let by_sum = pairs()
                    .map(|(i, (s, g))| if sum(i, s) > 0.0 { *g } else { layer[channels + i % channels] * g });
                let by_slope = pairs().map(|(i, (s, g))| sum(i, s).min(0.0) * g);
                by_sum.chain(by_slope).collect()
            }
        }
    }
}

/// Begin and end of a contiguous tensor in its storage.
fn range(layout: &Layout) -> Result<std::ops::Range<usize>> {
    let (start, end) =
        layout.contiguous_offsets().ok_or_else(|| Error::Msg("maps must be contiguous".into()))?;
    Ok(start..end)
}

impl CustomOp3 for Operation {
    fn name(&self) -> &'static str {
        self.name()
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
        c: &CpuStorage,
        c_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let a = &a.as_slice::<f32>()?[range(a_layout)?];
        let b = &b.as_slice::<f32>()?[range(b_layout)?];
        let c = &c.as_slice::<f32>()?[range(c_layout)?];
        Ok((CpuStorage::F32(self.on_cpu(a, b, c)), self.shape.into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        a: &CudaStorage,
        a_layout: &Layout,
        b: &CudaStorage,
        b_layout: &Layout,
        c: &CudaStorage,
        c_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        use cuda_backend::WrapErr;
        use cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};

        /// Blocks that fill a GPU many times over. Each thread loops over the remaining items.
        const BLOCKS: u32 = 1 << 16;
        const THREADS: u32 = 256;

        let device = a.device();
        let function = device.get_or_load_custom_func(self.name(), "sphereface", KERNELS)?;
        let (places, width) = self.shape;
        // SAFETY: the kernel writes every number of it, and nothing reads it before.
        let out = unsafe { device.alloc::<f32>(places * width)? };
        let a = a.as_cuda_slice::<f32>()?.slice(range(a_layout)?);
        let b = b.as_cuda_slice::<f32>()?.slice(range(b_layout)?);
        let c = c.as_cuda_slice::<f32>()?.slice(range(c_layout)?);
        let mut launch = function.builder();
        launch.arg(&a).arg(&b).arg(&c).arg(&out).arg(&self.arguments);
        let blocks = self.arguments.total.div_ceil(THREADS).clamp(1, BLOCKS);
        let config =
            LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the arguments are those of the kernels, which read and write within what the
        // shapes say; what is read lives as long as the stream needs it.
        unsafe { launch.launch(config) }.w()?;
        Ok((cuda_backend::CudaStorage::wrap_cuda_slice(out, device.clone()), self.shape.into()))
    }
}

/// `kernels.cu`, compiled by build.rs.
#[cfg(feature = "cuda")]
const KERNELS: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));

// SAFETY: 32-bit numbers in C layout without padding, as the kernels expect them.
#[cfg(feature = "cuda")]
unsafe impl cuda_backend::cudarc::driver::DeviceRepr for Arguments {}
