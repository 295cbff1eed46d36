//! The rules of `pipeline/ARCHITECTURE.md` that the compiler does not hold, by reading the source files.
//!
//! Every rule is shown to fail: on a sample that breaks it, and on a real file that would break it
//! elsewhere. Tests inside a file are not looked at, except for the file's first line.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::support::repository;

/// Lines with code in one file, without comments, blank lines and tests. Above it a file has more than
/// one subject, and a reader has to search in it.
const CODE_LINES_MAX: usize = 500;

/// Something that files of a part must not refer to.
struct Rule {
    says: &'static str,
    /// Whether a file, by its path below `pipeline/`, has to keep it.
    binds: fn(&str) -> bool,
    /// Whether a path, from the crate's root or another crate's, breaks it.
    forbids: fn(&str) -> bool,
    /// A file and a line in it that break the rule.
    broken_by: (&'static str, &'static str),
}

const RULES: [Rule; 13] = [
    Rule {
        says: "`rdkafka` is imported only below kafka/, source/kafka/ and publish/kafka/",
        binds: |file| !["kafka/", "source/kafka/", "publish/kafka/"].iter().any(|part| file.starts_with(part)),
        forbids: |path| is_below(path, "rdkafka"),
        broken_by: ("topology/mod.rs", "use rdkafka::ClientConfig;"),
    },
    Rule {
        says: "`ort` is imported only in engine/runtime.rs, engine/session.rs and engine/device.rs",
        binds: |file| !["engine/runtime.rs", "engine/session.rs", "engine/device.rs"].contains(&file),
        forbids: |path| is_below(path, "ort"),
        broken_by: ("engine/worker.rs", "fn run() { let inputs = ort::inputs![]; }"),
    },
    Rule {
        says: "`sqlx` is imported only below storage/",
        binds: |file| !file.starts_with("storage/"),
        forbids: |path| is_below(path, "sqlx"),
        broken_by: ("commands/database.rs", "use std::io; use ::sqlx::{PgPool, Row};"),
    },
    Rule {
        says: "`tokenizers` is imported only below text/",
        binds: |file| !file.starts_with("text/"),
        forbids: |path| is_below(path, "tokenizers"),
        broken_by: ("model/folder.rs", "use tokenizers as hf;"),
    },
    Rule {
        says: "`ureq` is imported only below registry/",
        binds: |file| !file.starts_with("registry/"),
        forbids: |path| is_below(path, "ureq"),
        broken_by: ("decode/schema.rs", "use ureq::Agent;"),
    },
    Rule {
        says: "source/ never imports another adapter",
        binds: |file| file.starts_with("source/"),
        forbids: |path| ["crate::storage", "crate::publish"].iter().any(|adapter| is_below(path, adapter)),
        broken_by: ("source/kafka/mod.rs", "use super::super::storage::Batch;"),
    },
    Rule {
        says: "storage/ never imports another adapter",
        binds: |file| file.starts_with("storage/"),
        forbids: |path| ["crate::source", "crate::publish"].iter().any(|adapter| is_below(path, adapter)),
        broken_by: ("storage/claims.rs", "use crate::{domain::label::Label, source::{Lease, kafka}};"),
    },
    Rule {
        says: "source/ knows of the configuration only its secrets",
        binds: |file| file.starts_with("source/"),
        forbids: |path| is_below(path, "crate::config") && !is_below(path, "crate::config::secret"),
        broken_by: ("source/file/mod.rs", "use crate::config;"),
    },
    Rule {
        says: "storage/ and stream/ do not know the configuration",
        binds: |file| file.starts_with("storage/") || file.starts_with("stream/"),
        forbids: |path| is_below(path, "crate::config"),
        broken_by: ("stream/intake.rs", "fn of(config: &crate::config::resolved::Config) {}"),
    },
    Rule {
        says: "what is pure knows no runtime, no configuration and no adapter",
        binds: is_pure,
        forbids: |path| {
            let foreign = ["tokio", "sqlx", "rdkafka", "ort", "tokenizers", "ureq"];
            let ours = [
                "crate::config",
                "crate::source",
                "crate::storage",
                "crate::publish",
                "crate::registry",
                "crate::engine::runtime",
                "crate::engine::session",
            ];
            foreign.iter().chain(&ours).any(|root| is_below(path, root))
        },
        broken_by: ("engine/scheduler.rs", "use super::session::ModelSession;"),
    },
    Rule {
        says: "what is pure has no clock of its own",
        binds: is_pure,
        forbids: |path| {
            ["Instant::now", "SystemTime::now", "Utc::now", "Local::now"].iter().any(|clock| path.ends_with(clock))
        },
        broken_by: ("domain/version.rs", "fn age() { std::time::Instant::now(); }"),
    },
    Rule {
        says: "only topology/ and engine/worker.rs start threads",
        binds: |file| !file.starts_with("topology/") && file != "engine/worker.rs",
        forbids: |path| ["thread::spawn", "thread::Builder", "thread::scope"].iter().any(|start| path.contains(start)),
        broken_by: ("source/kafka/mod.rs", "fn poll() { std::thread::Builder::new(); }"),
    },
    Rule {
        says: "nothing but main.rs calls the commands",
        binds: |file| !file.starts_with("commands/") && file != "main.rs",
        forbids: |path| is_below(path, "crate::commands"),
        broken_by: ("topology/mod.rs", "use crate::commands;"),
    },
];

fn is_pure(file: &str) -> bool {
    file.starts_with("domain/")
        || file.starts_with("decode/")
        || ["engine/provider.rs", "engine/scheduler.rs", "model/graph.rs", "text/window.rs"].contains(&file)
}

fn is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// What breaks which rule, as `file refers to path: rule`.
fn violations(file: &str, source: &str) -> Vec<String> {
    let paths = references(file, source);
    let broken = |rule: &'static Rule| {
        let paths = paths.iter().filter(|path| (rule.binds)(file) && (rule.forbids)(path)).collect::<Vec<_>>();
        paths.into_iter().map(|path| format!("{file} refers to `{path}`: {}", rule.says)).collect::<Vec<_>>()
    };
    RULES.iter().flat_map(broken).collect()
}

#[test]
fn imports_follow_the_layers() {
    let broken: Vec<String> = sources("pipeline").iter().flat_map(|(file, text)| violations(file, text)).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_rule_finds_what_breaks_it_and_nothing_in_tests_comments_and_strings() {
    for rule in &RULES {
        let (file, line) = rule.broken_by;
        let found = violations(file, line);
        assert!(found.iter().any(|found| found.ends_with(rule.says)), "`{line}` in {file} should break: {}", rule.says);
        for harmless in [
            format!("//! {line}\n"),
            format!("/* {line} */\n"),
            format!("const A: &str = r#\"{line}\"#;\n"),
            format!("fn a() {{}}\n\n#[cfg(test)]\nmod tests {{\n    {line}\n}}\n"),
            format!("#[cfg(test)]\n#[expect(clippy::all)]\nmod tests {{\n    {line}\n}}\n"),
        ] {
            assert_eq!(violations(file, &harmless), Vec::<String>::new(), "{harmless}");
        }
    }
}

#[test]
fn the_places_that_a_rule_spares_need_it() {
    let spared = [
        ("source/kafka/mod.rs", "rdkafka"),
        ("engine/runtime.rs", "ort"),
        ("engine/session.rs", "ort"),
        ("storage/postgres.rs", "sqlx"),
        ("text/tokenize.rs", "tokenizers"),
        ("registry/mod.rs", "ureq"),
        ("source/kafka/mod.rs", "crate::config::secret"),
        ("topology/mod.rs", "std::thread::Builder"),
        ("engine/worker.rs", "std::thread::Builder"),
    ];
    let sources = sources("pipeline");
    for (file, root) in spared {
        let (_, text) = sources.iter().find(|(name, _)| name == file).unwrap_or_else(|| panic!("there is no {file}"));
        let found = references(file, text);
        assert!(found.iter().any(|path| is_below(path, root)), "{file} does not refer to `{root}`: {found:#?}");
    }
}

#[test]
fn only_the_call_for_a_topics_id_is_unsafe() {
    let is_unsafe = |text: &str| {
        code(text)
            .split(|character: char| !(character.is_alphanumeric() || character == '_'))
            .any(|word| word == "unsafe")
    };
    assert!(is_unsafe("fn a() { unsafe { b() } }") && is_unsafe("unsafe impl Send for A {}"));
    assert!(!is_unsafe("// unsafe\n#![expect(unsafe_code, reason = \"unsafe\")]"));
    let files = [sources("pipeline"), sources("tests")].concat();
    let found: Vec<&str> = files.iter().filter(|(_, text)| is_unsafe(text)).map(|(file, _)| file.as_str()).collect();
    assert_eq!(found, ["kafka/topic_id.rs"]);
}

#[test]
fn every_file_opens_with_its_role() {
    let opens = |text: &str| text.starts_with("//! ");
    assert!(!opens("use std::fs;\n//! late"), "a file that opens with code must be found");
    let files = [sources("pipeline"), sources("tests")].concat();
    let without: Vec<&str> = files.iter().filter(|(_, text)| !opens(text)).map(|(file, _)| file.as_str()).collect();
    assert!(without.is_empty(), "these files do not open with `//!`: {without:#?}");
}

#[test]
fn no_file_of_the_program_is_too_long() {
    let length = |text: &str| code(text).lines().filter(|line| !line.trim().is_empty()).count();
    assert_eq!(length("//! a\n\nfn a() {\n    // b\n}\n\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n"), 2);
    let long: Vec<String> = sources("pipeline")
        .iter()
        .map(|(file, text)| (file, length(text)))
        .filter(|(_, lines)| *lines > CODE_LINES_MAX)
        .map(|(file, lines)| format!("{file} has {lines} lines of code, more than {CODE_LINES_MAX}"))
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn nothing_in_the_repository_names_a_folder_of_one_machine() {
    // In two parts, or this file would name them itself.
    let folders = [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat(), ["/ho", "me/"].concat()];
    let names_one = |line: &str| folders.iter().any(|folder| line.contains(folder.as_str()));
    assert!(names_one(&format!("cd {}main", folders[0])), "a line that names one must be found");
    let mut found = Vec::new();
    for path in files(&repository(".")) {
        // What is not UTF-8 is not written by hand.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let lines = text.lines().enumerate().filter(|(_, line)| names_one(line));
        found.extend(lines.map(|(index, _)| format!("{}:{}", path.display(), index + 1)));
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// The Rust files below a folder of the repository, each with its path there.
fn sources(folder: &str) -> Vec<(String, String)> {
    let root = repository(folder);
    let sources: Vec<(String, String)> = files(&root)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect();
    assert!(sources.len() > 5, "only {} Rust files in `{folder}`: the walk is broken", sources.len());
    sources
}

/// All files below a folder, without what git ignores, git's own and links.
fn files(folder: &Path) -> Vec<PathBuf> {
    let ignored = [".git", ".local", "target", "__pycache__", ".venv"];
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if ignored.iter().any(|ignored| entry.file_name() == *ignored) {
            continue;
        }
        if kind.is_file() {
            found.push(entry.path());
        } else if kind.is_dir() {
            found.extend(files(&entry.path()));
        }
    }
    found.sort();
    found
}

/// All paths that a file's code refers to. Imports are taken apart, and `self` and `super` resolved, so
/// that paths into this crate begin with `crate`.
fn references(file: &str, source: &str) -> BTreeSet<String> {
    let (module, code) = (module_of(file), code(source));
    let mut paths = written_paths(&code);
    for tree in use_trees(&code) {
        expand(&tree, "", &mut paths);
    }
    paths.iter().map(|path| resolve(path, &module)).collect()
}

/// `source/kafka/mod.rs` is `crate::source::kafka`.
fn module_of(file: &str) -> Vec<String> {
    let parts = file.trim_end_matches(".rs").split('/').filter(|part| !["mod", "lib", "main"].contains(part));
    std::iter::once("crate").chain(parts).map(str::to_owned).collect()
}

fn resolve(path: &str, module: &[String]) -> String {
    let mut segments: Vec<&str> = path.split("::").collect();
    let relative = matches!(segments.first(), Some(&"self" | &"super"));
    let mut base: Vec<&str> = if relative { module.iter().map(String::as_str).collect() } else { Vec::new() };
    while let Some(&first @ ("self" | "super")) = segments.first() {
        segments.remove(0);
        if first == "super" {
            base.pop();
        }
    }
    base.extend(segments);
    base.join("::")
}

/// Paths as they stand in the code: names with `::` between them.
fn written_paths(code: &str) -> Vec<String> {
    let is_part = |character: char| character.is_alphanumeric() || character == '_' || character == ':';
    let words = code.split(|character| !is_part(character)).map(|word| word.trim_matches(':'));
    words.filter(|word| word.contains("::")).map(str::to_owned).collect()
}

/// What stands between `use` and its semicolon.
fn use_trees(code: &str) -> Vec<String> {
    let is_name = |character: char| character.is_alphanumeric() || character == '_';
    let starts = code.match_indices("use ").filter(|(at, _)| !code[..*at].ends_with(is_name));
    starts.filter_map(|(at, word)| code[at + word.len()..].split_once(';')).map(|(tree, _)| tree.to_owned()).collect()
}

/// Adds every path of a tree such as `a::{b, c::{self, d}}`.
fn expand(tree: &str, prefix: &str, paths: &mut Vec<String>) {
    let tree = tree.trim().trim_start_matches("::");
    let Some((head, rest)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap_or_default().trim();
        let path = format!("{prefix}{name}");
        paths.push(path.strip_suffix("::self").unwrap_or(&path).to_owned());
        return;
    };
    let inner = rest.trim_end().strip_suffix('}').unwrap_or(rest);
    let prefix = format!("{prefix}{}", head.trim());
    let (mut depth, mut start) = (0, 0);
    for (at, character) in inner.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&inner[start..at], &prefix, paths);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !inner[start..].trim().is_empty() {
        expand(&inner[start..], &prefix, paths);
    }
}

/// The source without its tests, its comments and what stands in its strings.
fn code(source: &str) -> String {
    let source = without_tests(source);
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(character) = rest.chars().next() {
        let skipped = comment(rest).or_else(|| literal(rest));
        if let Some(length) = skipped {
            // Lines stay lines.
            code.extend(rest[..length].chars().filter(|character| *character == '\n'));
            rest = &rest[length..];
        } else {
            code.push(character);
            rest = &rest[character.len_utf8()..];
        }
    }
    code
}

/// The source up to its module of tests, which stands last and may have further attributes.
fn without_tests(source: &str) -> &str {
    let is_module = |at: &usize| {
        let mut lines = source[*at..].lines().skip(1).skip_while(|line| line.starts_with("#["));
        lines.next().is_some_and(|line| line.starts_with("mod "))
    };
    let tests = source.match_indices("#[cfg(test)]\n").map(|(at, _)| at).find(is_module);
    &source[..tests.unwrap_or(source.len())]
}

/// The length of the comment that begins here.
fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    rest.starts_with("/*").then(|| rest.find("*/").map_or(rest.len(), |end| end + 2))
}

/// The length of the string or character that begins here; a lifetime is none.
fn literal(rest: &str) -> Option<usize> {
    if let Some(raw) = rest.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let end = format!("\"{}", "#".repeat(hashes));
        if let Some(inner) = raw[hashes..].strip_prefix('"') {
            return Some(2 + hashes + inner.find(&end).map_or(inner.len(), |at| at + end.len()));
        }
    }
    if let Some(inner) = rest.strip_prefix('\'') {
        let mut characters = inner.chars();
        let is_literal = characters.next() == Some('\\') || characters.next() == Some('\'');
        return is_literal.then(|| 1 + closing(inner, '\''));
    }
    rest.strip_prefix('"').map(|inner| 1 + closing(inner, '"'))
}

/// The length up to and with the closing quote, past escaped ones.
fn closing(inner: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in inner.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + quote.len_utf8(),
            _ => {}
        }
    }
    inner.len()
}
