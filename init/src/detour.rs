//! What multicast does not bring comes from the server, over the same TLS as everything else.

use std::net::SocketAddr;
use std::sync::Arc;

use netflash_imager::{Manifest, Plan, ShortRange, fetch_block};
use netflash_multicast::{BlockId, Detour, DetourError, ObjectId};

use crate::server::{Server, ServerError};

/// The image of one job, fetched from the server.
pub(crate) struct ServerDetour {
    server: Arc<Server>,
    job: u64,
    image: Option<(ObjectId, Manifest, Plan)>,
}

impl ServerDetour {
    /// Nothing is fetched before it is asked for.
    pub(crate) fn new(server: Arc<Server>, job: u64) -> ServerDetour {
        ServerDetour {
            server,
            job,
            image: None,
        }
    }
}

/// Why a part did not come, on its way to [`DetourError`].
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Short(#[from] ShortRange),
}

impl From<FetchError> for DetourError {
    fn from(error: FetchError) -> DetourError {
        match error {
            FetchError::Server(ServerError::Busy {
                position, again, ..
            }) => DetourError::Wait { position, again },
            error => DetourError::Failed(error.to_string()),
        }
    }
}

impl Detour for ServerDetour {
    fn announce(&mut self) -> Result<(SocketAddr, Vec<u8>), DetourError> {
        let (sender, datagram) = self.server.announce(self.job).map_err(FetchError::from)?;
        Ok((sender, datagram))
    }

    fn preamble(&mut self, _: &ObjectId) -> Result<Vec<u8>, DetourError> {
        Ok(self.server.manifest(self.job).map_err(FetchError::from)?)
    }

    fn block(&mut self, object: &ObjectId, block: BlockId) -> Result<Vec<u8>, DetourError> {
        if !matches!(&self.image, Some((known, ..)) if known == object) {
            let bytes = self.preamble(object)?;
            let manifest = Manifest::parse(&bytes)
                .ok()
                .filter(|manifest| manifest.id().0 == object.0)
                .ok_or_else(|| DetourError::Failed("the server has another image".to_owned()))?;
            let plan = Plan::new(&manifest);
            self.image = Some((*object, manifest, plan));
        }
        let (_, manifest, plan) = self.image.as_ref().expect("it was fetched just now");
        let read = |range| Ok(self.server.image(self.job, &range)?);
        fetch_block(manifest, plan, block.index(), read).map_err(|error: FetchError| error.into())
    }

    /// TLS has proved who the server is, and the server sends the session.
    fn vouches(&self) -> bool {
        true
    }
}
