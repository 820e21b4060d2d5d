//! What multicast does not bring comes from the hatch of `netflash send --http`.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use netflash_imager::{Manifest, Plan, ShortRange, fetch_block};
use netflash_multicast::{BlockId, Detour, DetourError, ObjectId};
use netflash_pxe::{POSITION_HEADER, SENDER_HEADER, plain};
use ureq::Agent;
use ureq::http::HeaderMap;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long one answer may take: the other end sends no faster than it likes.
const ANSWER: Duration = Duration::from_secs(180);
/// Largest manifest or part of an image, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// When to ask again, if the other end does not say.
const AGAIN: Duration = Duration::from_secs(2);
/// Longest part of a refusal that is shown.
const REFUSAL_MAX: usize = 200;

/// The image of one session, fetched over plain HTTP.
pub(crate) struct HttpDetour {
    agent: Agent,
    base: String,
    image: Option<(ObjectId, Manifest, Plan)>,
}

impl HttpDetour {
    /// The hatch at `address`; nothing is fetched before it is asked for.
    pub(crate) fn new(address: SocketAddr) -> HttpDetour {
        let config = Agent::config_builder()
            .max_redirects(0)
            .proxy(None)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(ANSWER))
            .build();
        HttpDetour {
            agent: config.into(),
            base: format!("http://{address}"),
            image: None,
        }
    }

    fn fetch(
        &self,
        path: &str,
        range: Option<&Range<u64>>,
    ) -> Result<(HeaderMap, Vec<u8>), FetchError> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(range) = range {
            let range = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
            request = request.header("range", range);
        }
        let failed = |error: ureq::Error| FetchError::Failed(format!("{}: {error}", self.base));
        let mut response = request.call().map_err(failed)?;
        let headers = response.headers().clone();
        if let Some(position) = number(&headers, POSITION_HEADER) {
            let again = number(&headers, "retry-after");
            return Err(FetchError::Wait {
                position,
                again: again.map_or(AGAIN, |seconds| Duration::from_secs(seconds.into())),
            });
        }
        let status = response.status();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        let body = body.read_to_vec().map_err(failed)?;
        if !status.is_success() {
            let said = plain(&String::from_utf8_lossy(&body), REFUSAL_MAX);
            return Err(FetchError::Failed(format!(
                "{} refused: {status} {said}",
                self.base
            )));
        }
        Ok((headers, body))
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u32> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// Why something did not come, on its way to [`DetourError`].
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("number {position} in the queue")]
    Wait { position: u32, again: Duration },
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    Short(#[from] ShortRange),
}

impl From<FetchError> for DetourError {
    fn from(error: FetchError) -> DetourError {
        match error {
            FetchError::Wait { position, again } => DetourError::Wait { position, again },
            error => DetourError::Failed(error.to_string()),
        }
    }
}

impl Detour for HttpDetour {
    fn announce(&mut self) -> Result<(SocketAddr, Vec<u8>), DetourError> {
        let (headers, datagram) = self.fetch("/announce", None)?;
        let sender = headers.get(SENDER_HEADER);
        let sender = sender.and_then(|value| value.to_str().ok()?.parse().ok());
        let sender =
            sender.ok_or_else(|| DetourError::Failed(format!("{} names no sender", self.base)))?;
        Ok((sender, datagram))
    }

    fn preamble(&mut self, _: &ObjectId) -> Result<Vec<u8>, DetourError> {
        Ok(self.fetch("/manifest", None)?.1)
    }

    fn block(&mut self, object: &ObjectId, block: BlockId) -> Result<Vec<u8>, DetourError> {
        if !matches!(&self.image, Some((known, ..)) if known == object) {
            let bytes = self.preamble(object)?;
            let manifest = Manifest::parse(&bytes)
                .ok()
                .filter(|manifest| manifest.id().0 == object.0)
                .ok_or_else(|| DetourError::Failed(format!("{} has another image", self.base)))?;
            let plan = Plan::new(&manifest);
            self.image = Some((*object, manifest, plan));
        }
        let (_, manifest, plan) = self.image.as_ref().expect("it was fetched just now");
        let read = |range| Ok(self.fetch("/image", Some(&range))?.1);
        fetch_block(manifest, plan, block.index(), read).map_err(|error: FetchError| error.into())
    }
}
