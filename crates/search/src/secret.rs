//! What must not be shown.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// A password or key. It is neither logged nor printed: `***` stands for it, and nothing for an
/// empty one.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for whom it is meant.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn shown(&self) -> &'static str {
        if self.is_empty() { "" } else { "***" }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_shown_to_nobody() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "***", "not in a log");
        let printed = serde_json::to_string(&secret).expect("printable");
        assert_eq!(printed, "\"***\"", "nor among printed settings");
        assert_eq!(secret.reveal(), "hunter2", "but to the server");
        assert_eq!(format!("{:?}", Secret::default()), "", "nothing hides nothing");
    }
}
