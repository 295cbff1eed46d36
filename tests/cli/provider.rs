//! `engine.execution_provider`: every command that computes does so with it, or says what is missing.

use super::{Answer, CONFIG, Setup};

const TEXT: &str = "A fine kettle.\n";

#[test]
fn no_command_computes_on_the_cpu_what_was_asked_of_a_gpu() {
    let setup = Setup::new();
    let library = std::env::var("ORT_DYLIB_PATH").unwrap();
    let file = setup.write("rated.jsonl", r#"{"text": "A fine kettle.", "label": "positive"}"#);
    let file = file.to_str().unwrap();
    let cuda = |arguments: &[&str]| {
        let mut command = setup.command(arguments);
        command.env("ALBERTINE_ENGINE__EXECUTION_PROVIDER", "cuda").env("ALBERTINE_ENGINE__CUDA_DEVICE", "1");
        Answer::of(&mut command, TEXT).expect(1)
    };
    let problem = format!("cannot compute on `cuda:1` with the ONNX Runtime in `{library}`: ");
    for arguments in [
        &["classify", "--model", "albert-sentiment"] as &[&str],
        &["model", "bench", "albert-sentiment", "--lengths", "8", "--seconds", "1"],
        &["model", "evaluate", "albert-sentiment", file],
        &["model", "calibrate", "albert-sentiment", file],
    ] {
        let answer = cuda(arguments).says(&problem).says("or set `engine.execution_provider = \"cpu\"`\n");
        assert_eq!(answer.stdout, "", "{arguments:?} labelled something all the same");
    }
    cuda(&["model", "verify", "albert-sentiment"]).prints(&format!("failed  longest window: {problem}"));
}

#[test]
fn settings_of_a_gpu_are_refused_where_the_cpu_computes() {
    let with = |engine: &str| CONFIG.replace("[kafka]", &format!("[engine]\n{engine}\n[kafka]"));
    let setup = Setup::with_config(&with("execution_provider = \"cpu\"\ncuda_device = 0"));
    let classify = ["classify", "--model", "albert-sentiment"];
    setup.run(classify, TEXT).expect(78).says("`engine.cuda_device`: is for a GPU, and the CPU computes");
    let setup = Setup::with_config(&with("execution_provider = \"tpu\""));
    setup.run(classify, TEXT).expect(78).says("`engine.execution_provider`: unknown variant: found `tpu`");
}
