//! What every measurement needs: waiting, medians, and what the operating system counted.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use procfs::{
    Current,
    process::{Process as Procfs, all_processes},
};

use crate::support::pipeline::Process;

/// How often a condition is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `condition` gives something.
pub fn wait<T>(what: &str, limit: Duration, condition: impl FnMut() -> Option<T>) -> T {
    wait_looking(LOOK_INTERVAL, what, limit, condition)
}

/// The same with another interval.
fn wait_looking<T>(interval: Duration, what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(began.elapsed() < limit, "waited {limit:?} in vain until {what}");
        std::thread::sleep(interval);
    }
}

/// Waits until a counter of the program has come so far.
pub fn wait_for_count(process: &Process, metric: &str, count: usize, limit: Duration) {
    wait_for_count_looking(LOOK_INTERVAL, process, metric, count, limit);
}

/// The same, asking the program as often: each answer takes some of the core that is measured.
pub fn wait_for_count_looking(interval: Duration, process: &Process, metric: &str, count: usize, limit: Duration) {
    let reached = || (process.metric(metric) >= count as f64).then_some(());
    wait_looking(interval, &format!("{metric} is {count}"), limit, reached);
}

/// Milliseconds since 1970.
pub fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() * 1000.0
}

/// The core's name, and whether it multiplies integers with VNNI.
pub fn core() -> String {
    let info = procfs::CpuInfo::current().unwrap();
    let vnni = info.flags(0).is_some_and(|flags| flags.iter().any(|flag| flag.contains("vnni")));
    let name = info.model_name(0).unwrap_or("unknown").to_owned();
    format!("{name}, {} cores, {}", info.num_cores(), if vnni { "VNNI" } else { "without VNNI" })
}

/// The value at a share of sorted values.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

/// A median with both ends.
pub struct Spread {
    pub median: f64,
    lowest: f64,
    highest: f64,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self { median: percentile(&values, 0.5), lowest: values[0], highest: values[values.len() - 1] }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = formatter.precision().unwrap_or(2);
        let Self { median, lowest, highest } = self;
        write!(formatter, "{median:.decimals$} ({lowest:.decimals$} to {highest:.decimals$})")
    }
}

/// Seconds on a core since its start, by thread name.
pub fn thread_seconds(process: &Process) -> BTreeMap<String, f64> {
    let mut seconds = BTreeMap::new();
    let tasks = Procfs::new(process.id() as i32).unwrap().tasks().unwrap();
    for stat in tasks.filter_map(|task| task.ok()?.stat().ok()) {
        *seconds.entry(stat.comm).or_default() += ticks(stat.utime + stat.stime);
    }
    seconds
}

/// Seconds on a core of the program since its start.
pub fn seconds(process: &Process) -> f64 {
    let stat = Procfs::new(process.id() as i32).unwrap().stat().unwrap();
    ticks(stat.utime + stat.stime)
}

/// Seconds on a core of this process since its start.
pub fn own_seconds() -> f64 {
    let stat = Procfs::myself().unwrap().stat().unwrap();
    ticks(stat.utime + stat.stime)
}

/// Seconds on a core of all processes of this name, those that ended among their children included.
pub fn seconds_of_processes(name: &str) -> f64 {
    let stats = all_processes().unwrap().filter_map(|process| process.ok()?.stat().ok());
    let of_name = stats.filter(|stat| stat.comm == name);
    of_name.map(|stat| ticks(stat.utime + stat.stime) + ticks((stat.cutime + stat.cstime).max(0) as u64)).sum()
}

/// Resident size now, in MiB.
pub fn resident_mib(process: &Process) -> f64 {
    let status = Procfs::new(process.id() as i32).unwrap().status().unwrap();
    status.vmrss.unwrap_or_default() as f64 / 1024.0
}

/// Resident size at most since its start, in MiB.
pub fn resident_peak_mib(process: &Process) -> f64 {
    let status = Procfs::new(process.id() as i32).unwrap().status().unwrap();
    status.vmhwm.unwrap_or_default() as f64 / 1024.0
}

fn ticks(ticks: u64) -> f64 {
    ticks as f64 / procfs::ticks_per_second() as f64
}
