//! The engine's settings: as written, and as the engine takes them.

use std::{num::NonZeroUsize, path::PathBuf};

use bytesize::ByteSize;
use serde::Deserialize;

use super::resolved::Problems;
use crate::engine::{
    EngineConfig,
    provider::{CudaDevice, Provider},
    scheduler::GroupLimits,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Engine {
    pub onnxruntime_library: Option<PathBuf>,
    pub execution_provider: ProviderName,
    /// 0 unless given; of `cuda` only.
    pub cuda_device: Option<u16>,
    /// `None`: as much as the device has; of `cuda` only.
    pub cuda_memory_max: Option<ByteSize>,
    /// `None`, here and below: what fits the provider.
    pub sessions: Option<NonZeroUsize>,
    pub pin_threads: bool,
    pub group_tokens_max: Option<NonZeroUsize>,
    pub queue_tokens_max: Option<NonZeroUsize>,
    pub backfill_queue_tokens_max: Option<NonZeroUsize>,
    pub tokenizer_threads: NonZeroUsize,
    /// 0: every text is computed.
    pub duplicate_cache_bytes: ByteSize,
}

/// What computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderName {
    #[default]
    Cpu,
    Cuda,
}

impl Default for Engine {
    fn default() -> Self {
        let size = |size: usize| NonZeroUsize::MIN.saturating_add(size - 1);
        Self {
            onnxruntime_library: None,
            execution_provider: ProviderName::default(),
            cuda_device: None,
            cuda_memory_max: None,
            sessions: None,
            pin_threads: false,
            group_tokens_max: None,
            queue_tokens_max: None,
            backfill_queue_tokens_max: None,
            tokenizer_threads: size(1),
            // Some 65,000 short texts: a day of a stream that repeats itself, and little beside a session.
            duplicate_cache_bytes: ByteSize::mib(16),
        }
    }
}

/// Which provider computes, and how the engine uses it.
pub(super) fn resolve(engine: &Engine, problems: &mut Problems) -> (Provider, EngineConfig) {
    let provider = resolve_provider(engine, problems);
    let sizes = provider.sizes(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
    let group_tokens_max = engine.group_tokens_max.map_or(sizes.group.tokens_max, NonZeroUsize::get);
    let queue_tokens_max = engine.queue_tokens_max.unwrap_or(sizes.queue_tokens_max);
    problems.check(queue_tokens_max.get() >= group_tokens_max, "engine.queue_tokens_max", || {
        format!("`{queue_tokens_max}` must be at least engine.group_tokens_max, `{group_tokens_max}`")
    });
    let config = EngineConfig {
        sessions: engine.sessions.unwrap_or(sizes.sessions),
        pin_threads: engine.pin_threads,
        group: GroupLimits { tokens_max: group_tokens_max, ..sizes.group },
        queue_tokens_max: queue_tokens_max.get(),
        backfill_queue_tokens_max: engine.backfill_queue_tokens_max.unwrap_or(sizes.backfill_queue_tokens_max).get(),
    };
    (provider, config)
}

fn resolve_provider(engine: &Engine, problems: &mut Problems) -> Provider {
    let memory_max = engine.cuda_memory_max.map(|size| usize::try_from(size.as_u64()).unwrap_or(usize::MAX));
    if engine.execution_provider == ProviderName::Cuda {
        problems.check(memory_max != Some(0), "engine.cuda_memory_max", || "must be larger than zero".into());
        return Provider::Cuda(CudaDevice {
            index: engine.cuda_device.unwrap_or_default(),
            memory_max: memory_max.and_then(NonZeroUsize::new),
        });
    }
    let given = [("cuda_device", engine.cuda_device.is_some()), ("cuda_memory_max", memory_max.is_some())];
    for (key, is_given) in given {
        problems.check(!is_given, format!("engine.{key}"), || {
            "is for a GPU, and the CPU computes: set `engine.execution_provider = \"cuda\"`, or remove it".into()
        });
    }
    Provider::Cpu
}
