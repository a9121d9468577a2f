//! Conditions with `and`, `or`, `!` and brackets between them.
//!
//! ```text
//!   any  = all { "or" all }          all = one { "and" one }
//!   one  = "!" one | "(" any ")" | condition
//! ```

use clipmesh_proto::search::v1::Filter;

use super::{Term, all_of, any_of, group, term};

/// Brackets and negations in one another: what the contract allows of filters.
const MAX_LEVELS: usize = 8;

/// Reads one `--filter`.
pub(super) fn parse(text: &str) -> Result<Term, String> {
    let mut reader = Reader { rest: text.trim(), levels: 0 };
    let term = reader.any()?;
    if reader.rest.is_empty() { Ok(term) } else { Err("a `)` closes nothing".to_owned()) }
}

struct Reader<'a> {
    rest: &'a str,
    levels: usize,
}

// === impl Reader ===

impl Reader<'_> {
    fn any(&mut self) -> Result<Term, String> {
        let terms = self.list(Self::all, "or")?;
        Ok(joined(terms, any_of))
    }

    fn all(&mut self) -> Result<Term, String> {
        let terms = self.list(Self::one, "and")?;
        Ok(joined(terms, all_of))
    }

    fn list(
        &mut self,
        element: fn(&mut Self) -> Result<Term, String>,
        word: &str,
    ) -> Result<Vec<Term>, String> {
        let mut terms = vec![element(self)?];
        while let Some(rest) = after_word(self.rest, word) {
            self.rest = rest;
            terms.push(element(self)?);
        }
        Ok(terms)
    }

    fn one(&mut self) -> Result<Term, String> {
        if let Some(rest) = self.rest.strip_prefix('!') {
            self.rest = rest.trim_start();
            return Ok(self.inner(Self::one)?.negated());
        }
        if let Some(rest) = self.rest.strip_prefix('(') {
            self.rest = rest.trim_start();
            let term = self.inner(Self::any)?;
            let rest = self.rest.strip_prefix(')').ok_or("a `)` is missing")?;
            self.rest = rest.trim_start();
            return Ok(term);
        }
        let (condition, rest) = self.rest.split_at(end_of_condition(self.rest));
        self.rest = rest.trim_start();
        term::parse(condition.trim_end())
    }

    fn inner(&mut self, element: fn(&mut Self) -> Result<Term, String>) -> Result<Term, String> {
        self.levels += 1;
        if self.levels > MAX_LEVELS {
            return Err(format!("there are more than {MAX_LEVELS} levels"));
        }
        let term = element(self)?;
        self.levels -= 1;
        Ok(term)
    }
}

/// One term as it is, several in brackets.
fn joined(mut terms: Vec<Term>, join: fn(Vec<Term>) -> Filter) -> Term {
    match terms.pop() {
        Some(term) if terms.is_empty() => term,
        last => {
            terms.extend(last);
            Term::of(group(join(terms)))
        }
    }
}

/// What follows a word that stands between two conditions.
fn after_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(word)?;
    let is_whole = rest.is_empty() || rest.starts_with([' ', '\t', '\n', '(', '!']);
    is_whole.then(|| rest.trim_start())
}

/// Where a condition ends: at a word between conditions, or at a bracket that it has not opened.
/// Both are part of a value in quotes, which starts right after an operator.
fn end_of_condition(text: &str) -> usize {
    let mut is_quoted = false;
    let mut brackets = 0;
    let mut before = ' ';
    for (at, character) in text.char_indices() {
        match character {
            '"' if is_quoted || term::precedes_value(before) => is_quoted = !is_quoted,
            _ if is_quoted => {}
            '(' => brackets += 1,
            ')' if brackets == 0 => return at,
            ')' => brackets -= 1,
            _ if character.is_whitespace() && brackets == 0 => {
                let rest = text[at..].trim_start();
                if after_word(rest, "and").or(after_word(rest, "or")).is_some() {
                    return at;
                }
            }
            _ => {}
        }
        before = character;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use clipmesh_proto::search::v1::Condition;
    use clipmesh_proto::search::v1::condition::Test;

    use super::*;

    /// A term in brackets wherever there are some, to see how it was understood.
    fn shown(text: &str) -> String {
        let term = parse(text).expect(text);
        let sign = if term.is_negated { "!" } else { "" };
        format!("{sign}{}", condition(&term.condition))
    }

    fn condition(Condition { key, test }: &Condition) -> String {
        let Some(Test::Filter(filter)) = test else {
            return key.trim_start_matches("metadata.").to_owned();
        };
        let list = |conditions: &[Condition], sign: &str| {
            let shown = conditions.iter().map(|inner| format!("{sign}{}", condition(inner)));
            shown.collect::<Vec<_>>()
        };
        let all = [list(&filter.must, ""), list(&filter.must_not, "!")].concat();
        let any = list(&filter.should, "");
        assert!(all.is_empty() || any.is_empty(), "one or the other: {filter:?}");
        format!("({})", [all.join(" & "), any.join(" | ")].concat())
    }

    fn value(text: &str) -> String {
        match parse(text).expect(text).condition.test {
            Some(Test::Match(value)) => crate::fields::plain(&value),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn and_binds_tighter_than_or() {
        assert_eq!(shown("a=1"), "a", "one alone");
        assert_eq!(shown("a=1 and b=2 and !c?"), "(a & b & !c)", "all");
        assert_eq!(shown("a=1 or b=2 and c=3"), "(a | (b & c))", "the usual order");
        assert_eq!(shown("(a=1 or b=2) and c=3"), "((a | b) & c)", "brackets");
        assert_eq!(shown("a=1 or !b=2"), "(a | (!b))", "a negation among alternatives");
        assert_eq!(shown("!(a=1 or b=2)"), "!(a | b)", "of a whole");
        assert_eq!(shown("! !a=1"), "a", "twice is not at all");
        assert_eq!(shown("!a!=1"), "a", "nor so");
        assert_eq!(shown("( ( a=1 ) )"), "a", "brackets around one");
    }

    #[test]
    fn values_keep_what_is_theirs() {
        assert_eq!(value("place=New York"), "New York", "a space");
        assert_eq!(value("filename=IMG (1).jpg"), "IMG (1).jpg", "its own brackets");
        assert_eq!(value("genre=\"rock and roll\""), "rock and roll", "a word in quotes");
        assert_eq!(value("name=\"a) or (b\""), "a) or (b", "brackets in quotes");
        assert_eq!(value("size=12\" wide"), "12\" wide", "an inch is no quotation mark");
        assert_eq!(shown("place=New York or sold=true"), "(place | sold)", "the word ends it");
        assert_eq!(value("name=sandor x"), "sandor x", "only a whole word does");
    }

    #[test]
    fn says_what_is_wrong() {
        let refusal = |text: &str| parse(text).expect_err(text);
        assert!(refusal("a=1)").contains("closes nothing"), "one too many");
        assert!(refusal("(a=1").contains("is missing"), "one too few");
        assert!(refusal("a=1 and ").contains("no operator"), "nothing after the word");
        assert!(refusal("genre=rock and roll").contains("`roll` has no operator"), "no quotes");
        assert!(refusal("").contains("no operator"), "nothing at all");
        assert!(refusal(&format!("{}a=1", "(".repeat(9))).contains("8 levels"), "too deep");
    }
}
