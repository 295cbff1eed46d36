//! What holds for every command: exit codes, help, where settings come from, and plain output.

use std::process::Command;

use super::{Answer, CONFIG, Setup, with_servers};

const DONE: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const CONFIGURATION: i32 = 78;

#[test]
fn wrong_usage_ends_with_2_and_shows_how_it_is_right() {
    let setup = Setup::new();
    setup.run([] as [&str; 0], "").expect(USAGE).says("Usage: albertine");
    setup.run(["no-such-command"], "").expect(USAGE).says("no-such-command");
    setup.run(["check", "--no-such-option"], "").expect(USAGE).says("--no-such-option");
    setup.run(["classify"], "").expect(USAGE).says("--model");
    setup.run(["database"], "").expect(USAGE).says("migrate");
    setup.run(["check", "--log", "=loud="], "").expect(USAGE).says("`=loud=` is not a log filter");
    setup
        .run(["stream", "produce", "nothing", "-"], "")
        .expect(USAGE)
        .says("no stream `nothing` is configured; there is: reviews");
    setup.run(["run", "--limit", "5"], "").expect(USAGE).says("--dry-run");
    setup.run(["backfill", "start", "nothing", "a.jsonl"], "").expect(USAGE).says("there is: reviews");
    setup.run(["backfill", "start", "reviews"], "").expect(USAGE).says("<FILES>");
    let wrong = ["backfill", "start", "reviews", "a.jsonl", "--field", "text"];
    setup.run(wrong, "").expect(USAGE).says("`--field`: `text` must be NAME=PATH");
    setup.run(["backfill", "start", "reviews", "a.jsonl", "--detach", "--dry-run"], "").expect(USAGE);
    setup.run(["position", "show", "nothing"], "").expect(USAGE).says("there is: reviews");
    setup.run(["position", "set", "reviews", "--published", "stored"], "").expect(USAGE).says("--all");
    setup.run(["position", "set", "reviews", "--all"], "").expect(USAGE).says("--published");
    let both = ["position", "set", "reviews", "--all", "--published", "stored", "--stored", "latest"];
    setup.run(both, "").expect(USAGE).says("cannot be used with");
    setup.run(["position", "set", "reviews", "--all", "--published", "yes"], "").expect(USAGE).says("must be `stored`");
}

#[test]
fn a_wrong_configuration_ends_with_78_whatever_the_command() {
    let wrong = Setup::with_config(&CONFIG.replace("topic = ", "tropic = "));
    let commands: [&[&str]; 12] = [
        &["check"],
        &["backfill", "list"],
        &["backfill", "start", "reviews", "nowhere.jsonl"],
        &["verify"],
        &["run"],
        &["status"],
        &["position", "show", "reviews"],
        &["database", "migrate"],
        &["classify", "--model", "albert-sentiment"],
        &["stream", "produce", "reviews", "-"],
        &["stream", "peek", "reviews"],
        &["stream", "tail", "reviews"],
    ];
    for command in commands {
        wrong.run(command, "").expect(CONFIGURATION).says("tropic");
        let missing = ["--config", "nowhere.toml"];
        wrong.run(command.iter().chain(&missing), "").expect(CONFIGURATION).says("`nowhere.toml`").says("`--config`");
    }
}

#[test]
fn commands_that_work_on_streams_demand_one_and_others_do_not() {
    let (others, _) = CONFIG.split_once("[streams.").unwrap();
    let without = Setup::with_config(others);
    let demanding: [&[&str]; 5] =
        [&["check"], &["run"], &["status"], &["stream", "produce", "reviews", "-"], &["run", "--dry-run"]];
    for command in demanding {
        let answer = without.run(command, "").expect(CONFIGURATION);
        answer.says("`streams`: there is none: add `[streams.NAME]` with a topic, models and fields");
    }
    without.run(["classify", "--model", "albert-sentiment"], "A fine kettle.\n").expect(DONE);
    without.run(["database", "migrate", "--print-sql"], "").expect(DONE);
}

#[test]
fn what_fails_ends_with_1_and_one_line_of_error() {
    let setup = Setup::new();
    let answer = setup.run(["classify", "--model", "albert-sentiment", "nowhere.txt"], "").expect(FAILED);
    assert!(answer.stderr.starts_with("error: cannot open `nowhere.txt`: "), "{answer:#?}");
    assert_eq!(answer.stderr.lines().count(), 1, "{answer:#?}");
    assert_eq!(answer.stdout, "");
}

/// The names below `Commands:` in a help text.
fn subcommands(help: &str) -> Vec<String> {
    let section =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| line.starts_with("  "));
    section
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_command_has_a_help_that_says_what_it_does() {
    let setup = Setup::new();
    let mut commands = vec![Vec::new()];
    let mut seen = Vec::new();
    while let Some(command) = commands.pop() {
        for flag in ["--help", "-h"] {
            let answer = setup.run(command.iter().map(String::as_str).chain([flag]), "").expect(DONE);
            let first = answer.stdout.lines().next().unwrap_or_default();
            assert!(!first.is_empty() && !first.starts_with("Usage"), "{command:?} has no description: {answer:#?}");
            let usage = format!("Usage: {}", [&["albertine".to_owned()], command.as_slice()].concat().join(" "));
            assert!(answer.stdout.contains(&usage), "{command:?} does not say how it is used: {answer:#?}");
            assert_eq!(answer.stderr, "", "help goes to the standard output");
        }
        let help = setup.run(command.iter().map(String::as_str).chain(["--help"]), "").stdout;
        commands.extend(subcommands(&help).into_iter().map(|name| [command.as_slice(), &[name]].concat()));
        seen.push(command.join(" "));
    }
    seen.sort();
    let expected = [
        "",
        "backfill",
        "backfill cancel",
        "backfill list",
        "backfill pause",
        "backfill resume",
        "backfill start",
        "backfill status",
        "backfill work",
        "check",
        "classify",
        "database",
        "database migrate",
        "dead-letter",
        "dead-letter discard",
        "dead-letter list",
        "dead-letter replay",
        "dead-letter show",
        "model",
        "model bench",
        "model calibrate",
        "model evaluate",
        "model list",
        "model verify",
        "position",
        "position set",
        "position show",
        "run",
        "status",
        "stream",
        "stream peek",
        "stream produce",
        "stream tail",
        "verify",
    ];
    assert_eq!(seen, expected);
}

#[test]
fn help_shows_examples_where_a_command_takes_files_or_filters() {
    let setup = Setup::new();
    for command in [
        &[] as &[&str],
        &["backfill"],
        &["backfill", "start"],
        &["check"],
        &["classify"],
        &["dead-letter", "discard"],
        &["dead-letter", "list"],
        &["dead-letter", "replay"],
        &["dead-letter", "show"],
        &["model"],
        &["model", "bench"],
        &["model", "calibrate"],
        &["model", "evaluate"],
        &["model", "list"],
        &["model", "verify"],
        &["position", "set"],
        &["position", "show"],
        &["status"],
        &["stream", "produce"],
        &["stream", "tail"],
        &["verify"],
    ] {
        setup.run(command.iter().chain(&["--help"]), "").expect(DONE).prints("Examples:\n  ");
    }
}

#[test]
fn the_command_line_wins_over_the_environment_which_wins_over_the_file() {
    let with =
        |library: &str| CONFIG.replace("[kafka]", &format!("[engine]\nonnxruntime_library = \"{library}\"\n[kafka]"));
    let setup = Setup::with_config(&with("from-file.so"));
    let arguments = ["classify", "--model", "albert-sentiment"];
    // Which library is tried shows in the error.
    let mut command = setup.command(arguments);
    command.env_remove("ORT_DYLIB_PATH");
    let says = |command: &mut Command, library: &str| {
        Answer::of(command, "").expect(FAILED).says(&format!("cannot load ONNX Runtime from `{library}`"));
    };
    says(&mut command, "from-file.so");
    says(command.env("ALBERTINE_ENGINE__ONNXRUNTIME_LIBRARY", "from-key.so"), "from-key.so");
    says(command.env("ORT_DYLIB_PATH", "from-variable.so"), "from-variable.so");
    says(command.args(["--onnxruntime-library", "from-line.so"]), "from-line.so");
}

#[test]
fn nothing_is_coloured_unless_it_goes_to_a_terminal() {
    let setup = Setup::new();
    let commands: [&[&str]; 6] = [
        &["--help"],
        &["no-such-command"],
        &["check", "--log", "debug"],
        &["run", "--log", "debug"],
        &["classify", "--model", "albert-sentiment", "--log", "debug"],
        &["stream", "peek", "nothing"],
    ];
    for arguments in commands {
        let mut command = setup.command(arguments);
        with_servers(&mut command).env("TERM", "xterm-256color").env("COLORTERM", "truecolor").env_remove("NO_COLOR");
        let answer = Answer::of(&mut command, "A fine kettle.\n");
        assert!(!answer.stdout.is_empty() || !answer.stderr.is_empty(), "{arguments:?} wrote nothing to look at");
        assert!(!answer.stdout.contains('\u{1b}') && !answer.stderr.contains('\u{1b}'), "{arguments:?}: {answer:#?}");
    }
}
