//! Making a sentence fit for a log.

/// The sentence without the words that look like a person's data or a credential.
///
/// Didit's sentences repeat input now and then, and what goes into a log is hard to get out again. The rules are
/// crude on purpose: a session id lost from a sentence costs little.
pub(super) fn scrubbed(text: &str) -> String {
    let words = text.split_whitespace().map(|word| if is_suspect(word) { "[redacted]" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// Digits of a phone or document number; "1209600 seconds" (two weeks) has as many as a waiting time needs.
const LONG_NUMBER: usize = 8;

/// Letters of a key; the longest word in a documented sentence is `verification`.
const LONG_WORD: usize = 32;

fn is_suspect(word: &str) -> bool {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    word.contains('@') || word.contains("://") || digits >= LONG_NUMBER || word.chars().count() >= LONG_WORD
}

#[cfg(test)]
mod tests {
    use super::scrubbed;

    #[test]
    fn suspect_words_are_blanked_and_sentences_kept() {
        let table = [
            ("GET request rate limit exceeded.", "GET request rate limit exceeded."),
            ("Expected available in 1209600 seconds.", "Expected available in 1209600 seconds."),
            ("mail ada@example.com taken", "mail [redacted] taken"),
            ("see https://verify.didit.me/en/session/aB3dE5fG7hJ9 now", "see [redacted] now"),
            ("number +34600111222 blocked", "number [redacted] blocked"),
            ("key example-secret-not-real-0123456789abcdefghi is old", "key [redacted] is old"),
            ("contract_billing_suspended", "contract_billing_suspended"),
        ];
        for (text, clean) in table {
            assert_eq!(scrubbed(text), clean);
        }
    }
}
