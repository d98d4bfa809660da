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
    # An unfinished default folder may be removed; a folder that the user chose may not.
    [ "$root" = "$own" ] || [ ! -e "$root" ] ||
        die "$root has no complete compiler: remove it, or choose another with SPHEREFACE_CUDA_ROOT"
    say "downloading the CUDA 13.0 compiler into $root"
    rm -rf "$root" && mkdir -p "$root/wheels"
    python3 -m pip download -q --no-deps -d "$root/wheels" nvidia-cuda-nvcc==13.0.88 \
        nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96 \
        nvidia-cuda-cccl==13.0.85 || die "the compiler could not be downloaded: install python3 with pip and try again"
    for wheel in "$root"/wheels/*.whl; do
        python3 -m zipfile -e "$wheel" "$root"
    done
    rm -r "$root/wheels"
    chmod +x "$toolkit"/bin/* "$toolkit"/nvvm/bin/*
    ln -s lib "$toolkit/lib64"
    # The linker needs the libraries to exist; the program opens the real ones at run time.
    for library in cuda cudart cublas cublasLt curand nvrtc; do
        cc -shared -o "$toolkit/lib/lib$library.so" -x c /dev/null
    done
    # The kernels of quantised networks would take most of an hour to compile, and nothing here calls them:
    # they are left empty (if something called them, the linker would report them). The kernels that
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
