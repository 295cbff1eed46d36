//! What computes, where ONNX Runtime has no provider but the CPU.

use albertine::engine::{
    provider::{CudaDevice, Provider},
    runtime::SessionError,
};

use super::{ROUNDING_TOLERANCE, distance, goldens, runtime, session};
use crate::support::environment;

#[test]
fn a_provider_that_the_library_lacks_is_refused_with_what_to_do() {
    let cuda = Provider::Cuda(CudaDevice::default());
    let Err(error) = runtime().clone().on(cuda) else { panic!("a library for the CPU took `{cuda}`") };
    assert!(matches!(error, SessionError::Provider { .. }), "{error:?}");
    let message = error.to_string();
    let library = environment("ORT_DYLIB_PATH");
    let begin =
        format!("cannot compute on `cuda:0` with the ONNX Runtime in `{library}`: CUDA execution provider is not");
    assert!(message.starts_with(&begin), "{message}");
    for remedy in ["built with CUDA", "`onnxruntime-gpu`", "cuDNN", "`engine.execution_provider = \"cpu\"`"] {
        assert!(message.contains(remedy), "`{remedy}` is not in: {message}");
    }

    // What was asked for the CPU is not touched by it.
    assert_eq!(runtime().provider(), Provider::Cpu);
    let golden = &goldens()[0];
    let logits = session().infer(&[albertine::text::tokenize::Tokens::single(&golden.input_ids)]).unwrap().remove(0);
    assert!(distance(&logits, &golden.logits_int8) <= ROUNDING_TOLERANCE);
}
