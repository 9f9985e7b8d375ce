//! Bodies of requests within their limits, and bodies of responses that hold permits until they are
//! sent.
//!
//! `tower_http::limit` knows the length of one request. Here all bodies share a budget of bytes,
//! and each has a time limit.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

use crate::budget::{Permit, shrink_permits};
use crate::error::bad_request;
use crate::{Service, ServiceError};

#[derive(Debug)]
pub(crate) struct ReceivedBody {
    pub(crate) bytes: Bytes,
    /// To be kept until the images are decoded.
    pub(crate) permit: Permit,
    pub(crate) elapsed: Duration,
}

/// Reads a body within the limits of size, memory and time.
pub(crate) async fn receive(
    service: &Service,
    headers: &HeaderMap,
    mut body: Body,
) -> Result<ReceivedBody, ServiceError> {
    let start = Instant::now();
    if let Some(coding) = headers.get(CONTENT_ENCODING).filter(|coding| *coding != "identity") {
        let coding = String::from_utf8_lossy(coding.as_bytes());
        return Err(bad_request(format!(
            "unsupported content coding `{coding}`; send the body as it is"
        )));
    }
    let length =
        headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let length = length.unwrap_or(0);
    // The announced length counts for the limit of one request; the budget is taken by bytes that
    // arrive, as announcing costs nothing.
    service.check_length(length)?;
    let mut permit = service.acquire_body_bytes(0)?;
    let read = async {
        let mut bytes = BytesMut::with_capacity(usize::try_from(length).unwrap_or(0));
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|error| bad_request(format!("the body broke off: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            service.grow_body_bytes(&mut permit, (bytes.len() + data.len()) as u64)?;
            bytes.extend_from_slice(&data);
        }
        Ok::<_, ServiceError>(bytes.freeze())
    };
    let limit = service.limits.body_timeout;
    let bytes =
        tokio::time::timeout(limit, read).await.map_err(|_| ServiceError::BodyTimeout(limit))??;
    Ok(ReceivedBody { bytes, permit, elapsed: start.elapsed() })
}

/// Bytes of a response that are handed to the connection at once.
const CHUNK: usize = 64 << 10;

/// Bytes a second at which a client must take a response after [`GRACE`], or it is cut off: others
/// wait for its permits.
const MIN_RATE: f64 = 65536.0;
const GRACE: Duration = Duration::from_secs(20);

/// A response's body with the permits that it holds.
#[derive(Debug)]
pub(crate) struct PermitBody {
    body: Body,
    /// Rest of the last frame.
    rest: Bytes,
    _permits: Vec<Permit>,
    /// First poll.
    start: Option<Instant>,
    sent: u64,
}

impl PermitBody {
    pub(crate) fn body(body: impl Into<Body>, permits: Vec<Permit>) -> Body {
        Body::new(Self {
            body: body.into(),
            rest: Bytes::new(),
            _permits: permits,
            start: None,
            sent: 0,
        })
    }

    /// A body of bytes, with the permits shrunk to them.
    pub(crate) fn from_bytes(bytes: Vec<u8>, permits: Vec<Permit>) -> Body {
        let permits = shrink_permits(permits, bytes.len());
        Self::body(bytes, permits)
    }

    fn is_slow(&mut self) -> bool {
        let elapsed = self.start.get_or_insert_with(Instant::now).elapsed();
        (self.sent as f64) < elapsed.saturating_sub(GRACE).as_secs_f64() * MIN_RATE
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
            let error = axum::Error::new("the client takes the response too slowly");
            return Poll::Ready(Some(Err(error)));
        }
        while self.rest.is_empty() {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.rest = data,
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        // In chunks: bytes that the connection has taken over are no longer counted.
        let length = self.rest.len().min(CHUNK);
        self.sent += length as u64;
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let mut hint = self.body.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}
