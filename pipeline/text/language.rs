//! Which language a text is in: as its record says, or detected.

use std::str::FromStr;

use isolang::Language;

/// Detection looks at so much of a text, in bytes: more changes no answer, and costs time.
const DETECTED_BYTES_MAX: usize = 2048;

/// The code of the language a text is written in, by the trigrams and scripts of `whatlang`; `None` where that is
/// not sure, as for a few words, for names and numbers, or for two languages in one text.
pub fn detect(text: &str) -> Option<&'static str> {
    let start = &text[..text.floor_char_boundary(DETECTED_BYTES_MAX)];
    let found = whatlang::detect(start).filter(whatlang::Info::is_reliable)?;
    // The only Chinese `whatlang` knows; ISO 639-1 has a code for Chinese as a whole.
    let code = if found.lang() == whatlang::Lang::Cmn { "zho" } else { found.lang().code() };
    Language::from_639_3(code).map(code_of)
}

/// The code of the language that a tag names, such as `en` for `en`, `eng`, `EN_us` or `en-Latn-GB`; `None` where it
/// names none.
pub fn of_tag(tag: &str) -> Option<&'static str> {
    let primary = tag.trim().split(['-', '_']).next()?.to_ascii_lowercase();
    Language::from_str(&primary).ok().map(code_of)
}

/// ISO 639-1 where there is a code, else ISO 639-3.
fn code_of(language: Language) -> &'static str {
    language.to_639_1().unwrap_or_else(|| language.to_639_3())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_recognised_and_what_cannot_be_told_is_not_guessed() {
        let texts = [
            ("The kettle arrived on time and works exactly as the description says it should.", Some("en")),
            ("Der Wasserkocher kam pünktlich an und funktioniert genau so, wie es beschrieben ist.", Some("de")),
            ("La bouilloire est arrivée à temps et fonctionne exactement comme décrit dans l'annonce.", Some("fr")),
            ("Чайник пришёл вовремя и работает именно так, как написано в описании товара.", Some("ru")),
            ("水壶准时到达，功能与描述完全一致，我非常满意，会推荐给朋友。", Some("zh")),
            ("Ο βραστήρας έφτασε εγκαίρως και λειτουργεί ακριβώς όπως λέει η περιγραφή.", Some("el")),
            ("", None),
            ("12345 67890", None),
            ("🎉🎉🎉", None),
        ];
        for (text, expected) in texts {
            assert_eq!(detect(text), expected, "{text}");
        }
    }

    #[test]
    fn a_long_text_is_looked_at_from_its_start_and_cut_between_characters() {
        let text = format!("a{}", "é".repeat(DETECTED_BYTES_MAX));
        detect(&text);
    }

    #[test]
    fn tags_of_every_kind_name_the_same_language() {
        for tag in ["en", "eng", "EN", "en-GB", "en_US", "en-Latn-GB", " en "] {
            assert_eq!(of_tag(tag), Some("en"), "{tag}");
        }
        assert_eq!(of_tag("gsw"), Some("gsw"));
        for tag in ["", "-", "zz", "English please", "e"] {
            assert_eq!(of_tag(tag), None, "{tag}");
        }
    }
}
