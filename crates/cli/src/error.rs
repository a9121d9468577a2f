//! What can go wrong, in one sentence for a person and one number for a script.
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | all is well; an empty list of hits is well too |
//! | 1 | some of it failed: a file was not indexed, a service is not serving, the mesh broke |
//! | 2 | the command line can't be understood, or names a file that can't be used |
//! | 3 | nothing answers at `--server`, or a part behind it is down |
//! | 4 | no such collection or item |
//! | 5 | the mesh refused the request: a bad picture, a name that is taken, another model |
//! | 6 | the mesh is busy or too slow; the same command may work later |
//! | 64 | the settings of `clipmesh up` can't be used |
//! | 130 | interrupted by Ctrl-C |

use std::error::Error as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use tonic::{Code, Status};

use clipmesh_mesh::settings;
use clipmesh_proto::code;

/// The table above, for `clipmesh --help`.
pub(crate) const EXIT_CODES_HELP: &str = "\
Exit codes:
    0  all is well (an empty list of hits is well too)
    1  some of it failed: a file was not indexed, a service is not serving
    2  the command line can't be understood, or names a file that can't be used
    3  nothing answers at --server, or a part behind it is down
    4  no such collection or item
    5  the mesh refused the request: a bad picture, a name that is taken, another model
    6  the mesh is busy or too slow; the same command may work later
   64  the settings of `clipmesh up` can't be used
  130  interrupted by Ctrl-C";

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Something on the command line that clap could not know to be wrong.
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Settings(#[from] settings::Error),
    /// Settings that are fine in themselves, and yet can't be used here.
    #[error("{0}")]
    Unusable(String),
    #[error("{}", sentence(.server, .status))]
    Rpc { server: String, status: Box<Status> },
    #[error("{0}")]
    NotFound(String),
    #[error("{path}: {reason}", path = .path.display(), reason = io_reason(.source))]
    File { path: PathBuf, source: io::Error },
    /// Some files or services failed, and each has been told already.
    #[error("not all of it worked")]
    Incomplete,
    /// The same, with the exit code of what failed last.
    #[error("not all of it worked")]
    Told(u8),
    #[error("interrupted; the same command goes on from here")]
    Interrupted,
    #[error("write the output: {0}")]
    Output(#[from] io::Error),
    #[error("write the output: {0}")]
    Json(#[from] serde_json::Error),
    #[error("start: {0}")]
    Runtime(io::Error),
    /// A part of `clipmesh up`, or a tool that another crate brings.
    #[error("{name}: {message}")]
    Part { name: &'static str, message: String },
}

// === impl Error ===

impl Error {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Incomplete
            | Self::Output(_)
            | Self::Json(_)
            | Self::Runtime(_)
            | Self::Part { .. } => 1,
            Self::Told(code) => *code,
            Self::Usage(_) | Self::File { .. } => 2,
            Self::Rpc { status, .. } if is_transport(status) => 3,
            Self::Rpc { status, .. } => exit_code_of(status.code()),
            Self::NotFound(_) => 4,
            Self::Settings(_) | Self::Unusable(_) => settings::EXIT_BAD_CONFIG,
            Self::Interrupted => 130,
        }
    }

    /// Tells the person, and returns the number for the script.
    pub(crate) fn report(&self) -> ExitCode {
        if self.is_broken_pipe() {
            // Whoever reads us has seen enough, as `| head` has.
            return ExitCode::SUCCESS;
        }
        if !matches!(self, Self::Incomplete | Self::Told(_)) {
            // Where standard error is gone there is nobody left to tell.
            let _nobody_left = writeln!(io::stderr(), "clipmesh: {self}");
        }
        ExitCode::from(self.exit_code())
    }

    fn is_broken_pipe(&self) -> bool {
        let kind = if let Self::Output(error) = self {
            Some(error.kind())
        } else if let Self::Json(error) = self {
            error.io_error_kind()
        } else {
            None
        };
        kind == Some(io::ErrorKind::BrokenPipe)
    }
}

/// What an io error means for a named file, without the numbers of the operating system.
pub(crate) fn io_reason(error: &io::Error) -> String {
    const KNOWN: [(io::ErrorKind, &str); 3] = [
        (io::ErrorKind::NotFound, "no such file or folder"),
        (io::ErrorKind::PermissionDenied, "permission denied"),
        (io::ErrorKind::IsADirectory, "is a folder"),
    ];
    match KNOWN.iter().find(|(kind, _)| *kind == error.kind()) {
        Some((_, reason)) => (*reason).to_owned(),
        None => error.to_string(),
    }
}

/// Why one picture was not taken; its path is told beside it, so the field is left out.
pub(crate) fn item_reason(status: &Status) -> String {
    match code::FieldViolation::from_status(status) {
        Some(violation) => violation.message,
        None if status.message().is_empty() => format!("{:?}", status.code()),
        None => status.message().to_owned(),
    }
}

/// Whether the failure is of the way to the server, and not an answer from it.
pub(crate) fn is_transport(status: &Status) -> bool {
    // What came over the wire has no source.
    let has_source = status.source().is_some();
    has_source
        && matches!(
            status.code(),
            Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled
        )
}

fn exit_code_of(code: Code) -> u8 {
    match code {
        Code::Ok => 0,
        Code::Unavailable => 3,
        Code::NotFound => 4,
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::AlreadyExists
        | Code::OutOfRange
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented => 5,
        Code::ResourceExhausted | Code::DeadlineExceeded | Code::Aborted => 6,
        Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => 1,
    }
}

fn sentence(server: &str, status: &Status) -> String {
    let message = status.message();
    match status.code() {
        Code::Unavailable if is_transport(status) => format!(
            "nothing answers at {server}; `clipmesh up` starts a mesh, --server names another"
        ),
        _ if is_transport(status) => format!("the connection to {server} broke: {message}"),
        Code::Unavailable => format!("{message}{}", try_again(status)),
        Code::ResourceExhausted => format!("the mesh is busy: {message}{}", try_again(status)),
        Code::DeadlineExceeded => {
            format!("{server} did not answer in time; --timeout gives it longer")
        }
        Code::Unimplemented => format!("{server} does not serve this: {message}"),
        Code::Internal | Code::Unknown | Code::DataLoss => format!("the mesh failed: {message}"),
        Code::Ok
        | Code::Cancelled
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unauthenticated => one_sentence(status),
    }
}

/// What the mesh answered, with the field that it is about.
pub(crate) fn one_sentence(status: &Status) -> String {
    match code::FieldViolation::from_status(status) {
        Some(violation) => format!("{}: {}", violation.field, violation.message),
        None if status.message().is_empty() => format!("the mesh answered {:?}", status.code()),
        None => status.message().to_owned(),
    }
}

fn try_again(status: &Status) -> String {
    match code::retry_after(status) {
        Some(delay) => format!("; try again in {:.1} s", delay.as_secs_f64()),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rpc(status: Status) -> Error {
        Error::Rpc { server: "http://mesh:1".to_owned(), status: Box::new(status) }
    }

    #[test]
    fn scripts_can_tell_the_failures_apart() {
        let table = [
            (rpc(Status::unavailable("store down")), 3),
            (rpc(Status::not_found("no collection `x`")), 4),
            (rpc(Status::invalid_argument("bad")), 5),
            (rpc(Status::already_exists("taken")), 5),
            (rpc(Status::failed_precondition("another model")), 5),
            (rpc(Status::resource_exhausted("queue full")), 6),
            (rpc(Status::deadline_exceeded("late")), 6),
            (rpc(Status::internal("bug")), 1),
            (Error::Incomplete, 1),
            (Error::Usage("what?".to_owned()), 2),
            (Error::Unusable("no model".to_owned()), 64),
            (Error::Interrupted, 130),
        ];
        for (error, code) in table {
            assert_eq!(error.exit_code(), code, "{error}");
            let row = format!("\n{code:>5}  ");
            assert!(EXIT_CODES_HELP.contains(&row), "--help explains {code}");
        }
    }

    #[test]
    fn a_refusal_names_the_field_once() {
        let violation =
            code::FieldViolation::new("query.image", code::Reason::Corrupt, "the file ends early");
        let status = violation.into_status();
        assert_eq!(item_reason(&status), "the file ends early", "beside the path");
        let error = rpc(status).to_string();
        assert_eq!(error, "query.image: the file ends early", "on its own");
    }

    #[test]
    fn says_when_to_try_again() {
        let error = rpc(code::busy("the queue is full", Duration::from_millis(1_500))).to_string();
        assert_eq!(error, "the mesh is busy: the queue is full; try again in 1.5 s", "with delay");
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure() {
        let pipe = Error::Output(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(pipe.is_broken_pipe(), "`clipmesh items list | head` ends well");
        let disk = Error::Output(io::Error::from(io::ErrorKind::StorageFull));
        assert!(!disk.is_broken_pipe(), "a full disk is a failure");
    }
}
