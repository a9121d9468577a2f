//! `clipmesh items thumbnail` and `clipmesh items original`.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use clap::Args;
use clipmesh_proto::search::v1 as search;

use super::Session;
use crate::error::Error;
use crate::input::STDIN;
use crate::output;

#[derive(Debug, Args)]
pub(super) struct Picture {
    /// The item's id; the first digits of a long one will do.
    id: String,

    /// Where to write it; `-` is standard output.
    file: PathBuf,
}

// === impl Picture ===

impl Picture {
    pub(super) async fn thumbnail(&self, session: &Session) -> Result<(), Error> {
        let id = session.full_id(&self.id).await?;
        thumbnail(session, id, &self.file).await
    }

    pub(super) async fn original(&self, session: &Session) -> Result<(), Error> {
        let id = session.full_id(&self.id).await?;
        let request = search::GetOriginalRequest { collection: session.collection(), id };
        let answer = session.mesh.items().get_original(request).await;
        let found = answer.map_err(|status| session.error(status))?.into_inner();
        save(&self.file, &found.image, &found.media_type).await
    }
}

/// Writes the small picture of an item.
pub(super) async fn thumbnail(session: &Session, id: String, path: &Path) -> Result<(), Error> {
    let request = search::GetThumbnailRequest { collection: session.collection(), id };
    let answer = session.mesh.items().get_thumbnail(request).await;
    let found = answer.map_err(|status| session.error(status))?.into_inner();
    save(path, &found.image, &found.media_type).await
}

async fn save(path: &Path, image: &[u8], media_type: &str) -> Result<(), Error> {
    if path == Path::new(STDIN) {
        let mut stdout = io::stdout().lock();
        if stdout.is_terminal() {
            return Err(Error::Usage("a terminal shows no pictures: name a file".to_owned()));
        }
        stdout.write_all(image)?;
        return Ok(stdout.flush()?);
    }
    let written = tokio::fs::write(path, image).await;
    written.map_err(|source| Error::File { path: path.to_owned(), source })?;
    let size = ByteSize(image.len() as u64);
    output::note(format!("wrote {} ({media_type}, {size})", path.display()));
    Ok(())
}
