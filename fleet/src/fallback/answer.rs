//! The answers in HTTP: the announce, the manifest, and ranges of the image's file.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio_util::io::ReaderStream;

use netflash_imager::Image;
use netflash_pxe::{POSITION_HEADER, SENDER_HEADER};

use super::desk::{Board, Desk};
use super::queue::Answer;

/// Bytes paid for and sent at a time: small beside a switch's buffer.
const PIECE_BYTES: usize = 64 << 10;
/// Longest range in one request: a block, and what may lie between its frames.
const RANGE_MAX: u64 = 64 << 20;

/// The last announce of a session.
pub(crate) fn announce(board: &Board) -> Response {
    let Some((sender, datagram)) = board.last() else {
        return wait(1, 1);
    };
    let headers = [
        (
            header::CONTENT_TYPE.as_str(),
            "application/octet-stream".to_owned(),
        ),
        (SENDER_HEADER, sender.to_string()),
    ];
    (headers, datagram).into_response()
}

/// The manifest, when it is the turn of `machine`.
pub(crate) fn manifest(desk: &Arc<Desk>, machine: u64, image: &Arc<Image>) -> Response {
    if let Answer::Wait { position, again } = desk.ask(machine) {
        return wait(position, again.as_secs());
    }
    let bytes = Arc::clone(image.manifest_bytes());
    let length = bytes.len() as u64;
    let part = move |place: Range<u64>| {
        let piece = &bytes[place.start as usize..place.end as usize];
        Ok::<_, Infallible>(piece.to_vec())
    };
    let body = flow(desk, machine, 0..length, part);
    octets(StatusCode::OK, length, body)
}

/// A range of the image's file, when it is the turn of `machine`.
pub(crate) fn image(
    desk: &Arc<Desk>,
    machine: u64,
    image: &Arc<Image>,
    headers: &HeaderMap,
) -> Response {
    let total = image.stored_bytes();
    let asked = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok());
    let Some(range) = asked.and_then(|text| parse_range(text, total)) else {
        let said = format!("ask for one range of at most {RANGE_MAX} of {total} bytes");
        let mut refusal = (
            StatusCode::RANGE_NOT_SATISFIABLE,
            Json(json!({ "error": said })),
        )
            .into_response();
        put(
            &mut refusal,
            header::CONTENT_RANGE,
            &format!("bytes */{total}"),
        );
        return refusal;
    };
    if let Answer::Wait { position, again } = desk.ask(machine) {
        return wait(position, again.as_secs());
    }
    let said = format!("bytes {}-{}/{total}", range.start, range.end - 1);
    let length = range.end - range.start;
    let image = Arc::clone(image);
    let part = move |place: Range<u64>| {
        let mut bytes = vec![0; (place.end - place.start) as usize];
        image.read_file(place.start, &mut bytes).map(|()| bytes)
    };
    let body = flow(desk, machine, range, part);
    let mut response = octets(StatusCode::PARTIAL_CONTENT, length, body);
    put(&mut response, header::CONTENT_RANGE, &said);
    response
}

/// `bytes=A-B`, and nothing else that the header can say.
fn parse_range(text: &str, total: u64) -> Option<Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let end = last.checked_add(1)?.min(total);
    let fits = first < end && end - first <= RANGE_MAX;
    fits.then_some(first..end)
}

/// A body that flows as fast as the desk allows.
fn flow<E: std::fmt::Display + Send + 'static>(
    desk: &Arc<Desk>,
    machine: u64,
    range: Range<u64>,
    part: impl Fn(Range<u64>) -> Result<Vec<u8>, E> + Send + Sync + 'static,
) -> Body {
    let (outlet, inlet) = tokio::io::duplex(PIECE_BYTES);
    let desk = Arc::clone(desk);
    tokio::spawn(async move {
        if let Err(error) = pour(&desk, machine, range, Arc::new(part), outlet).await {
            log::warn!("fallback machine={machine} state=broken reason={error:?}");
        }
    });
    Body::from_stream(ReaderStream::with_capacity(inlet, PIECE_BYTES))
}

async fn pour<E: std::fmt::Display + Send + 'static>(
    desk: &Desk,
    machine: u64,
    range: Range<u64>,
    part: Arc<impl Fn(Range<u64>) -> Result<Vec<u8>, E> + Send + Sync + 'static>,
    mut outlet: DuplexStream,
) -> Result<(), String> {
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min(at + PIECE_BYTES as u64);
        tokio::time::sleep(desk.pay(machine, (end - at) as usize)).await;
        let part = Arc::clone(&part);
        let read = tokio::task::spawn_blocking(move || part(at..end)).await;
        let piece = read
            .map_err(|died| died.to_string())?
            .map_err(|error| error.to_string())?;
        // Whoever asked has gone: that is no trouble of ours.
        if outlet.write_all(&piece).await.is_err() {
            return Ok(());
        }
        at = end;
    }
    Ok(())
}

fn octets(status: StatusCode, length: u64, body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
    ];
    (status, headers, body).into_response()
}

/// "You are number `position`, ask again in so many seconds."
fn wait(position: u32, seconds: u64) -> Response {
    let said = json!({ "error": "others come first", "position": position });
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, Json(said)).into_response();
    put(
        &mut response,
        header::RETRY_AFTER,
        &seconds.max(1).to_string(),
    );
    let position = position.to_string();
    if let Ok(value) = HeaderValue::from_str(&position) {
        response.headers_mut().insert(POSITION_HEADER, value);
    }
    response
}

fn put(response: &mut Response, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::parse_range;

    #[test]
    fn one_range_within_the_file_is_understood_and_nothing_else() {
        assert_eq!(parse_range("bytes=0-99", 1000), Some(0..100));
        assert_eq!(parse_range("bytes=900-9999", 1000), Some(900..1000));
        for text in [
            "bytes=5-4",
            "bytes=1000-1001",
            "bytes=-5",
            "bytes=5-",
            "bytes=0-1,5-6",
            "items=0-1",
            "bytes=0-18446744073709551615",
            "",
        ] {
            assert_eq!(parse_range(text, 1000), None, "{text:?}");
        }
        assert_eq!(parse_range("bytes=0-99999999", 1 << 40), None, "too long");
    }
}
