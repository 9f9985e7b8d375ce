//! Body of a gRPC request within the limits of size, memory and time.
//!
//! The permit of a message is taken as soon as its prefix says the length, before any of it is
//! read; a body-limit layer sees neither the prefix nor the budget that all requests share.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http_body::Frame;
use tokio::time::Sleep;
use tonic::Status;

use crate::error::too_large;
use crate::middleware::RequestRecord;
use crate::{Service, ServiceError};

/// Length prefix of a message: a byte for compression, then the length in four.
const PREFIX: usize = 5;

pub(crate) struct LimitedBody {
    body: Body,
    service: Arc<Service>,
    record: RequestRecord,
    limit: u64,
    prefix: Vec<u8>,
    arrived: u64,
    permitted: u64,
    timeout: Pin<Box<Sleep>>,
}

impl LimitedBody {
    /// A body of at most `limit` bytes, whose permit is kept in `record`.
    pub(crate) fn body(
        body: Body,
        service: Arc<Service>,
        record: RequestRecord,
        limit: u64,
    ) -> Body {
        let timeout = Box::pin(tokio::time::sleep(service.limits.body_timeout));
        let prefix = Vec::with_capacity(PREFIX);
        Body::new(Self { body, service, record, limit, prefix, arrived: 0, permitted: 0, timeout })
    }

    fn admit(&mut self, data: &[u8]) -> Result<(), ServiceError> {
        self.arrived += data.len() as u64;
        let missing = PREFIX - self.prefix.len();
        self.prefix.extend_from_slice(&data[..missing.min(data.len())]);
        let announced = match self.prefix[..] {
            [_, a, b, c, d] => PREFIX as u64 + u64::from(u32::from_be_bytes([a, b, c, d])),
            _ => 0,
        };
        let sum = self.arrived.max(announced);
        let limit = self.limit;
        if sum > limit {
            let why = format!("the request has {sum} bytes, more than the limit of {limit}");
            return Err(too_large(why));
        }
        if sum > self.permitted {
            self.record.grow_request(&self.service, sum)?;
            self.permitted = sum;
        }
        Ok(())
    }

    fn refuse(&self, error: ServiceError) -> tonic::codegen::StdError {
        self.record.set_error(&error);
        Status::from(error).into()
    }
}

impl http_body::Body for LimitedBody {
    type Data = Bytes;
    type Error = tonic::codegen::StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.timeout.as_mut().poll(context).is_ready() {
            let error = ServiceError::BodyTimeout(self.service.limits.body_timeout);
            return Poll::Ready(Some(Err(self.refuse(error))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(frame.map(|frame| {
            let frame = frame?;
            if let Some(data) = frame.data_ref() {
                self.admit(data).map_err(|error| self.refuse(error))?;
            }
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
