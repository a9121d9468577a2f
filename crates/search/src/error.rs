//! What can go wrong, by what the caller can do about it, and the status each kind becomes.

use std::time::Duration;

use clipmesh_proto::code::{self, FieldViolation};
use clipmesh_proto::ids::{CollectionName, Fingerprint, ItemId};
use tonic::{Code, Status};

use crate::store::MAX_INDEXES;
use crate::{blobs, store};

/// When a caller may try again after a store or an embedder did not answer: long enough for a
/// restart of either, short enough not to be noticed after a passing fault.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a request could not be served.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Invalid(#[from] FieldViolation),
    #[error("there is no collection `{0}`")]
    NoCollection(CollectionName),
    #[error("there is no alias `{0}`")]
    NoAlias(CollectionName),
    #[error("there is no fitting index on `{0}`; CreateFieldIndex makes one")]
    NotIndexed(String),
    #[error("there is no item `{id}` in collection `{collection}`")]
    NoItem { collection: CollectionName, id: ItemId },
    #[error("item `{id}` in collection `{collection}` has no thumbnail")]
    NoThumbnail { collection: CollectionName, id: ItemId },
    #[error("the file of item `{id}` in collection `{collection}` was not kept")]
    NoOriginal { collection: CollectionName, id: ItemId },
    #[error("there is no index on `{0}`")]
    NoFieldIndex(String),
    #[error("there are {max} indexes; one has to go before another can be made", max = MAX_INDEXES)]
    TooManyIndexes,
    #[error("item `{id}` in collection `{collection}` has another etag: it was changed since")]
    EtagMismatch { collection: CollectionName, id: ItemId },
    #[error("more than {max} items can't be sorted by `{field}`, which holds strings")]
    TooManyToSort { field: String, max: usize },
    #[error("{count} items pass the filter, and at most {max} are compared at once")]
    TooManyToCompare { count: u64, max: u64 },
    #[error("there is a collection `{0}` already")]
    CollectionExists(CollectionName),
    #[error("collection `{collection}` holds vectors of model {expected}, not of model {actual}")]
    ModelMismatch { collection: CollectionName, expected: Fingerprint, actual: Fingerprint },
    #[error("the embedder is busy")]
    EmbedderBusy { retry_after: Duration },
    #[error("no embedder answers: {0}")]
    EmbedderUnavailable(String),
    #[error("the time for the embedding is up")]
    DeadlineExceeded,
    #[error("the vector store is busy")]
    StoreBusy,
    #[error("the vector store does not answer: {0}")]
    StoreUnavailable(String),
    #[error("the object store does not answer: {0}")]
    BlobsUnavailable(String),
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// Whether it says more of the call that met it than of what was to be embedded: how long that
    /// call could wait, or which collection it was for. Another call must not be given it.
    pub(crate) fn is_of_one_call(&self) -> bool {
        matches!(self, Self::DeadlineExceeded | Self::ModelMismatch { .. })
    }

    /// The same error, with the field named as the caller knows it.
    #[must_use]
    pub(crate) fn in_field(self, field: &str) -> Self {
        if let Self::Invalid(violation) = self {
            return Self::Invalid(violation.renamed(field));
        }
        self
    }

    /// The same error, of a request that is a part of another one.
    #[must_use]
    pub(crate) fn within(self, place: &str) -> Self {
        if let Self::Invalid(violation) = self {
            let field = format!("{place}.{}", violation.field);
            return Self::Invalid(violation.renamed(field));
        }
        self
    }

    /// What a failed call to the embedder means. Faults of single inputs come another way.
    pub(crate) fn from_embedder(status: &Status) -> Self {
        let message = || status.message().to_owned();
        match status.code() {
            Code::ResourceExhausted => {
                let retry_after = code::retry_after(status).unwrap_or(RETRY_AFTER);
                Self::EmbedderBusy { retry_after }
            }
            Code::DeadlineExceeded => Self::DeadlineExceeded,
            // Cancelled by the other side, which is going down.
            Code::Unavailable | Code::Cancelled => Self::EmbedderUnavailable(message()),
            Code::Ok
            | Code::Unknown
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss
            | Code::Unauthenticated => {
                Self::Internal(format!("the embedder answered {:?}: {}", status.code(), message()))
            }
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::NoCollection(name) => Self::NoCollection(name),
            store::Error::CollectionExists(name) => Self::CollectionExists(name),
            // Checked before the store is asked.
            store::Error::WrongDimension { .. } => Self::Internal(error.to_string()),
            store::Error::NoAlias(alias) => Self::NoAlias(alias),
            store::Error::NotIndexed(field) => Self::NotIndexed(field),
            store::Error::TooManyIndexes => Self::TooManyIndexes,
            store::Error::Busy => Self::StoreBusy,
            store::Error::TimedOut => Self::StoreUnavailable(error.to_string()),
            store::Error::Failed(why) => Self::StoreUnavailable(why),
        }
    }
}

impl From<blobs::Error> for Error {
    fn from(error: blobs::Error) -> Self {
        Self::BlobsUnavailable(error.to_string())
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Invalid(violation) => violation.into_status(),
            Error::NoCollection(_)
            | Error::NoAlias(_)
            | Error::NoItem { .. }
            | Error::NoThumbnail { .. }
            | Error::NoOriginal { .. }
            | Error::NoFieldIndex(_) => Self::not_found(text),
            Error::EtagMismatch { id, .. } => {
                code::aborted(text, "ETAG_MISMATCH", [("id".to_owned(), id.to_string())])
            }
            Error::TooManyToSort { field, .. } => {
                code::precondition(text, "TOO_MANY_TO_SORT", format!("fields/{field}"))
            }
            Error::CollectionExists(_) => Self::already_exists(text),
            Error::ModelMismatch { collection, .. } => {
                code::precondition(text, "MODEL_MISMATCH", format!("collections/{collection}"))
            }
            Error::NotIndexed(ref field) => {
                let subject = format!("fields/{field}");
                code::precondition(text, "NOT_INDEXED", subject)
            }
            Error::TooManyIndexes => code::precondition(text, "TOO_MANY_INDEXES", "field_index"),
            Error::TooManyToCompare { .. } => code::precondition(text, "TOO_MANY_ITEMS", "filter"),
            Error::EmbedderBusy { retry_after } => code::busy(text, retry_after),
            Error::StoreBusy => code::busy(text, RETRY_AFTER),
            Error::EmbedderUnavailable(_) => code::unavailable(text, RETRY_AFTER),
            Error::DeadlineExceeded => Self::deadline_exceeded(text),
            // What exactly failed is for the operator.
            Error::StoreUnavailable(why) => {
                tracing::error!(%why, "the vector store failed");
                code::unavailable("the vector store does not answer", RETRY_AFTER)
            }
            Error::BlobsUnavailable(why) => {
                tracing::error!(%why, "the object store failed");
                code::unavailable("the object store does not answer", RETRY_AFTER)
            }
            Error::Internal(why) => {
                tracing::error!(%why, "internal error");
                Self::internal("internal error")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clipmesh_proto::code::Reason;

    use super::*;

    #[test]
    fn each_kind_has_the_status_that_callers_rely_on() {
        let name = CollectionName::try_from("c".to_owned()).expect("a name");
        let id = ItemId::try_from("i".to_owned()).expect("an id");
        let model = |digit: &str| Fingerprint::try_from(digit.repeat(64)).expect("64 digits");
        let cases = [
            (FieldViolation::new("f", Reason::Empty, "m").into(), Code::InvalidArgument),
            (Error::NoCollection(name.clone()), Code::NotFound),
            (Error::NoItem { collection: name.clone(), id: id.clone() }, Code::NotFound),
            (Error::NoThumbnail { collection: name.clone(), id: id.clone() }, Code::NotFound),
            (Error::NoOriginal { collection: name.clone(), id: id.clone() }, Code::NotFound),
            (Error::EtagMismatch { collection: name.clone(), id }, Code::Aborted),
            (Error::NoFieldIndex("metadata.a".to_owned()), Code::NotFound),
            (Error::NotIndexed("metadata.a".to_owned()), Code::FailedPrecondition),
            (
                Error::TooManyToSort { field: "metadata.a".to_owned(), max: 9 },
                Code::FailedPrecondition,
            ),
            (store::Error::TooManyIndexes.into(), Code::FailedPrecondition),
            (Error::TooManyToCompare { count: 9, max: 8 }, Code::FailedPrecondition),
            (Error::CollectionExists(name.clone()), Code::AlreadyExists),
            (Error::EmbedderBusy { retry_after: RETRY_AFTER }, Code::ResourceExhausted),
            (store::Error::Busy.into(), Code::ResourceExhausted),
            (store::Error::TimedOut.into(), Code::Unavailable),
            (Error::EmbedderUnavailable(String::new()), Code::Unavailable),
            (Error::DeadlineExceeded, Code::DeadlineExceeded),
            (Error::StoreUnavailable(String::new()), Code::Unavailable),
            (Error::BlobsUnavailable(String::new()), Code::Unavailable),
            (Error::Internal(String::new()), Code::Internal),
        ];
        for (error, code) in cases {
            let status = Status::from(error.clone());
            assert_eq!(status.code(), code, "{error}");
            let is_passing = matches!(code, Code::Unavailable | Code::ResourceExhausted);
            let retry_after = code::retry_after(&status);
            assert_eq!(retry_after.is_some(), is_passing, "{error}: who may retry is told when");
        }
        let (expected, actual) = (model("a"), model("b"));
        let mismatch = Error::ModelMismatch { collection: name, expected, actual };
        let status = Status::from(mismatch);
        assert_eq!(status.code(), Code::FailedPrecondition, "nothing to retry");
        for digit in ["a", "b"] {
            let fingerprint = digit.repeat(64);
            assert!(status.message().contains(&fingerprint), "both models are named: {status:?}");
        }
    }

    #[test]
    fn a_violation_is_named_by_its_place_in_a_batch() {
        let violation = FieldViolation::new("query.text", Reason::Empty, "m");
        let Error::Invalid(placed) = Error::from(violation).within("searches[3]") else {
            panic!("still one");
        };
        assert_eq!(placed.field, "searches[3].query.text", "a path in the batch");
        let other = Error::DeadlineExceeded.within("searches[3]");
        assert!(matches!(other, Error::DeadlineExceeded), "others have no place: {other}");
    }

    #[test]
    fn what_is_of_one_call_is_told_to_no_other() {
        let collection = CollectionName::try_from("c".to_owned()).expect("a name");
        let model = |digit: &str| Fingerprint::try_from(digit.repeat(64)).expect("64 digits");
        let (expected, actual) = (model("a"), model("b"));
        let mismatch = Error::ModelMismatch { collection, expected, actual };
        assert!(mismatch.is_of_one_call(), "it names a collection");
        assert!(Error::DeadlineExceeded.is_of_one_call(), "another call has more time");
        let gone = Error::EmbedderUnavailable(String::new());
        assert!(!gone.is_of_one_call(), "nobody would fare better");
    }

    #[test]
    fn internal_causes_stay_internal() {
        let status = Status::from(Error::StoreUnavailable("/secret/path".to_owned()));
        assert!(!status.message().contains("secret"), "a path is for the log: {status:?}");
    }
}
