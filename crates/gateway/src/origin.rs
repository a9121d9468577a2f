//! Which web pages may call: the origins of the Fetch standard
//! (<https://fetch.spec.whatwg.org/#origin-header>).

use http::HeaderValue;

use crate::Error;

/// A set of origins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Every page.
    Any,
    /// One origin, as browsers write it.
    Exact(String),
    /// A scheme and a host, at any port.
    AnyPort(String),
}

// === impl Pattern ===

impl Pattern {
    /// Reads `*`, `scheme://host`, `scheme://host:port` or `scheme://host:*`.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |reason| Err(Error::Origin { origin: text.to_owned(), reason });
        if text == "*" {
            return Ok(Self::Any);
        }
        let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))
        else {
            return refuse("it must start with `http://` or `https://`, or be `*`");
        };
        if rest.chars().any(|character| character.is_ascii_uppercase()) {
            return refuse("browsers send it in lower case");
        }
        if rest.contains(['/', '?', '#', '@']) || rest.contains(char::is_whitespace) {
            return refuse("it ends after the host and the port");
        }
        let host_and_port = rest.strip_suffix(":*").unwrap_or(rest);
        if host_and_port.contains('*') {
            return refuse("`*` can only stand alone or for the port");
        }
        if host_and_port.parse::<http::uri::Authority>().is_err() {
            return refuse("it has no host");
        }
        Ok(match text.strip_suffix(":*") {
            Some(host) => Self::AnyPort(host.to_owned()),
            None => Self::Exact(text.to_owned()),
        })
    }

    /// Whether a page of this origin is meant.
    pub(crate) fn matches(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else {
            return false;
        };
        match self {
            Self::Any => true,
            Self::Exact(exact) => origin == exact,
            Self::AnyPort(host) => origin.strip_prefix(host.as_str()).is_some_and(is_port),
        }
    }
}

/// Whether this is what may follow a host: nothing, or a colon and digits. A browser leaves the
/// scheme's own port out.
fn is_port(rest: &str) -> bool {
    rest.is_empty()
        || rest
            .strip_prefix(':')
            .is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, origin: &'static str) -> bool {
        let pattern = Pattern::parse(pattern).expect("a pattern");
        pattern.matches(&HeaderValue::from_static(origin))
    }

    #[test]
    fn an_exact_origin_is_that_one_only() {
        assert!(matches("https://a.example", "https://a.example"), "itself");
        assert!(!matches("https://a.example", "http://a.example"), "another scheme");
        assert!(!matches("https://a.example", "https://a.example:8443"), "another port");
        assert!(!matches("https://a.example", "https://b.a.example"), "another host");
    }

    #[test]
    fn any_port_is_not_any_host() {
        assert!(matches("http://localhost:*", "http://localhost:3000"), "a port");
        assert!(matches("http://localhost:*", "http://localhost"), "the scheme's own port");
        assert!(matches("http://[::1]:*", "http://[::1]:5173"), "an address of version 6");
        for stranger in [
            "http://localhost.evil.example",
            "http://localhost:3000.evil.example",
            "http://localhost:",
            "https://localhost:3000",
            "null",
        ] {
            assert!(!matches("http://localhost:*", stranger), "`{stranger}` is no local page");
        }
    }

    #[test]
    fn refuses_what_no_browser_would_send() {
        for text in [
            "",
            "localhost:3000",
            "http://",
            "http://host/",
            "http://host/path",
            "http://Host",
            "http://*.example.org",
            "http://user@host",
            "ftp://host",
        ] {
            assert!(Pattern::parse(text).is_err(), "`{text}` is no origin");
        }
        assert_eq!(Pattern::parse("*").ok(), Some(Pattern::Any), "a star is every page");
    }
}
