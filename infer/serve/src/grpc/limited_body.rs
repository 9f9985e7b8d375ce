//! A request's body on its way in: room is taken for a message as soon as its head says how long it is, before any of it is
//! read, and time is limited.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http_body::Frame;
use tokio::time::Sleep;
use tonic::Status;

use super::guard::CallContext;
use crate::{Service, ServiceError};

/// A message's head: whether it is compressed, then its length in four bytes.
const HEAD: usize = 5;

/// A body that is read within the limits of size, memory and time.
pub(super) struct LimitedBody {
    body: Body,
    service: Arc<Service>,
    ledger: CallContext,
    /// Bytes that it may have.
    most: u64,
    head: Vec<u8>,
    /// Bytes that have come, and those that have room.
    came: u64,
    taken: u64,
    time: Pin<Box<Sleep>>,
}

impl LimitedBody {
    /// A body of at most `most` bytes; the room that it takes is noted in `ledger`.
    pub(super) fn body(body: Body, service: Arc<Service>, ledger: CallContext, most: u64) -> Body {
        let time = Box::pin(tokio::time::sleep(service.limits.body_timeout));
        Body::new(Self {
            body,
            service,
            ledger,
            most,
            head: Vec::with_capacity(HEAD),
            came: 0,
            taken: 0,
            time,
        })
    }

    fn admit(&mut self, data: &[u8]) -> Result<(), ServiceError> {
        self.came += data.len() as u64;
        let missing = HEAD - self.head.len();
        self.head.extend_from_slice(&data[..missing.min(data.len())]);
        let said = match self.head[..] {
            [_, a, b, c, d] => HEAD as u64 + u64::from(u32::from_be_bytes([a, b, c, d])),
            _ => 0,
        };
        let sum = self.came.max(said);
        if sum > self.most {
            let most = self.most;
            return Err(ServiceError::PayloadTooLarge(format!(
                "the request has {sum} bytes, more than the limit of {most}"
            )));
        }
        if sum > self.taken {
            self.ledger.take(&self.service, sum, sum - self.taken)?;
            self.taken = sum;
        }
        Ok(())
    }
}

impl http_body::Body for LimitedBody {
    type Data = Bytes;
    type Error = tonic::codegen::StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let refused = |ledger: &CallContext, error: ServiceError| {
            ledger.failed(&error);
            Poll::Ready(Some(Err(Status::from(error).into())))
        };
        if self.time.as_mut().poll(context).is_ready() {
            return refused(
                &self.ledger,
                ServiceError::BodyTimeout(self.service.limits.body_timeout),
            );
        }
        match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref()
                    && let Err(error) = self.admit(data)
                {
                    return refused(&self.ledger, error);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
