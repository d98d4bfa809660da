#!/bin/sh
# Builds sphereface for NVIDIA GPUs, on any x86-64 Linux machine with Rust, pip and a C++ compiler:
#   tools/cuda.sh [build|test] [ARGUMENTS OF CARGO...]
# The machine needs neither a GPU nor the CUDA toolkit: its compiler comes from the Python package
# registry (105 MB to load, 280 MB unpacked under target/cuda; SPHEREFACE_CUDA_ROOT chooses another
# folder). CUDA_COMPUTE_CAP is the oldest GPU the program runs on, 80 (Ampere) if not set.
set -eu
cd "$(dirname "$0")/.."

own=$PWD/target/cuda
root=${SPHEREFACE_CUDA_ROOT:-$own}
toolkit=$root/nvidia/cu13
say() { printf '%s\n' "cuda: $*"; }
die() { printf '%s\n' "cuda: $*" >&2; exit 1; }

if [ ! -e "$root/complete" ]; then
    # What was left half done here is ours to remove, a folder that somebody named is not.
    [ "$root" = "$own" ] || [ ! -e "$root" ] ||
        die "$root has no complete compiler: remove it, or choose another with SPHEREFACE_CUDA_ROOT"
    say "loading the CUDA 13.0 compiler into $root"
    rm -rf "$root" && mkdir -p "$root/wheels"
    python3 -m pip download -q --no-deps -d "$root/wheels" nvidia-cuda-nvcc==13.0.88 \
        nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96 \
        nvidia-cuda-cccl==13.0.85 || die "the compiler could not be loaded: install python3 with pip and try again"
    for wheel in "$root"/wheels/*.whl; do
        python3 -m zipfile -e "$wheel" "$root"
    done
    rm -r "$root/wheels"
    chmod +x "$toolkit"/bin/* "$toolkit"/nvvm/bin/*
    ln -s lib "$toolkit/lib64"
    # The linker wants to see the libraries; the program opens the real ones when it runs.
    for library in cuda cudart cublas cublasLt curand nvrtc; do
        cc -shared -o "$toolkit/lib/lib$library.so" -x c /dev/null
    done
    # Most of an hour would go into kernels of quantised networks, which nothing here calls: they
    # are left empty (would something call them, the linker would name them). The kernels that
    # run are compiled to PTX, not with -c.
    mkdir "$toolkit/quick"
    cat >"$toolkit/quick/nvcc" <<EOF
#!/bin/sh
case " \$* " in
*" -c -o "*) while [ "\$1" != -o ]; do shift; done; exec cc -c -x c /dev/null -o "\$2" ;;
*) exec "$toolkit/bin/nvcc" "\$@" ;;
esac
EOF
    chmod +x "$toolkit/quick/nvcc"
    touch "$root/complete"
fi

PATH="$toolkit/quick:$toolkit/bin:$HOME/.cargo/bin:$PATH"
export PATH CUDA_HOME="$toolkit" CUDA_COMPUTE_CAP="${CUDA_COMPUTE_CAP:-80}"
unset CUDA_PATH CUDA_ROOT CUDA_TOOLKIT_ROOT_DIR
command=${1:-build}
[ $# -eq 0 ] || shift
exec cargo "$command" --release --features cuda-loader "$@"
