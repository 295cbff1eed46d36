//! The `albertine` program: reads the command line and dispatches. Everything else is the library's.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    albertine::commands::main()
}
