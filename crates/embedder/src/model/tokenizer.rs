//! From text to token ids, as the reference implementation's tokenizers do it: `CLIPTokenizer`,
//! and those of SigLIP.

mod siglip;

use std::path::Path;

use serde_json::{Value, json};
use tokenizers::{AddedToken, TruncationParams};

use self::siglip::Canonical;
use super::config::{Family, Text};
use super::{Error, Pooling};

pub(super) const FILE: &str = "tokenizer.json";
pub(super) const VOCABULARY_FILE: &str = "vocab.json";
pub(super) const MERGES_FILE: &str = "merges.txt";

/// Files that may name special tokens, the first one first.
pub(super) const SPECIAL_TOKENS_FILES: [&str; 2] =
    ["tokenizer_config.json", "special_tokens_map.json"];
const SPECIAL_TOKENS: [&str; 4] = ["bos_token", "eos_token", "unk_token", PADDING_TOKEN];
const PADDING_TOKEN: &str = "pad_token";

pub(super) const START: &str = "<|startoftext|>";
pub(super) const END: &str = "<|endoftext|>";

/// How CLIP's tokenizer splits a text into words.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Splits texts into the tokens of one model.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// What is done to a text first; `None` if nothing.
    canonical: Option<Canonical>,
    pooling: Pooling,
    padding_id: u32,
    /// The files that it was made from.
    source: Vec<u8>,
}

/// A text as the model reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// At most the model's context length of ids, start and end token included. Padded only where
    /// the model reads the padding, and then to the context length.
    pub ids: Vec<u32>,
    /// Index of the token whose state becomes the text's vector.
    pub pool_at: usize,
}

// === impl Tokenizer ===

impl Tokenizer {
    /// Reads `tokenizer.json` of a folder, or else, for CLIP, `vocab.json` and `merges.txt`.
    ///
    /// # Errors
    /// Files that can't be read or used, or that know other tokens than the model.
    pub(super) fn read(folder: &Path, family: Family, text: &Text) -> Result<Self, Error> {
        let file = folder.join(FILE);
        let (file, source, document) = if file.exists() || family != Family::Clip {
            let source = read(&file)?;
            (file, source.clone(), source)
        } else {
            let (vocabulary, merges) =
                (read(&folder.join(VOCABULARY_FILE))?, read(&folder.join(MERGES_FILE))?);
            let document = assemble(folder, &vocabulary, &merges)?;
            (folder.join(VOCABULARY_FILE), [vocabulary, merges].concat(), document)
        };
        let fault = |message: String| Error::Tokenizer { file: file.clone(), message };
        let mut inner = tokenizers::Tokenizer::from_bytes(&document)
            .map_err(|error| fault(error.to_string()))?;
        inner.with_padding(None);
        let truncation = TruncationParams { max_length: text.context_length, ..Default::default() };
        inner.with_truncation(Some(truncation)).map_err(|error| fault(error.to_string()))?;

        let mut tokenizer =
            Self { inner, canonical: None, pooling: text.pooling, padding_id: 0, source };
        match family {
            Family::Siglip => tokenizer.set_up_siglip(folder, &document, text)?,
            Family::Clip | Family::Dinov2 | Family::Vit => {
                let padding_id =
                    add_special_tokens(folder, &mut tokenizer.inner, &mut tokenizer.source)?;
                let end_id = tokenizer.check_end(text).map_err(fault)?;
                tokenizer.padding_id = padding_id.unwrap_or(end_id);
            }
        }
        let highest = tokenizer.inner.get_vocab(true).into_values().max().unwrap_or(0);
        if highest as usize >= text.vocabulary {
            let message = format!("it has token {highest}, the model only {}", text.vocabulary);
            return Err(fault(message));
        }
        Ok(tokenizer)
    }

    fn set_up_siglip(&mut self, folder: &Path, document: &[u8], text: &Text) -> Result<(), Error> {
        let canonical = Canonical::of(folder, document)?;
        canonical.set_up(&mut self.inner).map_err(|error| {
            let (file, message) = (folder.join(FILE), error.to_string());
            Error::Tokenizer { file, message }
        })?;
        let padding = canonical.padding(folder, &self.inner, text.context_length)?;
        // What changes the tokens of a text belongs to the model's identity.
        let set_up = format!("\0{canonical:?} {:?} {}", padding.direction, padding.pad_id);
        self.source.extend_from_slice(set_up.as_bytes());
        self.padding_id = padding.pad_id;
        self.canonical = Some(canonical);
        self.inner.with_padding(Some(padding));
        Ok(())
    }

    /// The token that texts end in, which must be the one that the model waits for.
    fn check_end(&self, text: &Text) -> Result<u32, String> {
        let nothing = self.encode("").map_err(|error| error.to_string())?;
        let end_id = nothing.ids.last().copied();
        let end_id = end_id.ok_or("it does not put an end token behind a text")?;
        match text.pooling {
            Pooling::FirstOf(id) if !nothing.ids.contains(&id) => {
                Err(format!("the model waits for end token {id}, texts end in {end_id}"))
            }
            Pooling::FirstOf(_) | Pooling::HighestId | Pooling::Last => Ok(end_id),
        }
    }

    /// The tokens of a text, cut to the model's context length.
    ///
    /// # Errors
    /// Never with a byte-level vocabulary, which has a token for everything; another kind may
    /// meet a character that it does not know.
    pub fn encode(&self, text: &str) -> Result<Tokens, Error> {
        let canonical = self.canonical.map(|canonical| canonical.text(text));
        let encoding = self.inner.encode_fast(canonical.as_deref().unwrap_or(text), true);
        let encoding = encoding.map_err(|error| Error::Encode { message: error.to_string() })?;
        let ids = encoding.get_ids().to_vec();
        Ok(Tokens { pool_at: self.pooling.position(&ids), ids })
    }

    /// What fills up the shorter texts of a batch. The vectors do not depend on it: either attention
    /// in a text only looks back, and padding stands at the end, or all texts are of one length.
    pub fn padding_id(&self) -> u32 {
        self.padding_id
    }

    /// The bytes that it was made from.
    pub(super) fn source(&self) -> &[u8] {
        &self.source
    }
}

// === impl Pooling ===

impl Pooling {
    /// Where the state is taken from.
    fn position(self, ids: &[u32]) -> usize {
        let id = match self {
            Self::HighestId => ids.iter().copied().max(),
            Self::FirstOf(id) => Some(id),
            Self::Last => return ids.len().saturating_sub(1),
        };
        ids.iter().position(|&other| Some(other) == id).unwrap_or(0)
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(file).map_err(|cause| Error::Read { file: file.to_owned(), cause })
}

/// Makes a `tokenizer.json` of the two older files.
fn assemble(folder: &Path, vocabulary: &[u8], merges: &[u8]) -> Result<Vec<u8>, Error> {
    let malformed =
        |name: &str, message: String| Error::Tokenizer { file: folder.join(name), message };
    let vocabulary: Value = serde_json::from_slice(vocabulary)
        .map_err(|error| malformed(VOCABULARY_FILE, error.to_string()))?;
    let text =
        std::str::from_utf8(merges).map_err(|error| malformed(MERGES_FILE, error.to_string()))?;
    let lines =
        text.lines().filter(|line| !line.starts_with("#version") && !line.trim().is_empty());
    let merges: Option<Vec<(&str, &str)>> =
        lines.map(|line| line.trim_end().split_once(' ')).collect();
    let merges = merges.ok_or_else(|| malformed(MERGES_FILE, "a line is not a pair".to_owned()))?;
    let id = |token: &str| {
        let id = vocabulary[token].as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| malformed(VOCABULARY_FILE, format!("`{token}` is missing")))
    };
    let (start_id, end_id) = (id(START)?, id(END)?);
    Ok(document(&vocabulary, &json!(merges), start_id, end_id).to_string().into_bytes())
}

/// CLIP's tokenizer as `tokenizer.json`: lower case, words, bytes, byte pairs, start and end token.
pub(super) fn document(vocabulary: &Value, merges: &Value, start_id: u32, end_id: u32) -> Value {
    let special = |id: u32, content: &str| {
        json!({
            "id": id, "content": content, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [special(start_id, START), special(end_id, END)],
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "NFC" },
            { "type": "Replace", "pattern": { "Regex": r"\s+" }, "content": " " },
            { "type": "Lowercase" },
        ] },
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": WORDS }, "behavior": "Removed", "invert": true },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        ] },
        "post_processor": {
            "type": "RobertaProcessing",
            "cls": [START, start_id], "sep": [END, end_id],
            "trim_offsets": false, "add_prefix_space": false,
        },
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": END,
            "continuing_subword_prefix": "", "end_of_word_suffix": "</w>",
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": merges,
        },
    })
}

/// A tokenizer of SigLIP's form that knows nothing but bytes.
pub(super) fn siglip_bytes() -> Value {
    const PIECES: [&str; 3] = ["<pad>", "</s>", "<unk>"];
    let bytes = (0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>"));
    let pieces = PIECES.map(str::to_owned).into_iter().chain(bytes);
    let vocabulary: Vec<Value> = pieces.map(|piece| json!([piece, 0.0])).collect();
    let space = json!({
        "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true,
    });
    let end = json!({ "SpecialToken": { "id": "</s>", "type_id": 0 } });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": space,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{ "Sequence": { "id": "A", "type_id": 0 } }, end],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 0 } }, end],
            "special_tokens": { "</s>": { "id": "</s>", "ids": [1], "tokens": ["</s>"] } },
        },
        "decoder": space,
        "model": { "type": "Unigram", "unk_id": 2, "vocab": vocabulary, "byte_fallback": true },
    })
}

/// The printable stand-in for each byte in a byte-level vocabulary, in the order of their ids:
/// first the bytes that are printable themselves, then the rest from U+0100 on.
pub(super) fn byte_characters() -> Vec<char> {
    let is_printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let printable = (0..=u8::MAX).filter(is_printable).map(char::from);
    let hidden_count = (0..=u8::MAX).filter(|byte| !is_printable(byte)).count();
    let hidden = ('\u{100}'..).take(hidden_count);
    printable.chain(hidden).collect()
}

/// Makes the tokens special that the folder's small files name, and returns the padding token's id.
/// A special token is found in a text before it is split into words, so that with a padding token
/// of `!` every exclamation mark is padding; that is how the reference has it.
fn add_special_tokens(
    folder: &Path,
    tokenizer: &mut tokenizers::Tokenizer,
    source: &mut Vec<u8>,
) -> Result<Option<u32>, Error> {
    let mut padding_id = None;
    for key in SPECIAL_TOKENS {
        for file in SPECIAL_TOKENS_FILES.map(|name| folder.join(name)) {
            let Some(token) = special_token(&file, key)? else { continue };
            let fault = |message| Error::Tokenizer { file: file.clone(), message };
            let id = tokenizer
                .token_to_id(&token)
                .ok_or_else(|| fault(format!("its `{key}`, `{token}`, is no known token")))?;
            // They change how a text is split, so they belong to the model's identity.
            source.extend_from_slice(format!("\0{key}={token}").as_bytes());
            tokenizer
                .add_special_tokens([AddedToken::from(token, true)])
                .map_err(|error| fault(error.to_string()))?;
            if key == PADDING_TOKEN {
                padding_id = Some(id);
            }
            break;
        }
    }
    Ok(padding_id)
}

fn special_token(file: &Path, key: &str) -> Result<Option<String>, Error> {
    if !file.exists() {
        return Ok(None);
    }
    let root = super::section::read(file)?;
    // Either the token, or an object that holds it.
    let token = root.value(key).and_then(|token| token.as_str().or(token["content"].as_str()));
    Ok(token.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_has_every_byte_once() {
        let characters = byte_characters();
        assert_eq!(characters.len(), 256, "one per byte");
        assert_eq!(characters[..3], ['!', '"', '#'], "printable bytes come first");
        assert_eq!(characters.last(), Some(&'\u{143}'), "the 68 others follow from U+0100 on");
    }

    #[test]
    fn pooling_takes_the_first_of_several() {
        let ids = [9, 3, 7, 9, 7];
        assert_eq!(Pooling::HighestId.position(&ids), 0, "the first 9");
        assert_eq!(Pooling::FirstOf(7).position(&ids), 2, "the first 7");
        assert_eq!(Pooling::FirstOf(5).position(&ids), 0, "as the reference: the very first");
        assert_eq!(Pooling::Last.position(&ids), 4, "whatever it is");
    }
}
