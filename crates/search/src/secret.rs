//! Words that no log may show.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// What stands for a secret wherever it would be shown.
const HIDDEN: &str = "***";

/// A password or a key. Neither `Debug` nor printed settings show it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

// === impl Secret ===

impl Secret {
    /// Takes a secret over.
    pub fn new(secret: String) -> Self {
        Self(secret)
    }

    /// For the call that needs it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_used_and_never_shown() {
        let secret: Secret = serde_json::from_str(r#""open sesame""#).expect("a text");
        assert_eq!(secret.expose(), "open sesame", "as it was set");
        assert_eq!(format!("{secret:?}"), HIDDEN, "in a log");
        assert_eq!(serde_json::to_string(&secret).expect("JSON"), r#""***""#, "in settings");
    }
}
