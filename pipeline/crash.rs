//! Places where the delivery tests kill or freeze the program, to see that nothing is lost or done twice.
//!
//! A plan in `FAILPOINTS` says where and when, in the syntax of the `fail` crate: `after-store=3*off->return` kills
//! at the fourth pass, `after-store=return(stop)` freezes the process as SIGSTOP from outside would. Without the
//! feature `failpoints` nothing of it is compiled.

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
