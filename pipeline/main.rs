//! The `albertine` program: reads the command line and dispatches. Everything else is the library's.

use std::process::ExitCode;

fn main() -> ExitCode {
    albertine::commands::main()
}
