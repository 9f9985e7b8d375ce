//! Bodies: requests' are read within their limits, and answers' keep what they hold until they are sent.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

use crate::budget::{self, Permit};
use crate::{Service, ServiceError};

/// Bytes of an answer that are handed to the network at once.
const CHUNK: usize = 64 << 10;

/// A request's body, and the room that it takes.
#[derive(Debug)]
pub(super) struct ReceivedBody {
    pub(super) bytes: Bytes,
    /// Until pictures are decoded.
    pub(super) share: Permit,
    /// How long it took to arrive.
    pub(super) took: std::time::Duration,
}

/// Reads a body within the limits of size, memory and time.
pub(super) async fn receive(
    service: &Service,
    headers: &HeaderMap,
    body: Body,
) -> Result<ReceivedBody, ServiceError> {
    let start = Instant::now();
    let length =
        headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if let Some(coding) = headers.get(CONTENT_ENCODING).filter(|coding| *coding != "identity") {
        let coding = String::from_utf8_lossy(coding.as_bytes());
        return Err(ServiceError::bad_request(format!(
            "a body in the content coding `{coding}` is not taken; send it plain"
        )));
    }
    // What is said is held against the limit now; room is taken by what comes, as saying costs nothing.
    service.check_length(length.unwrap_or(0))?;
    let mut share = service.acquire_body_bytes(0)?;
    let read = async {
        let mut body = body;
        let mut bytes = BytesMut::with_capacity(
            length.and_then(|length| usize::try_from(length).ok()).unwrap_or(0),
        );
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                ServiceError::bad_request(format!("the body broke off: {error}"))
            })?;
            let Ok(data) = frame.into_data() else { continue };
            service.grow_body_bytes(
                &mut share,
                (bytes.len() + data.len()) as u64,
                data.len() as u64,
            )?;
            bytes.extend_from_slice(&data);
        }
        Ok::<_, ServiceError>(bytes.freeze())
    };
    let read = tokio::time::timeout(service.limits.body_timeout, read).await;
    let bytes = read.map_err(|_| ServiceError::BodyTimeout(service.limits.body_timeout))??;
    Ok(ReceivedBody { bytes, share, took: start.elapsed() })
}

/// An answer's body with the shares of the budget that it holds.
#[derive(Debug)]
pub(crate) struct PermitBody {
    body: Body,
    /// What is left of the piece that came last.
    bytes: Bytes,
    _shares: Vec<Permit>,
    /// When the first of it was asked for, and how much has been since.
    start: Option<Instant>,
    sent: u64,
}

/// Who takes an answer slower than this many bytes a second, but for a while at its start, does not get the rest: it holds
/// room that others wait for.
const LEAST_RATE: f64 = 65536.0;
const PATIENCE: Duration = Duration::from_secs(20);

impl PermitBody {
    pub(crate) fn body(body: impl Into<Body>, shares: Vec<Permit>) -> Body {
        Body::new(Self {
            body: body.into(),
            bytes: Bytes::new(),
            _shares: shares,
            start: None,
            sent: 0,
        })
    }

    /// An answer of bytes, which takes no more room than they do.
    pub(super) fn answer(bytes: Vec<u8>, shares: Vec<Permit>) -> Body {
        let shares = budget::shrink_permits(shares, bytes.len());
        Self::body(bytes, shares)
    }

    /// Whether it is taken too slowly.
    fn is_slow(&mut self) -> bool {
        let waited = self.start.get_or_insert_with(Instant::now).elapsed().saturating_sub(PATIENCE);
        (self.sent as f64) < waited.as_secs_f64() * LEAST_RATE
    }
}

impl http_body::Body for PermitBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.is_slow() {
            return Poll::Ready(Some(Err(axum::Error::new("the answer is taken too slowly"))));
        }
        while self.bytes.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context))
                .map(|frame| frame.map(Frame::into_data))
            {
                Some(Ok(Ok(data))) => self.bytes = data,
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let length = self.bytes.len().min(CHUNK);
        self.sent += length as u64;
        // In pieces, as what the connection has taken over is no longer counted.
        Poll::Ready(Some(Ok(Frame::data(self.bytes.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, mut hint) = (self.bytes.len() as u64, self.body.size_hint());
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}
