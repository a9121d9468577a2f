//! `clipmesh index`: brings folders of pictures into a collection.
//!
//! ```text
//!   walk ──► metadata ──► plan: hash, look up, read ──► window ──► IndexItems stream ──► report
//! ```
//!
//! An item's id is the hash of its bytes, so that a second run finds what the first one stored,
//! and nothing is sent twice unless its fields have changed. A file that can't be taken costs a
//! line, never its neighbours.

mod metadata;
mod plan;
mod report;
mod upload;
mod vectors;
mod walk;
mod window;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytesize::ByteSize;
use clap::Args;
use clipmesh_proto::embedder::v1 as embedder;
use clipmesh_proto::ids::CollectionName;
use clipmesh_proto::search::v1 as search;
use prost_types::Struct;
use tonic::{Code, Status};

use crate::client::{Connection, Mesh, Scope};
use crate::error::Error;
use crate::index::metadata::Fields;
use crate::index::plan::Plan;
use crate::index::report::Report;
use crate::index::upload::Upload;
use crate::index::vectors::Vectors;
use crate::index::window::{Bounds, Window};
use crate::{collections, fields, output};

/// What a message holds beside the picture: uri, file name, at most 32 KiB of metadata, framing.
const ENVELOPE: ByteSize = ByteSize::kib(64);

/// Bytes of pictures that wait for their acknowledgement. Enough to keep an embedder busy with
/// large photographs, little enough for a small machine.
const MAX_BYTES_IN_FLIGHT: ByteSize = ByteSize::mib(128);

#[derive(Debug, Args)]
#[command(after_help = format!("{}\n\n{}", metadata::HELP, vectors::HELP))]
pub(crate) struct Command {
    /// Files and folders. In folders, files with an image ending are taken, hidden ones are not;
    /// a file that is named is always taken.
    #[arg(required_unless_present = "vectors", value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// A file of ready vectors instead of pictures; `-` reads it from standard input. See below.
    #[arg(long, value_name = "FILE", conflicts_with = "paths")]
    vectors: Option<PathBuf>,

    /// A field for every picture, as in `album=holiday`; repeat it for several. Of pictures that
    /// are there already, they replace the fields. See below for fields of each picture.
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = fields::parse_field)]
    metadata: Vec<fields::Field>,

    /// Most pictures on their way at once.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 64,
        value_parser = clap::value_parser!(u16).range(1..=1_024)
    )]
    in_flight: u16,

    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    connection: Connection,
}

/// What there is to be stored, and what can't be.
struct Gallery {
    pictures: Vec<PathBuf>,
    fields: Arc<Fields>,
    /// Places and reasons.
    failures: Vec<(String, String)>,
}

// === impl Command ===

impl Command {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let mesh = Mesh::new(&self.connection)?;
        let model = mesh.model().await?;
        if let Some(path) = &self.vectors {
            return self.store_vectors(&mesh, &model, path).await;
        }
        let (paths, of_all) = (self.paths.clone(), fields::metadata(&self.metadata));
        let look = tokio::task::spawn_blocking(move || Gallery::under(&paths, of_all)).await;
        let gallery = look.map_err(|error| Error::Runtime(error.into()))?;

        let mut report = Report::new(gallery.pictures.len() + gallery.failures.len());
        for (place, reason) in &gallery.failures {
            report.failed(place, reason.clone());
        }
        let outcome = if gallery.pictures.is_empty() {
            if !report.has_failures() {
                report.note("no pictures there");
            }
            Ok(())
        } else {
            self.store(&mesh, &model, gallery, &mut report).await
        };
        report.finish(self.scope.collection.as_str(), self.connection.json)?;
        outcome?;
        if report.has_failures() { Err(Error::Incomplete) } else { Ok(()) }
    }

    async fn store_vectors(
        &self,
        mesh: &Mesh,
        model: &embedder::Model,
        path: &Path,
    ) -> Result<(), Error> {
        let mut report = Report::new(0);
        ensure_collection(mesh, &self.scope.collection, model, &report).await?;
        let vectors = Vectors {
            mesh: Mesh::for_streams(&self.connection)?,
            collection: self.scope.collection.to_string(),
            path,
            of_all: fields::metadata(&self.metadata),
            in_flight: usize::from(self.in_flight),
            patience: self.connection.timeout,
            report: &mut report,
        };
        let outcome = until_interrupted(vectors.run()).await;
        report.finish(self.scope.collection.as_str(), self.connection.json)?;
        outcome?;
        if report.has_failures() { Err(Error::Incomplete) } else { Ok(()) }
    }

    async fn store(
        &self,
        mesh: &Mesh,
        model: &embedder::Model,
        gallery: Gallery,
        report: &mut Report,
    ) -> Result<(), Error> {
        ensure_collection(mesh, &self.scope.collection, model, report).await?;
        let plan = Plan {
            collection: self.scope.collection.clone(),
            max_image_bytes: max_image_bytes(mesh, model),
            fields: Arc::clone(&gallery.fields),
        };
        let (planner, planned) = plan::pictures(mesh.clone(), plan, gallery.pictures);
        let bounds =
            Bounds { max_pictures: usize::from(self.in_flight), max_bytes: MAX_BYTES_IN_FLIGHT };
        let upload = Upload {
            mesh: Mesh::for_streams(&self.connection)?,
            collection: self.scope.collection.to_string(),
            fields: gallery.fields,
            patience: self.connection.timeout,
            backoff: window::backoff,
            window: Window::new(bounds),
            report,
        };
        let upload = async {
            tokio::select! {
                outcome = upload.run(planned) => outcome,
                never = planner => match never {},
            }
        };
        until_interrupted(upload).await
    }
}

/// Runs until a person presses Ctrl-C. What was acknowledged by then stays; the next run takes it
/// from there.
async fn until_interrupted(work: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    tokio::select! {
        outcome = work => outcome,
        signal = tokio::signal::ctrl_c() => {
            signal.map_err(Error::Runtime)?;
            Err(Error::Interrupted)
        }
    }
}

// === impl Gallery ===

impl Gallery {
    /// Looks at all paths, and reads what the folders tell of their pictures. It blocks.
    fn under(paths: &[PathBuf], of_all: Option<Struct>) -> Self {
        let found = walk::under(paths);
        let (fields, faults) = metadata::read(&found, of_all);
        let unreadable = found.unreadable.into_iter();
        let unreadable = unreadable.map(|entry| (entry.path.display().to_string(), entry.reason));
        let faults = faults.into_iter().map(|fault| (fault.place, fault.reason));
        Self {
            pictures: found.pictures,
            fields: Arc::new(fields),
            failures: unreadable.chain(faults).collect(),
        }
    }
}

/// Makes the collection if it is not there, and refuses one whose vectors are another model's
/// before a single file is read.
async fn ensure_collection(
    mesh: &Mesh,
    name: &CollectionName,
    model: &embedder::Model,
    report: &Report,
) -> Result<(), Error> {
    let request = search::GetCollectionRequest { name: name.to_string() };
    let found = match mesh.collections().get_collection(request).await {
        Ok(answer) => answer.into_inner().collection.unwrap_or_default(),
        Err(status) if status.code() == Code::NotFound => {
            return match collections::make(mesh, name).await {
                Ok(_) => {
                    report.note(&format!("made collection `{name}` for model {}", model.name));
                    Ok(())
                }
                // Someone else was faster; the pictures will tell if it doesn't fit.
                Err(status) if status.code() == Code::AlreadyExists => Ok(()),
                Err(status) => Err(mesh.error(status)),
            };
        }
        Err(status) => return Err(mesh.error(status)),
    };
    if found.model_fingerprint != model.fingerprint {
        return Err(mesh.error(Status::failed_precondition(format!(
            "`{name}` holds vectors of {} ({}), and the mesh runs {} ({}); choose another \
             --collection",
            found.model_name,
            output::short_id(&found.model_fingerprint),
            model.name,
            output::short_id(&model.fingerprint),
        ))));
    }
    Ok(())
}

/// The longest picture that gets through: what the embedder reads and a message holds.
fn max_image_bytes(mesh: &Mesh, model: &embedder::Model) -> ByteSize {
    let message = mesh.max_message_bytes() as u64 - ENVELOPE.as_u64();
    let embedder = model.limits.map(|limits| limits.max_image_bytes).filter(|&max| max > 0);
    ByteSize(embedder.unwrap_or(message).min(message))
}
