//! gRPC health checking: the server under "" or the service's name, and each model under its own.
//!
//! The reporter of `tonic_health` is told of changes; here the status is derived from the models,
//! whose devices may be lost at any time, and streams end when the server stops.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::oip::ModelRef;
use crate::oip::pb::grpc_inference_service_server::SERVICE_NAME;
use crate::{Service, ServiceError};

/// Period at which watchers poll the status.
const PERIOD: Duration = Duration::from_millis(250);

/// The health service. Watchers get a last status and end once `stopped` becomes true.
pub(super) fn server(
    service: Arc<Service>,
    stopped: watch::Receiver<bool>,
) -> HealthServer<HealthService> {
    HealthServer::new(HealthService { service, stopped })
}

#[derive(Debug, Clone)]
pub(super) struct HealthService {
    service: Arc<Service>,
    stopped: watch::Receiver<bool>,
}

impl HealthService {
    /// None for unknown names.
    fn status(&self, name: &str) -> Option<ServingStatus> {
        let service = &self.service;
        let is_serving = if name.is_empty() || name == SERVICE_NAME {
            service.is_ready()
        } else {
            match ModelRef::is_ready(&service.models, name, None) {
                Ok(ready) => ready && !service.is_draining(),
                Err(ServiceError::NotFound(_)) => return None,
                Err(_) => false,
            }
        };
        Some(if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing })
    }
}

struct HealthWatcher {
    service: HealthService,
    name: String,
    sent: Option<ServingStatus>,
}

impl HealthWatcher {
    /// Returns the next change of status; none at the end.
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        loop {
            let stopped = *self.service.stopped.borrow();
            let status = self.service.status(&self.name).unwrap_or(ServingStatus::ServiceUnknown);
            if self.sent != Some(status) {
                self.sent = Some(status);
                return Some((Ok(HealthCheckResponse { status: status.into() }), self));
            }
            if stopped {
                return None;
            }
            let stop = self.service.stopped.wait_for(|stopped| *stopped);
            drop(tokio::time::timeout(PERIOD, stop).await);
        }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let name = &request.get_ref().service;
        let unknown =
            || Status::not_found(format!("no model `{name}`; name a model, or nothing for all"));
        let status = self.status(name).ok_or_else(unknown)?;
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let watcher =
            HealthWatcher { service: self.clone(), name: request.into_inner().service, sent: None };
        Ok(Response::new(Box::pin(unfold(watcher, HealthWatcher::next))))
    }
}
