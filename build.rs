//! Compiles the CUDA kernels for the feature `cuda`; does nothing else.

use std::path::{Path, PathBuf};
use std::process::Command;

const KERNELS: &str = "src/nn/layers/kernels.cu";

fn main() {
    println!("cargo::rerun-if-changed={KERNELS}");
    for name in ["CUDA_HOME", "CUDA_PATH", "CUDA_COMPUTE_CAP"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if variable("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    let Some(folder) = variable("OUT_DIR") else { panic!("cargo sets OUT_DIR") };
    let toolkit = variable("CUDA_HOME").or_else(|| variable("CUDA_PATH"));
    let compiler =
        toolkit.map_or_else(|| PathBuf::from("nvcc"), |toolkit| Path::new(&toolkit).join("bin/nvcc"));
    let capability = variable("CUDA_COMPUTE_CAP").unwrap_or_else(|| "80".into());
    let done = Command::new(&compiler)
        .args(["-ptx", "-O3", &format!("-arch=compute_{capability}"), KERNELS, "-o"])
        .arg(Path::new(&folder).join("kernels.ptx"))
        .status();
    match done {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{} failed on {KERNELS} ({status})", compiler.display()),
        Err(error) => {
            panic!(
                "{} cannot be run ({error}): build with tools/cuda.sh, or set CUDA_HOME",
                compiler.display()
            )
        }
    }
}
