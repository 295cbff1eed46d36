//! What ends the process, and what does not.
//!
//! Crash points are places where the delivery tests kill or freeze the program, to see that nothing is lost or done twice.
//!
//! A plan in `FAILPOINTS` says where and when, in the syntax of the `fail` crate: `after-store=3*off->return` kills
//! at the fourth pass, `after-store=return(stop)` freezes the process as SIGSTOP from outside would, and
//! `engine-pass=sleep(20)` makes the network slow without using a core. Without the
//! feature `failpoints` nothing of it is compiled.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
};

thread_local! {
    static IS_CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Runs what a broken file may bring to panic in a library: that is then an error of the file, and not the end of the
/// process. What it worked on must not be used again.
///
/// # Errors
/// The message of the panic.
pub fn contain<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    IS_CONTAINED.set(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    IS_CONTAINED.set(false);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".into())
    })
}

/// Whether a panic of this thread is an error of a file.
pub fn is_contained() -> bool {
    IS_CONTAINED.get()
}

/// A place by its name.
pub fn crash_point(name: &str) {
    #[cfg(not(feature = "failpoints"))]
    let _ = name;
    #[cfg(feature = "failpoints")]
    fail::fail_point!(name, |action| die_or_stop(action.as_deref()));
}

#[cfg(feature = "failpoints")]
fn die_or_stop(action: Option<&str>) {
    if action != Some("stop") {
        std::process::abort();
    }
    // The signal is on its way when `kill` ends, so this thread does nothing more before it arrives.
    let stopped = std::process::Command::new("kill").arg("-STOP").arg(std::process::id().to_string()).status();
    if !stopped.is_ok_and(|status| status.success()) {
        std::process::abort();
    }
}
