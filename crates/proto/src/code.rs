//! The errors that callers see: one constructor per situation, each with the `google.rpc` details
//! that a program needs to act on it (AIP-193).

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::google::rpc;

/// The `domain` of every `google.rpc.ErrorInfo` that clipmesh sends.
pub const DOMAIN: &str = "clipmesh";

/// What is wrong with a field of a request, for a program; the `reason` of its
/// `google.rpc.ErrorInfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Present, but without content.
    Empty,
    /// Not set although it must be.
    Missing,
    /// The bytes are not an image of any kind.
    NotAnImage,
    /// An image that ends early or contradicts itself.
    Corrupt,
    /// An image of a kind that is not read.
    Unsupported,
    /// A file longer than the limit.
    TooManyBytes,
    /// A picture larger than the limit.
    TooManyPixels,
    /// A picture that takes longer to decode than the limit.
    TooSlow,
    /// A text longer than the limit.
    TextTooLong,
    /// A number beyond its bounds.
    OutOfRange,
    /// Not of the form that the field must have.
    Malformed,
    /// More elements than the limit.
    TooMany,
    /// A vector of another length than the model's.
    WrongDimension,
    /// A NaN or an infinity.
    NotFinite,
    /// Given twice.
    Duplicate,
    /// Parts of a sum that leave nothing of each other.
    CancelsOut,
    /// Does not go with another field of the request, or with its collection.
    Conflict,
}

/// A field of a request that can't be taken, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct FieldViolation {
    /// Path of the field in the request, as in `inputs[3].image`.
    pub field: String,
    pub reason: Reason,
    /// For a person: one sentence, lower case, without a full stop.
    pub message: String,
}

// === impl Reason ===

impl Reason {
    const ALL: [Self; 17] = [
        Self::Empty,
        Self::Missing,
        Self::NotAnImage,
        Self::Corrupt,
        Self::Unsupported,
        Self::TooManyBytes,
        Self::TooManyPixels,
        Self::TooSlow,
        Self::TextTooLong,
        Self::OutOfRange,
        Self::Malformed,
        Self::TooMany,
        Self::WrongDimension,
        Self::NotFinite,
        Self::Duplicate,
        Self::CancelsOut,
        Self::Conflict,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "EMPTY",
            Self::Missing => "MISSING",
            Self::NotAnImage => "NOT_AN_IMAGE",
            Self::Corrupt => "CORRUPT",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyBytes => "TOO_MANY_BYTES",
            Self::TooManyPixels => "TOO_MANY_PIXELS",
            Self::TooSlow => "TOO_SLOW",
            Self::TextTooLong => "TEXT_TOO_LONG",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Malformed => "MALFORMED",
            Self::TooMany => "TOO_MANY",
            Self::WrongDimension => "WRONG_DIMENSION",
            Self::NotFinite => "NOT_FINITE",
            Self::Duplicate => "DUPLICATE",
            Self::CancelsOut => "CANCELS_OUT",
            Self::Conflict => "CONFLICT",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl FieldViolation ===

impl FieldViolation {
    pub fn new(field: impl Into<String>, reason: Reason, message: impl Into<String>) -> Self {
        Self { field: field.into(), reason, message: message.into() }
    }

    /// The same violation of a field that the caller knows by another name.
    #[must_use]
    pub fn renamed(self, field: impl Into<String>) -> Self {
        Self { field: field.into(), ..self }
    }

    /// `INVALID_ARGUMENT` with a `BadRequest` and an `ErrorInfo`.
    pub fn into_status(self) -> Status {
        let text = self.to_string();
        let mut details = ErrorDetails::with_bad_request_violation(&self.field, &self.message);
        let metadata = HashMap::from([("field".to_owned(), self.field)]);
        details.set_error_info(self.reason.as_str(), DOMAIN, metadata);
        Status::with_error_details(Code::InvalidArgument, text, details)
    }

    /// Reads back what [`Self::into_status`] wrote; `None` for any other error.
    pub fn from_status(status: &Status) -> Option<Self> {
        let details = status.get_error_details();
        let violation = details.bad_request()?.field_violations.first()?.clone();
        let reason = Reason::parse(&details.error_info()?.reason)?;
        Some(Self { field: violation.field, reason, message: violation.description })
    }
}

impl From<FieldViolation> for Status {
    fn from(violation: FieldViolation) -> Self {
        violation.into_status()
    }
}

/// `RESOURCE_EXHAUSTED`: a queue is full. The caller may try again after `retry_after`.
pub fn busy(message: impl Into<String>, retry_after: Duration) -> Status {
    let details = ErrorDetails::with_retry_info(Some(retry_after));
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// `UNAVAILABLE`: a part that is needed does not answer. The caller may try again after
/// `retry_after`.
pub fn unavailable(message: impl Into<String>, retry_after: Duration) -> Status {
    let details = ErrorDetails::with_retry_info(Some(retry_after));
    Status::with_error_details(Code::Unavailable, message, details)
}

/// `FAILED_PRECONDITION`: the request is sound, but `subject` is not in the state that it needs.
pub fn precondition(
    message: impl Into<String>,
    violation_type: impl Into<String>,
    subject: impl Into<String>,
) -> Status {
    let message = message.into();
    let details =
        ErrorDetails::with_precondition_failure_violation(violation_type, subject, message.clone());
    Status::with_error_details(Code::FailedPrecondition, message, details)
}

/// `ABORTED`: somebody else was faster. The caller may read again what there is now, and decide
/// anew. `reason` and `metadata` are those of the `ErrorInfo`.
pub fn aborted(
    message: impl Into<String>,
    reason: &str,
    metadata: impl IntoIterator<Item = (String, String)>,
) -> Status {
    let metadata: HashMap<_, _> = metadata.into_iter().collect();
    let details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    Status::with_error_details(Code::Aborted, message, details)
}

/// The `reason` of an error's `ErrorInfo`, if it has one.
pub fn reason(status: &Status) -> Option<String> {
    Some(status.get_error_details().error_info()?.reason.clone())
}

/// How long the callee asks to be left alone.
pub fn retry_after(status: &Status) -> Option<Duration> {
    status.get_error_details().retry_info()?.retry_delay
}

/// The error of a call as an error inside an answer, with its details.
pub fn to_rpc(status: &Status) -> rpc::Status {
    // gRPC carries the details as an encoded `google.rpc.Status`.
    let details = rpc::Status::decode(status.details()).map(|inner| inner.details);
    rpc::Status {
        code: i32::from(status.code()),
        message: status.message().to_owned(),
        details: details.unwrap_or_default(),
    }
}

/// The inverse of [`to_rpc`].
pub fn from_rpc(status: &rpc::Status) -> Status {
    let code = Code::from_i32(status.code);
    if status.details.is_empty() {
        return Status::new(code, status.message.clone());
    }
    Status::with_details(code, status.message.clone(), status.encode_to_vec().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_violation_survives_the_wire() {
        let violation = FieldViolation::new("inputs[3].image", Reason::Corrupt, "ends early");
        let status = violation.clone().into_status();
        assert_eq!(status.code(), Code::InvalidArgument, "bad input is the caller's to mend");
        assert_eq!(status.message(), "inputs[3].image: ends early", "a person sees the field");
        assert_eq!(FieldViolation::from_status(&status), Some(violation.clone()), "read back");

        let inside = to_rpc(&status);
        assert_eq!(inside.code, 3, "google.rpc.Code of INVALID_ARGUMENT");
        let again = FieldViolation::from_status(&from_rpc(&inside));
        assert_eq!(again, Some(violation), "the details survive inside an answer");
    }

    #[test]
    fn every_reason_has_its_own_name() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(reason), "`{reason}` is read back");
        }
    }

    #[test]
    fn a_conflict_says_what_it_is_about() {
        let metadata = [("id".to_owned(), "a".to_owned())];
        let status = from_rpc(&to_rpc(&aborted("changed", "ETAG_MISMATCH", metadata)));
        assert_eq!(status.code(), Code::Aborted, "to be decided anew, not to be repeated");
        assert_eq!(reason(&status).as_deref(), Some("ETAG_MISMATCH"), "for a program");
        assert_eq!(reason(&Status::aborted("changed")), None, "no details");
    }

    #[test]
    fn retry_delays_survive_the_wire() {
        let delay = Duration::from_millis(1_500);
        for status in [busy("queue full", delay), unavailable("store down", delay)] {
            assert_eq!(retry_after(&from_rpc(&to_rpc(&status))), Some(delay), "{status:?}");
        }
        let plain = Status::not_found("no such item");
        assert_eq!(retry_after(&plain), None, "no delay where none was given");
        assert_eq!(from_rpc(&to_rpc(&plain)).message(), plain.message(), "no details, no loss");
    }
}
