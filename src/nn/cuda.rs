//! NVIDIA's libraries, opened when a GPU is asked for and not when the program starts, so that one
//! program runs on machines with and without them.
//!
//! The tensor library is linked against them. The functions that it calls are defined here, each
//! as a jump to where the opened library has it; no library is left for the linker to need.

use std::arch::naked_asm;
use std::ffi::c_void;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use libloading::Library;

/// Why NVIDIA's libraries cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LoadError {
    /// One is not there, or not one for this machine.
    #[error("{what} is missing ({cause}): {advice}")]
    Missing { what: &'static str, cause: String, advice: &'static str },
    /// One is there and lacks a function.
    #[error("{library} has no function {function}: it is of another version than CUDA 13, install that one")]
    Function { library: &'static str, function: &'static str },
}

/// What a function does whose library was not opened: it fails, in the code of every library.
extern "C" fn not_opened() -> i32 {
    999
}

/// Functions of a library, and where they are once it is open.
macro_rules! library {
    ($library:ident: $($function:ident)*) => {
        #[allow(non_snake_case, non_camel_case_types)]
        mod $library {
            use super::*;

            #[derive(Clone, Copy)]
            enum Function { $($function),* }

            pub(super) const NAMES: &[&str] = &[$(stringify!($function)),*];

            pub(super) static PLACES: [AtomicPtr<c_void>; NAMES.len()] =
                [const { AtomicPtr::new(not_opened as *mut c_void) }; NAMES.len()];

            $(
                /// # Safety
                /// As the function of that name in the library.
                #[unsafe(naked)]
                #[unsafe(no_mangle)]
                unsafe extern "C" fn $function() {
                    #[cfg(target_arch = "x86_64")]
                    naked_asm!(
                        "jmp qword ptr [rip + {places} + {at}]",
                        places = sym PLACES,
                        at = const size_of::<usize>() * Function::$function as usize,
                    );
                    #[cfg(target_arch = "aarch64")]
                    naked_asm!(
                        "adrp x16, {places} + {at}",
                        "ldr x16, [x16, :lo12:{places} + {at}]",
                        "br x16",
                        places = sym PLACES,
                        at = const size_of::<usize>() * Function::$function as usize,
                    );
                }
            )*
        }
    };
}

library!(driver:
    cuCtxCreate_v3 cuCtxCreate_v4 cuCtxDestroy_v2 cuCtxGetCacheConfig cuCtxGetCurrent cuCtxGetLimit
    cuCtxGetStreamPriorityRange cuCtxSetCacheConfig cuCtxSetCurrent cuCtxSetFlags cuCtxSetLimit
    cuCtxSynchronize cuDestroyExternalMemory cuDeviceGet cuDeviceGetAttribute cuDeviceGetCount
    cuDeviceGetDefaultMemPool cuDeviceGetMemPool cuDeviceGetName cuDeviceGetUuid cuDeviceGetUuid_v2
    cuDevicePrimaryCtxRelease_v2 cuDevicePrimaryCtxRetain cuDeviceSetMemPool cuDeviceTotalMem_v2
    cuEventCreate cuEventDestroy_v2 cuEventElapsedTime cuEventElapsedTime_v2 cuEventQuery
    cuEventRecord cuEventSynchronize cuExternalMemoryGetMappedBuffer cuFuncGetAttribute
    cuFuncSetAttribute cuFuncSetCacheConfig cuGetErrorName cuGetErrorString cuGraphClone
    cuGraphDestroy cuGraphExecDestroy cuGraphInstantiate cuGraphInstantiateWithFlags cuGraphLaunch
    cuGraphUpload cuImportExternalMemory cuInit cuLaunchCooperativeKernel cuLaunchHostFunc
    cuLaunchKernel cuMemAdvise_v2 cuMemAllocAsync cuMemAllocFromPoolAsync cuMemAllocManaged
    cuMemAlloc_v2 cuMemFreeAsync cuMemFreeHost cuMemFree_v2 cuMemGetInfo_v2 cuMemHostAlloc
    cuMemPoolCreate cuMemPoolDestroy cuMemPoolGetAttribute cuMemPoolSetAttribute cuMemPoolTrimTo
    cuMemPrefetchAsync_v2 cuMemcpyDtoDAsync_v2 cuMemcpyDtoD_v2 cuMemcpyDtoHAsync_v2 cuMemcpyDtoH_v2
    cuMemcpyHtoDAsync_v2 cuMemcpyHtoD_v2 cuMemcpyPeerAsync cuMemsetD8Async cuMemsetD8_v2
    cuModuleGetFunction cuModuleGetGlobal_v2 cuModuleLoad cuModuleLoadData cuModuleUnload
    cuOccupancyAvailableDynamicSMemPerBlock cuOccupancyMaxActiveBlocksPerMultiprocessor
    cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags cuOccupancyMaxActiveClusters
    cuOccupancyMaxPotentialBlockSize cuOccupancyMaxPotentialBlockSizeWithFlags
    cuOccupancyMaxPotentialClusterSize cuProfilerStart cuProfilerStop cuStreamAttachMemAsync
    cuStreamBeginCapture_v2 cuStreamCreate cuStreamCreateWithPriority cuStreamDestroy_v2
    cuStreamEndCapture cuStreamIsCapturing cuStreamSynchronize cuStreamWaitEvent
);
library!(cublas:
    cublasCreate_v2 cublasDasum_v2 cublasDestroy_v2 cublasDgemmStridedBatched cublasDgemm_v2
    cublasDgemv_v2 cublasGemmEx cublasGemmGroupedBatchedEx cublasGemmStridedBatchedEx
    cublasGetPointerMode_v2 cublasSasum_v2 cublasSetPointerMode_v2 cublasSetStream_v2
    cublasSgemmStridedBatched cublasSgemm_v2 cublasSgemv_v2
);
library!(curand:
    curandCreateGenerator curandDestroyGenerator curandGenerate curandGenerateLogNormal
    curandGenerateLogNormalDouble curandGenerateLongLong curandGenerateNormal
    curandGenerateNormalDouble curandGeneratePoisson curandGenerateUniform
    curandGenerateUniformDouble curandSetGeneratorOffset curandSetPseudoRandomGeneratorSeed
    curandSetStream
);

/// Opens the libraries, once; they stay open.
pub(crate) fn load() -> Result<(), LoadError> {
    static LOADED: OnceLock<Result<(), LoadError>> = OnceLock::new();
    let load_all = || {
        let driver = "install NVIDIA's driver";
        let runtime = "install the CUDA 13 libraries, or name their folder in LD_LIBRARY_PATH";
        open(&["libcuda.so.1"], driver, driver::NAMES, &driver::PLACES)?;
        open(&["libcublas.so.13", "libcublas.so"], runtime, cublas::NAMES, &cublas::PLACES)?;
        open(&["libcurand.so.10", "libcurand.so"], runtime, curand::NAMES, &curand::PLACES)
    };
    LOADED.get_or_init(load_all).clone()
}

/// Opens the first of `files` that is there and finds its functions.
fn open(
    files: &[&'static str],
    advice: &'static str,
    names: &[&'static str],
    places: &[AtomicPtr<c_void>],
) -> Result<(), LoadError> {
    let mut tried = None;
    for &file in files {
        // SAFETY: these are NVIDIA's libraries, whose initialisers may run on any thread.
        match unsafe { Library::new(file) } {
            Ok(library) => {
                // Never closed: what was found in it is called until the program ends.
                let library = Box::leak(Box::new(library));
                for (function, place) in names.iter().zip(places) {
                    // SAFETY: only the address is taken here; callers know the signature.
                    let found = unsafe { library.get::<*mut c_void>(*function) };
                    let found = *found.map_err(|_| LoadError::Function { library: file, function })?;
                    place.store(found, Ordering::Release);
                }
                return Ok(());
            }
            Err(error) => tried = tried.or(Some((file, error.to_string()))),
        }
    }
    let (what, cause) = tried.unwrap_or(("a library", "no name".into()));
    Err(LoadError::Missing { what, cause, advice })
}

/// What the compiler of the tensor library's quantised kernels, which we do not use, calls before
/// and after the program, and what they call themselves: nothing is done.
macro_rules! nothing {
    ($($function:ident)*) => { $(
        #[allow(non_snake_case)]
        #[unsafe(no_mangle)]
        extern "C" fn $function() -> usize {
            // Of those that answer with an error: not supported.
            801
        }
    )* };
}

nothing!(
    __cudaGetKernel __cudaLaunchKernel __cudaLaunchKernel_ptsz __cudaPopCallConfiguration
    __cudaPushCallConfiguration __cudaRegisterFatBinary __cudaRegisterFatBinaryEnd
    __cudaRegisterFunction __cudaRegisterVar __cudaUnregisterFatBinary
);
