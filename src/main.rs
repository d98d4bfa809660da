//! The `sphereface` program: maps results to exit codes, nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    sphereface::cli::main()
}
