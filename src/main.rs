//! The command line of Standpipe.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
