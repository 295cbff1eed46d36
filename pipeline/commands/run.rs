//! `albertine run`: labels all configured streams until a signal says stop.

use tokio::signal::unix::{SignalKind, signal};

use super::{GlobalOptions, runtime};
use crate::topology;

/// Exit code of a process that a second signal ended, by the shell's convention for SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
SIGTERM or Ctrl-C stops: reading ends, what is in flight is stored until `shutdown.deadline`, and the
partitions are handed back. A second one ends the process at once; nothing is lost or stored twice either way.")]
pub struct RunArgs {}

pub fn run(global: &GlobalOptions, _: RunArgs) -> anyhow::Result<()> {
    let config = global.load_config()?.with_streams()?;
    crash_on_panic();
    #[cfg(feature = "failpoints")]
    let _failpoints = fail::FailScenario::setup();
    runtime()?.block_on(async {
        let shutdown = wait_for_signal()?;
        topology::run(config, shutdown).await
    })
}

/// A thread that is gone would leave its records unfinished for ever. Ending the process is safe: the next
/// one goes on from the checkpoint.
fn crash_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

fn wait_for_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        next_of(&mut terminate, &mut interrupt).await;
        tracing::info!("stopping: storing what is in flight; a second signal ends at once");
        tokio::spawn(async move {
            next_of(&mut terminate, &mut interrupt).await;
            std::process::exit(EXIT_INTERRUPTED);
        });
    })
}

async fn next_of(first: &mut tokio::signal::unix::Signal, second: &mut tokio::signal::unix::Signal) {
    tokio::select! {
        _ = first.recv() => {}
        _ = second.recv() => {}
    }
}
