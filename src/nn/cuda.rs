//! NVIDIA's libraries, opened when a GPU is requested and not when the program starts, so that one program
//! runs on machines with and without them.
//!
//! The tensor library is linked against them. The functions that it may call are defined here, each as a jump
//! to its address in the opened library. So the linker needs none of the libraries, and it drops the
//! functions that nothing calls. That affects the whole program, which is why it is a feature of its own,
//! `cuda-loader`: a program that links the libraries itself omits it.

use std::arch::naked_asm;
use std::error::Error as _;
use std::ffi::c_void;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use libloading::Library;

/// Why one of NVIDIA's libraries cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause} ({advice})")]
pub(crate) struct LoadError {
    cause: String,
    advice: &'static str,
}

/// Functions of a library, and their addresses once it is open. Until then, or where the library lacks one,
/// they return the library's own code for "not initialised".
macro_rules! library {
    ($library:ident or $not_initialised:literal: $($function:ident)*) => {
        #[allow(non_snake_case, non_camel_case_types, clippy::enum_variant_names)]
        mod $library {
            use super::*;

            enum Function { $($function),* }

            extern "C" fn not_opened() -> i32 {
                $not_initialised
            }

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

library!(driver or 3:
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
library!(cublas or 1:
    cublasCreate_v2 cublasDasum_v2 cublasDestroy_v2 cublasDgemmStridedBatched cublasDgemm_v2
    cublasDgemv_v2 cublasGemmEx cublasGemmGroupedBatchedEx cublasGemmStridedBatchedEx
    cublasGetPointerMode_v2 cublasSasum_v2 cublasSetPointerMode_v2 cublasSetStream_v2
    cublasSgemmStridedBatched cublasSgemm_v2 cublasSgemv_v2
);
library!(curand or 101:
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
    files: &[&str],
    advice: &'static str,
    names: &[&str],
    places: &[AtomicPtr<c_void>],
) -> Result<(), LoadError> {
    let mut cause = String::new();
    for &file in files {
        // SAFETY: these are NVIDIA's libraries, whose initialisers may run on any thread.
        match unsafe { Library::new(file) } {
            Ok(library) => {
                // Never closed: its functions are called until the program ends.
                let library = Box::leak(Box::new(library));
                for (function, place) in names.iter().zip(places) {
                    // SAFETY: only the address is taken here; callers know the signature.
                    if let Ok(found) = unsafe { library.get::<*mut c_void>(*function) } {
                        place.store(*found, Ordering::Release);
                    }
                }
                return Ok(());
            }
            Err(error) if cause.is_empty() => {
                cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            }
            Err(_) => {}
        }
    }
    Err(LoadError { cause, advice })
}
