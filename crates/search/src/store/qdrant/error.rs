//! What the server's statuses mean.

use clipmesh_proto::ids::CollectionName;
use tonic::{Code, Status};

use crate::store::Error;

/// What a failed call that was about no collection in particular means.
pub(super) fn failed(status: &Status) -> Error {
    match status.code() {
        Code::ResourceExhausted => Error::Busy,
        Code::DeadlineExceeded => Error::TimedOut,
        Code::Unauthenticated | Code::PermissionDenied => {
            Error::Failed(format!("the server refuses `store.qdrant.api_key`: {}", text(status)))
        }
        // Most of these say that the server is down or ill. The others are faults of ours, or of
        // what we know of the collection: forgotten, and right at the next try.
        Code::Unavailable
        | Code::Cancelled
        | Code::Aborted
        | Code::Ok
        | Code::Unknown
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => Error::Failed(text(status)),
    }
}

/// What a failed call about a collection means.
pub(super) fn failed_on(name: &CollectionName, status: &Status) -> Error {
    if status.code() == Code::NotFound {
        // Points that are not there are no error in any call of ours.
        return Error::NoCollection(name.clone());
    }
    failed(status)
}

fn text(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_meaning() {
        let name = CollectionName::try_from("c".to_owned()).expect("a name");
        for code in (0..=16).map(Code::from_i32) {
            let error = failed_on(&name, &Status::new(code, "why"));
            let expected = [
                (Code::NotFound, Error::NoCollection(name.clone())),
                (Code::ResourceExhausted, Error::Busy),
                (Code::DeadlineExceeded, Error::TimedOut),
            ];
            let special = expected.into_iter().find(|(special, _)| *special == code);
            if let Some((_, special)) = special {
                assert_eq!(error, special, "{code:?}");
                continue;
            }
            let Error::Failed(text) = &error else {
                panic!("{code:?} is a failure: {error:?}");
            };
            assert!(text.contains("why"), "what the server said is told: {text}");
        }
    }

    #[test]
    fn a_refused_key_is_named() {
        let error = failed(&Status::unauthenticated("no"));
        assert!(error.to_string().contains("store.qdrant.api_key"), "where to look: {error}");
    }
}
