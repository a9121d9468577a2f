//! What SigLIP's tokenizers do that their `tokenizer.json` may not say: SigLIP was trained on texts
//! in lower case without punctuation, SigLIP 2 on texts in lower case. Both pad every text to the
//! context length, and the padding is read like words.

use std::path::Path;

use serde_json::Value;
use tokenizers::normalizers::{Lowercase, NormalizerWrapper, Sequence};
use tokenizers::{PaddingDirection, PaddingParams, PaddingStrategy};

use super::{Error, PADDING_TOKEN, SPECIAL_TOKENS_FILES, special_token};
use crate::model::section;

/// What SentencePiece writes for a space.
const WORD_START: char = '\u{2581}';

/// How a text is brought into the form of the training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Canonical {
    /// `SiglipTokenizer`: no punctuation of ASCII, and lower case unless its file says otherwise.
    Words { is_lower: bool },
    /// Gemma's, in SigLIP 2: lower case, after the special tokens were found.
    Gemma,
}

// === impl Canonical ===

impl Canonical {
    /// By the class that the folder names, or else by the kind of the vocabulary.
    pub(super) fn of(folder: &Path, document: &[u8]) -> Result<Self, Error> {
        let file = folder.join(SPECIAL_TOKENS_FILES[0]);
        let (class, is_lower) = if file.exists() {
            let root = section::read(&file)?;
            let class = root.text("tokenizer_class", "")?.trim_end_matches("Fast").to_owned();
            (class, root.flag("do_lower_case", true)?)
        } else {
            (String::new(), true)
        };
        let is_unigram = || {
            let document: Option<Value> = serde_json::from_slice(document).ok();
            document.is_some_and(|document| document["model"]["type"] == "Unigram")
        };
        Ok(match class.as_str() {
            "SiglipTokenizer" => Self::Words { is_lower },
            "" if is_unigram() => Self::Words { is_lower },
            _ => Self::Gemma,
        })
    }

    /// Sets up what a tokenizer can do by itself.
    pub(super) fn set_up(
        self,
        tokenizer: &mut tokenizers::Tokenizer,
    ) -> Result<(), tokenizers::Error> {
        if self == Self::Gemma {
            let lower: NormalizerWrapper = Lowercase.into();
            let own = tokenizer.get_normalizer().cloned();
            let both = [lower].into_iter().chain(own).collect();
            tokenizer.with_normalizer(Some(NormalizerWrapper::Sequence(Sequence::new(both))))?;
        }
        Ok(())
    }

    /// The text as the tokenizer is to see it.
    pub(super) fn text(self, text: &str) -> String {
        match self {
            Self::Words { is_lower } => words(text, is_lower),
            Self::Gemma => text.to_owned(),
        }
    }

    /// On which side the reference fills up where no file says so.
    fn padding_side(self) -> &'static str {
        match self {
            Self::Words { .. } => "right",
            Self::Gemma => "left",
        }
    }

    /// How every text is filled up to `length` tokens.
    pub(super) fn padding(
        self,
        folder: &Path,
        tokenizer: &tokenizers::Tokenizer,
        length: usize,
    ) -> Result<PaddingParams, Error> {
        let files = SPECIAL_TOKENS_FILES.map(|name| folder.join(name));
        let mut named = None;
        for file in &files {
            if named.is_none() {
                named = special_token(file, PADDING_TOKEN)?;
            }
        }
        let fault = |message| Error::Tokenizer { file: files[0].clone(), message };
        let pad_token = named.ok_or_else(|| {
            fault("it names no `pad_token`, and the model reads the padding".to_owned())
        })?;
        let pad_id = tokenizer.token_to_id(&pad_token).ok_or_else(|| {
            fault(format!("its `{PADDING_TOKEN}`, `{pad_token}`, is no known token"))
        })?;
        let side = match files[0].exists() {
            true => section::read(&files[0])?.text("padding_side", self.padding_side())?.to_owned(),
            false => self.padding_side().to_owned(),
        };
        let direction = match side.as_str() {
            "right" => PaddingDirection::Right,
            "left" => PaddingDirection::Left,
            other => {
                return Err(fault(format!(
                    "its `padding_side` is `{other}`, not `left` or `right`"
                )));
            }
        };
        let strategy = PaddingStrategy::Fixed(length);
        Ok(PaddingParams { strategy, direction, pad_id, pad_token, ..Default::default() })
    }
}

/// Lower case, without punctuation, with single spaces. The reference puts the mark of a word in
/// front of all, so that a space which the text begins with is a second one.
fn words(text: &str, is_lower: bool) -> String {
    // As a whole and not letter by letter: a sigma at the end of a word has a form of its own.
    let text = if is_lower { text.to_lowercase() } else { text.to_owned() };
    let kept: String = text.chars().filter(|character| !character.is_ascii_punctuation()).collect();
    let words: Vec<_> = kept.split(is_space).filter(|word| !word.is_empty()).collect();
    if words.is_empty() {
        return String::new();
    }
    let words = words.join(" ");
    if kept.starts_with(is_space) { format!("{WORD_START} {words}") } else { words }
}

/// What the reference takes for a space: with the mark of a word, and four control characters that
/// are none to Unicode.
fn is_space(character: char) -> bool {
    let is_separator = ('\x1c'..='\x1f').contains(&character);
    is_separator || character.is_whitespace() || character == WORD_START
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_lower_case_words() {
        for (text, expected) in [
            ("A photo,\tof \"two\" CATS! ", "a photo of two cats"),
            (" ... a cat", "\u{2581} a cat"),
            ("don't_stop \u{2581}now", "dontstop now"),
            ("ΣΟΦΟΣ\u{a0}\u{1f}x", "σοφο\u{3c2} x"),
            ("¿Qué?", "¿qué"),
            (" ...", ""),
        ] {
            assert_eq!(words(text, true), expected, "{text:?}");
        }
        assert_eq!(words("A, b", false), "A b", "case is kept where the file says so");
    }
}
