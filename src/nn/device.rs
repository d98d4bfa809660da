//! Where the networks run: on our kernels on the CPU, or through the tensor library on a GPU.

use std::fmt;
use std::str::FromStr;

use super::Isa;

/// Where a user wants the networks to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// On the first GPU if this program can use it, else on the CPU.
    #[default]
    Auto,
    /// On the CPU.
    Cpu,
    /// On the GPU of that number, counted from 0, or not at all.
    Cuda(usize),
}

/// A device that networks run on.
#[derive(Debug, Clone)]
pub struct Device {
    isa: Isa,
    #[cfg(feature = "candle")]
    tensors: Option<candle_core::Device>,
    why: String,
}

/// Why a device cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Text that names no device.
    #[error("`{0}` is not a device: write auto, cpu, cuda, or cuda:N for the GPU of that number from 0")]
    Unknown(String),
    /// This program was built without code for a GPU.
    #[error(
        "this program was built without CUDA and cannot use a GPU: build it with tools/cuda.sh, or choose --device cpu"
    )]
    NotBuilt,
    /// The GPU, its driver or its libraries fail.
    #[error(
        "CUDA device {number} cannot be used: {cause}; see whether nvidia-smi lists it, or choose --device cpu"
    )]
    Cuda {
        /// The number requested.
        number: usize,
        /// The cause.
        cause: String,
    },
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match (text, text.strip_prefix("cuda:")) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            (_, Some(number)) => {
                number.parse().map(Self::Cuda).map_err(|_| DeviceError::Unknown(text.into()))
            }
            _ => Err(DeviceError::Unknown(text.into())),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl Device {
    /// Opens the device that was requested. `isa` is the instruction set of the code that runs on the CPU.
    ///
    /// # Errors
    /// When a GPU was requested by name and cannot be used; never for [`DeviceChoice::Auto`].
    pub fn open(choice: DeviceChoice, isa: Isa) -> Result<Self, DeviceError> {
        let cpu = |why| {
            Ok(Self {
                isa,
                #[cfg(feature = "candle")]
                tensors: None,
                why,
            })
        };
        #[cfg(feature = "cuda")]
        let gpu = |(device, name): (candle_core::Device, String), number| {
            Ok(Self { isa, tensors: Some(device), why: format!("CUDA device {number}, {name}") })
        };
        #[cfg(feature = "cuda")]
        match choice {
            DeviceChoice::Cpu => cpu("requested".into()),
            DeviceChoice::Cuda(number) => gpu(cuda(number)?, number),
            DeviceChoice::Auto => match cuda(0) {
                Ok(found) => gpu(found, 0),
                Err(DeviceError::Cuda { cause, .. }) => cpu(format!("no GPU can be used: {cause}")),
                Err(other) => cpu(other.to_string()),
            },
        }
        #[cfg(not(feature = "cuda"))]
        match choice {
            DeviceChoice::Cpu => cpu("requested".into()),
            DeviceChoice::Cuda(_) => Err(DeviceError::NotBuilt),
            DeviceChoice::Auto => cpu("built without CUDA".into()),
        }
    }

    /// A device of the tensor library, its CPU for instance.
    #[cfg(feature = "candle")]
    pub fn of_tensors(tensors: candle_core::Device) -> Self {
        Self { isa: Isa::best(), why: format!("{tensors:?}"), tensors: Some(tensors) }
    }

    /// The instruction set of the code that runs on the CPU.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Whether networks run on our kernels, on the CPU.
    pub fn is_cpu(&self) -> bool {
        #[cfg(feature = "candle")]
        return self.tensors.is_none();
        #[cfg(not(feature = "candle"))]
        true
    }

    /// The tensor library's device; `None` for the kernels on the CPU.
    #[cfg(feature = "candle")]
    pub fn tensors(&self) -> Option<&candle_core::Device> {
        self.tensors.as_ref()
    }
}

impl fmt::Display for Device {
    /// The device and the reason for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_cpu() {
            false => f.write_str(&self.why),
            true => write!(f, "the CPU with {} code ({})", self.isa, self.why),
        }
    }
}

/// Opens a GPU and tests whether it computes; with its name.
#[cfg(feature = "cuda")]
fn cuda(number: usize) -> Result<(candle_core::Device, String), DeviceError> {
    let failed = |cause: String| DeviceError::Cuda { number, cause };
    #[cfg(feature = "cuda-loader")]
    super::cuda::load().map_err(|error| failed(error.to_string()))?;
    let open = || -> candle_core::Result<_> {
        // All threads share one stream, so that the results of one are visible to the next.
        let device = candle_core::Device::new_cuda_with_stream(number)?;
        // SAFETY: events keep the order of tensors that several streams use, and took longer than many
        // kernels. Here a tensor is made, used and freed on the one stream of its device: the library does
        // not allow an operation to mix tensors of devices that were opened separately.
        unsafe { device.as_cuda_device()?.disable_event_tracking() };
        let two = candle_core::Tensor::ones(1, candle_core::DType::F32, &device)?.affine(1.0, 1.0)?;
        Ok((two.to_vec1::<f32>()?, device))
    };
    let (two, device) = open().map_err(|error| failed(error.to_string()))?;
    if two != [2.0] {
        return Err(failed(format!("it adds one and one up to {two:?}")));
    }
    let context = device.as_cuda_device().map(|device| device.cuda_stream());
    let name = context.ok().and_then(|stream| stream.context().name().ok());
    Ok((device, name.unwrap_or_else(|| "whose name is not known".into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_auto_cpu_or_a_gpu_by_number() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(0)),
            ("cuda:3", DeviceChoice::Cuda(3)),
        ] {
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU"] {
            assert_eq!(text.parse::<DeviceChoice>(), Err(DeviceError::Unknown(text.into())));
        }
    }

    #[cfg(feature = "candle")]
    #[test]
    fn a_gpu_that_was_asked_for_is_never_replaced_by_the_cpu() {
        let isa = Isa::best();
        let auto = Device::open(DeviceChoice::Auto, isa).unwrap();
        match Device::open(DeviceChoice::Cuda(0), isa) {
            Ok(gpu) => assert!(gpu.tensors().is_some() && auto.tensors().is_some()),
            Err(refused) => {
                assert!(refused.to_string().contains("--device cpu"), "{refused}");
                assert!(auto.tensors().is_none());
                assert!(auto.to_string().starts_with(&format!("the CPU with {isa} code (")), "{auto}");
            }
        }
        assert!(Device::open(DeviceChoice::Cuda(99), isa).is_err());
    }
}
