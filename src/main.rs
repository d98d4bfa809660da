//! The `sphereface` program: one file per subcommand in `cli`; the library does the work.
// The macros panic when the reader of a pipe is gone: `terminal` has others.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
