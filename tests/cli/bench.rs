//! `albertine model bench`: every length is measured, and the parts add up.

use serde_json::json;

use super::Setup;
use crate::support::models::shipped_version;

#[test]
fn every_length_has_its_figures_and_the_parts_add_up() {
    let command = ["model", "bench", "albert-sentiment", "--lengths", "8,32", "--seconds", "1", "--json"];
    let answer = Setup::new().run(command, "").expect(0).json();
    assert_eq!((&answer["model"], &answer["passes"]), (&json!("albert-sentiment"), &json!(8)));
    assert_eq!(answer["execution_provider"], "cpu");
    let lengths = answer["lengths"].as_array().unwrap();
    assert_eq!(lengths.iter().map(|row| row["tokens"].as_u64().unwrap()).collect::<Vec<_>>(), [8, 32]);
    for row in lengths {
        let parts = row["seconds_per_text"].as_object().unwrap();
        assert_eq!(parts.keys().collect::<Vec<_>>(), ["tokenize", "embed", "layers", "head", "rest"]);
        assert!(parts.values().all(|seconds| seconds.as_f64().unwrap() > 0.0), "{row}");
        let sum: f64 = parts.values().map(|seconds| seconds.as_f64().unwrap()).sum();
        assert!((sum * row["texts_per_second"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{row}");
        let tokens = row["texts_per_second"].as_f64().unwrap() * row["tokens"].as_f64().unwrap();
        assert!((row["tokens_per_second"].as_f64().unwrap() / tokens - 1.0).abs() < 1e-9, "{row}");
    }
}

#[test]
fn a_table_is_for_people_and_a_length_that_cannot_be_is_refused() {
    let setup = Setup::new();
    let version = shipped_version("albert-sentiment");
    let bench = ["model", "bench", "albert-sentiment", "--seconds", "1"];
    setup
        .run(bench.iter().chain(&["--lengths", "16", "--batch", "2"]), "")
        .expect(0)
        .prints(&format!(
            "Model albert-sentiment {version}: 8 passes, one session on one thread on `cpu`, 2 text(s) at once\n"
        ))
        .prints("tokens/s");
    let refused = setup.run(bench.iter().chain(&["--lengths", "16,257"]), "").expect(2);
    refused.says("`257` is not above 2, and at most 256, the model's window");
    setup.run(bench.iter().chain(&["--batch", "0"]), "").expect(2);
}
