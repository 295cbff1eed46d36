//! What may be written for people: pieces of records that cannot steer a terminal, and when nobody reads any more.

use std::{fmt::Write, os::fd::AsFd};

use tokio::{io::Interest, net::unix::pipe::Sender};

/// How much of a text a line of a table shows, in characters.
pub const EXCERPT: usize = 70;

/// The beginning of a text on one line, without characters that could steer a terminal.
pub fn excerpt(text: &str) -> String {
    let mut characters = text.chars();
    let mut excerpt = printable(&characters.by_ref().take(EXCERPT).collect::<String>());
    if characters.next().is_some() {
        excerpt.push('…');
    }
    excerpt
}

/// A text on one line, without characters that could steer a terminal.
pub fn printable(text: &str) -> String {
    let is_harmless = |character: &char| !character.is_control() && !is_bidi_control(*character);
    text.chars().map(|character| if is_harmless(&character) { character } else { ' ' }).collect()
}

/// Characters that turn the direction of what follows them (Unicode Standard Annex 9, section 2), so that a line
/// reads otherwise than it is written.
fn is_bidi_control(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Valid JSON on one line and without control characters, saying the same: outside of strings only blanks can be
/// line breaks or tabulators, and inside every character may be written as its number.
pub fn json_line(json: &str) -> String {
    let mut line = String::with_capacity(json.len() + 1);
    for character in json.chars() {
        match character {
            '\n' | '\r' | '\t' => line.push(' '),
            character if character.is_control() => {
                let _ = write!(line, "\\u{:04x}", u32::from(character));
            }
            character => line.push(character),
        }
    }
    line
}

/// Ends when whoever read our output has closed the pipe: a command that waits for something to write would
/// otherwise notice at its next line only. For other outputs it never ends.
pub async fn output_closed() {
    // Only watched, never written to: so it may stay a blocking pipe, and what is none is refused by the watch.
    let output = std::io::stdout().as_fd().try_clone_to_owned().and_then(Sender::from_owned_fd_unchecked);
    if let Ok(output) = output
        && output.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_one_line_and_harmless() {
        assert_eq!(excerpt("a\n\u{1b}[31mb"), "a  [31mb");
        assert_eq!(excerpt("a\u{202e}b\u{9b}c"), "a b c");
        assert_eq!(excerpt(&"x".repeat(EXCERPT + 1)), format!("{}…", "x".repeat(EXCERPT)));
    }

    #[test]
    fn a_json_line_says_the_same_and_is_harmless() {
        let json = "{\n\t\"a\": \"\u{9b}31m\u{7f}ü\",\r\n \"b\": \"\\n\"}";
        let line = json_line(json);
        assert!(!line.chars().any(char::is_control), "{line}");
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(parse(&line), parse(json));
        assert_eq!(json_line(r#"{"a":"b"}"#), r#"{"a":"b"}"#);
    }
}
