//! What must not be shown.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// What is shown of a secret.
const HIDDEN: &str = "***";

/// A password or key. It is neither logged nor printed: `***` stands for it, and nothing for an
/// empty one.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
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
        if self.is_empty() { "" } else { HIDDEN }
    }
}

impl TryFrom<String> for Secret {
    type Error = &'static str;

    /// Refuses what is shown of a secret: settings that were printed have to be given theirs again.
    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text == HIDDEN {
            return Err("`***` stands for a secret that is not shown; give the secret itself");
        }
        Ok(Self(text))
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
        let read = serde_json::from_str::<Secret>(&printed);
        assert!(read.is_err(), "what is printed is not taken for the secret: {read:?}");
        assert_eq!(serde_json::from_str("\"hunter2\"").ok(), Some(secret), "unlike the secret");
        assert_eq!(format!("{:?}", Secret::default()), "", "nothing hides nothing");
    }
}
