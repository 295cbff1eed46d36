//! The scheduler alone, on the lengths of real documents: what it costs, and what comes of its choices.
//!
//!     cargo bench --bench scheduler                   both
//!     cargo bench --bench scheduler -- simulation     only what comes of its choices; the same figures every time
//!     cargo bench --bench scheduler -- cost           only what it costs

mod cost;
mod lengths;
mod policies;
mod report;
mod simulation;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if wanted.is_empty() || wanted == ["simulation"] {
        report::print();
    }
    if wanted != ["simulation"] {
        cost::measure();
    }
}
