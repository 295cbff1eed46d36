//! The pauses between attempts at what will work again by itself.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// Pauses that grow from `min` to `max`, with jitter, so that many workers do not come back at one moment. Endless.
pub fn delays(min: Duration, max: Duration) -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default().with_min_delay(min).with_max_delay(max).with_jitter().without_max_times().build()
}
