//! What the scheduler itself costs: nanoseconds a window, with so many windows waiting of so many flows.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use albertine::engine::{
    Priority,
    provider::CPU_GROUP,
    scheduler::{Running, Scheduler},
};
use criterion::{BenchmarkId, Criterion};

use crate::lengths::{PASSES, Shape, sets};

const WAITING: [usize; 4] = [100, 1_000, 10_000, 100_000];
const FLOWS: [u64; 3] = [1, 16, 256];

/// As large as what the engine's queue holds of a window: a list, a pointer and some numbers.
type Payload = [u64; 8];

/// Measures all sizes, with Criterion's options of the command line.
pub fn measure() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
        .configure_from_args();
    let mut group = criterion.benchmark_group("cost of one window");
    for waiting in WAITING {
        for flows in FLOWS {
            let id = BenchmarkId::new(format!("{waiting} waiting"), format!("{flows} flows"));
            group.bench_function(id, |bencher| {
                let mut line = Line::filled(waiting, flows);
                bencher.iter_custom(|windows| line.time(windows));
            });
        }
    }
    group.finish();
    criterion.final_summary();
}

/// A scheduler that always has as many windows waiting.
struct Line {
    scheduler: Scheduler<Payload>,
    /// Product reviews, whose lengths differ most, over and over.
    windows: Vec<Shape>,
    flows: u64,
    pushed: usize,
}

impl Line {
    fn filled(waiting: usize, flows: u64) -> Self {
        let [_, reviews, _] = sets();
        let windows = reviews.documents.into_iter().flatten().collect();
        let mut line = Self { scheduler: Scheduler::new(CPU_GROUP), windows, flows, pushed: 0 };
        line.push(waiting);
        line
    }

    fn push(&mut self, windows: usize) {
        for _ in 0..windows {
            let length = self.windows[self.pushed % self.windows.len()].length;
            let flow = self.pushed as u64 % self.flows;
            self.scheduler.push(Priority::Live, flow, 0, length, [length as u64; 8]);
            self.pushed += 1;
        }
    }

    /// How long so many windows take: from joining the line to a group.
    fn time(&mut self, windows: u64) -> Duration {
        let mut taken = 0;
        let start = Instant::now();
        while taken < windows {
            taken += self.turn() as u64;
        }
        // The last group holds more than were asked for.
        start.elapsed().mul_f64(windows as f64 / taken as f64)
    }

    /// A group is taken, half of it leaves, others take its place, and as many as were taken join the line.
    fn turn(&mut self) -> usize {
        let Some(group) = self.scheduler.next_group() else { return 0 };
        let stay = group.windows.len().div_ceil(2);
        let longest = group.windows.iter().take(stay).map(|window| window[0] as usize).max().unwrap_or_default();
        let (priority, model) = (group.priority, group.model);
        let running = Running { priority, model, windows: stay, longest, steps: 1, passes: PASSES };
        let entering = self.scheduler.companions(&running);
        let taken = group.windows.len() + entering.len();
        black_box((group, entering));
        self.push(taken);
        taken
    }
}
