//! What computes the graphs: the cores of this machine, or a GPU. Which sizes fit it, and what its failures mean.
//!
//! It is pure; [`super::session`] tells ONNX Runtime.

use std::{fmt, num::NonZeroUsize};

use super::scheduler::GroupLimits;

/// An execution provider of ONNX Runtime.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Provider {
    #[default]
    Cpu,
    Cuda(CudaDevice),
}

/// A GPU of NVIDIA's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CudaDevice {
    /// From 0, among the devices that CUDA lets this process see.
    pub index: u16,
    /// Of the arena of each graph of each session, in bytes; `None`: as much as the device has.
    pub memory_max: Option<NonZeroUsize>,
}

/// Groups on a CPU. What a layer writes between two of its products, 6 KB a token where it is 1,536 wide inside, stays in a core's
/// second-level cache; with 512 tokens it does not, and texts of 100 tokens take a fifth longer. Company is worth no padding.
pub const CPU_GROUP: GroupLimits = GroupLimits { tokens_max: 192, length_part: 32 };

/// Sizes of the engine that fit a provider, where the configuration gives none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    pub sessions: NonZeroUsize,
    pub group: GroupLimits,
    pub queue_tokens_max: NonZeroUsize,
    pub backfill_queue_tokens_max: NonZeroUsize,
}

/// Why a graph could not be opened, as far as ONNX Runtime's message tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The provider itself cannot compute: no driver, no such device, no memory.
    Provider,
    /// The provider has no implementation of some of the graph's operators.
    Operators,
    Graph,
}

impl Provider {
    /// As the configuration names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda(_) => "cuda",
        }
    }

    /// On a machine with as many cores.
    pub fn sizes(self, cores: NonZeroUsize) -> Sizes {
        let size = |size: usize| NonZeroUsize::MIN.saturating_add(size - 1);
        match self {
            // The queues: enough that texts of equal length meet and that no session waits for tokenizing; of a backfill less
            // than would make its pause take long.
            Self::Cpu => Sizes {
                sessions: cores,
                group: CPU_GROUP,
                queue_tokens_max: size(65_536),
                backfill_queue_tokens_max: size(16_384),
            },
            // As measured on an H100 with the bundled model in float32 (`benches/README.md`): groups of 4,096 tokens take 1.6
            // times as long as these, 65,536 gain nothing. A second session computes while the first reads logits and picks
            // rows; two more gain little and take weights of their own. The queues are those of the measurement: in smaller
            // ones fewer texts of nearly equal length meet.
            Self::Cuda(_) => Sizes {
                sessions: size(2),
                group: GroupLimits { tokens_max: 16_384, length_part: 4 },
                queue_tokens_max: size(524_288),
                backfill_queue_tokens_max: size(524_288),
            },
        }
    }

    /// What it means that ONNX Runtime could not open a graph on this provider.
    pub fn failure(self, message: &str) -> Failure {
        if self == Self::Cpu {
            return Failure::Graph;
        }
        if message.contains("fallback to CPU EP has been explicitly disabled") {
            return Failure::Operators;
        }
        // As CUDA's own libraries are quoted: `CUDA failure 100: no CUDA-capable device is detected ; …`.
        let quotes_library = ["CUDA failure", "CUBLAS failure", "CUDNN failure"].iter().any(|of| message.contains(of));
        if quotes_library { Failure::Provider } else { Failure::Graph }
    }
}

/// `cpu`, or `cuda:` with the device's index.
impl fmt::Display for Provider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(device) => write!(formatter, "cuda:{}", device.index),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUDA: Provider = Provider::Cuda(CudaDevice { index: 1, memory_max: None });

    #[test]
    fn a_device_is_given_one_session_and_groups_that_are_large_for_a_core() {
        let cores = NonZeroUsize::new(6).unwrap();
        let (cpu, cuda) = (Provider::Cpu.sizes(cores), CUDA.sizes(cores));
        assert_eq!((cpu.sessions, cuda.sessions), (cores, NonZeroUsize::new(2).unwrap()));
        assert!(cuda.group.tokens_max > cpu.group.tokens_max);
        assert!(cuda.backfill_queue_tokens_max.get() > cuda.group.tokens_max, "the next group is there");
    }

    #[test]
    fn failures_are_told_apart_by_what_onnx_runtime_says_of_them() {
        let fallback = "This session contains graph nodes that are assigned to the default CPU EP, but fallback to CPU EP has been explicitly disabled by the user.";
        let device = "CUDA failure 100: no CUDA-capable device is detected ; GPU=-1 ; hostname=a ; expr=cudaSetDevice(info_.device_id);";
        let graph = "Load model failed: Protobuf parsing failed.";
        for (message, failure) in [(fallback, Failure::Operators), (device, Failure::Provider), (graph, Failure::Graph)]
        {
            assert_eq!(CUDA.failure(message), failure, "{message}");
            assert_eq!(Provider::Cpu.failure(message), Failure::Graph, "no other provider is asked: {message}");
        }
    }

    #[test]
    fn names_are_those_of_the_configuration() {
        assert_eq!((Provider::default().name(), Provider::default().to_string()), ("cpu", "cpu".into()));
        assert_eq!((CUDA.name(), CUDA.to_string()), ("cuda", "cuda:1".into()));
    }
}
